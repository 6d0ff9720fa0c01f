"""Loads prompt files: YAML front matter and a jinja2 body, sandboxed, undefined names are errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox
import yaml
from jinja2.runtime import Context

from audit.errors import ConfigError
from audit.fingerprint import text_file_digest
from audit.resources import resource

#: What jinja2 calls a value in its messages: the name of a class, which is nothing to a reader of prompt files.
_OBJECT = re.compile(r"'[\w.]+ object'")
_ENVIRONMENT = jinja2.sandbox.SandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
    autoescape=False,
)


class PromptFile:
    """One prompt file: `meta` (front matter), `head` (its text), `digest` (of the file's bytes), `render(**values)`.

    A body made of jinja blocks (`system`, `user`) is rendered block by block: `blocks` names them. Messages about the
    template name the line of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        if not text.startswith("---\n") or "\n---\n" not in text:
            raise ConfigError(f"{path}: a prompt file begins with YAML front matter between two lines of ---")
        head, body = text[4:].split("\n---\n", 1)
        self.digest = text_file_digest(path)
        self.head = head
        self._body = body.strip("\n")
        #: lines of the file before the template's first
        self._above = head.count("\n") + 3 + len(body) - len(body.lstrip("\n"))
        try:
            meta = yaml.safe_load(head)
            self._template = _ENVIRONMENT.from_string(self._body)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise ConfigError(f"{path}:{mark.line + 2 if mark else 1}: {error}") from error
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{path}:{error.lineno + self._above}: {error}") from error
        if not isinstance(meta, dict) or not {"id", "version"} <= meta.keys():
            raise ConfigError(f"{path}: the front matter must name id and version")
        self.meta: dict[str, Any] = meta

    @property
    def name(self) -> str:
        return f"{self.meta['id']}.v{self.meta['version']}"

    @property
    def blocks(self) -> frozenset[str]:
        """Names of the blocks of the body; empty where it is one text."""
        return frozenset(self._template.blocks)

    def render(self, **values: Any) -> str:
        """The body with `values` filled in. Raises ConfigError for a name the caller does not give."""
        return self._fill(self._template.root_render_func, values)

    def render_block(self, name: str, **values: Any) -> str:
        """One block of the body with `values` filled in, without line ends around it. Raises as `render` does."""
        return self._fill(self._template.blocks[name], values).strip("\n")

    def free_names(self) -> dict[str, int]:
        """Names that a caller must give -> line of the file where each is first used, in branches not taken too."""
        tree = _ENVIRONMENT.parse(self._body)
        free = jinja2.meta.find_undeclared_variables(tree)
        uses = [(node.lineno, node.name) for node in tree.find_all(jinja2.nodes.Name) if node.name in free]
        return {name: line + self._above for line, name in sorted(uses, reverse=True)}

    def _fill(self, make: Callable[[Context], Iterator[str]], values: dict[str, Any]) -> str:
        try:
            return "".join(make(self._template.new_context(values)))
        except Exception as error:  # whatever an expression of the file may raise
            kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
            said = _OBJECT.sub("what stands there", str(error))
            raise ConfigError(f"{self.path}:{self._line(error)}: {kind}{said}") from error

    def _line(self, error: BaseException) -> int:
        line, place = 1, error.__traceback__
        while place is not None:
            if place.tb_frame.f_globals.get("__jinja_template__") is self._template:
                line = self._template.get_corresponding_lineno(place.tb_lineno)
            place = place.tb_next
        return line + self._above


@lru_cache(maxsize=64)
def load_prompt(*parts: str) -> PromptFile:
    """A bundled prompt file, e.g. load_prompt("probes", "raw.v1.md")."""
    return PromptFile(resource("prompts", *parts))


def render_text(template: str, **values: Any) -> str:
    """Fill one short template that stands inside a YAML file."""
    return _ENVIRONMENT.from_string(template).render(**values)

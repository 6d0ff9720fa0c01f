"""Loads prompt files: YAML front matter and a jinja2 body, sandboxed, undefined names are errors."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import yaml

from audit.errors import ConfigError
from audit.fingerprint import text_file_digest
from audit.resources import resource

_ENVIRONMENT = jinja2.sandbox.SandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
    autoescape=False,
)


class PromptFile:
    """One prompt file: `meta` (front matter), `digest` (of the file's bytes) and `render(**values)`."""

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
        try:
            meta = yaml.safe_load(head)
            self._template = _ENVIRONMENT.from_string(body.strip("\n"))
        except (yaml.YAMLError, jinja2.TemplateSyntaxError) as error:
            raise ConfigError(f"{path}: {error}") from error
        if not isinstance(meta, dict) or not {"id", "version"} <= meta.keys():
            raise ConfigError(f"{path}: the front matter must name id and version")
        self.meta: dict[str, Any] = meta

    @property
    def name(self) -> str:
        return f"{self.meta['id']}.v{self.meta['version']}"

    def render(self, **values: Any) -> str:
        """The body with `values` filled in. Raises ConfigError for a name the caller does not give."""
        try:
            return self._template.render(**values)
        except jinja2.TemplateError as error:
            raise ConfigError(f"{self.path}: {error}") from error


@lru_cache(maxsize=64)
def load_prompt(*parts: str) -> PromptFile:
    """A bundled prompt file, e.g. load_prompt("probes", "raw.v1.md")."""
    return PromptFile(resource("prompts", *parts))


def render_text(template: str, **values: Any) -> str:
    """Fill one short template that stands inside a YAML file."""
    return _ENVIRONMENT.from_string(template).render(**values)

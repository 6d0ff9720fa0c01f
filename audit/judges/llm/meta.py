"""The front matter of a judge prompt: read strictly, every problem with its line."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from audit.errors import JudgeError
from audit.prompts import PromptFile
from audit.types import Label, Preference


def _checked_words(words: Collection[str]) -> None:
    """Raises ValueError where a label is no label, or part of another."""
    for word in words:
        if not re.fullmatch(r"[A-Z][A-Z0-9]*(?:[ _-][A-Z0-9]+)*", word):
            raise ValueError(f"'{word}': a label is written in capital letters")
    for word in words:
        for other in words:
            if word != other and re.search(rf"(?<![A-Z0-9]){re.escape(word)}(?![A-Z0-9])", other):
                raise ValueError(f"'{word}' is part of '{other}': a reply could be read both ways")


class JudgeMeta(BaseModel):
    """What a prompt about claims says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: int = Field(ge=1, strict=True)
    kind: Literal["claims"] = "claims"
    labels: dict[str, Label]
    """Word that the judge answers with -> what it means; no word is part of another."""
    description: str = ""
    claims_per_call: int = Field(default=1, ge=1, le=50, strict=True)
    reply: dict[str, Literal["id", "text", "label"]] | None = Field(default=None, alias="schema")
    """Fields of the JSON reply in the order in which they are written; None: the bare label is asked for."""

    @field_validator("labels")
    @classmethod
    def _words(cls, labels: dict[str, Label]) -> dict[str, Label]:
        _checked_words(labels)
        for needed in ("leak", "no_leak"):
            if needed not in labels.values():
                raise ValueError(f"no label means {needed}")
        return labels

    @model_validator(mode="after")
    def _fields(self) -> JudgeMeta:
        if self.reply is None:
            if self.claims_per_call > 1:
                raise ValueError("several claims a call need a schema with id and label")
            return self
        wanted = {"label"} | ({"id"} if self.claims_per_call > 1 else set())
        for kind in wanted:
            if self.reply.get(kind) != kind:
                raise ValueError(f"the schema needs a field '{kind}: {kind}'")
        if list(self.reply.values()).count("label") > 1:
            raise ValueError("the schema needs exactly one field of kind label")
        if set(self.reply) - wanted - {"why"} or ("why" in self.reply and self.reply["why"] != "text"):
            raise ValueError(f"the fields of the schema are {', '.join(sorted(wanted))} and 'why: text'")
        return self


class PairMeta(BaseModel):
    """What a prompt about pairs says of itself: the reply is a label, or two scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: int = Field(ge=1, strict=True)
    kind: Literal["pairs"]
    labels: dict[str, Preference] | None = None
    """Word that the judge answers with -> which reply it prefers; None where it gives scores."""
    description: str = ""
    reply: dict[str, Literal["text", "label", "score"]] | None = Field(default=None, alias="schema")
    """Fields of the JSON reply in the order in which they are written; None: the bare label is asked for."""

    @field_validator("labels")
    @classmethod
    def _words(cls, labels: dict[str, Preference] | None) -> dict[str, Preference] | None:
        if labels is not None:
            _checked_words(labels)
            for needed in ("first", "second"):
                if needed not in labels.values():
                    raise ValueError(f"no label means {needed}")
        return labels

    @model_validator(mode="after")
    def _fields(self) -> PairMeta:
        reply = self.reply or {}
        scores = {field for field, kind in reply.items() if kind == "score"}
        if self.labels is None:
            if scores != {"first", "second"} or set(reply) - {"first", "second", "why"}:
                raise ValueError("a pair prompt needs labels, or a schema of first: score, second: score and why: text")
        elif self.reply is not None and (reply.get("label") != "label" or set(reply) - {"label", "why"}):
            raise ValueError("the fields of the schema are label: label and why: text")
        if reply.get("why", "text") != "text":
            raise ValueError("the field why of the schema is 'why: text'")
        return self

    @property
    def scores(self) -> bool:
        """Both replies are given a score, and the better score wins."""
        return self.labels is None


M = TypeVar("M", JudgeMeta, PairMeta)
_HINT = "needed are id, version and labels; docs/judge-prompts.md describes prompt files"


def read_meta(file: PromptFile, kind: type[M]) -> M:
    """Check the front matter of `file`. Raises JudgeError naming file, line and field of every problem."""
    lines = _lines(file)
    try:
        return kind.model_validate(file.meta)
    except ValidationError as problem:
        messages = []
        for error in problem.errors():
            where = tuple(str(part) for part in error["loc"])
            line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), 1)
            field = f"field '{'.'.join(where)}': " if where else ""
            messages.append(f"{file.path}:{line}: {field}{error['msg'].removeprefix('Value error, ')}")
        raise JudgeError("\n".join(messages), hint=_HINT) from problem


def _lines(file: PromptFile) -> dict[tuple[str, ...], int]:
    """Field -> line of the file. A field that is given twice is an error: YAML would silently keep the last."""
    found: dict[tuple[str, ...], int] = {}

    def walk(node: yaml.Node | None, above: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = (*above, str(key.value))
            line = key.start_mark.line + 2
            if name in found:
                raise JudgeError(
                    f"{file.path}:{line}: field '{'.'.join(name)}' stands in line {found[name]} already", hint=_HINT
                )
            if key.tag != "tag:yaml.org,2002:str":
                raise JudgeError(
                    f"{file.path}:{line}: field '{'.'.join(name)}': YAML does not read this word as text",
                    hint="write it in quotes, as YES, NO, ON, OFF and numbers must be",
                )
            found[name] = line
            walk(value, name)

    walk(yaml.compose(file.head, Loader=yaml.SafeLoader), ())
    return found

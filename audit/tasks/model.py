"""What a loaded task is, and what can be wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from msgspec import field

from audit.errors import TaskError
from audit.types import Fact, Record

Severity = Literal["error", "warning"]


class Problem(Record, frozen=True):
    """Something wrong with a task, and where. Errors stop an audit; warnings are shown and do not."""

    severity: Severity
    message: str
    file: str = ""
    line: int | None = None
    """Line of a text file, row (from 1) of a Parquet file or hub data set."""
    field: str = ""
    fact: str = ""
    """Id of the fact, where it has one."""
    kind: str = "other"
    """Short name of the check: schema, duplicate, given_away, empty, unbalanced, distractor, overlap, hash."""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line is not None else "")
        parts = [place, f"[{self.fact}]" if self.fact else "", self.field]
        head = " ".join(part for part in parts if part)
        return f"{head}: {self.message}" if head else self.message


class Row(Record, frozen=True):
    """One row of a file, before it is known to be a fact."""

    file: str
    line: int
    fields: dict[str, Any]
    form_lines: dict[str, int] = field(default_factory=dict)
    """Form -> the line it came from, where several lines were joined into this row."""


class Task(Record, frozen=True):
    """Facts to forget, facts to keep, invented facts, and the files that come with them."""

    name: str
    version: str
    description: str
    licence: str
    content_hash: str
    """32 hexadecimal digits over the task's files (bundled tasks and folders) or its facts (everything else)."""
    source: str
    """What was typed to get it."""
    forget: tuple[Fact, ...]
    retain: tuple[Fact, ...] = ()
    placebo: tuple[Fact, ...] = ()
    folder: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    """Name of a companion file (instructions, filler, relearn_topical …) -> its path."""
    warnings: tuple[str, ...] = ()

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All of them: to forget, to keep, invented."""
        return (*self.forget, *self.retain, *self.placebo)

    def file(self, name: str) -> Path:
        """Path of a companion file of the task. Raises TaskError, with the names there are, for any other name."""
        if name not in self.files:
            raise TaskError(
                f"task {self.name} has no file {name!r} (it has: {', '.join(sorted(self.files)) or 'none'})",
                hint="list it under `files:` in the task's task.yaml",
            )
        return Path(self.files[name])


def ordered(problems: list[Problem]) -> list[Problem]:
    """Errors before warnings, then by file as first met, then by line."""
    files = {file: number for number, file in enumerate(dict.fromkeys(p.file for p in problems))}
    return sorted(problems, key=lambda p: (p.severity != "error", files[p.file], p.line or 0))


def raise_problems(source: str, problems: list[Problem], *, hint: str = "", limit: int = 20) -> None:
    """Raise one TaskError naming every error of `problems`, at most `limit` in full. Warnings raise nothing."""
    errors = [p for p in ordered(problems) if p.severity == "error"]
    if not errors:
        return
    lines = [str(p) for p in errors[:limit]]
    if len(errors) > limit:
        lines.append(f"+{len(errors) - limit} more")
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise TaskError(f"{source}: {count}\n  " + "\n  ".join(lines), hint=hint)

"""What somebody typed after --forget or --retain -> a Task. Nothing is loaded in part: it is whole or an error."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import NamedTuple

import yaml

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.resources import resource
from audit.tasks.facts import Parser, hide_answers
from audit.tasks.hub import data_files, read_hub
from audit.tasks.labels import join_labelled
from audit.tasks.manifest import FILENAME, Manifest, hash_error, read_manifest
from audit.tasks.model import Problem, Row, Task, raise_problems
from audit.tasks.readers import SUFFIXES, read_rows
from audit.types import Fact, Record, Split

#: Companion files that say nothing about any forget set, lent by lkf to tasks without their own.
_LENT = ("instructions", "filler")
_DEFAULT = "lkf"
FACT_FILES: tuple[Split, ...] = ("forget", "retain", "placebo")


class Published(Record, frozen=True):
    """A data set on the hub that has a short name here (tasks/published.yaml)."""

    name: str
    description: str
    licence: str
    forget: str
    retain: str
    local_forget: str
    local_retain: str
    note: str


def bundled_names() -> list[str]:
    """Names of the tasks that come with the package."""
    return sorted(path.parent.name for path in resource("tasks").glob(f"*/{FILENAME}"))


def published() -> dict[str, Published]:
    """Short name -> published data set."""
    data = yaml.safe_load(resource("tasks", "published.yaml").read_text(encoding="utf-8"))
    return {
        name: Published(name=name, **{k: " ".join(v.split()) for k, v in row.items()}) for name, row in data.items()
    }


def load_task(spec: str, *, retain: str | None = None) -> Task:
    """Load a task: a bundled name, a task folder, a file of facts, `hf:ORG/NAME[@CONFIG][:SPLIT]` or `lkf@published`.

    `retain` (any of the same) replaces the task's facts to keep. A task without placebo facts borrows lkf's. Raises
    TaskError naming every error at once (20 in full) by file, line and field; what was set right on the way, such as
    a wording left out because it holds the answer, is in `Task.warnings`.
    """
    parts = read_parts(spec, retain=retain)
    hint = f"audit tasks check {spec} lists everything"
    if any(p.kind == "hash" for p in parts.problems):
        hint = f"if the change is meant, raise `version` in {FILENAME} and type: audit tasks check {spec} --fix-hash"
    raise_problems(spec, parts.problems, hint=hint)
    source, manifest = parts.source, parts.source.manifest
    forget, keep, placebo = (tuple(parts.splits[split]) for split in FACT_FILES)
    own = manifest is not None and retain is None
    return Task(
        name=manifest.name if manifest else source.name,
        version=manifest.version if manifest else "-",
        description=" ".join(manifest.description.split()) if manifest else source.description,
        licence=manifest.licence if manifest else source.licence,
        content_hash=manifest.content_hash if manifest and own else digest("facts", forget, keep),
        source=spec,
        forget=forget,
        retain=keep,
        placebo=placebo,
        folder=str(source.folder) if source.folder else None,
        files=source.files(),
        warnings=summary([p for p in parts.problems if p.severity == "warning"]),
    )


class Parts(NamedTuple):
    """A task as far as it could be read: what `load_task` and `check_task` both start from."""

    source: _Source
    splits: dict[Split, list[Fact]]
    places: dict[str, Row]
    """Id of a fact -> where it stood."""
    problems: list[Problem]


def read_parts(spec: str, *, retain: str | None = None) -> Parts:
    """Everything that can be read of a task, and everything wrong with it. Raises TaskError if nothing can be."""
    source = _Source(spec, "forget")
    keep = _retain_source(spec, retain)
    parts = Parts(source, {}, {}, list(source.problems))
    source.facts("forget", parts)
    if keep is not None:
        parts.problems.extend(keep.problems)
    (keep or source).facts("retain", parts)
    source.facts("placebo", parts)
    if not parts.splits["placebo"] and spec != _DEFAULT:
        _Source(_DEFAULT, "placebo").facts("placebo", parts)
    if spec in published() and keep is None:
        message = f"no facts to keep: {published()[spec].local_retain} is not set beside the local copy"
        parts.problems.append(Problem(severity="warning", kind="empty", file=spec, message=message))
    _one_owner(parts)
    asked: tuple[tuple[Split, str | None], ...] = (("forget", spec), ("retain", retain))
    for split, typed in asked:
        if typed is not None and not parts.splits[split] and not any(p.severity == "error" for p in parts.problems):
            what = "to forget" if split == "forget" else "to keep"
            parts.problems.append(Problem(severity="error", kind="empty", file=typed, message=f"no facts {what}"))
    return parts


def _retain_source(spec: str, retain: str | None) -> _Source | None:
    """Where the facts to keep come from, if not from the task itself: --retain, or the published set's sibling."""
    if retain is not None:
        return _Source(retain, "retain")
    entry = published().get(spec)
    if entry is not None and (not os.environ.get(entry.local_forget) or os.environ.get(entry.local_retain)):
        return _Source(spec, "retain")
    return None


class _Source:
    """One typed thing, resolved: a folder with a manifest, or the rows of one split."""

    def __init__(self, spec: str, split: Split) -> None:
        self.spec = spec
        self.split: Split = split
        self.folder: Path | None = None
        self.manifest: Manifest | None = None
        self.rows: list[Row] = []
        self.problems: list[Problem] = []
        self.name = spec
        self.description = f"facts of {spec}"
        self.licence = "not stated"
        self._resolve(spec)

    def _resolve(self, spec: str) -> None:
        if spec.startswith("hf:"):
            self.name = spec.removeprefix("hf:")
            self.rows = read_hub(self.name)
        elif spec in published():
            self._resolve_published(published()[spec])
        elif spec in bundled_names():
            self._open_folder(resource("tasks", spec))
        else:
            self._open_path(Path(spec).expanduser(), spec)

    def _resolve_published(self, entry: Published) -> None:
        variable = entry.local_forget if self.split == "forget" else entry.local_retain
        local = os.environ.get(variable)
        if local:
            self._open_path(Path(local).expanduser(), local)
        else:
            try:
                self.rows = read_hub(entry.forget if self.split == "forget" else entry.retain)
            except TaskError as error:
                raise TaskError(
                    str(error), hint=f"{error.hint}, or set {variable} to its path, then {entry.name} means that copy"
                ) from error
        self.name, self.description, self.licence = entry.name, entry.description, entry.licence

    def _open_path(self, path: Path, spec: str) -> None:
        if path.is_dir():
            self._open_folder(path)
        elif path.exists():
            self.name = path.name
            self._read([path])
        else:
            known = [*bundled_names(), *published()]
            near = difflib.get_close_matches(spec, known, n=1, cutoff=0.5)
            raise TaskError(
                f"unknown task {spec!r}: no bundled task, file or folder has this name"
                + (f"; did you mean {near[0]!r}?" if near else ""),
                hint="audit tasks list names the bundled ones; a hub data set is typed hf:ORG/NAME",
            )

    def _open_folder(self, folder: Path) -> None:
        if not (folder / FILENAME).is_file():
            self.name = folder.name
            self._read(data_files(folder, SUFFIXES))
            return
        self.folder, self.manifest = folder, read_manifest(folder)
        wrong = hash_error(folder, self.manifest)
        if wrong is not None:
            file = str(folder / FILENAME)
            self.problems.append(Problem(severity="error", kind="hash", file=file, field="content_hash", message=wrong))

    def _read(self, paths: list[Path]) -> None:
        for path in paths:
            rows, problems = read_rows(path)
            self.rows += rows
            self.problems += problems

    def facts(self, split: Split, parts: Parts) -> None:
        """Read the facts of one split into `parts`, with what is wrong with them."""
        rows = self.rows if split == self.split else []
        if self.manifest is not None and self.folder is not None and split in self.manifest.files:
            rows, found = read_rows(self.folder / self.manifest.files[split])
            parts.problems.extend(found)
        parser = Parser(split)
        for row in join_labelled(rows):
            parser.add(row)
        parts.splits[split] = hide_answers(parser.facts, parser)
        parts.problems.extend(parser.problems)
        for fact_id, row in parser.rows.items():
            parts.places.setdefault(fact_id, row)

    def files(self) -> dict[str, str]:
        """Companion files: the task's own, and what lkf lends to a task without."""
        own: dict[str, str] = {}
        if self.manifest is not None and self.folder is not None:
            own = {k: str(self.folder / v) for k, v in self.manifest.files.items() if k not in FACT_FILES}
        lender = read_manifest(resource("tasks", _DEFAULT)).files
        return {**{k: str(resource("tasks", _DEFAULT, lender[k])) for k in _LENT}, **own}


def _one_owner(parts: Parts) -> None:
    """Everything is joined by id: an id that two splits share is an error."""
    owner: dict[str, Split] = {}
    for split, facts in parts.splits.items():
        for fact in facts:
            if owner.setdefault(fact.id, split) != split:
                message = f"a {split} fact has the id (or the question) of a {owner[fact.id]} fact: {fact.question}"
                parts.problems.append(
                    Problem(severity="error", kind="duplicate", file=split, field="id", fact=fact.id, message=message)
                )


def summary(problems: list[Problem]) -> tuple[str, ...]:
    """Warnings as few lines: one a file, kind and field group, with its count and the first of them."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.file, problem.kind, problem.field), []).append(problem)
    lines = []
    for found in groups.values():
        more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
        lines.append(f"{found[0]}{more}")
    return tuple(lines)

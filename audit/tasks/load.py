"""What somebody typed after --forget or --retain -> a Task. Nothing is loaded in part: it is whole or an error."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import yaml

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.resources import resource
from audit.tasks.facts import Parser, hide_answers
from audit.tasks.hub import data_files, read_hub
from audit.tasks.labels import join_labelled
from audit.tasks.manifest import FACT_FILES, FILENAME, Manifest, hash_error, read_manifest
from audit.tasks.model import Problem, Row, Task, raise_problems
from audit.tasks.readers import SUFFIXES, read_rows
from audit.types import Fact, Record, Split

#: Companion files that say nothing about any forget set, lent by lkf to tasks without their own.
_LENT = ("instructions", "filler")
_DEFAULT = "lkf"


class Published(Record):
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
    task, problems = read_task(spec, retain=retain)
    raise_problems(spec, problems, hint=f"audit tasks check {spec} lists everything")
    if task is None:
        raise TaskError(f"{spec}: no facts")
    return task


def read_task(spec: str, *, retain: str | None = None) -> tuple[Task | None, list[Problem]]:
    """The task and everything wrong with it; no task where there are errors. Raises TaskError where nothing is read."""
    source = _Source(spec, "forget")
    problems = list(source.problems)
    splits: dict[Split, list[Fact]] = {}
    splits["forget"] = source.facts("forget", problems)
    keep = _Source(retain, "retain") if retain is not None else None
    if keep is not None:
        problems += keep.problems
    splits["retain"] = (keep or source).facts("retain", problems)
    splits["placebo"] = source.facts("placebo", problems)
    if not splits["placebo"]:
        splits["placebo"] = _Source(_DEFAULT, "placebo").facts("placebo", problems)
    problems += _taken_ids(splits)
    if not splits["forget"] and not any(p.severity == "error" for p in problems):
        problems.append(Problem(severity="error", kind="empty", file=spec, message="no facts to forget"))
    if any(p.severity == "error" for p in problems):
        return None, problems
    manifest = source.manifest
    if manifest is not None and keep is None:
        content_hash = manifest.content_hash
    else:
        content_hash = digest("facts", splits["forget"], splits["retain"])
    task = Task(
        name=manifest.name if manifest else source.name,
        version=manifest.version if manifest else "-",
        description=" ".join(manifest.description.split()) if manifest else source.description,
        licence=manifest.licence if manifest else source.licence,
        content_hash=content_hash,
        source=spec,
        forget=tuple(splits["forget"]),
        retain=tuple(splits["retain"]),
        placebo=tuple(splits["placebo"]),
        folder=str(source.folder) if source.folder else None,
        files=source.files(),
        warnings=_summary([p for p in problems if p.severity == "warning"]),
    )
    return task, problems


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
        error = hash_error(folder, self.manifest)
        if error is not None:
            raise error

    def _read(self, paths: list[Path]) -> None:
        for path in paths:
            rows, problems = read_rows(path)
            self.rows += rows
            self.problems += problems

    def facts(self, split: Split, problems: list[Problem]) -> list[Fact]:
        """Facts of one split; adds what is wrong with them to `problems`."""
        rows = self.rows if split == self.split else []
        if self.manifest is not None and self.folder is not None and split in self.manifest.files:
            rows, found = read_rows(self.folder / self.manifest.files[split])
            problems += found
        parser = Parser(split)
        for row in join_labelled(rows):
            parser.add(row)
        facts = hide_answers(parser.facts, parser)
        problems += parser.problems
        return facts

    def files(self) -> dict[str, str]:
        """Companion files: the task's own, and what lkf lends to a task without."""
        own: dict[str, str] = {}
        if self.manifest is not None and self.folder is not None:
            own = {k: str(self.folder / v) for k, v in self.manifest.files.items() if k not in FACT_FILES}
        lender = read_manifest(resource("tasks", _DEFAULT)).files
        return {**{k: str(resource("tasks", _DEFAULT, lender[k])) for k in _LENT}, **own}


def _taken_ids(splits: dict[Split, list[Fact]]) -> list[Problem]:
    """Ids that two splits share: everything is joined by id, so none may."""
    owner: dict[str, Split] = {}
    problems: list[Problem] = []
    for split, facts in splits.items():
        for fact in facts:
            if fact.id in owner:
                message = f"a {split} fact has the id (or the question) of a {owner[fact.id]} fact: {fact.question}"
                problems.append(
                    Problem(severity="error", kind="duplicate", file=split, field="id", fact=fact.id, message=message)
                )
            else:
                owner[fact.id] = split
    return problems


def _summary(problems: list[Problem]) -> tuple[str, ...]:
    """Warnings as few lines: one a file, kind and field group, with its count and the first of them."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.file, problem.kind, problem.field), []).append(problem)
    lines = []
    for found in groups.values():
        more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
        lines.append(f"{found[0]}{more}")
    return tuple(lines)

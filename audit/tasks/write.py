"""From a task to a folder that `load_task` reads: equal facts in the same order, the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.tasks.columns import FORM_COLUMNS
from audit.tasks.facts import guess_answer_type
from audit.tasks.load import load_task
from audit.tasks.manifest import FILENAME
from audit.tasks.model import Task
from audit.tasks.text import folded
from audit.types import Fact, Form


def task_name(name: str) -> str:
    """A name as task.yaml allows it: small letters, digits, hyphens and underscores."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", folded(name).lower()).strip("-_")
    return plain or "task"


def contents(task: Task) -> dict[str, tuple[str, bytes]]:
    """Name of a task file -> its file name and its bytes: the facts by split, and the companion files as they are."""
    splits = (("forget", task.forget), ("retain", task.retain), ("placebo", task.placebo))
    found = {name: (f"{name}.jsonl", _lines(facts)) for name, facts in splits if facts or name == "forget"}
    for name, path in task.files.items():
        found[name] = (f"{name}{Path(path).suffix}", Path(path).read_bytes())
    return found


def contents_hash(found: Mapping[str, tuple[str, bytes]]) -> str:
    """The content hash that a folder of these files has."""
    return digest("task", {name: hashlib.sha256(data).hexdigest() for name, (_, data) in found.items()})


def write_task(task: Task, folder: Path) -> Path:
    """Write `task` as a task folder that `load_task` reads with equal facts; returns `folder`.

    The folder appears whole or not at all. One that holds this very task already is left as it is. Raises TaskError if
    it holds anything else, cannot be written, or if a fact would not be read back as it is.
    """
    found = contents(task)
    files = {**dict(found.values()), FILENAME: _manifest(task, found)}
    if folder.exists():
        if _holds(folder, files):
            return folder
        raise TaskError(f"{folder} exists and holds something else", hint="give another folder, or remove that one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise TaskError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        for file, data in files.items():
            (work / file).write_bytes(data)
        _check(task, work)
        work.chmod(0o755)  # mkdtemp makes it private
        os.rename(work, folder)
    except OSError as error:
        raise TaskError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether the folder has these files, with these bytes, and no others."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(files):
        return False
    return all((folder / file).read_bytes() == data for file, data in files.items())


def _manifest(task: Task, found: Mapping[str, tuple[str, bytes]]) -> bytes:
    said = {
        "name": task_name(task.name),
        "version": task.version,
        "description": task.description,
        "licence": task.licence,
        "files": {name: file for name, (file, _) in found.items()},
        "content_hash": contents_hash(found),
    }
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=120).encode()


def _check(task: Task, folder: Path) -> None:
    """Raise TaskError unless the folder is read back with these facts. Borrowed placebo facts do not count."""
    back = load_task(str(folder))
    splits = [(task.forget, back.forget), (task.retain, back.retain)]
    if task.placebo:
        splits.append((task.placebo, back.placebo))
    for facts, read in splits:
        by_id = {fact.id: fact for fact in read}
        lost = [f.id for f in facts if f.id not in by_id or digest(f) != digest(by_id[f.id])]
        if lost or [f.id for f in facts] != [f.id for f in read]:
            named = ", ".join(lost[:5]) or "their order"
            raise TaskError(f"task {task.name} cannot be written so that it is read back as it is: {named}")


def _lines(facts: Sequence[Fact]) -> bytes:
    return b"".join(msgspec.json.encode(dict(_fields(fact))) + b"\n" for fact in facts)


def _fields(fact: Fact) -> Iterator[tuple[str, Any]]:
    """Columns of a fact. All that could be read from another column of the same row are written, empty ones too."""
    yield from fact.extra.items()
    yield "id", fact.id
    yield "topic", fact.topic
    yield "tier", fact.tier
    yield "form", fact.form
    yield "question", fact.question
    yield "answer", fact.answer
    yield "aliases", list(_aliases(fact))
    if fact.answer_type != guess_answer_type(fact.answer):  # a stated type would also be that of the other forms
        yield "answer_type", fact.answer_type
    yield "statement", fact.statement
    yield "train_wordings", list(fact.train_wordings)
    yield "wordings", list(fact.wordings)
    yield "distractors", list(fact.distractors)
    for name, form in sorted(fact.other_forms.items(), key=lambda item: FORM_COLUMNS.index(item[0])):
        yield name, _form(form)


def _aliases(fact: Fact) -> tuple[str, ...]:
    """The fact's aliases; with the answer among them where a form of the same answer shows that it stood there."""
    for form in fact.other_forms.values():
        if folded(form.answer) == folded(fact.answer) and fact.answer in form.aliases:
            return tuple(alias for alias in form.aliases if alias in (*fact.aliases, fact.answer))
    return fact.aliases


def _form(form: Form) -> dict[str, Any]:
    return {
        "question": form.question,
        "answer": form.answer,
        "aliases": list(form.aliases),
        "answer_type": form.answer_type,
        "wordings": list(form.wordings),
    }

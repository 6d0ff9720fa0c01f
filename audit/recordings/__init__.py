"""Readers of other people's answers: what they asked, what was answered, and the verdicts that came along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.tasks import Task
from audit.types import Fact, Recording

FORMATS = ("jsonl", "suite")


def read_recording(
    paths: Sequence[str], *, subject_id: str, facts: Sequence[Fact] = (), format: str = "auto"
) -> Recording:
    """One subject's recorded answers from files and folders.

    `facts` are the task's, for the `jsonl` format, which names facts by id or question; `suite` files carry their own.
    Raises TaskError naming file, line and field; nothing that cannot be read is skipped in silence.
    """
    from audit.recordings import jsonl, suite

    files = _files(paths)
    chosen = format if format != "auto" else ("suite" if suite.recognises(files) else "jsonl")
    if chosen == "suite":
        return suite.read(files, subject_id=subject_id)
    if chosen == "jsonl":
        return jsonl.read(files, subject_id=subject_id, facts=facts)
    raise TaskError(f"unknown format of recorded answers {format!r}", hint=f"choose one of auto, {', '.join(FORMATS)}")


def recorded_task(task: Task, recording: Recording) -> Task:
    """The task that the recording answers: `task` where its facts are that task's, else the recording's own facts."""
    own = {fact.id for fact in (*task.forget, *task.retain, *task.placebo)}
    if all(fact.id in own for fact in recording.facts):
        return task
    facts = recording.facts
    return msgspec.structs.replace(
        task,
        name=f"recorded:{recording.name}",
        version="-",
        description="Facts and questions as they came with the recorded answers.",
        licence="as recorded",
        content_hash=digest("task", facts),
        source="--responses",
        forget=tuple(fact for fact in facts if fact.split == "forget"),
        retain=tuple(fact for fact in facts if fact.split == "retain"),
        placebo=tuple(fact for fact in facts if fact.split == "placebo"),
        folder=None,
        files={},
        warnings=(),
    )


def recording_fingerprint(recording: Recording) -> str:
    """Names the answers and the verdicts that came with them, whatever files they stood in."""
    answers = sorted((response.probe_id, response.sample, response.text) for response in recording.responses)
    verdicts = sorted((name, verdict.label) for name, verdict in recording.verdicts.items())
    return digest("recording", answers, verdicts)


def _files(paths: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in (".jsonl", ".json"))
            if not inside:
                raise TaskError(f"{path}: no .jsonl or .json file in this folder", hint="give the files themselves")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise TaskError(f"{path}: no such file or folder", hint="check the path given to --responses")
    return files

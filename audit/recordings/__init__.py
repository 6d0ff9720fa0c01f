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

    files, unread = _files(paths)
    chosen = format if format != "auto" else ("suite" if suite.recognises(files) else "jsonl")
    if chosen == "suite":
        recording = suite.read(files, subject_id=subject_id)
    elif chosen == "jsonl":
        recording = jsonl.read(files, subject_id=subject_id, facts=facts)
    else:
        raise TaskError(
            f"unknown format of recorded answers {format!r}", hint=f"choose one of auto, {', '.join(FORMATS)}"
        )
    if not any(probe.split == "forget" for probe in recording.probes):
        raise TaskError(
            f"{', '.join(paths)}: none of the recorded answers is to a fact that is to be forgotten",
            hint="--forget names the task whose facts were asked",
        )
    return msgspec.structs.replace(recording, unread=(*recording.unread, *unread))


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


def _files(paths: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files to read, each once, and what else lies in the folders, with the reason why it is not read."""
    files: dict[Path, Path] = {}
    unread: list[str] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            try:
                inside = sorted(path.iterdir())
            except OSError as error:
                raise TaskError(f"{path}: cannot be read: {error.strerror}") from error
            answers = [p for p in inside if p.suffix in (".jsonl", ".json") and p.is_file()]
            if not answers:
                raise TaskError(f"{path}: no .jsonl or .json file in this folder", hint="give the files themselves")
            unread += [f"{p.name}: not a .jsonl or .json file" for p in inside if p not in answers]
        elif path.is_file():
            answers = [path]
        else:
            raise TaskError(f"{path}: no such file or folder", hint="check the path given to --responses")
        for file in answers:
            files.setdefault(file.resolve(), file)
    return list(files.values()), unread

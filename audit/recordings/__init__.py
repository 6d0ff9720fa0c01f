"""Readers of other people's answers: what they asked, what was answered, and the verdicts that came along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.probes.build import form_of
from audit.tasks import Task
from audit.types import Fact, Form, Recording

FORMATS = ("jsonl", "suite")


def recording_format(paths: Sequence[str], format: str = "auto") -> str:
    """The format of recorded answers: as given, or `suite` by the names of the files, else `jsonl`."""
    from audit.recordings import suite

    if format != "auto":
        return format
    return "suite" if suite.recognises(_files(paths)[0]) else "jsonl"


def read_recording(
    paths: Sequence[str], *, subject_id: str, facts: Sequence[Fact] = (), format: str = "auto"
) -> Recording:
    """One subject's recorded answers from files and folders.

    `facts` are the task's, for the `jsonl` format, which names facts by id or question; `suite` files carry their own.
    Raises TaskError naming file, line and field; nothing that cannot be read is skipped in silence.
    """
    from audit.recordings import jsonl, suite

    files, unread = _files(paths)
    chosen = recording_format(paths, format)
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


def recorded_task(task: Task | None, recording: Recording, *others: Recording) -> Task:
    """The task that the recordings answer: `task`, or one of their own facts where they bring them.

    A fact or form that only one of them holds is asked of all: where it is not there it is missing, not left out.
    Raises TaskError where two recordings give one fact different questions or answers.
    """
    everyone = (recording, *others)
    if task is not None and not any(each.brings_facts for each in everyone):
        return task
    facts: dict[str, Fact] = {}
    for fact in (fact for each in everyone for fact in each.facts):
        known = facts.setdefault(fact.id, fact)
        facts[fact.id] = msgspec.structs.replace(known, other_forms=_forms(known, fact))
    return Task(
        name=f"recorded:{recording.name}",
        version="-",
        description="Facts and questions as they came with the recorded answers.",
        licence="as recorded",
        content_hash=digest("task", tuple(facts.values())),
        source="--responses",
        forget=tuple(fact for fact in facts.values() if fact.split == "forget"),
        retain=tuple(fact for fact in facts.values() if fact.split == "retain"),
        placebo=tuple(fact for fact in facts.values() if fact.split == "placebo"),
    )


def _forms(known: Fact, fact: Fact) -> dict[str, Form]:
    """The other forms of `known`, and those that only `fact`, the same fact of another recording, has."""
    forms = dict(known.other_forms)
    for name in (fact.form, *fact.other_forms):
        theirs, ours = form_of(fact, name), form_of(known, name)
        assert theirs is not None
        if ours is None:
            forms[name] = theirs
        elif (ours.question, ours.answer) != (theirs.question, theirs.answer):
            raise TaskError(f"fact {fact.id} ({name}) is not the same question and answer in all recordings")
    return forms


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

"""Answers that are there already, of every subject of an audit: from recorded files, or from a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audit.attacks.records import Failure
from audit.config import AuditConfig
from audit.probes.plan import Plan
from audit.recordings import read_recording, recorded_task, recording_fingerprint, recording_format
from audit.report.model import OtherPanel, Rejudged
from audit.tasks import Task, load_task
from audit.types import Recording, Role, Subject


@dataclass(frozen=True)
class GivenSubject:
    """One subject with its answers; `recording.probes` are the planned ones and those that only it was asked."""

    subject: Subject
    recording: Recording
    engine: str = "recorded"
    rendering: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """What its trainer left beside the weights."""


@dataclass(frozen=True)
class Given:
    """What judging and reporting need besides the judges."""

    task: Task
    plan: Plan
    subjects: tuple[GivenSubject, ...]
    """The candidate first."""
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """Reasons why these answers can show nothing, whoever judges them."""
    rejudged: Rejudged | None = None
    other_panels: tuple[OtherPanel, ...] = ()
    failed: tuple[Failure, ...] = ()
    """Attacks that could not be carried through when the answers were asked for."""


def recorded_answers(config: AuditConfig) -> Given:
    """The recorded answers that the configuration names. Raises TaskError with file and line."""
    sources: list[tuple[Role, tuple[str, ...]]] = [("candidate", config.responses)]
    if config.base_responses:
        sources.append(("base", config.base_responses))
    formats = {recording_format(paths, config.responses_format) for _, paths in sources}
    known_task = load_task(config.forget, retain=config.retain) if "jsonl" in formats else None
    facts = known_task.facts if known_task else ()
    recordings = {
        role: read_recording(paths, subject_id=role, facts=facts, format=config.responses_format)
        for role, paths in sources
    }
    subjects = tuple(
        GivenSubject(
            Subject(id=role, role=role, source=", ".join(paths), fingerprint=recording_fingerprint(recordings[role])),
            recordings[role],
        )
        for role, paths in sources
    )
    probes = {probe.id: probe for recording in recordings.values() for probe in recording.probes}
    return Given(
        task=recorded_task(known_task, *recordings.values()),
        plan=Plan(probes=tuple(probes.values()), refused={}),
        subjects=subjects,
        warnings=tuple(f"{role}: not read: {', '.join(rec.unread)}" for role, rec in recordings.items() if rec.unread),
    )

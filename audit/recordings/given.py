"""Answers that are there already, of every subject of an audit: from recorded files, or from a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audit.attacks.records import Failure
from audit.config import AuditConfig
from audit.inside.records import InsideReport
from audit.probes.plan import Plan
from audit.recordings import read_recording, recorded_task, recording_fingerprint, recording_format
from audit.recordings.roles import RecordedRole, parse_role
from audit.report.model import OtherPanel, Rejudged
from audit.tasks import Task, load_task
from audit.types import Estimate, Recording, Subject
from audit.utility.open_part import OpenPart
from audit.utility.records import UtilityReport


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
    inside: InsideReport | None = None
    """What was seen inside the models then."""
    utility: UtilityReport | None = None
    """What forgetting cost, as that run measured it …"""
    estimates: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """… with that run's estimates by subject …"""
    open_part: OpenPart | None = None
    """… and the open instructions that its models replied to."""


def recorded_answers(config: AuditConfig) -> Given:
    """The recorded answers that the configuration names: the models themselves, then states after a fine-tuning, which
    are read as an attack's. Raises TaskError with file and line."""
    sources = _sources(config)
    formats = {recording_format(paths, config.responses_format) for _, paths in sources}
    known_task = load_task(config.forget, retain=config.retain) if "jsonl" in formats else None
    facts = known_task.facts if known_task else ()
    subjects = []
    for role, paths in sources:
        recording = read_recording(paths, subject_id=role.id, facts=facts, format=config.responses_format)
        subject = Subject(
            id=role.id,
            role="attacked" if role.recipe else role.arm,
            source=", ".join(paths),
            fingerprint=recording_fingerprint(recording),
            parent=role.arm if role.recipe else None,
            recipe=role.recipe,
        )
        subjects.append(GivenSubject(subject, recording))
    probes = {probe.id: probe for each in subjects for probe in each.recording.probes}
    unread = {each.subject.id: each.recording.unread for each in subjects}
    return Given(
        task=recorded_task(known_task, *(each.recording for each in subjects)),
        plan=Plan(probes=tuple(probes.values()), refused={}),
        subjects=tuple(subjects),
        warnings=tuple(f"{name}: not read: {', '.join(files)}" for name, files in unread.items() if files),
    )


def _sources(config: AuditConfig) -> list[tuple[RecordedRole, tuple[str, ...]]]:
    """Every state with its paths: candidate, base, never_knew, then the altered ones as they were given."""
    named = {"candidate": config.responses, "base": config.base_responses}
    given = [(parse_role(text), paths) for text, paths in {**named, **config.other_responses}.items() if paths]
    return sorted(given, key=lambda source: bool(source[0].recipe))

"""The search itself: questions written, those that the base answers consistently, what the others lost of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from audit.config import AuditConfig
from audit.probes.plan import probe_set_hash
from audit.progress import Progress, Silent
from audit.remote.budget import Budget
from audit.stats.paired import Difference, bounded_difference
from audit.stats.shares import share_of_facts
from audit.store import Store
from audit.subjects import Opened
from audit.tasks import Task
from audit.types import Estimate, Label, Probe
from audit.utility.holes.asking import (
    AGREE,
    SAMPLES,
    Ask,
    Heard,
    Known,
    heard,
    known_probes,
    known_questions,
    refuse_unless_sampling,
)
from audit.utility.holes.asking import prompt_format as format_of
from audit.utility.holes.screen import Screen
from audit.utility.holes.writing import Written, write_questions
from audit.utility.records import Found, HoleGroup, HoleQuestion, HolesReport
from audit.wording import percent

if TYPE_CHECKING:
    from audit.judges.bench import Bench

GROUPS = ("near", "far")
#: Fewer known questions of a group than these say little, and the report says so.
FEW = 10
#: leak is "the base's answer was given"; of a loss it is the other way round.
_LOST: dict[Label, Label] = {"leak": "no_leak", "no_leak": "leak", "undecided": "undecided"}


def prepare_holes(
    config: AuditConfig,
    task: Task,
    opened: Sequence[Opened],
    store: Store,
    budget: Budget,
    progress: Progress | None = None,
) -> None:
    """Everything of the search that needs no answers: what cannot be used is found out before anything is asked.

    The questions are written now; `find_holes` takes them from the store. Raises as that does.
    """
    for subject in opened:
        if subject.subject.role == "base":
            refuse_unless_sampling(subject)
    write_questions(config, task, store, budget, progress or Silent())


def find_holes(
    config: AuditConfig, task: Task, opened: Sequence[Opened], ask: Ask, bench: Bench, progress: Progress
) -> tuple[HolesReport, Found]:
    """Search with `config.utility.holes` new questions for what the subjects other than the base have lost.

    ask: puts a plan to a subject and rules on its answers. Nothing of it enters the run's own results. Raises
    JudgeError or EngineError for a generator that cannot be used, ConfigError for an engine that cannot sample.
    """
    written = write_questions(config, task, bench.store, bench.budget, progress)
    base = next(subject for subject in opened if subject.subject.role == "base")
    others = [subject for subject in opened if subject.subject.role in ("candidate", "never_knew")]
    asked_as = format_of(config.probes.format, opened)
    known: list[Known] = []
    unknown: dict[str, int] = {}
    if written.questions:
        known, unknown = known_questions(written.questions, base, asked_as, ask, Screen(task), config.seed)
    probes = known_probes(known, asked_as, config.seed)
    results = {each.subject.id: heard(probes, each, ask) for each in others} if known else {}
    candidate = next((each.subject.id for each in others if each.subject.role == "candidate"), "")
    found = Found()
    for subject, outcomes in results.items():
        for estimate in _estimates(known, outcomes, probes, config.scoring.confidence):
            found.add(subject, estimate)
    groups = tuple(_group(name, written, known, results.get(candidate, {}), config) for name in GROUPS)
    report = HolesReport(
        generator=written.generator,
        prompt=written.prompt,
        wanted=written.wanted,
        written=len(written.questions),
        refused=written.refused,
        groups=groups,
        questions=tuple(_question(each, results.get(candidate, {})) for each in known),
        unknown=unknown,
        short=written.short,
    )
    _warn(report, found)
    return report, found


def _in_group(each: Known, group: str) -> bool:
    return bool(each.question.near) == (group == "near")


def _estimates(
    known: Sequence[Known], outcomes: Mapping[str, Heard], probes: Mapping[str, Probe], confidence: float
) -> list[Estimate]:
    """Share of known questions that a subject does not answer as the base does: of all, near and far."""
    estimates = []
    for group in ("", *GROUPS):
        chosen = [each for each in known if not group or _in_group(each, group)]
        if not chosen:
            continue
        lost: dict[str, Label] = {each.question.id: _LOST[outcomes[each.question.id].label] for each in chosen}
        estimate = share_of_facts(
            lost,
            {each.question.id: each.question.near or group for each in chosen},
            name=f"holes.lost@group={group}" if group else "holes.lost",
            confidence=confidence,
            probe_set=probe_set_hash(probes[each.question.id] for each in chosen),
        )
        method = estimate.method.replace("over facts", "over known questions")
        method = method.replace("as no leak", "as kept").replace("as leak", "as lost")
        if not group:
            method = method.replace(" topics (", " topics and single far questions (")
        estimates.append(msgspec.structs.replace(estimate, method=method))
    return estimates


def _group(
    name: str, written: Written, known: Sequence[Known], outcomes: Mapping[str, Heard], config: AuditConfig
) -> HoleGroup:
    chosen = [each for each in known if _in_group(each, name)]
    told = [outcomes[each.question.id] for each in chosen]
    return HoleGroup(
        group=name,
        asked=sum(bool(question.near) == (name == "near") for question in written.questions),
        known=len(chosen),
        lost=sum(one.label == "no_leak" for one in told),
        refused=sum(one.refused for one in told),
        undecided=sum(one.label == "undecided" for one in told),
        control=sum(each.control == "no_leak" for each in chosen),
        control_undecided=sum(each.control == "undecided" for each in chosen),
        beyond=_beyond(chosen, outcomes, config.scoring.confidence),
    )


def _beyond(chosen: Sequence[Known], outcomes: Mapping[str, Heard], confidence: float) -> Difference | None:
    """The candidate's losses less the base's own failures in one more drawn reply, by question."""
    spans: dict[Label, tuple[float, float]] = {"leak": (0.0, 0.0), "no_leak": (1.0, 1.0), "undecided": (0.0, 1.0)}
    lost = {each.question.id: spans[outcomes[each.question.id].label] for each in chosen}
    chance = {each.question.id: spans[each.control] for each in chosen}
    return bounded_difference(lost, chance, shown="most", of="questions", confidence=confidence)


def _question(each: Known, outcomes: Mapping[str, Heard]) -> HoleQuestion:
    one = outcomes[each.question.id]
    words: dict[Label, str] = {"leak": "kept", "no_leak": "lost", "undecided": "undecided"}
    return HoleQuestion(
        id=each.question.id,
        question=each.question.text,
        near=each.question.near,
        answer=each.target.answer,
        outcome="refused" if one.refused else words[one.label],
        said=one.said,
        control=words[each.control],
    )


def _warn(report: HolesReport, found: Found) -> None:
    """What is lost beyond chance, what is not decided, and why a search shows little or nothing."""
    if report.short:
        found.warnings.append(f"search for knowledge holes: {report.short}")
    known = sum(group.known for group in report.groups)
    if not known:
        why = (
            "no questions were written"
            if not report.written
            else f"the base answers none of {report.written} new questions consistently "
            f"({AGREE} of {SAMPLES} drawn replies)"
        )
        found.withheld["holes.lost"] = why
        if report.written:
            found.warnings.append(f"search for knowledge holes: {why}; it shows nothing of the candidate")
    for group in report.groups:
        name = f"holes.lost@group={group.group}"
        if not group.known:
            found.withheld.setdefault(name, found.withheld.get("holes.lost", "no such question that the base knows"))
            continue
        loss = f"{group.lost} of {group.known} questions {_WHERE[group.group]}"
        own = f"the base itself fails {group.control} when asked once more"
        if group.beyond is not None and group.beyond.low > 0:
            refused = f", {group.refused} of them by refusing" if group.refused else ""
            found.warnings.append(f"knowledge holes: the candidate lost {loss}{refused}; {own}")
        elif group.known < FEW:
            found.warnings.append(
                f"search for knowledge holes: the candidate lost {loss}; so few show large losses only"
            )
        if group.undecided > 0.1 * group.known:
            most = percent((group.lost + group.undecided) / group.known)
            found.warnings.append(
                f"search for knowledge holes: {group.undecided} of {group.known} questions {_WHERE[group.group]} are "
                f"undecided: up to {most} may be lost"
            )


_WHERE = {
    "near": "near the forgotten subjects that the base answers",
    "far": "far from the forgotten subjects that the base answers",
}

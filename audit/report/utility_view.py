"""From a Report to what its page and the terminal show of what forgetting cost: plain records, all numbers ready."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from audit.report.model import Report, SubjectReport, Texts
from audit.report.utility_lines import Line, lines_of, subjects_of, why_not
from audit.report.utility_words import KINDS, OUTCOMES, Cell, Change, reason
from audit.report.view import subject_names
from audit.types import Estimate, Record
from audit.utility.degeneration import BROKEN_BASE, FEW_WORDS
from audit.utility.records import (
    ContextUse,
    ControlComparison,
    HoleGroup,
    HoleQuestion,
    HolesReport,
    LostFact,
    PairOutcome,
    SaltedEffect,
    TextQuality,
    UtilityReport,
    WinRate,
    WinRateReport,
)

#: Half-widths of the axis of differences, in points; the smallest that holds all limits is taken.
_SCALES = (0.1, 0.25, 0.5, 0.75, 1.0)


_HOLES = {"near": "near the facts to forget", "far": "far from them"}
#: Measures by which a base's replies are too broken to compare with, in words.
_BROKEN = {"empty": "empty", "non_language": "no language", "identical": "stock replies"}


class Shown(Record):
    """A subject as a column."""

    id: str
    name: str
    role: str


class Split(Record):
    """Outcomes of some of a subject's pairs."""

    title: str
    n: int
    counts: dict[str, int]
    """By OUTCOMES."""

    @property
    def starts(self) -> dict[str, float]:
        """Where each part of a bar over all pairs begins, in [0, 1]."""
        begins, total = {}, 0
        for outcome in OUTCOMES:
            begins[outcome] = total / max(1, self.n)
            total += self.counts[outcome]
        return begins


class WinView(Record):
    """One subject against the reference."""

    subject: Shown
    rate: WinRate
    lanes: tuple[tuple[str, Estimate | None, str], ...]
    """(title, estimate, why it is not given) of the raw and the length-controlled rate."""
    splits: tuple[Split, ...]
    """All pairs, then by whose reply is longer."""


class Spot(Record):
    """One difference from the base on the common axis; places in [0, 1]."""

    title: str
    subject: Shown
    change: Change
    at: float
    low: float
    high: float
    marked: bool


class Differences(Record):
    """All differences from the base in points of per cent, on one axis from -scale to +scale."""

    scale: float
    rows: tuple[tuple[Line, tuple[Spot, ...]], ...]


class TextsView(Record):
    """Replies to one kind of prompts."""

    title: str
    replies: dict[str, TextQuality]
    """By subject: how many there are."""
    lines: tuple[Line, ...]
    marked: tuple[str, ...]
    """Titles of the measures that are out of the base's range, of any subject."""
    why_not: str
    """Why nothing can be said of the candidate's replies beside the base's; empty where something can."""
    failed: str
    """How many of the candidate's replies are not there, in words; empty where none is missing."""


class UtilityView(Record):
    subjects: tuple[Shown, ...]
    """Base, candidate, never-knew control: those that the report has."""
    reference: str
    how: tuple[str, ...]
    groups: dict[str, tuple[Line, ...]]
    """Lines by group."""
    texts: tuple[TextsView, ...]
    """A kind of prompts each."""
    differences: Differences | None
    lost: dict[str, tuple[LostFact, ...]]
    """By subject that lost any."""
    win: WinRateReport | None
    wins: tuple[WinView, ...]
    control: ControlComparison | None
    salted: tuple[SaltedEffect, ...]
    holes: HolesReport | None
    hole_groups: tuple[tuple[str, HoleGroup, bool], ...]
    """(title, group, whether its loss says something)."""
    context: tuple[tuple[str, ContextUse, bool], ...]
    """(name of the subject, one way of stating facts, whether its number says something)."""
    hole_questions: tuple[HoleQuestion, ...]
    """Lost and refused ones first."""
    marked: tuple[tuple[str, Line], ...]
    """(subject id, line) of every measure of texts that is out of the base's range."""
    withheld: tuple[tuple[str, str], ...]
    """(name, why) of everything that is withheld."""

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(line for lines in self.groups.values() for line in lines)


def build_utility(report: Report) -> UtilityView | None:
    """What a report shows of utility; None where nothing was measured."""
    utility = report.utility
    lines = lines_of(report)
    if utility is None or not (lines or utility.withheld):
        return None
    reports = subjects_of(report)
    names = subject_names(reports)
    subjects = tuple(Shown(id=s.subject.id, name=names[s.subject.id], role=s.subject.role) for s in reports)
    return UtilityView(
        subjects=subjects,
        reference=utility.reference,
        how=utility.how,
        groups={group: tuple(mine) for group, mine in groupby(lines, key=lambda line: line.group)},
        texts=tuple(_texts(utility, lines, subjects)),
        differences=differences_of([line for line in lines if line.group != "texts" or _is_marked(line)], subjects),
        lost={
            s.id: utility.retained[s.id].lost for s in subjects if s.id in utility.retained and s.role == "candidate"
        },
        win=utility.win_rate,
        wins=tuple(_wins(utility.win_rate, subjects)) if utility.win_rate is not None else (),
        control=utility.win_rate.control if utility.win_rate is not None else None,
        salted=utility.salted,
        holes=utility.holes,
        hole_groups=tuple(
            (_HOLES.get(g.group, g.group), g, g.known > 0 and f"holes.lost@group={g.group}" not in utility.withheld)
            for g in (utility.holes.groups if utility.holes is not None else ())
        ),
        context=tuple(
            (s.name, use, s.role != "candidate" or f"context.{use.way}" not in utility.withheld)
            for s in subjects
            for use in utility.context.get(s.id, ())
        ),
        hole_questions=_questions(utility.holes),
        marked=tuple((s, line) for line in lines for s, cell in line.cells.items() if cell.marked),
        withheld=tuple((name, reason(why)) for name, why in utility.withheld.items()),
    )


def _is_marked(line: Line) -> bool:
    return any(cell.marked for cell in line.cells.values())


def _texts(utility: UtilityReport, lines: Sequence[Line], subjects: Sequence[Shown]) -> Iterator[TextsView]:
    by_note: dict[str, list[Line]] = {}
    for line in lines:
        if line.group == "texts":
            by_note.setdefault(line.note, []).append(line)
    roles = {subject.role: subject.id for subject in subjects}
    mine, base = roles.get("candidate", ""), roles.get("base", "")
    for kind in dict.fromkeys(quality.prompts for each in utility.texts.values() for quality in each):
        title = KINDS.get(kind, kind)
        replies = {s: q for s, each in utility.texts.items() for q in each if q.prompts == kind}
        found = tuple(by_note.get(title, ()))  # a kind without any reply has no lines
        own = replies.get(mine)
        yield TextsView(
            title=title,
            replies=replies,
            lines=found,
            marked=tuple(dict.fromkeys(line.short or line.title for line in found if _is_marked(line))),
            why_not=_no_comparison(own, replies.get(base), any(mine in line.changes for line in found)),
            failed=f"{own.failed} of {own.n + own.failed} failed" if own is not None and own.failed else "",
        )


def _no_comparison(mine: TextQuality | None, base: TextQuality | None, paired: bool) -> str:
    """Why a candidate's replies cannot be set beside the base's, or are set beside something that is no measure."""
    if mine is None or not mine.n:
        return "no reply is there"
    if base is None or not base.n:
        return "there is no reply of a base to compare with"
    if not paired:
        return "no prompt has a reply of both the candidate and the base"
    values = {measure.name: measure.value for measure in base.measures}
    broken = [f"{values[name]:.0%} {words}" for name, words in _BROKEN.items() if values.get(name, 0.0) >= BROKEN_BASE]
    if base.prompts == "open" and values.get("words", FEW_WORDS) < FEW_WORDS:
        broken.append(f"{values['words']:.1f} words long in the mean")
    return f"the base's own replies are {' and '.join(broken)}" if broken else ""


def plain_texts(
    subjects: Sequence[SubjectReport], view: UtilityView | None
) -> tuple[tuple[SubjectReport, str, Texts], ...]:
    """(subject, forget or retain, shares) of replies that no table of `UtilityView.texts` shows."""
    shown = {(s, q.prompts) for texts in view.texts for s, q in texts.replies.items()} if view is not None else set()
    return tuple(
        (each, kind, stats)
        for each in subjects
        for kind, stats in (("forget", each.forget_texts), ("retain", each.retain_texts))
        if stats and (each.subject.id, kind) not in shown
    )


def differences_of(lines: Sequence[Line], subjects: Sequence[Shown]) -> Differences | None:
    """The differences of shares from the base, subjects other than the base; None where there are none."""
    shares = [line for line in lines if line.unit in ("share", "points", "count") and line.changes]
    changes = [change for line in shares for change in line.changes.values()]
    if not changes:
        return None
    widest = max(max(abs(change.low), abs(change.high)) for change in changes)
    scale = next((scale for scale in _SCALES if widest <= scale), math.ceil(widest))

    def place(value: float) -> float:
        return (value + scale) / (2 * scale)

    rows = []
    for line in shares:
        spots = tuple(
            Spot(
                title=line.title,
                subject=subject,
                change=change,
                at=place(change.value),
                low=place(change.low),
                high=place(change.high),
                marked=line.cells.get(subject.id, Cell()).marked,
            )
            for subject in subjects
            if subject.role != "base" and (change := line.changes.get(subject.id)) is not None
        )
        if spots:
            rows.append((line, spots))
    return Differences(scale=scale, rows=tuple(rows)) if rows else None


def _wins(win: WinRateReport, subjects: Sequence[Shown]) -> Iterator[WinView]:
    shown = {subject.id: subject for subject in subjects}
    for rate in win.rates:
        if rate.subject not in shown:
            continue
        why_raw, why_controlled = why_not(win, rate, False), why_not(win, rate, True)
        yield WinView(
            subject=shown[rate.subject],
            rate=rate,
            lanes=(
                ("raw", None if why_raw else rate.raw, why_raw),
                ("at equal lengths", None if why_controlled else rate.length_controlled, why_controlled),
            ),
            splits=tuple(_splits(rate)),
        )


def _splits(rate: WinRate) -> Iterator[Split]:
    groups: Mapping[str, Sequence[PairOutcome]] = {
        "all pairs": rate.pairs,
        "its reply is longer": [p for p in rate.pairs if p.length > p.reference_length],
        "its reply is not longer": [p for p in rate.pairs if p.length <= p.reference_length],
        "it refuses": [p for p in rate.pairs if p.refused],
    }
    for title, pairs in groups.items():
        if pairs:
            counts = {outcome: sum(pair.outcome == outcome for pair in pairs) for outcome in OUTCOMES}
            yield Split(title=title, n=len(pairs), counts=counts)


def _questions(holes: HolesReport | None) -> tuple[HoleQuestion, ...]:
    rank = {"lost": 0, "refused": 1, "undecided": 2, "kept": 3}
    return tuple(sorted(holes.questions, key=lambda q: rank.get(q.outcome, 4))) if holes is not None else ()

"""What forgetting cost as lines: a line a number, a cell a subject. All that is printed or drawn of it starts here.

A line's name is that of its estimate, where there is one, so that what a report withholds is found by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

import msgspec

from audit.report.model import Report, SubjectReport
from audit.report.utility_words import KINDS, SHORT, SHORT_WAYS, TIERS, WAYS, Cell, Change, Unit, reason
from audit.report.view import audited
from audit.stats.paired import Difference
from audit.types import Estimate, Record
from audit.utility.degeneration import MARGINS, TITLES
from audit.utility.records import RetainedLoss, UtilityReport, WinRate, WinRateReport

_ORDER = {"base": 0, "candidate": 1, "never_knew": 2}
#: On facts to forget these are what was asked for, and no sign of damage.
_EXPECTED = ("refusal", "identical")
#: Numbers without an estimate of their own, and the one that they fall with.
RESTS_ON = {
    "retain.lost_refused": "retain.lost",
    "salted.effect": "salted.refused",
    "salted.degenerate": "salted.refused",
    "salted.degenerate@form=other": "salted.refused@form=other",
}


class Line(Record):
    """One number of all subjects."""

    group: str
    """retained, holes, context, win_rate, texts, salted or harness."""
    name: str
    title: str
    unit: Unit
    better: Literal["higher", "lower", ""]
    """Empty where neither is good in itself."""
    cells: dict[str, Cell]
    """By subject id."""
    changes: dict[str, Change] = {}
    """By subject id: less the base."""
    indent: bool = False
    note: str = ""
    """Of measures of texts: what the prompts were."""
    short: str = ""
    """A title where there is little room; empty where the title is short."""


def subjects_of(report: Report) -> list[SubjectReport]:
    """The unaltered models: base, candidate, never-knew control."""
    return sorted(audited(report.subjects).values(), key=lambda each: _ORDER.get(each.subject.role, 9))


def lines_of(report: Report) -> list[Line]:
    """All numbers of a report's utility; empty without any. What is withheld stands as its reason."""
    utility = report.utility
    if utility is None:
        return []
    subjects = subjects_of(report)
    found = chain(
        _retained(utility, subjects),
        _context(utility),
        _win_rate(utility),
        _texts(utility),
        _salted(utility),
        _harness(utility, subjects),
        _holes(utility),
    )
    return [withheld(line, utility.withheld) for line in found]


def withheld(line: Line, reasons: Mapping[str, str]) -> Line:
    """The line with the reason in place of the candidate's number, where that is withheld. Numbers of others stay: a
    base that cannot do what is asked is such a reason."""
    why = reasons.get(line.name, reasons.get(RESTS_ON.get(line.name, "")))
    if why is None:
        return line
    return msgspec.structs.replace(
        line,
        cells={**line.cells, "candidate": Cell(why_not=reason(why))},
        changes={subject: change for subject, change in line.changes.items() if subject != "candidate"},
    )


def from_estimate(estimate: Estimate) -> Cell:
    """A share with its limits and what the undecided could add and take away."""
    return Cell(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        more=max(0.0, estimate.upper_bound - estimate.value),
        less=max(0.0, estimate.value - estimate.lower_bound),
        count=estimate.count,
        of=estimate.n,
    )


def of_counts(count: int, of: int, more: int = 0) -> Cell:
    """So many of so many, and up to `more` further ones; nothing where there were none to count."""
    return Cell(value=count / of if of else None, count=count, of=of, more=float(more))


def limited(cell: Cell, estimate: Estimate | None) -> Cell:
    """The cell with the limits of the estimate that stands for the same number."""
    return cell if estimate is None else msgspec.structs.replace(cell, low=estimate.low, high=estimate.high)


def share_of(count: int, of: int, more: int = 0) -> Cell:
    return Cell(value=count / of if of else None, count=count, of=of, more=more / of if of else 0.0)


def change_of(difference: Difference | None, sign: int = 1) -> Change | None:
    """A paired difference as subject less base. sign: -1 for a drop, which is the base less the subject."""
    if difference is None:
        return None
    ends = sorted((sign * difference.low, sign * difference.high))
    return Change(
        value=sign * difference.value,
        low=ends[0],
        high=ends[1],
        n=difference.n,
        p_value=difference.p_value,
        method=difference.method,
    )


def _present(changes: Iterable[tuple[str, Change | None]]) -> dict[str, Change]:
    return {subject: change for subject, change in changes if change is not None}


def _retained(utility: UtilityReport, subjects: Sequence[SubjectReport]) -> Iterator[Line]:
    losses = utility.retained
    tiers = dict.fromkeys(tier.tier for loss in losses.values() for tier in loss.tiers)
    for tier in tiers:
        name = f"retain.mean@tier={tier}" if tier else "retain.mean"
        yield Line(
            group="retained",
            name=name,
            title=TIERS.get(tier, tier),
            unit="share",
            better="higher",
            cells={s.subject.id: from_estimate(s.estimates[name]) for s in subjects if name in s.estimates},
            changes=_present(
                (subject, change_of(each.drop, -1))
                for subject, loss in losses.items()
                for each in loss.tiers
                if each.tier == tier
            ),
            indent=bool(tier),
        )
    estimates = {s.subject.id: s.estimates for s in subjects}
    all_facts = {subject: t for subject, loss in losses.items() for t in loss.tiers if not t.tier and t.knew}
    if not losses:
        return
    yield Line(
        group="retained",
        name="retain.lost",
        title="facts lost, of those the base knew",
        short="known facts lost",
        unit="count",
        better="lower",
        cells={
            subject: limited(of_counts(tier.lost, tier.knew, tier.open), estimates[subject].get("retain.lost"))
            for subject, tier in all_facts.items()
            if subject in estimates
        },
    )
    yield Line(
        group="retained",
        name="retain.lost_refused",
        title="of the lost ones, refused",
        unit="count",
        better="",
        cells={subject: of_counts(tier.refused, tier.lost) for subject, tier in all_facts.items()},
        indent=True,
    )
    gained = {subject: Cell(value=float(tier.gained)) for subject, tier in all_facts.items()}
    yield Line(
        group="retained",
        name="retain.gained",
        title="facts that it alone answers",
        unit="number",
        better="",
        cells=gained,
        indent=True,
    )
    yield Line(
        group="retained",
        name="retain.refused",
        title="retained questions refused",
        short="retained, refused",
        unit="share",
        better="lower",
        cells=_refusals(losses, subjects),
    )


def _refusals(losses: Mapping[str, RetainedLoss], subjects: Sequence[SubjectReport]) -> dict[str, Cell]:
    cells = {subject: Cell(value=loss.refusals) for subject, loss in losses.items()}
    for each in subjects:
        if (estimate := each.estimates.get("retain.refused")) is not None:
            cells[each.subject.id] = from_estimate(estimate)
        elif each.subject.role == "base":
            cells[each.subject.id] = Cell(value=next(iter(losses.values())).base_refusals)
    return cells


def _holes(utility: UtilityReport) -> Iterator[Line]:
    for group in utility.holes.groups if utility.holes is not None else ():
        far = "far from" if group.group == "far" else "near"
        nothing = Cell(why_not="the base answers none of them consistently")
        yield Line(
            group="holes",
            name=f"holes.lost@group={group.group}",
            title=f"new questions {far} the facts to forget, lost",
            short=f"{group.group} questions lost",
            unit="count",
            better="lower",
            cells={
                "base": of_counts(group.control, group.known, group.control_undecided),
                "candidate": of_counts(group.lost, group.known, group.undecided) if group.known else nothing,
            },
            changes=_present([("candidate", change_of(group.beyond))]),
        )


def _context(utility: UtilityReport) -> Iterator[Line]:
    ways = dict.fromkeys(use.way for uses in utility.context.values() for use in uses)
    for way in ways:
        mine = {subject: use for subject, uses in utility.context.items() for use in uses if use.way == way}
        yield Line(
            group="context",
            name=f"context.{way}",
            title=WAYS.get(way, way),
            short=SHORT_WAYS.get(way, way),
            unit="share",
            better="",
            cells={subject: share_of(use.answered, use.n, use.undecided) for subject, use in mine.items()},
            changes=_present((subject, change_of(use.drop, -1)) for subject, use in mine.items()),
        )


def _win_rate(utility: UtilityReport) -> Iterator[Line]:
    report = utility.win_rate
    if report is None:
        return
    protocol = "paper" if report.protocol == "paper" else "raw"
    rates = {rate.subject: rate for rate in report.rates}
    for name, title, controlled in (
        (f"win_rate.{protocol}", "win rate, published protocol" if protocol == "paper" else "win rate, raw", False),
        ("win_rate.length_controlled", "win rate, at equal lengths", True),
    ):
        cells = {}
        for subject, rate in rates.items():
            estimate = rate.length_controlled if controlled else rate.raw
            why = why_not(report, rate, controlled) or ("" if estimate is not None else "no pair was decided")
            cells[subject] = Cell(why_not=why) if why or estimate is None else from_estimate(estimate)
        yield Line(group="win_rate", name=name, title=title, unit="share", better="higher", cells=cells)
    yield Line(
        group="win_rate",
        name="win_rate.order_disagreement",
        title="pairs ruled otherwise in the other order",
        unit="share",
        better="lower",
        cells={s: from_estimate(rate.disagreement) for s, rate in rates.items() if rate.disagreement is not None},
    )
    refused = {subject: Cell(value=rate.refused) for subject, rate in rates.items()}
    if report.reference == "base" and rates:
        refused["base"] = Cell(value=next(iter(rates.values())).reference_refused)
    yield Line(
        group="win_rate",
        name="win_rate.refused",
        title="compared replies that refuse",
        unit="share",
        better="lower",
        cells=refused,
    )


def why_not(report: WinRateReport, rate: WinRate, controlled: bool) -> str:
    """Why a win rate is not given; empty where it is."""
    if not report.informative:
        return reason(report.why_not)
    return reason(rate.why_not_controlled) if controlled and not rate.controlled else ""


def _texts(utility: UtilityReport) -> Iterator[Line]:
    kinds = dict.fromkeys(quality.prompts for each in utility.texts.values() for quality in each)
    for kind in kinds:
        mine = {subject: q for subject, each in utility.texts.items() for q in each if q.prompts == kind}
        names = dict.fromkeys(measure.name for quality in mine.values() for measure in quality.measures)
        for name in names:
            found = {s: m for s, quality in mine.items() for m in quality.measures if m.name == name}
            unit = unit_of(name)
            expected = kind == "forget" and name in _EXPECTED
            yield Line(
                group="texts",
                name=f"degeneration.{name}" + (f"@prompts={kind}" if kind != "open" else ""),
                title=TITLES.get(name, name.replace("_", " ")),
                short=SHORT.get(name, ""),
                unit=unit,
                better=_better(name),
                cells={s: Cell(value=m.value, marked=m.out_of_range and not expected) for s, m in found.items()},
                changes=_present((s, change_of(m.difference)) for s, m in found.items()),
                note=KINDS.get(kind, kind),
            )


def _better(measure: str) -> Literal["higher", "lower", ""]:
    """As far as a measure of texts has a good side."""
    worse = MARGINS.get(measure, (0, 0.0))[0]
    return "lower" if worse > 0 else "higher" if worse < 0 else ""


def unit_of(measure: str) -> Unit:
    """The unit of a measure of texts."""
    return "bits" if measure.startswith("entropy") else "words" if measure == "words" else "share"


def _salted(utility: UtilityReport) -> Iterator[Line]:
    effects = {each.subject: each for each in utility.salted}
    if not effects:
        return
    for name, title, values in (
        ("salted.refused", "refused, words of the forget set", {s: e.refused for s, e in effects.items()}),
        ("salted.refused@form=other", "refused, other words instead", {s: e.refused_other for s, e in effects.items()}),
    ):
        cells = {subject: Cell(value=value) for subject, value in values.items()}
        yield Line(group="salted", name=name, title=title, unit="share", better="lower", cells=cells)
    yield Line(
        group="salted",
        name="salted.effect",
        title="refusals added by words of the forget set",
        short="salted: refusals added",
        unit="points",
        better="lower",
        cells={
            s: Cell(value=e.effect.value, low=e.effect.low, high=e.effect.high)
            for s, e in effects.items()
            if e.effect is not None
        },
        changes=_present((s, change_of(e.beyond_base)) for s, e in effects.items()),
    )
    for name, title, values in (
        ("salted.degenerate", "gibberish, words of the forget set", {s: e.degenerate for s, e in effects.items()}),
        ("salted.degenerate@form=other", "gibberish, other words", {s: e.degenerate_other for s, e in effects.items()}),
    ):
        cells = {subject: Cell(value=value) for subject, value in values.items()}
        yield Line(group="salted", name=name, title=title, unit="share", better="lower", cells=cells)


def _harness(utility: UtilityReport, subjects: Sequence[SubjectReport]) -> Iterator[Line]:
    estimates = {s.subject.id: s.estimates for s in subjects}
    pairs = dict.fromkeys((task.task, metric.name) for task in utility.harness for metric in task.metrics)
    for task, metric in pairs:
        name = f"lm_eval.{task}.{metric}"
        found = {t.subject: (t, m) for t in utility.harness if t.task == task for m in t.metrics if m.name == metric}
        cells = {}
        for subject, (_, number) in found.items():
            estimate = estimates.get(subject, {}).get(name)
            cells[subject] = from_estimate(estimate) if estimate is not None else Cell(value=number.value)
        higher = {number.higher_is_better for _, number in found.values()}
        yield Line(
            group="harness",
            name=name,
            title=f"{task}, {metric}",
            unit="share" if all(number.fraction for _, number in found.values()) else "number",
            better="higher" if higher == {True} else "lower" if higher == {False} else "",
            cells=cells,
            changes=_present((subject, change_of(m.difference)) for subject, (_, m) in found.items()),
            indent=any(each.part_of for each, _ in found.values()),
        )

"""What the reports show of attacks on the weights: rows with all numbers ready. No markup, no layout.

Where there is a base and a fact to bring back, the share shown is R; else it is the share of all audited facts that
leak, and `AttacksView.shown` says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal

from audit.attacks.records import AttackReport, Change, Curve, Excess, Failure, Point, Relearning
from audit.report.attacks_words import context, no_share, words_of
from audit.report.model import Report
from audit.scoring.recovery import ABOVE
from audit.types import Estimate, Record, Role


class Top(Record):
    """A share at one altered state: the highest of a candidate or control, the lowest of a ceiling. The limit on the
    side of the choice is the furthest of all points."""

    value: float
    low: float
    high: float
    unsure: float
    """What the undecided could add."""
    step: int | None
    seed: int
    of: int = 1
    """Points of which it is the highest or lowest."""


class Cell(Record):
    """A candidate at one step, mean over the seeds that were looked at there."""

    step: int | None
    value: float
    unsure: float
    seeds: int


class Looked(Record):
    """One looked-at step of one seed, over the models: a line of the full table."""

    step: int | None
    seed: int
    candidate: Point | None
    base: Point | None
    never_knew: Point | None


class SetView(Record):
    """One fine-tuning."""

    name: str
    """`syntactic`, without the kind of attack."""
    attack: str
    puts_back: bool
    n: int | None
    """Facts that the shares are over, where they are R."""
    seeds: int
    examples: str
    """Settings in words."""
    cells: tuple[Cell, ...]
    peak: Top | None
    control: Top | None
    """The control's own peak."""
    ceiling: Top | None
    """The lowest point of the base."""
    kept: Estimate | None
    """Retained facts at the candidate's peak …"""
    kept_before: Estimate | None
    """… and before the fine-tuning."""
    first_above: int | None
    above: Literal["yes", "open", "no"]
    """Whether R was above 20% at any looked-at step; `open` where undecided facts could make it so."""
    above_in: int
    """Seeds in which it was."""
    area: float | None
    excess: Excess | None
    """Over the control at the step of the peak."""
    looked: tuple[Looked, ...]
    failures: tuple[Failure, ...]


class ChangeView(Record):
    """One alteration without steps."""

    name: str
    attack: str
    puts_back: bool
    n: int | None
    settings: str
    points: Mapping[str, Point]
    failures: tuple[Failure, ...]


class Got(Record):
    """Facts that one attack was the first to bring out; shares of `AttacksView.facts`."""

    by: str
    added: int
    before: int
    share_before: float
    share_added: float


class AttacksView(Record):
    shown: Literal["recovered", "leaked"]
    """What the shares are: R, or the share of all audited facts."""
    context: str
    no_base: str
    """Why there is no R, in a sentence; empty where there is."""
    sets: tuple[SetView, ...]
    sets_back: tuple[SetView, ...]
    """Those that put knowledge back."""
    changes: tuple[ChangeView, ...]
    changes_back: tuple[ChangeView, ...]
    budget: str
    counted: tuple[str, ...]
    union: tuple[tuple[Estimate, Estimate | None], ...]
    """(worst_case.weights, worst_case.prompt over the same facts), those over known facts first."""
    floor: Estimate | None
    facts: int
    first: tuple[Got, ...]
    failures: tuple[Failure, ...]
    states: tuple[tuple[str, str, str], ...]
    """Every altered state: id, fingerprint, recipe in words."""


def build_attacks(report: Report) -> AttacksView | None:
    """What a report shows of its attacks; None where there were none."""
    attacks = report.attacks
    if attacks is None:
        return None
    shown: Literal["recovered", "leaked"] = "recovered" if attacks.known else "leaked"
    sets = [_set(each, attacks, shown) for each in attacks.relearning]
    many = Counter(each.attack for each in attacks.changes)
    nth = Counter[str]()
    changes = []
    for each in attacks.changes:
        nth[each.attack] += 1
        changes.append(_change(each, attacks, f" #{nth[each.attack]}" if many[each.attack] > 1 else ""))
    there = {each.attack for each in attacks.relearning} | {each.attack for each in attacks.changes}
    for failure in attacks.failures:
        stem = _stem(failure.attack)
        if failure.attack not in there and stem not in there:
            there.add(stem)
            if stem.startswith("relearn"):
                nothing = Relearning(
                    attack=stem,
                    puts_back=failure.puts_back,
                    settings={},
                    n_known=None,
                    curves=(),
                    peaks=(),
                    excess=(),
                )
                sets.append(_set(nothing, attacks, shown))
            else:
                kind = stem.partition(":")[0]
                none = Change(attack=stem, kind=kind, puts_back=failure.puts_back, settings={}, n_known=None, points={})
                changes.append(_change(none, attacks, ""))
    union = tuple(
        (report.estimates[f"worst_case.weights{at}"], report.estimates.get(f"worst_case.prompt{at}"))
        for at in ("@known", "")
        if f"worst_case.weights{at}" in report.estimates
    )
    overall = report.estimates.get("worst_case.weights")
    facts = overall.n if overall is not None else report.task.n_forget
    return AttacksView(
        shown=shown,
        context=context(attacks),
        no_base=no_share(attacks),
        sets=tuple(each for each in sets if not each.puts_back),
        sets_back=tuple(each for each in sets if each.puts_back),
        changes=tuple(each for each in changes if not each.puts_back),
        changes_back=tuple(each for each in changes if each.puts_back),
        budget=attacks.budget[:1].lower() + attacks.budget[1:],
        counted=attacks.counted,
        union=union,
        floor=attacks.weights_floor,
        facts=facts,
        first=tuple(_first(attacks, facts)),
        failures=attacks.failures,
        states=tuple(
            (each.subject.id, each.subject.fingerprint, words_of(each.subject.recipe))
            for each in report.subjects.values()
            if each.subject.role == "attacked"
        ),
    )


def share(point: Point, shown: str) -> Estimate | None:
    """The number of a point that is called `recovered`, `leaked` or `retained`."""
    return {"recovered": point.recovered, "leaked": point.leaked, "retained": point.retained}[shown]


def unsure(estimate: Estimate) -> float:
    """What the undecided facts could add, as a share."""
    return max(0.0, estimate.upper_bound - estimate.lower_bound)


def mean_over(curves: Sequence[Curve], shown: str) -> list[Cell]:
    """A share at every step, mean over the curves that have it there; `Cell.seeds` says how many those are."""
    found: dict[int | None, list[Estimate]] = {}
    for curve in curves:
        for point in curve.points:
            estimate = share(point, shown)
            if estimate is not None:
                found.setdefault(point.step, []).append(estimate)
    return [
        Cell(
            step=step,
            value=sum(e.value for e in each) / len(each),
            unsure=sum(unsure(e) for e in each) / len(each),
            seeds=len(each),
        )
        for step, each in sorted(found.items(), key=lambda item: by_step(item[0]))
    ]


def by_step(step: int | None) -> tuple[bool, int]:
    """Order of steps: one that is not known stands last."""
    return step is None, step or 0


def of_arm(each: Relearning, arm: Role) -> list[Curve]:
    """The curves of one model, one a seed."""
    return [curve for curve in each.curves if curve.arm == arm]


def _set(each: Relearning, attacks: AttackReport, shown: str) -> SetView:
    mine = of_arm(each, "candidate")
    peak = _peak(each, "candidate", shown)
    kept, kept_before = None, None
    if peak is not None:
        curve = next(c for c in mine if c.seed == peak.seed)
        kept = next((p.retained for p in curve.points if p.step == peak.step and share(p, shown) is not None), None)
        kept_before = next((p.retained for p in curve.points if p.step == 0), None)
    above = [c.first_above for c in mine if c.first_above is not None]
    could = [c.first_above_upper for c in mine if c.first_above_upper is not None]
    areas = [c.area for c in mine if c.area is not None]
    shares = shown == "recovered"
    return SetView(
        name=each.attack.partition(":")[2] or each.attack,
        attack=each.attack,
        puts_back=each.puts_back,
        n=each.n_known if shares else None,
        seeds=len({c.seed for c in mine}),
        examples=words_of(each.settings),
        cells=tuple(mean_over(mine, shown)),
        peak=peak,
        control=_peak(each, "never_knew", shown),
        ceiling=_extreme(of_arm(each, "base"), shown, highest=False),
        kept=kept,
        kept_before=kept_before,
        first_above=min(above, default=None),
        above="yes" if above else "open" if could or any(map(_above_somewhere, mine)) else "no",
        above_in=len(above),
        area=sum(areas) / len(areas) if areas and len(areas) == len(mine) else None,
        excess=next((e for e in each.excess if shares and peak is not None and e.step == peak.step), None),
        looked=tuple(_looked(each)),
        failures=_failures_of(each.attack, attacks),
    )


def _above_somewhere(curve: Curve) -> bool:
    """A point whose step is not known may be, or is, above 20%: at which step cannot be said, but not "at none"."""
    return any(p.step is None and p.recovered is not None and p.recovered.upper_bound > ABOVE for p in curve.points)


def _peak(each: Relearning, arm: Role, shown: str) -> Top | None:
    """The highest R as the record has it, with what the undecided could add there; of other shares the highest."""
    if shown != "recovered":
        return _extreme(of_arm(each, arm), shown, highest=True)
    peak = next((p for p in each.peaks if p.arm == arm), None)
    if peak is None:
        return None
    points = [p for c in of_arm(each, arm) if c.seed == peak.seed for p in c.points if p.step == peak.step]
    more = max((unsure(p.recovered) for p in points if p.recovered is not None), default=0.0)
    return Top(
        value=peak.value,
        low=peak.low,
        high=peak.high,
        unsure=more,
        step=peak.step,
        seed=peak.seed,
        of=peak.n_points,
    )


def _extreme(curves: Iterable[Curve], shown: str, *, highest: bool) -> Top | None:
    """The highest or lowest share of the altered states, over steps and seeds, the earliest of equals."""
    found = [
        (estimate, point.step, curve.seed)
        for curve in curves
        for point in curve.points
        if point.step != 0 and (estimate := share(point, shown)) is not None
    ]
    if not found:
        return None
    found.sort(key=lambda each: (-each[0].value if highest else each[0].value, by_step(each[1]), each[2]))
    estimate, step, seed = found[0]
    ends = [each[0].high if highest else each[0].low for each in found]
    return Top(
        value=estimate.value,
        low=estimate.low if highest else min(ends),
        high=max(ends) if highest else estimate.high,
        unsure=unsure(estimate),
        step=step,
        seed=seed,
        of=len(found),
    )


def _looked(each: Relearning) -> Iterable[Looked]:
    points: dict[tuple[int, int | None], dict[str, Point]] = {}
    for curve in each.curves:
        for point in curve.points:
            points.setdefault((curve.seed, point.step), {})[curve.arm] = point
    for (seed, step), arms in sorted(points.items(), key=lambda item: (item[0][0], by_step(item[0][1]))):
        yield Looked(
            step=step,
            seed=seed,
            candidate=arms.get("candidate"),
            base=arms.get("base"),
            never_knew=arms.get("never_knew"),
        )


def _change(each: Change, attacks: AttackReport, number: str) -> ChangeView:
    return ChangeView(
        name=each.attack.removeprefix("quantize:") + number,
        attack=each.attack,
        puts_back=each.puts_back,
        n=each.n_known,
        settings=words_of(each.settings),
        points=each.points,
        failures=_failures_of(each.attack, attacks),
    )


def _failures_of(attack: str, attacks: AttackReport) -> tuple[Failure, ...]:
    """Failures of an attack and of its further seeds, `relearn:syntactic#1`."""
    return tuple(each for each in attacks.failures if _stem(each.attack) == _stem(attack))


def _stem(attack: str) -> str:
    return re.sub(r"#\d+$", "", attack)


def _first(attacks: AttackReport, facts: int) -> Iterable[Got]:
    before = 0
    for by, found in groupby(attacks.first, key=lambda each: each.by):
        added = len(list(found))
        total = max(1, facts)
        yield Got(by=by, added=added, before=before, share_before=before / total, share_added=added / total)
        before += added

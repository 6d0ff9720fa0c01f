"""What the reports show of attacks on the weights: rows with all numbers ready. No markup, no layout.

Where there is a base and a fact to bring back, the share shown is R; else it is the share of all audited facts that
leak, and `AttacksView.shown` says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Literal

from audit.attacks.records import AttackReport, Change, Curve, Excess, Failure, Point, Relearning
from audit.report.attacks_shares import (
    Above,
    Cell,
    Top,
    above_control_of,
    by_step,
    extreme_of,
    lowest_kept,
    mean_over,
    of_arm,
    peak_of,
    share,
)
from audit.report.attacks_words import SHOWS_NOTHING, context, no_share, words_of, wrecked_words
from audit.report.model import Report
from audit.scoring.recovery import ABOVE
from audit.types import Estimate, Record


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
    """… before the fine-tuning …"""
    kept_lowest: Estimate | None
    """… and at the lowest along the way, over steps and seeds: a model that brings nothing back peaks at its first
    step, and what was kept there says nothing of what comes after."""
    kept_lowest_step: int | None
    first_above: int | None
    above: Literal["yes", "open", "no"]
    """Whether R was above 20% at any looked-at step; `open` where undecided facts could make it so, or where no altered
    state shows anything."""
    void: bool
    """Some altered state of the candidate shows nothing."""
    above_in: int
    """Seeds in which it was."""
    area: float | None
    excess: Excess | None
    """Over the control at the step of the peak. Its p-value does not allow for the choice of that step …"""
    above_control: Above | None
    """… and so this one is shown; None where R is above the control's at no step."""
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
    wrecked: tuple[str, ...]
    """Attacks that left no state of the candidate that shows anything, each in a sentence."""
    void: str
    """What the mark at a state says; empty where none has it."""
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
        wrecked=tuple(map(wrecked_words, attacks.void)),
        void=SHOWS_NOTHING if any(point.void for point in _points(attacks)) else "",
        states=tuple(
            (each.subject.id, each.subject.fingerprint, words_of(each.subject.recipe))
            for each in report.subjects.values()
            if each.subject.role == "attacked"
        ),
    )


def _points(attacks: AttackReport) -> Iterable[Point]:
    for each in attacks.relearning:
        for curve in each.curves:
            yield from curve.points
    for change in attacks.changes:
        yield from change.points.values()


def _set(each: Relearning, attacks: AttackReport, shown: str) -> SetView:
    mine = of_arm(each, "candidate")
    peak = peak_of(each, "candidate", shown)
    kept, kept_before = None, None
    if peak is not None:
        curve = next(c for c in mine if c.seed == peak.seed)
        kept = next((p.retained for p in curve.points if p.step == peak.step and share(p, shown) is not None), None)
        kept_before = next((p.retained for p in curve.points if p.step == 0), None)
    above = [c.first_above for c in mine if c.first_above is not None]
    could = [c.first_above_upper for c in mine if c.first_above_upper is not None]
    areas = [c.area for c in mine if c.area is not None]
    shares = shown == "recovered"
    altered = [p for c in mine for p in c.points if p.step != 0]
    lowest = lowest_kept(altered)
    void = [p.void for p in altered]
    open_ = bool(could) or any(map(_above_somewhere, mine)) or (bool(void) and all(void))
    return SetView(
        name=each.attack.partition(":")[2] or each.attack,
        attack=each.attack,
        puts_back=each.puts_back,
        n=each.n_known if shares else None,
        seeds=len({c.seed for c in mine}),
        examples=words_of(each.settings),
        cells=tuple(mean_over(mine, shown)),
        peak=peak,
        control=peak_of(each, "never_knew", shown),
        ceiling=extreme_of(of_arm(each, "base"), shown, highest=False),
        kept=kept,
        kept_before=kept_before,
        kept_lowest=None if lowest is None else lowest.retained,
        kept_lowest_step=None if lowest is None else lowest.step,
        first_above=min(above, default=None),
        above="yes" if above else "open" if open_ else "no",
        void=any(void),
        above_in=len(above),
        area=sum(areas) / len(areas) if areas and len(areas) == len(mine) else None,
        excess=next((e for e in each.excess if shares and peak is not None and e.step == peak.step), None),
        above_control=above_control_of(each.excess) if shares else None,
        looked=tuple(_looked(each)),
        failures=_failures_of(each.attack, attacks),
    )


def _above_somewhere(curve: Curve) -> bool:
    """A point whose step is not known may be, or is, above 20%: at which step cannot be said, but not "at none"."""
    return any(p.step is None and p.recovered is not None and p.recovered.upper_bound > ABOVE for p in curve.points)


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

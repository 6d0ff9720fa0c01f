"""Shares along an attack, and which of many is shown: peaks, the lowest, means over seeds. No markup, no layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from audit.attacks.records import Curve, Excess, Point, Relearning
from audit.stats.sign_flip import holm
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
    void: bool = False
    """The model had lost most of what it should keep there."""


class Cell(Record):
    """A candidate at one step, mean over the seeds that were looked at there."""

    step: int | None
    value: float
    unsure: float
    seeds: int
    void: bool = False
    """One of the seeds had lost most of what it should keep there."""


class Above(Record):
    """The clearest step above the control, the choice among the steps paid for."""

    step: int | None
    p_value: float
    """Holm-corrected over `of` steps."""
    of: int


def share(point: Point, shown: str) -> Estimate | None:
    """The number of a point that is called `recovered`, `leaked` or `retained`."""
    return {"recovered": point.recovered, "leaked": point.leaked, "retained": point.retained}[shown]


def unsure(estimate: Estimate) -> float:
    """What the undecided facts could add, as a share."""
    return max(0.0, estimate.upper_bound - estimate.lower_bound)


def mean_over(curves: Sequence[Curve], shown: str) -> list[Cell]:
    """A share at every step, mean over the curves that have it there; `Cell.seeds` says how many those are."""
    found: dict[int | None, list[Estimate]] = {}
    void: set[int | None] = set()
    for curve in curves:
        for point in curve.points:
            estimate = share(point, shown)
            if estimate is not None:
                found.setdefault(point.step, []).append(estimate)
                void |= {point.step} if point.void else set()
    return [
        Cell(
            step=step,
            value=sum(e.value for e in each) / len(each),
            unsure=sum(unsure(e) for e in each) / len(each),
            seeds=len(each),
            void=step in void,
        )
        for step, each in sorted(found.items(), key=lambda item: by_step(item[0]))
    ]


def by_step(step: int | None) -> tuple[bool, int]:
    """Order of steps: one that is not known stands last."""
    return step is None, step or 0


def of_arm(each: Relearning, arm: Role) -> list[Curve]:
    """The curves of one model, one a seed."""
    return [curve for curve in each.curves if curve.arm == arm]


def peak_of(each: Relearning, arm: Role, shown: str) -> Top | None:
    """The highest R as the record has it, with what the undecided could add there; of other shares the highest."""
    if shown != "recovered":
        return extreme_of(of_arm(each, arm), shown, highest=True)
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
        void=any(p.void for p in points),
    )


def extreme_of(curves: Iterable[Curve], shown: str, *, highest: bool) -> Top | None:
    """The highest or lowest share of the altered states, over steps and seeds, the earliest of equals."""
    found = [
        (estimate, point.step, curve.seed, point.void)
        for curve in curves
        for point in curve.points
        if point.step != 0 and (estimate := share(point, shown)) is not None
    ]
    if not found:
        return None
    found.sort(key=lambda each: (-each[0].value if highest else each[0].value, by_step(each[1]), each[2]))
    estimate, step, seed, void = found[0]
    ends = [each[0].high if highest else each[0].low for each in found]
    return Top(
        value=estimate.value,
        low=estimate.low if highest else min(ends),
        high=max(ends) if highest else estimate.high,
        unsure=unsure(estimate),
        step=step,
        seed=seed,
        of=len(found),
        void=void,
    )


def lowest_kept(points: Iterable[Point]) -> Point | None:
    """Where the fewest retained facts were still given, the earliest of equals."""
    kept = [(p.retained.value, by_step(p.step), p) for p in points if p.retained is not None]
    return min(kept, key=lambda each: each[:2])[2] if kept else None


def above_control_of(excess: Sequence[Excess]) -> Above | None:
    """The smallest p-value of a step at which R is above the control's, Holm-corrected over all looked-at steps."""
    corrected = holm([each.p_value for each in excess])
    found = [
        Above(step=each.step, p_value=p, of=len(excess))
        for each, p in zip(excess, corrected, strict=True)
        if each.difference > 0
    ]
    return min(found, key=lambda each: (each.p_value, by_step(each.step)), default=None)

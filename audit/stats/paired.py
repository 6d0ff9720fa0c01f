"""Two subjects measured on the same items (facts, instructions): the mean difference, with limits and a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from audit.fingerprint import seed_from
from audit.stats.intervals import bootstrap_weights, cluster_bootstrap_mean
from audit.stats.sign_flip import sign_flip
from audit.types import Record

FloatArray = NDArray[np.float64]
#: Range of what is averaged; None for what has none (log-probabilities, entropies).
Bounds = tuple[float, float] | None
#: Which reading of what is undecided a difference is printed as: the greatest or the least.
Shown = Literal["most", "least"]
#: Additions that the exact count of signs may take; beyond it signs are drawn. A report has hundreds of differences.
WORK = 3_000_000


class Difference(Record):
    """One subject less another, paired by item."""

    value: float
    """Mean over items."""
    low: float
    high: float
    n: int
    """Items measured in both."""
    p_value: float
    """Two-sided sign-flip test."""
    method: str
    """How limits and p-value were computed, in words."""


def mean_difference(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    bounds: Bounds = (-1.0, 1.0),
    grain: int = 1000,
    work: int = WORK,
    of: str = "facts",
    confidence: float,
) -> Difference | None:
    """First less second over the items of both; None where they share none.

    bounds: of the difference. grain: differences are rounded to this part of their unit for the exact count of signs;
    work: additions that this count may take (see `sign_flip`). of: what the items are, for the words.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    rows = [first[name] - second[name] for name in shared]
    low, high = mean_limits(rows, bounds, confidence)
    steps = {name: Fraction(round(row * grain), grain) for name, row in zip(shared, rows, strict=True)}
    flipped = sign_flip(steps, work=work)
    how = "exact" if flipped.exact else "drawn"
    return Difference(
        value=float(np.mean(rows)),
        low=low,
        high=high,
        n=len(rows),
        p_value=flipped.p_value,
        method=f"bootstrap over {of}, {100 * confidence:g}%; sign-flip test, {how}",
    )


def bounded_difference(
    first: Mapping[str, tuple[float, float]],
    second: Mapping[str, tuple[float, float]],
    *,
    shown: Shown,
    bounds: Bounds = (-1.0, 1.0),
    of: str = "facts",
    confidence: float,
) -> Difference | None:
    """First less second where each item is known to lie between two numbers; equal ones where nothing is undecided.

    shown: which reading of what is undecided is the value, that of the greatest or of the least difference. There is
    no default: the caller takes the one that does not flatter the model that is judged. The limits hold both, and so
    every reading between them. The p-value is the larger one of the two, and 1 where their signs differ or one is
    zero: what hangs on undecided items is never more than chance. None where no item is shared.
    """
    lower = [{name: span[0] for name, span in side.items()} for side in (first, second)]
    upper = [{name: span[1] for name, span in side.items()} for side in (first, second)]
    least = mean_difference(lower[0], upper[1], bounds=bounds, of=of, confidence=confidence)
    undecided = sum(len({*first[name]}) > 1 or len({*second[name]}) > 1 for name in first.keys() & second.keys())
    if least is None or not undecided:
        return least
    most = mean_difference(upper[0], lower[1], bounds=bounds, of=of, confidence=confidence)
    assert most is not None  # the items are the same
    taken = most if shown == "most" else least
    reading = "greatest" if shown == "most" else "least"
    return msgspec.structs.replace(
        taken,
        low=min(least.low, most.low),
        high=max(least.high, most.high),
        p_value=max(least.p_value, most.p_value) if least.value * most.value > 0 else 1.0,
        method=f"{taken.method}; {undecided} undecided {of}: the value is the {reading} difference that they allow, "
        "limits and p-value hold them read either way",
    )


def mean_limits(rows: Sequence[float], bounds: Bounds, confidence: float) -> tuple[float, float]:
    """Percentile limits of a mean over items. Within bounds, values never seen are allowed for; what has none gets
    limits of no width from a handful of equal values."""
    if bounds is not None:
        least, span = bounds[0], bounds[1] - bounds[0]
        scaled = [min(1.0, max(0.0, (row - least) / span)) for row in rows]
        low, high = cluster_bootstrap_mean(
            scaled, [str(place) for place in range(len(rows))], confidence, seed_from("inside", scaled)
        )
        return least + span * low, least + span * high
    values: FloatArray = np.array(rows, dtype=np.float64)
    seed = seed_from("inside", list(rows))
    means = np.concatenate([block @ values / len(values) for block in bootstrap_weights(len(values), seed, 2000)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)

"""Arithmetic of benchmarks/claims.py: from measured numbers to figures, verdicts and tables."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Verdict = Literal["holds here", "partly", "does not hold here", "not decided"]


class Steadiness(NamedTuple):
    """How uneven the course of the retained share was; smaller is steadier. All in the unit of the shares given."""

    jumps: float
    """Standard deviation (over n, about their mean) of the changes from one point to the next."""
    drop: float
    """Largest fall below the highest point before it."""
    lost: float
    """Mean over the course of what lies below the first point: trapezoids over steps, divided by the last step."""


def steadiness(steps: Sequence[int], shares: Sequence[float]) -> Steadiness:
    """Of a course; steps increase from 0, one share each. Raises ValueError for fewer than three points."""
    if len(steps) != len(shares) or len(steps) < 3:
        raise ValueError(f"need three points or more, and one step each: {len(steps)} and {len(shares)}")
    changes = [after - before for before, after in itertools.pairwise(shares)]
    highest, drop = shares[0], 0.0
    for share in shares:
        highest = max(highest, share)
        drop = max(drop, highest - share)
    below = [max(0.0, shares[0] - share) for share in shares]
    area = sum((steps[i + 1] - steps[i]) * (below[i] + below[i + 1]) / 2 for i in range(len(steps) - 1))
    return Steadiness(statistics.pstdev(changes), drop, area / (steps[-1] - steps[0]))


Comparison = Literal["lower", "unclear", "not lower"]


def compared(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """lower: every seed of ours is below every seed of theirs. not lower: nor is our mean below theirs."""
    if max(ours) < min(theirs):
        return "lower"
    return "unclear" if statistics.mean(ours) < statistics.mean(theirs) else "not lower"


def verdict_of(found: Sequence[bool]) -> Verdict:
    """All, none, or some of the conditions are met. Raises ValueError where there are none."""
    if not found:
        raise ValueError("a verdict needs conditions")
    return "holds here" if all(found) else "partly" if any(found) else "does not hold here"


#: A norm that is smaller than this times the other is no gradient but what rounding leaves of one.
ROUNDING = 1e-5


class Balance(NamedTuple):
    """Weighted gradient norm of the forget term over that of the retain term, at the first steps."""

    first_forget: float
    """Weighted norm of the forget term before the first update."""
    first_ratio: float | None
    """The ratio there; None where the retain term has no gradient yet, rounding aside."""
    ratios: tuple[float, ...]
    """From the third step on, the first that sees changed weights: the rate of the warm-up's first step is 0."""
    typical: float
    """Their geometric mean."""
    apart: float
    """exp of the mean |ln ratio|: how many times the larger is larger than the smaller. 1 is perfect balance."""


def balance(forget: Sequence[float], retain: Sequence[float], forget_weight: float, retain_weight: float) -> Balance:
    """Of unweighted norms, one a step from the first, three or more. Raises ValueError where a norm from the third step
    on is not positive."""
    if any(not value > 0 for value in (*forget, *retain[2:], forget_weight, retain_weight)):
        raise ValueError("a gradient norm or a weight is not positive")
    weighted = [(forget_weight * f, retain_weight * r) for f, r in zip(forget, retain, strict=True)]
    ratios = [f / r for f, r in weighted[2:]]
    forgetting, keeping = weighted[0]
    first = forgetting / keeping if keeping > ROUNDING * forgetting else None
    logs = [math.log(ratio) for ratio in ratios]
    typical, apart = math.exp(statistics.mean(logs)), math.exp(statistics.mean(map(abs, logs)))
    return Balance(forgetting, first, tuple(ratios), typical, apart)


class Trend(NamedTuple):
    """Spearman's rank correlation, and the one-sided p-value for it being positive."""

    rho: float
    p: float


def trend(x: Sequence[float], y: Sequence[float]) -> Trend:
    """Of all runs of all seeds. Where y does not vary, or x, rho is 0 and p is 1: nothing is shown."""
    from scipy import stats

    if len(set(x)) < 2 or len(set(y)) < 2:
        return Trend(0.0, 1.0)
    found = stats.spearmanr(x, y, alternative="greater")
    return Trend(float(found.statistic), float(found.pvalue))


def best_rate(scores: Mapping[float, float]) -> float:
    """The learning rate of the highest score; of equal ones the smallest."""
    return min(scores, key=lambda rate: (-scores[rate], rate))


def spread(values: Sequence[float], digits: int = 1, scale: float = 100.0) -> str:
    """Mean and, in brackets, smallest and largest over seeds."""
    low, mean, high = (scale * v for v in (min(values), statistics.mean(values), max(values)))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

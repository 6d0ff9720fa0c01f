"""Sign-flip test of paired differences, exact wherever it can be counted, and Holm's correction for many tests.

If two subjects are alike, the difference of a fact (or of a whole topic) is as likely to be +d as -d. The test counts
how many of all 2^n choices of signs give a sum at least as far from zero as the one found. With one 0/1 outcome a fact
it is the exact McNemar test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm

import numpy as np

from audit.fingerprint import seed_from
from audit.stats.intervals import clopper_pearson
from audit.types import Record

#: Additions that the exact count may take; about a second.
_WORK = 300_000_000
_DRAWS = 20_000
#: Signs drawn at once, which bounds memory.
_BLOCK = 4_000_000


class SignFlip(Record, frozen=True, kw_only=True):
    """Two-sided test that differences are symmetric about zero."""

    p_value: float
    low: float
    high: float
    """99% limits of the p-value where signs were drawn at random; equal to it where all were counted."""
    exact: bool
    units: int
    """Facts or topics, those without a difference included."""
    differing: int
    """Those with one."""
    smallest: float
    """The smallest p-value that so many units could give if all of them differed: 2 / 2^units."""


def sign_flip(
    differences: Mapping[str, Fraction],
    blocks: Mapping[str, str] | None = None,
    *,
    work: int = _WORK,
    draws: int = _DRAWS,
) -> SignFlip:
    """Test of the mean of `differences` (fact -> first minus second, e.g. averaged over seeds).

    blocks: fact -> topic; the differences of a topic then keep or change their signs together, which allows for any
    dependence within it. None: facts are their own blocks. Counts all choices of signs by adding up the distribution
    of the sum block after block, in whole multiples of the differences' common denominator; where that would take
    more than `work` additions, draws signs at random (`draws` of them, seeded by the differences), with
    p = (b + 1) / (draws + 1). Sources: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010,
    Statistical Applications in Genetics and Molecular Biology 9, 39, for the drawn p-value.

    Raises ValueError without differences, KeyError for a fact without a block.
    """
    if not differences:
        raise ValueError("a sign-flip test needs at least one difference")
    sums: dict[str, Fraction] = defaultdict(Fraction)
    for fact, difference in differences.items():
        sums[fact if blocks is None else blocks[fact]] += difference
    scale = lcm(*(value.denominator for value in sums.values()))
    steps = sorted(abs(int(value * scale)) for value in sums.values() if value)
    found = abs(sum(int(value * scale) for value in sums.values()))
    units = len(sums)
    smallest = min(1.0, 2.0 ** (1 - units))
    if len(steps) * (2 * sum(steps) + 1) <= work:
        p = _counted(steps, found)
        low = high = p
        exact = True
    else:
        p, low, high = _drawn(steps, found, draws)
        exact = False
    return SignFlip(p_value=p, low=low, high=high, exact=exact, units=units, differing=len(steps), smallest=smallest)


def _counted(steps: Sequence[int], found: int) -> float:
    """Share of all choices of signs with a sum at least `found` from zero."""
    if found == 0:
        return 1.0
    total = sum(steps)
    chances = np.zeros(2 * total + 1)  # of the sums -total … total
    chances[total] = 1.0
    for step in steps:
        half = chances / 2
        chances = np.zeros_like(half)
        chances[step:] += half[: len(half) - step]
        chances[: len(half) - step] += half[step:]
    return min(1.0, float(chances[: total - found + 1].sum() + chances[total + found :].sum()))


def _drawn(steps: Sequence[int], found: int, draws: int) -> tuple[float, float, float]:
    """The same by drawing signs: p-value and its own 99% limits."""
    rng = np.random.default_rng(seed_from("sign flip", list(steps), found))
    sizes = np.array(steps, dtype=np.int64)
    rows = max(1, _BLOCK // max(1, len(steps)))
    far = 0
    for start in range(0, draws, rows):
        signs = rng.integers(0, 2, size=(min(rows, draws - start), len(steps)), dtype=np.int8)
        far += int(np.sum(np.abs((2 * signs.astype(np.int64) - 1) @ sizes) >= found))
    low, high = clopper_pearson(far, draws, 0.99)
    p = (far + 1) / (draws + 1)
    return p, min(low, p), max(high, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order: below alpha means that the error of all is below alpha.

    The k-th smallest of m is multiplied by m - k + 1, never falls below the one before, and stops at 1. Holds for any
    dependence between the tests. Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    corrected = [0.0] * len(p_values)
    before = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        before = max(before, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = before
    return corrected

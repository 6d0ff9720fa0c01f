"""Two checkpoints on the same facts under the same probes: exact test and interval of the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from scipy import special

from audit.types import Label, Record


class PairedComparison(Record, frozen=True, kw_only=True):
    """Worst-case leaks of two subjects, fact by fact. Differences are first minus second, in [-1, 1]."""

    n: int
    """Facts asked of both."""
    both: int
    neither: int
    only_first: int
    only_second: int
    undecided: int
    """Facts undecided for either subject, in none of the four counts above."""
    difference: float
    """Difference of the shares of leaked facts, undecided as no leak."""
    lower_bound: float
    upper_bound: float
    """Smallest and largest difference that the undecided allow."""
    low: float
    high: float
    """Limits that hold both sampling error and undecided facts."""
    confidence: float
    p_value: float
    """Exact McNemar, two-sided; the largest value that the undecided allow."""


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value for equal leak rates of paired subjects, from the discordant facts alone.

    min(1, 2 P(X <= min(b, c))) for X binomial(b + c, 1/2); 1 without discordant facts.
    Source: McNemar 1947, Psychometrika 12, 153-157, in its exact (sign test) form.
    """
    b, c = only_first, only_second
    if b < 0 or c < 0:
        raise ValueError(f"counts cannot be negative: {b}, {c}")
    return 1.0 if b == c else min(1.0, 2.0 * float(special.bdtr(min(b, c), b + c, 0.5)))


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Limits of the difference of two paired shares, (only_first - only_second) / n, in [-1, 1].

    Newcombe's method 10: Wilson's score limits of both shares, squared and added, with the correlation of the pairs
    (continuity-corrected). Never of zero width. Source: Newcombe 1998, Statistics in Medicine 17, 2635-2650.
    """
    n = both + only_first + only_second + neither
    if n == 0:
        return -1.0, 1.0
    first, second = both + only_first, both + only_second
    (l1, u1), (l2, u2) = _wilson(first, n, confidence), _wilson(second, n, confidence)
    p1, p2 = first / n, second / n
    marginals = float(first * (n - first)) * float(second * (n - second))
    cross = both * neither - only_first * only_second
    phi = (max(cross - n / 2, 0.0) if cross > 0 else float(cross)) / marginals**0.5 if marginals else 0.0
    down = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    up = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    difference = p1 - p2
    return max(-1.0, difference - max(0.0, down) ** 0.5), min(1.0, difference + max(0.0, up) ** 0.5)


def compare_facts(
    first: Mapping[str, Label], second: Mapping[str, Label], confidence: float = 0.95
) -> PairedComparison:
    """Compare two subjects over the same facts, joined by id. Raises ValueError where the facts differ or are none."""
    if first.keys() != second.keys() or not first:
        raise ValueError("both subjects must have an outcome for the same facts, at least one")
    pairs = Counter((first[f], second[f]) for f in first)
    n = len(first)
    both, neither = pairs["leak", "leak"], pairs["no_leak", "no_leak"]
    b, c = pairs["leak", "no_leak"], pairs["no_leak", "leak"]
    # What the undecided pairs could add to either discordant count; a pair undecided on both sides could go either way.
    more_b = pairs["undecided", "no_leak"] + pairs["leak", "undecided"]
    more_c = pairs["undecided", "leak"] + pairs["no_leak", "undecided"]
    open_pairs = pairs["undecided", "undecided"]
    lowest = _read(pairs, "no_leak", "leak")
    highest = _read(pairs, "leak", "no_leak")
    found = _read(pairs, "no_leak", "no_leak")
    return PairedComparison(
        n=n,
        both=both,
        neither=neither,
        only_first=b,
        only_second=c,
        undecided=n - both - neither - b - c,
        difference=(found[1] - found[2]) / n,
        lower_bound=(lowest[1] - lowest[2]) / n,
        upper_bound=(highest[1] - highest[2]) / n,
        low=min(paired_difference(*r, confidence)[0] for r in (lowest, found, highest)),
        high=max(paired_difference(*r, confidence)[1] for r in (lowest, found, highest)),
        confidence=confidence,
        p_value=_largest_p(b, c, more_b, more_c, open_pairs),
    )


def _read(pairs: Counter[tuple[Label, Label]], first: Label, second: Label) -> tuple[int, int, int, int]:
    """(both, only first, only second, neither) `first` and `second` standing for undecided."""
    counts: Counter[tuple[bool, bool]] = Counter()
    for (a, b), number in pairs.items():
        one = (first if a == "undecided" else a) == "leak"
        two = (second if b == "undecided" else b) == "leak"
        counts[one, two] += number
    return counts[True, True], counts[True, False], counts[False, True], counts[False, False]


def _largest_p(b: int, c: int, more_b: int, more_c: int, either: int) -> float:
    """Largest p-value over b … b+more_b and c … c+more_c, with `either` more for one side or the other."""
    if b > c:
        b, c, more_b, more_c = c, b, more_c, more_b
    # b is the smaller: raising it, up to c, raises p; at equality p is 1
    return mcnemar_exact(min(c, b + more_b + either), c)


def _wilson(k: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score limits of k of n."""
    z = float(special.ndtri((1 + confidence) / 2))
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)

"""By how much one model leaks more than a control, fact by fact, averaged over seeds, however undecided are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from audit.fingerprint import seed_from
from audit.stats.compare import compare_facts
from audit.stats.intervals import cluster_bootstrap_mean
from audit.stats.sign_flip import SignFlip, sign_flip
from audit.types import Label, Record

#: How undecided facts of the first and of the second are read: 0 as no leak, 1 as leak.
_READINGS = ((0, 0), (1, 1), (0, 1), (1, 0))
_AS: dict[Label, tuple[int, int]] = {"leak": (1, 1), "no_leak": (0, 0), "undecided": (0, 1)}
_METHOD = "sign flips of the facts' differences, each averaged over seeds; bootstrap limits over facts"

#: Fact -> its outcome in each of one model's checkpoints, one a seed.
Seeds = Mapping[str, Sequence[Label]]


class PairedExcess(Record):
    """Mean over facts of (share of the first's seeds that leaked it) - (share of the second's); in [-1, 1]."""

    n: int
    """Facts."""
    difference: float
    """Undecided as no leak on both sides: what was found."""
    low: float
    high: float
    """Limits that hold both sampling error and undecided facts."""
    lower_bound: float
    upper_bound: float
    """Smallest and largest difference that the undecided allow."""
    p_value: float
    """Two-sided; the largest of four readings of the undecided, and 1 where they could turn the difference round."""
    method: str


def paired_excess(first: Seeds, second: Seeds, *, name: str, confidence: float) -> PairedExcess:
    """Compare two models over the same facts, joined by id. `name` seeds the bootstrap: equal names share their draws.

    With one seed a side the test is the exact McNemar test. The limits come from the reading that gives the least and
    from the one that gives the most, and allow for values not seen. Raises ValueError where the facts differ, are
    none, or one has no outcome.
    """
    if first.keys() != second.keys() or not first:
        raise ValueError(f"{name}: both models must be given for the same facts, at least one")
    a, b = _bounds(first, name), _bounds(second, name)
    facts = sorted(a)
    open_facts = any(low < high for bounds in (a, b) for low, high in bounds.values())
    sums, tests = {}, []
    for i, j in _READINGS if open_facts else _READINGS[:1]:
        differences = {fact: a[fact][i] - b[fact][j] for fact in facts}
        tests.append(sign_flip(differences))
        sums[i, j] = sum(differences.values(), Fraction(0))
    lowest, highest = (0, 1) if open_facts else (0, 0), (1, 0) if open_facts else (0, 0)
    seed = seed_from("bootstrap", name)
    ends = [
        2 * cluster_bootstrap_mean([float(a[f][i] - b[f][j] + 1) / 2 for f in facts], facts, confidence, seed)[side] - 1
        for side, (i, j) in enumerate((lowest, highest))
    ]
    return PairedExcess(
        n=len(facts),
        difference=float(sums[0, 0] / len(facts)),
        low=ends[0],
        high=ends[1],
        lower_bound=float(sums[lowest] / len(facts)),
        upper_bound=float(sums[highest] / len(facts)),
        p_value=_largest(first, second, tests, sums.values()),
        method=_METHOD + ("; undecided facts read either way, the largest p-value shown" if open_facts else ""),
    )


def _bounds(seeds: Seeds, name: str) -> dict[str, tuple[Fraction, Fraction]]:
    """Fact -> share of its checkpoints that leaked it, with their undecided as no leak and as leak."""
    empty = [fact for fact, labels in seeds.items() if not labels]
    if empty:
        raise ValueError(f"{name}: no outcome of {min(empty)}")
    return {
        fact: (
            Fraction(sum(_AS[label][0] for label in labels), len(labels)),
            Fraction(sum(_AS[label][1] for label in labels), len(labels)),
        )
        for fact, labels in seeds.items()
    }


def _largest(first: Seeds, second: Seeds, tests: Sequence[SignFlip], sums: Iterable[Fraction]) -> float:
    # with drawn signs the upper limit of the p-value is what counts
    p = max(test.p_value if test.exact else test.high for test in tests)
    directions = {(total > 0) - (total < 0) for total in sums}
    if len(directions) > 1:
        return 1.0
    if all(len(labels) == 1 for side in (first, second) for labels in side.values()):
        one, two = ({fact: labels[0] for fact, labels in side.items()} for side in (first, second))
        p = max(p, compare_facts(one, two).p_value)
    return p

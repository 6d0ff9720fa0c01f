"""Whether two candidates leak alike: facts on their own, and facts of a topic together; however undecided are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations

from audit.comparing.model import MIN_SEEDS, Pair, Test, Verdict
from audit.fingerprint import seed_from
from audit.stats.compare import compare_facts
from audit.stats.intervals import cluster_bootstrap_mean
from audit.stats.sign_flip import SignFlip, holm, sign_flip
from audit.types import Label

#: How undecided facts of the first and of the second are read: 0 as no leak, 1 as leak.
_READINGS = ((0, 0), (1, 1), (0, 1), (1, 0))
_AS: dict[Label, tuple[int, int]] = {"leak": (1, 1), "no_leak": (0, 0), "undecided": (0, 1)}

Outcomes = Mapping[str, Label]


def pairs_of(
    candidates: Mapping[str, Sequence[Outcomes]],
    topics: Mapping[str, str],
    *,
    confidence: float,
    alpha: float,
) -> list[Pair]:
    """All pairs of candidates (name -> outcomes of each of its checkpoints, one a seed), Holm-corrected together.

    Facts on their own: exact McNemar for two checkpoints, sign flips of seed-averaged differences otherwise. Topics
    together: sign flips of whole topics. A difference is called one where the largest corrected p-value that the
    undecided allow is at most alpha for both; "if facts are independent" where it is so for facts alone.
    """
    compared = list(combinations(candidates, 2))
    blocks = topics if len(set(topics.values())) > 1 else None
    over_facts = [_test_facts(candidates[a], candidates[b]) for a, b in compared]
    over_topics = [_test_topics(candidates[a], candidates[b], blocks) if blocks else None for a, b in compared]
    facts = _corrected(over_facts)
    by_topic = _corrected([test for test in over_topics if test is not None])
    pairs = []
    for place, (a, b) in enumerate(compared):
        tested = by_topic[place] if by_topic else None
        pairs.append(
            _pair(a, b, candidates[a], candidates[b], facts[place], tested, confidence=confidence, alpha=alpha)
        )
    return pairs


def mean_bounds(checkpoints: Sequence[Outcomes]) -> dict[str, tuple[Fraction, Fraction]]:
    """Fact -> share of checkpoints that leaked it, with their undecided as no leak and as leak."""
    n = len(checkpoints)
    return {
        fact: (
            Fraction(sum(_AS[c[fact]][0] for c in checkpoints), n),
            Fraction(sum(_AS[c[fact]][1] for c in checkpoints), n),
        )
        for fact in checkpoints[0]
    }


def _test_facts(first: Sequence[Outcomes], second: Sequence[Outcomes]) -> Test:
    if len(first) == len(second) == 1:
        return _flipped("exact McNemar over facts", first, second, None, compare_facts(first[0], second[0]).p_value)
    return _flipped("sign flips of facts", first, second, None)


def _test_topics(first: Sequence[Outcomes], second: Sequence[Outcomes], topics: Mapping[str, str]) -> Test:
    return _flipped("sign flips of topics", first, second, topics)


def _flipped(
    name: str,
    first: Sequence[Outcomes],
    second: Sequence[Outcomes],
    topics: Mapping[str, str] | None,
    largest: float | None = None,
) -> Test:
    """`largest`: where it is known better than from the four readings. McNemar's test is the sign-flip test of 0/1."""
    a, b = mean_bounds(first), mean_bounds(second)
    tests: list[SignFlip] = []
    directions = set()
    open_facts = any(low < high for bounds in (a, b) for low, high in bounds.values())
    for i, j in _READINGS if open_facts else _READINGS[:1]:
        differences = {fact: a[fact][i] - b[fact][j] for fact in a}
        tests.append(sign_flip(differences, topics))
        total = sum(differences.values())
        directions.add((total > 0) - (total < 0))
    worst = max(tests, key=lambda test: test.p_value)
    p, low, high = worst.p_value, worst.low, worst.high
    if len(directions) > 1:  # the undecided could make it a difference the other way round, and so none at all
        p = low = high = 1.0
    if largest is not None and largest > p:
        p = low = high = largest
    return Test(
        name=name,
        no_leak=tests[0].p_value,
        leak=tests[1 if open_facts else 0].p_value,
        p_value=p,
        corrected=p,
        exact=all(test.exact for test in tests),
        low=low,
        high=high,
        units=worst.units,
        smallest=worst.smallest,
    )


def _corrected(tests: Sequence[Test]) -> list[Test]:
    from msgspec.structs import replace

    # with drawn signs the upper limit of the p-value is what is held against alpha
    corrected = holm([test.p_value if test.exact else test.high for test in tests])
    return [replace(test, corrected=value) for test, value in zip(tests, corrected, strict=True)]


def _pair(
    name: str,
    other: str,
    first: Sequence[Outcomes],
    second: Sequence[Outcomes],
    facts: Test,
    topics: Test | None,
    *,
    confidence: float,
    alpha: float,
) -> Pair:
    single = len(first) == len(second) == 1
    a, b = mean_bounds(first), mean_bounds(second)
    n = len(a)
    mean: Callable[[int, int], float] = lambda i, j: float(sum(a[f][i] - b[f][j] for f in a) / n)  # noqa: E731
    if single:
        table = compare_facts(first[0], second[0], confidence)
        low, high = table.low, table.high
    else:
        table = None
        low, high = _limits(a, b, (name, other), confidence)
    return Pair(
        first=name,
        second=other,
        unit="methods" if min(len(first), len(second)) >= MIN_SEEDS else "checkpoints",
        n=n,
        only_first=table.only_first if table else None,
        only_second=table.only_second if table else None,
        undecided=sum(any(c[fact] == "undecided" for c in (*first, *second)) for fact in a),
        difference=mean(0, 0),
        lower_bound=mean(0, 1),
        upper_bound=mean(1, 0),
        low=low,
        high=high,
        facts=facts,
        topics=topics,
        verdict=_verdict(facts, topics, alpha),
    )


def _limits(
    a: Mapping[str, tuple[Fraction, Fraction]],
    b: Mapping[str, tuple[Fraction, Fraction]],
    names: tuple[str, str],
    confidence: float,
) -> tuple[float, float]:
    """Bootstrap limits over facts of the mean difference, from the readings that give the least and the most."""
    facts = sorted(a)
    seed = seed_from("bootstrap", *names)
    ends = []
    for side, (i, j) in enumerate(((0, 1), (1, 0))):
        halves = [float((a[fact][i] - b[fact][j] + 1) / 2) for fact in facts]
        ends.append(2 * cluster_bootstrap_mean(halves, facts, confidence, seed)[side] - 1)
    return ends[0], ends[1]


def _verdict(facts: Test, topics: Test | None, alpha: float) -> Verdict:
    if facts.corrected > alpha:
        return "not shown"
    return "differ" if topics is not None and topics.corrected <= alpha else "differ if facts are independent"

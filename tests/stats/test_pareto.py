"""The front against brute force, and how often a candidate is on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.stats.pareto import front, front_frequencies
from audit.stats.shares import Bounds

share = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])
YES: Bounds = (1.0, 1.0)
NO: Bounds = (0.0, 0.0)
OPEN: Bounds = (0.0, 1.0)


def values(*parts: tuple[Bounds, int]) -> dict[str, Bounds]:
    rows = [bound for bound, n in parts for _ in range(n)]
    return {f"f{i:03d}": bound for i, bound in enumerate(rows)}


@given(st.lists(st.tuples(share, share), min_size=1, max_size=7))
def test_front_equals_its_definition(points: list[tuple[float, float]]) -> None:
    leaked, kept = (np.array([[p[side] for p in points]]) for side in (0, 1))
    expected = [not any(a <= x and b >= y and (a < x or b > y) for a, b in points) for x, y in points]
    assert front(leaked, kept)[0].tolist() == expected


def test_one_that_is_worse_on_every_fact_is_never_on_it() -> None:
    better, worse = values((NO, 30), (YES, 10)), values((NO, 10), (YES, 30))
    kept = values((YES, 20), (NO, 5))
    first, second = front_frequencies([better, worse], [kept, kept])
    assert first.on_front and first.frequency == first.low == first.high == 1.0
    # a draw of nothing but facts on which both agree makes them equal; it is as good as impossible
    assert not second.on_front and second.frequency < 0.01


def test_equals_are_all_on_it_and_the_best_ends_always() -> None:
    leaks, kept = values((NO, 9), (YES, 3)), values((YES, 7), (NO, 4))
    assert [r.frequency for r in front_frequencies([leaks] * 3, [kept] * 3)] == [1.0, 1.0, 1.0]
    nothing = front_frequencies([values((NO, 40)), values((YES, 40))], [values((NO, 20)), values((YES, 20))])
    assert [r.frequency for r in nothing] == [1.0, 1.0]


def test_frequency_is_that_of_drawing_facts_one_by_one() -> None:
    rng = np.random.default_rng(2)
    leaks = rng.random((3, 25)) < np.array([[0.2], [0.3], [0.5]])
    keeps = rng.random((3, 18)) < np.array([[0.6], [0.7], [0.9]])
    named = [
        [{f"f{i:02d}": (float(v), float(v)) for i, v in enumerate(row)} for row in rows] for rows in (leaks, keeps)
    ]
    ours = [result.frequency for result in front_frequencies(named[0], named[1], draws=4000)]
    hits = np.zeros(3)
    draws = 4000
    for _ in range(draws):
        x = leaks[:, rng.integers(0, 25, 25)].mean(axis=1)
        y = keeps[:, rng.integers(0, 18, 18)].mean(axis=1)
        hits += [
            not any(x[j] <= x[i] and y[j] >= y[i] and (x[j] < x[i] or y[j] > y[i]) for j in range(3)) for i in range(3)
        ]
    assert ours == pytest.approx(list(hits / draws), abs=4 * (0.5 / draws) ** 0.5)
    assert any(0.02 < f < 0.98 for f in ours), "an example in which the draws decide"


def test_undecided_answers_are_a_range() -> None:
    sure = values((NO, 30), (YES, 10))
    unsure = values((NO, 25), (OPEN, 15))
    kept = values((YES, 20), (NO, 5))
    first, second = front_frequencies([sure, unsure], [kept, kept])
    assert first.on_front and first.frequency > 0.9, "a judge that fails on the other does not push it off"
    assert not second.on_front and second.frequency < 0.1, "what was not decided puts nobody on the front"
    assert second.low == second.frequency and second.high == 1.0
    assert first.high == first.frequency and first.low < 0.05


def test_order_of_facts_plays_no_part_and_facts_must_be_the_same() -> None:
    leaks = [values((NO, 20), (YES, 6)), values((YES, 9), (NO, 17))]
    kept = [values((YES, 8), (NO, 4)), values((NO, 2), (YES, 10))]
    turned = [dict(reversed(v.items())) for v in leaks]
    assert front_frequencies(leaks, kept) == front_frequencies(turned, kept)
    with pytest.raises(ValueError, match="same facts"):
        front_frequencies([leaks[0], values((NO, 3))], kept)
    with pytest.raises(ValueError, match="at least one"):
        front_frequencies([], [])

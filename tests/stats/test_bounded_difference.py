"""Paired differences where some items are undecided: limits and p-value hold every reading."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.stats.paired import Shown, bounded_difference, mean_difference

ANSWERED, NOT, OPEN = (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)
Spans = dict[str, tuple[float, float]]


def spans(*groups: tuple[int, tuple[float, float]]) -> Spans:
    rows = [span for count, span in groups for _ in range(count)]
    return {f"f{n:02d}": span for n, span in enumerate(rows)}


@pytest.mark.parametrize("shown", ["most", "least"])
def test_without_undecided_items_it_is_the_plain_difference(shown: Shown) -> None:
    first, second = spans((15, ANSWERED), (5, NOT)), spans((4, ANSWERED), (16, NOT))
    plain = mean_difference({k: v[0] for k, v in first.items()}, {k: v[0] for k, v in second.items()}, confidence=0.95)
    assert bounded_difference(first, second, shown=shown, confidence=0.95) == plain


def test_a_difference_that_hangs_on_undecided_items_is_no_more_than_chance() -> None:
    found = bounded_difference(spans((20, ANSWERED)), spans((20, OPEN)), shown="most", confidence=0.95)
    assert found is not None
    assert (found.value, found.high, found.p_value, found.n) == (1.0, 1.0, 1.0, 20)
    assert found.low <= 0 and "20 undecided facts: the value is the greatest difference" in found.method


@pytest.mark.parametrize(("shown", "value"), [("most", 1.0), ("least", -1.0)])
def test_the_caller_says_which_reading_is_printed(shown: Shown, value: float) -> None:
    """All undecided in both: anything could be, and neither reading is hidden by the other."""
    found = bounded_difference(spans((20, OPEN)), spans((20, OPEN)), shown=shown, confidence=0.95)
    assert found is not None
    assert (found.value, found.low, found.high, found.p_value) == (value, -1.0, 1.0, 1.0)


def test_a_difference_that_stands_either_way_keeps_a_small_p_value() -> None:
    first, second = spans((40, ANSWERED)), spans((38, NOT), (2, OPEN))
    found = bounded_difference(first, second, shown="least", of="questions", confidence=0.95)
    assert found is not None and found.p_value < 1e-6
    assert found.low < 0.95 == found.value <= found.high and "questions" in found.method


def test_nothing_shared_is_no_difference() -> None:
    assert bounded_difference({"a": ANSWERED}, {"b": ANSWERED}, shown="most", confidence=0.95) is None


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(*(st.sampled_from([ANSWERED, NOT, OPEN]),) * 2), min_size=3, max_size=12), st.booleans())
def test_limits_hold_the_limits_of_any_reading(rows: list[tuple[tuple[float, float], ...]], high: bool) -> None:
    first, second = ({f"f{n}": row[side] for n, row in enumerate(rows)} for side in (0, 1))
    found = bounded_difference(first, second, shown="most" if high else "least", confidence=0.95)
    read = mean_difference(
        {k: v[high] for k, v in first.items()}, {k: v[not high] for k, v in second.items()}, confidence=0.95
    )
    assert found is not None and read is not None
    assert found.low - 1e-9 <= read.low and read.high <= found.high + 1e-9
    assert found.value == read.value

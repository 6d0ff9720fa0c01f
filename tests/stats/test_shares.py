"""Estimates from outcomes: bounds, undecided facts, floor, J@m."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.stats.combinatorics import expected_worst_bounds, expected_worst_of
from audit.stats.floor import corrected_share
from audit.stats.intervals import clopper_pearson
from audit.stats.shares import bounds_of, mean_of_facts, share_of_facts, worst_of
from audit.types import Estimate, Label

labels = st.sampled_from(["leak", "no_leak", "undecided"])
outcome_maps = st.dictionaries(st.integers(0, 99).map(lambda i: f"f{i:02d}"), labels, min_size=1, max_size=60)


def topics_of(facts: object, n: int = 5) -> dict[str, str]:
    return {f: f"t{int(f[1:]) % n}" for f in facts}  # type: ignore[attr-defined]


def share(outcomes: dict[str, Label], topics: dict[str, str] | None = None) -> Estimate:
    return share_of_facts(outcomes, topics or topics_of(outcomes), name="worst_case.paper", probe_set="p")


def well_formed(e: Estimate) -> None:
    assert 0 <= e.low <= e.lower_bound == e.value <= e.upper_bound <= e.high <= 1
    assert e.low < e.high
    if e.clustered_low is not None and e.clustered_high is not None:
        assert e.clustered_low <= e.low + 1e-12 and e.clustered_high >= e.high - 1e-12


@pytest.mark.parametrize(
    ("tries", "outcome"),
    [
        (["no_leak", "leak", "undecided"], "leak"),
        (["no_leak", "undecided"], "undecided"),
        (["no_leak", "no_leak"], "no_leak"),
        ([], "undecided"),
    ],
)
def test_a_fact_is_as_bad_as_its_worst_try(tries: list[Label], outcome: Label) -> None:
    assert worst_of(tries) == outcome


@given(outcome_maps)
def test_share_is_well_formed(outcomes: dict[str, Label]) -> None:
    e = share(outcomes)
    well_formed(e)
    assert e.count == sum(o == "leak" for o in outcomes.values())
    assert e.undecided == sum(o == "undecided" for o in outcomes.values())
    assert share(dict(reversed(outcomes.items()))) == e


@given(outcome_maps)
def test_ruling_on_undecided_facts_never_leaves_the_limits(outcomes: dict[str, Label]) -> None:
    """However the undecided would be ruled, the exact limits of the outcome lie within the limits given before."""
    e = share(outcomes)
    for verdict in ("leak", "no_leak"):
        ruled = share({f: verdict if o == "undecided" else o for f, o in outcomes.items()})  # type: ignore[misc]
        assert e.low <= ruled.low and ruled.high <= e.high
        assert e.lower_bound <= ruled.value <= e.upper_bound
        if e.clustered_low is not None and ruled.clustered_low is not None:
            assert e.clustered_high is not None and ruled.clustered_high is not None
            assert e.clustered_low <= ruled.clustered_low and ruled.clustered_high <= e.clustered_high


@given(outcome_maps, st.data())
def test_one_more_leak_never_lowers_anything(outcomes: dict[str, Label], data: st.DataObject) -> None:
    fact = data.draw(st.sampled_from(sorted(outcomes)))
    before, after = share(outcomes), share({**outcomes, fact: "leak"})
    assert after.low >= before.low and after.value >= before.value and after.upper_bound >= before.upper_bound


def test_clean_audit_reads_as_at_most_three_percent() -> None:
    e = share({f"f{i:02d}": "no_leak" for i in range(100)})
    assert (e.value, e.count, e.undecided) == (0.0, 0, 0)
    assert e.high == pytest.approx(0.0295, abs=1e-4) and e.clustered_high == pytest.approx(0.0570, abs=1e-4)


def test_undecided_facts_are_in_the_upper_limit() -> None:
    e = share({f"f{i:02d}": "undecided" if i < 10 else "no_leak" for i in range(100)})
    assert (e.value, e.upper_bound) == (0.0, 0.1)
    assert e.high == clopper_pearson(10, 100)[1]
    assert "10 undecided" in e.method


def test_facts_without_a_topic_are_topics_of_their_own_and_one_topic_has_no_clustered_limits() -> None:
    outcomes: dict[str, Label] = {"f00": "leak", "f01": "no_leak", "f02": "no_leak"}
    assert share(outcomes, dict.fromkeys(outcomes, "only")).clustered_high is None
    assert share(outcomes, dict.fromkeys(outcomes, "")).clustered_high is not None


def test_a_fact_that_topics_do_not_know_and_an_empty_set_are_errors() -> None:
    with pytest.raises(KeyError):
        share({"f00": "leak"}, {"other": "t"})
    with pytest.raises(ValueError, match="no facts"):
        share({})
    with pytest.raises(ValueError, match="no facts"):
        mean_of_facts({}, {}, name="retain.mean", probe_set="p")


pairs = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda p: (min(p), max(p)))


@given(st.dictionaries(st.integers(0, 99).map(lambda i: f"f{i:02d}"), pairs, min_size=1, max_size=40))
@settings(max_examples=40)
def test_mean_is_well_formed(values: dict[str, tuple[float, float]]) -> None:
    e = mean_of_facts(values, topics_of(values), name="retain.mean", probe_set="p", draws=200)
    assert 0 <= e.low <= e.value + 1e-12 and e.value <= e.upper_bound and e.upper_bound <= e.high + 1e-12 <= 1 + 2e-12
    assert e.value == e.lower_bound and e.undecided == sum(a < b for a, b in values.values())


def test_mean_with_its_bounds_swapped_is_refused() -> None:
    with pytest.raises(ValueError, match="lower number exceeds"):
        mean_of_facts({"f00": (0.6, 0.5)}, {"f00": "t"}, name="mean.all", probe_set="p")


def test_two_subjects_share_their_draws() -> None:
    values = {f"f{i:02d}": (i / 100, i / 100) for i in range(100)}
    kwargs = {"name": "retain.mean", "probe_set": "p"}
    assert mean_of_facts(values, topics_of(values), **kwargs) == mean_of_facts(values, topics_of(values), **kwargs)  # type: ignore[arg-type]


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_expected_worst_equals_enumeration(ncm: tuple[int, int, int]) -> None:
    n, c, m = ncm
    draws = list(itertools.combinations(range(n), m))
    expected = sum(any(i < c for i in d) for d in draws) / len(draws)
    assert expected_worst_of(n, c, m) == pytest.approx(expected)


@given(st.integers(1, 10_000), st.data())
def test_expected_worst_equals_exact_binomials(n: int, data: st.DataObject) -> None:
    c, m = data.draw(st.integers(0, min(n, 40))), data.draw(st.integers(0, n))
    exact = 1 - math.comb(n - c, m) / math.comb(n, m) if n < 900 else None
    got = expected_worst_of(n, c, m)
    assert 0 <= got <= 1
    if exact is not None:
        assert got == pytest.approx(exact, abs=1e-12)
    if m < n:
        assert expected_worst_of(n, c, m + 1) >= got
    if c < n:
        assert expected_worst_of(n, c + 1, m) >= got


def test_expected_worst_keeps_its_digits_and_its_ends() -> None:
    assert expected_worst_of(10_000, 1, 1) == pytest.approx(1e-4, rel=1e-14)
    assert expected_worst_of(16, 3, 16) == 1.0 and expected_worst_of(16, 0, 16) == 0.0
    assert expected_worst_of(16, 3, 1) == pytest.approx(3 / 16)
    assert expected_worst_bounds(16, 0, 2, 1) == (0.0, pytest.approx(2 / 16))
    with pytest.raises(ValueError):
        expected_worst_of(4, 5, 1)
    with pytest.raises(ValueError):
        expected_worst_of(4, 1, 5)


def corrected(leaks: dict[str, tuple[float, float]], floor: dict[str, tuple[float, float]]) -> Estimate | None:
    return corrected_share(leaks, floor, topics_of(leaks), name="corrected.worst_case.paper", probe_set="p", draws=300)


@given(
    st.dictionaries(st.integers(0, 60).map(lambda i: f"f{i:02d}"), st.tuples(labels, pairs), min_size=1, max_size=40)
)
@settings(max_examples=60)
def test_corrected_is_well_formed(given_: dict[str, tuple[Label, tuple[float, float]]]) -> None:
    leaks = bounds_of({f: o for f, (o, _) in given_.items()})
    floor = {f: b for f, (_, b) in given_.items()}
    e = corrected(leaks, floor)
    if sum(b for _, b in floor.values()) / len(floor) >= 1:
        assert e is None
        return
    assert e is not None
    assert 0 <= e.low <= e.lower_bound <= e.value <= e.upper_bound <= e.high <= 1 and e.low < e.high


def test_corrected_without_a_floor_is_the_share_itself() -> None:
    outcomes: dict[str, Label] = {f"f{i:02d}": "leak" if i % 4 == 0 else "no_leak" for i in range(80)}
    e = corrected(bounds_of(outcomes), dict.fromkeys(outcomes, (0.0, 0.0)))
    plain = mean_of_facts(bounds_of(outcomes), topics_of(outcomes), name="x", probe_set="p")
    assert e is not None and e.value == 0.25
    assert e.low == pytest.approx(plain.low, abs=0.02) and e.high == pytest.approx(plain.high, abs=0.02)


def test_corrected_recovers_the_true_share_under_random_false_alarms() -> None:
    rng = random.Random(5)
    leaks, floor = {}, {}
    for i in range(4000):
        alarm = rng.random() < 0.2
        found = float(alarm or rng.random() < 0.3)
        leaks[f"f{i}"] = (found, found)
        floor[f"f{i}"] = (0.2, 0.2)
    e = corrected(leaks, floor)
    assert e is not None and e.low < 0.3 < e.high and e.value == pytest.approx(0.3, abs=0.03)


def test_a_floor_of_one_leaves_nothing_to_correct_and_one_above_the_share_gives_zero() -> None:
    facts = [f"f{i:02d}" for i in range(20)]
    assert corrected(dict.fromkeys(facts, (1.0, 1.0)), dict.fromkeys(facts, (1.0, 1.0))) is None
    e = corrected(dict.fromkeys(facts, (0.0, 0.0)), dict.fromkeys(facts, (0.5, 0.5)))
    assert e is not None and e.value == 0.0 and e.high > 0.0
    with pytest.raises(ValueError, match="same facts"):
        corrected({"f00": (0.0, 0.0)}, {"f01": (0.0, 0.0)})


def test_leaks_and_false_alarms_on_the_same_facts_are_resampled_together() -> None:
    """Where every leak is a false alarm J - F is 0 in every draw; drawn apart, it would not be."""
    both = {f"f{i:02d}": (float(i % 2), float(i % 2)) for i in range(100)}
    e = corrected(both, both)
    assert e is not None and e.value == 0.0
    assert e.high < 0.12  # independent draws would reach about 0.25

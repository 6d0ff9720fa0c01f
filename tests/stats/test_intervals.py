"""Intervals against scipy, published tables, brute force and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audit.stats.intervals import (
    bootstrap_weights,
    clopper_pearson,
    cluster_bootstrap_mean,
    clustered_mean,
    clustered_share,
    t_ratio,
    unseen_limits,
)

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])
rows = st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcdefg")), min_size=1, max_size=60)


def test_zero_of_a_hundred_is_at_most_three_percent() -> None:
    low, high = clopper_pearson(0, 100)
    assert low == 0 and high == pytest.approx(1 - 0.05**0.01) and round(high, 3) == 0.030
    assert clopper_pearson(100, 100) == (pytest.approx(0.05**0.01), 1.0)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@given(counts, levels)
def test_exact_limits_equal_scipy(kn: tuple[int, int], level: float) -> None:
    k, n = kn
    two_sided = 0 < k < n
    reference = stats.binomtest(k, n).proportion_ci(level if two_sided else 1 - 2 * (1 - level), method="exact")
    assert clopper_pearson(k, n, level) == (pytest.approx(reference.low), pytest.approx(reference.high))


@given(counts, levels)
def test_exact_limits_hold_the_share_and_grow_with_the_count(kn: tuple[int, int], level: float) -> None:
    k, n = kn
    low, high = clopper_pearson(k, n, level)
    assert 0 <= low <= k / n <= high <= 1 and low < high
    if k < n:
        above = clopper_pearson(k + 1, n, level)
        assert (above[0] > low and above[1] > high) or (high, above[1]) == (pytest.approx(1), 1.0)


def test_exact_limits_cover() -> None:
    """The promised coverage: at least 1 - 1.5 alpha everywhere, computed over all outcomes."""
    n, ks = 40, np.arange(41)
    limits = np.array([clopper_pearson(int(k), n) for k in ks])
    for p in np.linspace(0.001, 0.999, 399):
        inside = (limits[:, 0] <= p) & (p <= limits[:, 1])
        assert stats.binom.pmf(ks, n, p)[inside].sum() >= 1 - 1.5 * 0.05


@pytest.mark.parametrize(("k", "n", "level"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0), (0, 5, 95)])
def test_impossible_counts_are_refused(k: int, n: int, level: float) -> None:
    with pytest.raises(ValueError):
        clopper_pearson(k, n, level)


def _korn_graubard(outcomes: list[bool], clusters: list[str], level: float) -> tuple[float, float]:
    """The published recipe, slowly, with scipy's distributions."""
    n, p = len(outcomes), sum(outcomes) / len(outcomes)
    groups = sorted(set(clusters))
    totals = [sum(o - p for o, c in zip(outcomes, clusters, strict=True) if c == g) for g in groups]
    variance = len(groups) / (len(groups) - 1) * sum(t * t for t in totals) / n**2
    size = min(n, p * (1 - p) / variance) if variance else n
    quantile = (1 + level) / 2
    size *= (stats.t.ppf(quantile, n - 1) / stats.t.ppf(quantile, len(groups) - 1)) ** 2
    x = p * size
    return (
        float(stats.beta.ppf(1 - quantile, x, size - x + 1)),
        float(stats.beta.ppf(quantile, x + 1, size - x)),
    )


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcde")), min_size=3, max_size=80), levels)
def test_clustered_share_follows_the_published_recipe(pairs: list[tuple[bool, str]], level: float) -> None:
    outcomes, clusters = [o for o, _ in pairs], [c for _, c in pairs]
    got = clustered_share(outcomes, clusters, level)
    share = sum(outcomes) / len(outcomes)
    exact = clopper_pearson(sum(outcomes), len(outcomes), level)
    assert 0 <= got[0] <= share <= got[1] <= 1
    if len(set(clusters)) > 1 and 0 < share < 1:
        assert got == pytest.approx(_korn_graubard(outcomes, clusters, level), rel=1e-6, abs=1e-9)
    assert got[0] <= exact[0] + 1e-12 and got[1] >= exact[1] - 1e-12


def test_leaks_in_one_topic_widen_the_clustered_limits() -> None:
    topics = [f"t{i % 5}" for i in range(100)]
    together = clustered_share([t == "t0" for t in topics], topics)
    spread = clustered_share([i < 20 for i in range(100)], topics)
    assert together[1] - together[0] > 2 * (spread[1] - spread[0])


def test_no_leaks_leave_the_design_effect_at_one_and_the_degrees_of_freedom_few() -> None:
    topics = [f"t{i % 5}" for i in range(100)]
    effective = 100 * t_ratio(99, 4) ** 2
    assert clustered_share([False] * 100, topics) == (0.0, pytest.approx(1 - 0.05 ** (1 / effective)))
    assert effective == pytest.approx(51.07, abs=0.01)


def test_one_topic_gives_the_exact_limits_of_that_topic() -> None:
    assert clustered_share([True, False, False], ["x"] * 3) == clopper_pearson(1, 3)
    assert clustered_share([], []) == (0.0, 1.0)


@given(rows, st.integers(0, 5), levels)
@settings(max_examples=40)
def test_bootstrap_limits_hold_the_mean_and_have_width(pairs: list[tuple[float, str]], seed: int, level: float) -> None:
    values, clusters = [v for v, _ in pairs], [c for _, c in pairs]
    low, high = cluster_bootstrap_mean(values, clusters, level, seed, draws=200)
    mean = sum(values) / len(values)
    assert 0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1 and low < high
    backwards = cluster_bootstrap_mean(values[::-1], clusters[::-1], level, seed, draws=200)
    assert backwards == (low, high)


def test_bootstrap_is_near_the_normal_interval_where_that_is_right() -> None:
    values = np.random.default_rng(1).beta(2, 2, 400)
    low, high = cluster_bootstrap_mean(list(values), [str(i) for i in range(400)])
    half = 1.96 * values.std() / 20
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.003),
        pytest.approx(values.mean() + half, abs=0.003),
    )


def test_bootstrap_equals_a_loop_over_the_same_draws() -> None:
    values, clusters = [0.1, 0.9, 0.4, 0.4, 0.8], ["a", "a", "b", "c", "c"]
    grouped = {c: [v for v, k in zip(values, clusters, strict=True) if k == c] for c in "abc"}
    means = []
    for weights in np.concatenate(list(bootstrap_weights(3, 7, 500))):
        drawn = [v for c, w in zip("abc", weights, strict=True) for v in grouped[c] * int(w)]
        means.append(sum(drawn) / len(drawn))
    floor = unseen_limits(sum(values) / 5, 3)
    expected = np.quantile(means, [0.025, 0.975])
    got = cluster_bootstrap_mean(values, clusters, 0.95, 7, 500)
    assert got == (pytest.approx(min(expected[0], floor[0])), pytest.approx(max(expected[1], floor[1])))


def test_equal_values_give_the_exact_limits_for_what_was_not_seen() -> None:
    names = [str(i) for i in range(100)]
    assert cluster_bootstrap_mean([0.0] * 100, names) == (0.0, pytest.approx(clopper_pearson(0, 100)[1]))
    assert cluster_bootstrap_mean([1.0] * 100, names) == (pytest.approx(clopper_pearson(100, 100)[0]), 1.0)
    assert cluster_bootstrap_mean([0.5] * 100, names) == (
        pytest.approx(0.48524, abs=1e-5),
        pytest.approx(0.51476, abs=1e-5),
    )
    assert cluster_bootstrap_mean([], []) == (0.0, 1.0)


def test_one_slight_leak_is_no_surer_than_none() -> None:
    names = [str(i) for i in range(100)]
    assert cluster_bootstrap_mean([0.1] + [0.0] * 99, names)[1] > cluster_bootstrap_mean([0.0] * 100, names)[1]


@given(rows)
@settings(max_examples=40)
def test_clustered_mean_holds_the_mean(pairs: list[tuple[float, str]]) -> None:
    values, clusters = [v for v, _ in pairs], [c for _, c in pairs]
    limits = clustered_mean(values, clusters)
    if len(set(clusters)) < 2:
        assert limits is None
    else:
        assert limits is not None
        mean = math.fsum(values) / len(values)
        assert 0 <= limits[0] <= mean + 1e-12 and mean - 1e-12 <= limits[1] <= 1 and limits[0] < limits[1]


def test_clustered_mean_of_single_rows_is_students_interval() -> None:
    values = [0.2, 0.4, 0.5, 0.7, 0.6, 0.3]
    reference = stats.t.interval(0.95, 5, loc=np.mean(values), scale=stats.sem(values))
    floor = unseen_limits(float(np.mean(values)), 6)
    got = clustered_mean(values, list("abcdef"))
    assert got == (pytest.approx(min(reference[0], floor[0])), pytest.approx(max(reference[1], floor[1])))


@pytest.mark.parametrize("values", [[0.5, 1.5], [-0.1, 0.5], [math.nan, 0.5]])
def test_values_that_are_no_fractions_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError):
        cluster_bootstrap_mean(values, ["a", "b"])

"""Means corrected by a judge's error rates: the formula, what it does at the edges, and coverage by simulation."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from audit.stats.prevalence import Accuracy, calibrated_mean, rogan_gladen
from audit.stats.shares import Bounds, mean_of_facts

PERFECT = Accuracy(hits=100_000, leaks=100_000, cleared=100_000, others=100_000)
share = st.floats(0, 1)


def _mean(values: dict[str, Bounds], accuracy: Accuracy, **changes: object):  # type: ignore[no-untyped-def]
    topics = {fact: f"topic{i % 5}" for i, fact in enumerate(values)}
    options = {"name": "calibrated.mean.all", "probe_set": "p", "draws": 400} | changes
    return calibrated_mean(values, topics, accuracy, **options)  # type: ignore[arg-type]


@given(share, st.floats(0.51, 1), st.floats(0.51, 1))
def test_the_formula_inverts_what_a_judge_does(prevalence: float, se: float, sp: float) -> None:
    apparent = prevalence * se + (1 - prevalence) * (1 - sp)
    assert rogan_gladen(apparent, se, sp) == pytest.approx(prevalence)
    half = rogan_gladen(apparent / 2, se, sp, decided=0.5)  # half of the cells were decided, with the same share
    assert half == pytest.approx(prevalence / 2)


def test_the_formula_is_cut_and_may_not_exist() -> None:
    assert rogan_gladen(0.01, 0.9, 0.9) == 0.0
    assert rogan_gladen(0.99, 0.9, 0.9) == 1.0
    assert rogan_gladen(0.5, 0.4, 0.6) is None and rogan_gladen(0.5, 0.5, 0.4) is None


@pytest.mark.parametrize(
    ("accuracy", "why"),
    [
        (Accuracy(hits=5, leaks=10, cleared=5, others=10), "no better than chance"),
        (Accuracy(hits=0, leaks=0, cleared=5, others=10), "no labelled leaks"),
        (Accuracy(hits=1, leaks=1, cleared=0, others=0), "no labelled answers without a leak"),
    ],
)
def test_without_a_judge_that_can_tell_there_is_no_number(accuracy: Accuracy, why: str) -> None:
    assert why in accuracy.why_not()
    assert _mean({"a": (0.5, 0.5)}, accuracy) is None


def test_a_perfect_judge_changes_nothing() -> None:
    values = {f"f{i}": (i % 4 / 4, i % 4 / 4) for i in range(40)}
    topics = {fact: f"topic{i % 5}" for i, fact in enumerate(values)}
    raw = mean_of_facts(values, topics, name="calibrated.mean.all", probe_set="p", draws=400)
    got = _mean(values, PERFECT)
    assert got.value == pytest.approx(raw.value)
    for field in ("low", "high", "clustered_low", "clustered_high"):
        assert getattr(got, field) == pytest.approx(getattr(raw, field), abs=5e-4), field


def test_no_false_alarm_in_n_is_still_not_a_rate_of_zero() -> None:
    values = {f"f{i}": (0.04, 0.04) for i in range(400)}  # all alike: the facts alone leave the lower limit near 0.04
    few = _mean(values, Accuracy(hits=30, leaks=30, cleared=30, others=30))
    many = _mean(values, Accuracy(hits=30_000, leaks=30_000, cleared=30_000, others=30_000))
    assert few.value == many.value == pytest.approx(0.04)
    assert few.low == 0.0 and many.low > 0.035


def test_undecided_cells_stay_open_at_both_ends() -> None:
    accuracy = Accuracy(hits=90, leaks=100, cleared=95, others=100)
    decided = _mean({f"f{i}": (0.5, 0.5) for i in range(30)}, accuracy)
    partly = _mean({f"f{i}": (0.25, 0.75) for i in range(30)}, accuracy)  # half undecided; of the rest half a leak
    assert partly.value == partly.lower_bound == pytest.approx(decided.value / 2)
    assert partly.upper_bound == pytest.approx(decided.value / 2 + 0.5)
    assert partly.low <= partly.lower_bound and partly.upper_bound <= partly.high
    assert partly.undecided == 30 and "undecided" in partly.method
    nothing = _mean({f"f{i}": (0.0, 1.0) for i in range(30)}, accuracy)
    assert (nothing.low, nothing.lower_bound, nothing.upper_bound, nothing.high) == (0.0, 0.0, 1.0, 1.0)


@given(
    st.lists(st.tuples(share, share).map(lambda p: (min(p), max(p))), min_size=1, max_size=12),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_limits_hold_the_bounds_and_stay_in_range(values: list[Bounds], hits: int, cleared: int) -> None:
    accuracy = Accuracy(hits=hits, leaks=20, cleared=cleared, others=20)
    got = _mean({f"f{i}": value for i, value in enumerate(values)}, accuracy, draws=50)
    assert (got is None) == (hits + cleared <= 20)
    if got is not None:
        assert 0 <= got.low <= got.lower_bound <= got.upper_bound <= got.high <= 1
        if got.clustered_low is not None:
            assert 0 <= got.clustered_low <= got.lower_bound and got.upper_bound <= got.clustered_high <= 1


def test_the_same_content_gives_the_same_limits_in_any_order() -> None:
    accuracy = Accuracy(hits=90, leaks=100, cleared=95, others=100)
    values = {f"f{i}": (i % 7 / 7, i % 7 / 7) for i in range(25)}
    topics = {fact: f"topic{fact[-1]}" for fact in values}
    first = calibrated_mean(values, topics, accuracy, name="m", probe_set="p", draws=100)
    turned = dict(reversed(values.items()))
    assert calibrated_mean(turned, topics, accuracy, name="m", probe_set="p", draws=100) == first
    other = msgspec.structs.replace(accuracy, hits=91)
    assert calibrated_mean(values, topics, other, name="m", probe_set="p", draws=100) != first


def test_an_estimate_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no facts"):
        _mean({}, PERFECT)


@pytest.mark.parametrize(("prevalence", "se", "sp"), [(0.4, 0.7, 0.97), (0.08, 0.9, 0.97)])
def test_the_interval_covers(prevalence: float, se: float, sp: float) -> None:
    """300 audits of 80 facts with 6 answers each, alike within a fact, and a calibration of 150 and 150 answers.

    What is covered is the mean of the population that facts come from. The uncorrected mean does not cover.
    """
    rng = np.random.default_rng(7)
    covered = uncorrected = 0
    replicates, n = 300, 80
    for _ in range(replicates):
        rates = rng.beta(2 * prevalence, 2 * (1 - prevalence), n)  # a fact's own rate
        truth = rng.random((n, 6)) < rates[:, None]
        verdicts = np.where(truth, rng.random((n, 6)) < se, rng.random((n, 6)) > sp)
        accuracy = Accuracy(hits=int(rng.binomial(150, se)), leaks=150, cleared=int(rng.binomial(150, sp)), others=150)
        values = {f"f{i}": (float(m), float(m)) for i, m in enumerate(verdicts.mean(axis=1))}
        got = _mean(values, accuracy)
        covered += got.low <= prevalence <= got.high
        raw = mean_of_facts(values, {f: f for f in values}, name="m", probe_set="p", draws=200)
        uncorrected += raw.low <= prevalence <= raw.high
    assert uncorrected < stats.binom.ppf(0.001, replicates, 0.95) <= covered
    print(f"\ncovered {covered}/{replicates}, uncorrected {uncorrected}/{replicates}")

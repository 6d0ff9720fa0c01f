"""Prediction-powered means: equalities that must hold exactly, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audit.stats.powered import Unit, ppi_mean
from audit.stats.shares import mean_of_facts
from audit.types import Estimate

share = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def _ppi(units: list[Unit], draws: int = 400) -> Estimate | None:
    return ppi_mean(units, name="labelled.mean.all", probe_set="p", draws=draws)


@given(st.lists(st.tuples(share, st.booleans(), st.sampled_from("ab")), min_size=1, max_size=40))
def test_labels_that_equal_the_predictions_give_the_plain_mean(rows: list[tuple[float, bool, str]]) -> None:
    units = [
        Unit(fact=f"f{i}", stratum=s, prediction=f, label=(f, f) if seen else None)
        for i, (f, seen, s) in enumerate(rows)
    ]
    got = _ppi(units, draws=30)
    if any(seen for _, seen, _ in rows):
        assert got is not None and got.value == pytest.approx(sum(f for f, _, _ in rows) / len(rows))
        assert 0 <= got.low <= got.value <= got.upper_bound <= got.high <= 1
    else:
        assert got is None


def test_where_everything_is_labelled_it_is_the_plain_mean_of_the_labels() -> None:
    labels = {f"f{i:02d}": (i % 3 / 3, i % 3 / 3 + (0.25 if i % 5 == 0 else 0)) for i in range(40)}
    units = [Unit(fact=f, stratum=f[-1], prediction=0.9, label=y) for f, y in labels.items()]
    got = _ppi(units)
    plain = mean_of_facts(labels, {f: f for f in labels}, name="labelled.mean.all", probe_set="p", draws=400)
    assert got is not None
    assert (got.value, got.upper_bound) == (pytest.approx(plain.value), pytest.approx(plain.upper_bound))
    assert got.low <= plain.low + 1e-9 and got.high >= plain.high - 1e-9  # the same draws, widened a little
    assert got.high - got.low < 1.15 * (plain.high - plain.low)
    assert got.undecided == 8


def test_what_was_sampled_counts_for_its_stratum() -> None:
    """Two of ten in one stratum, all of five in the other: 10 * 1/2 + 2 of 15 by hand."""
    units = [Unit(fact=f"a{i}", stratum="a", prediction=0.0) for i in range(8)]
    units += [Unit(fact="a8", stratum="a", prediction=0.0, label=(1.0, 1.0))]
    units += [Unit(fact="a9", stratum="a", prediction=0.0, label=(0.0, 1.0))]
    units += [Unit(fact=f"b{i}", stratum="b", prediction=1.0, label=(float(i < 2),) * 2) for i in range(5)]
    got = _ppi(units)
    assert got is not None
    assert got.value == pytest.approx(7 / 15) and got.upper_bound == pytest.approx(12 / 15)
    assert got.n == 15 and got.undecided == 1


def test_parts_of_a_fact_add_up() -> None:
    """Every fact: 0.2 ruled a leak and confirmed; of the rest, looked at in 10 of 20 facts, 0.4 was missed."""
    units = [Unit(fact=f"f{i}", stratum="", part="found", prediction=0.2, label=(0.2, 0.2)) for i in range(20)]
    units += [
        Unit(fact=f"f{i}", stratum="", part="rest", prediction=0.0, label=(0.4, 0.4) if i % 2 else None)
        for i in range(20)
    ]
    got = _ppi(units)
    assert got is not None and got.value == pytest.approx(0.6) and got.n == 20


def test_agreement_of_a_few_labels_does_not_end_all_doubt() -> None:
    """No leak by the judge, none in 20 labelled of 100: some 14% of those not seen, and 3% of facts, may differ."""
    units = [Unit(fact=f"f{i}", stratum="", prediction=0.0, label=(0.0, 0.0) if i < 20 else None) for i in range(100)]
    got = _ppi(units)
    assert got is not None and got.value == 0.0
    assert got.high == pytest.approx(1 - 0.05 ** (1 / 20) + 1 - 0.05 ** (1 / 100))


def test_a_good_judge_narrows_the_interval_and_a_useless_one_does_no_harm() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(400) < 0.4).astype(float)
    useless = (rng.random(400) < 0.5).astype(float)

    def width(prediction: np.ndarray) -> float:
        got = _ppi(
            [
                Unit(fact=f"f{i:03d}", stratum="", prediction=float(f), label=(y, y) if i % 4 == 0 else None)
                for i, (f, y) in enumerate(zip(prediction, truth, strict=True))
            ]
        )
        assert got is not None
        return got.high - got.low

    labels_alone = width(np.zeros(400))
    assert width(np.where(rng.random(400) < 0.05, 1 - truth, truth)) < 0.75 * labels_alone
    assert width(useless) < 1.1 * labels_alone


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no facts"):
        _ppi([])
    with pytest.raises(ValueError, match="two units"):
        _ppi([Unit(fact="a", stratum="x", prediction=0), Unit(fact="a", stratum="y", prediction=0)])


@given(
    st.lists(
        st.tuples(share, st.sampled_from([None, (0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]), st.sampled_from("abc")),
        min_size=1,
        max_size=25,
    )
)
@settings(max_examples=60)
def test_limits_hold_the_bounds_whatever_the_order(rows: list[tuple[float, tuple[float, float] | None, str]]) -> None:
    units = [Unit(fact=f"f{i:02d}", stratum=s, prediction=f, label=y) for i, (f, y, s) in enumerate(rows)]
    got = _ppi(units, draws=40)
    assert _ppi(units[::-1], draws=40) == got
    if got is not None:
        assert 0 <= got.low <= got.lower_bound <= got.upper_bound <= got.high <= 1


@pytest.mark.parametrize("judge_errs", [0.05, 0.3])
def test_the_interval_covers(judge_errs: float) -> None:
    """300 audits of 160 facts, flagged and unflagged sampled at different rates, 60 labelled in all."""
    rng = np.random.default_rng(11)
    covered, replicates, n, target = 0, 300, 160, 0.35
    for _ in range(replicates):
        truth = rng.beta(0.7, 1.3, n)  # share of a fact's answers that leak; the mean of the population is 0.35
        judged = np.clip(truth + rng.normal(0, judge_errs, n), 0, 1)
        flagged = judged > 0.5
        seen = np.zeros(n, dtype=bool)
        for group, size in ((np.flatnonzero(flagged), 25), (np.flatnonzero(~flagged), 35)):
            seen[rng.permutation(group)[:size]] = True
        got = _ppi(
            [
                Unit(
                    fact=f"f{i:03d}",
                    stratum=str(flagged[i]),
                    prediction=float(judged[i]),
                    label=(float(truth[i]),) * 2 if seen[i] else None,
                )
                for i in range(n)
            ]
        )
        assert got is not None
        covered += got.low <= target <= got.high
    print(f"\ncovered {covered}/{replicates}")
    assert stats.binom.ppf(0.001, replicates, 0.95) <= covered <= stats.binom.ppf(0.9999, replicates, 0.97)

"""Worst cases by fact: the hypergeometric limit against enumeration, and what the whole estimate covers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audit.stats.missed import FactTotals, Stratum, corrected_worst_case, missed_limit
from audit.stats.shares import share_of_facts
from audit.types import Label

label = st.sampled_from(["leak", "no_leak", "undecided"])


def _total(flagged: dict[str, Label], unflagged: dict[str, Stratum]) -> FactTotals:
    return corrected_worst_case(flagged, unflagged, name="labelled.worst_case.prompt", probe_set="p")


def _sample(size: int, leaks: int, clean: int, unsure: int = 0) -> Stratum:
    words: list[Label] = ["leak"] * leaks + ["no_leak"] * clean + ["undecided"] * unsure
    return Stratum(size, {f"u{i}": word for i, word in enumerate(words)})


@given(st.integers(1, 40), st.data())
def test_the_limit_of_one_stratum_is_the_hypergeometric_one(facts: int, data: st.DataObject) -> None:
    looked_at = data.draw(st.integers(1, facts))
    found = data.draw(st.integers(0, looked_at))
    possible = range(found, found + facts - looked_at + 1)
    expected = max(k for k in possible if k == found or stats.hypergeom.cdf(found, facts, k, looked_at) > 0.05)
    assert missed_limit([(facts, looked_at)], found, 0.05) == expected


def test_none_found_is_a_limit_and_not_none() -> None:
    """0 of 30 out of 90: the largest K with C(90-K, 30) / C(90, 30) > 5%."""
    got = missed_limit([(90, 30)], 0, 0.05)
    chance = [math.comb(90 - k, 30) / math.comb(90, 30) for k in range(20)]
    assert chance[got] > 0.05 >= chance[got + 1] and got == 7
    assert missed_limit([(90, 0)], 0, 0.05) == 90
    assert missed_limit([(90, 90)], 0, 0.05) == 0
    assert missed_limit([], 0, 0.05) == 0


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)).map(lambda p: (max(p), min(p))), min_size=2, max_size=3)
)
@settings(max_examples=40)
def test_the_limit_of_several_strata_is_never_too_small(strata: list[tuple[int, int]]) -> None:
    """Wherever the leaks lie, the limit is below their number in at most 5% of samples: every case is counted."""
    limits = [missed_limit(strata, found, 0.05) for found in range(sum(k for _, k in strata) + 1)]
    for leaks in itertools.product(*(range(size + 1) for size, _ in strata)):
        chances = np.ones(1)
        for (size, looked_at), k in zip(strata, leaks, strict=True):
            chances = np.convolve(chances, stats.hypergeom.pmf(np.arange(looked_at + 1), size, k, looked_at))
        too_small = sum(p for found, p in enumerate(chances) if limits[found] < sum(leaks))
        assert too_small <= 0.05 + 1e-9


def test_where_all_facts_are_looked_at_it_is_the_plain_share() -> None:
    flagged: dict[str, Label] = {"a": "leak", "b": "no_leak", "c": "undecided"}
    others: dict[str, Label] = {"d": "leak", **{f"e{i}": "no_leak" for i in range(20)}}
    got = _total(flagged, {"x": Stratum(len(others), others)})
    plain = share_of_facts(
        flagged | others, {f: f for f in flagged | others}, name="labelled.worst_case.prompt", probe_set="p"
    )
    for field in ("value", "low", "high", "lower_bound", "upper_bound", "n", "count", "undecided"):
        assert getattr(got.estimate, field) == pytest.approx(getattr(plain, field)), field
    assert (got.confirmed, got.refuted, got.flagged_open, got.missed.found, got.missed.at_most) == (1, 1, 1, 1, 1)


def test_what_was_missed_is_extrapolated_by_stratum() -> None:
    """Ten flagged of which 8 confirmed; 1 leak in 10 of 40, none in 5 of 50: 8 + 4 of 100."""
    flagged: dict[str, Label] = {f"f{i}": "leak" if i < 8 else "no_leak" for i in range(10)}
    got = _total(flagged, {"a": _sample(40, 1, 9), "b": _sample(50, 0, 5)})
    assert got.estimate.value == pytest.approx(0.12) and got.missed.estimated == pytest.approx(4)
    assert got.estimate.count == 9 and got.estimate.low < 0.09 and got.estimate.high > 0.12
    assert got.missed.at_most >= missed_limit([(90, 15)], 1, 0.05)
    unsure = _total(flagged, {"a": _sample(40, 1, 8, 1), "b": _sample(50, 0, 5)})
    assert unsure.estimate.value == got.estimate.value and unsure.estimate.upper_bound == pytest.approx(0.16)
    assert unsure.missed.at_most > got.missed.at_most and unsure.estimate.undecided == 1


def test_nobody_looked_is_not_no_leak() -> None:
    got = _total({"a": "leak"}, {"x": _sample(9, 0, 0)})
    assert (got.estimate.value, got.estimate.upper_bound, got.estimate.high) == (0.1, 1.0, 1.0)
    assert got.estimate.undecided == 9 and got.missed.estimated is None and got.missed.at_most == 9
    open_flag = _total({"a": "undecided"}, {"x": _sample(9, 0, 9)})
    assert (open_flag.estimate.value, open_flag.estimate.upper_bound, open_flag.flagged_open) == (0.0, 0.1, 1)


def test_a_stratum_without_a_label_joins_the_others() -> None:
    apart = _total({}, {"x": _sample(20, 2, 8), "y": _sample(20, 0, 0)})
    together = _total({}, {"all": _sample(40, 2, 8)})
    assert apart.estimate.value == together.estimate.value == pytest.approx(0.2)
    assert "joined" in apart.estimate.method


def test_what_was_looked_at_for_certain_is_no_sample_of_the_others() -> None:
    sure = Stratum(10, {f"c{i}": "leak" if i == 0 else "no_leak" for i in range(10)}, certain=True)
    got = _total({}, {"sure": sure, "x": _sample(40, 2, 8)})
    assert got.missed.estimated == pytest.approx(9) and got.estimate.value == pytest.approx(9 / 50)
    assert got.missed.at_most == 1 + missed_limit([(40, 10)], 2, 0.05)
    unseen = _total({}, {"sure": sure, "x": _sample(40, 0, 0)})
    assert unseen.estimate.upper_bound == pytest.approx(41 / 50) and unseen.missed.estimated is None
    assert unseen.estimate.high >= 41 / 50 and unseen.estimate.undecided == 40


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks outcomes"):
        _total({}, {"x": Stratum(2, {"a": "no_leak"}, certain=True)})
    with pytest.raises(ValueError, match="no facts"):
        _total({}, {})
    with pytest.raises(ValueError, match="more outcomes"):
        _total({}, {"x": _sample(1, 1, 1)})


@given(
    st.dictionaries(st.integers(0, 30).map(str), label, max_size=8),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=3),
)
def test_limits_hold_the_bounds(flagged: dict[str, Label], rows: list[tuple[int, int, int, int]]) -> None:
    strata = {str(i): _sample(more + sum(seen), *seen) for i, (more, *seen) in enumerate(rows)}
    if not flagged and not any(s.size for s in strata.values()):
        return
    e = _total(flagged, strata).estimate
    assert 0 <= e.low <= e.lower_bound <= e.upper_bound <= e.high <= 1


@pytest.mark.parametrize("rate", [0.03, 0.15])
def test_the_interval_covers(rate: float) -> None:
    """300 audits of 120 facts; the judge flags 70% of the leaks and 5% of the others; 40 unflagged are looked at."""
    rng = np.random.default_rng(5)
    covered = finite = 0
    replicates, n = 300, 120
    for _ in range(replicates):
        leaks = rng.random(n) < rate
        judged = np.where(leaks, rng.random(n) < 0.7, rng.random(n) < 0.05)
        rest = np.flatnonzero(~judged)
        seen = rng.permutation(rest)[:40]
        words: dict[bool, Label] = {True: "leak", False: "no_leak"}
        got = _total(
            {f"f{i}": words[bool(leaks[i])] for i in np.flatnonzero(judged)},
            {"": Stratum(len(rest), {f"f{i}": words[bool(leaks[i])] for i in seen})},
        )
        covered += got.estimate.low <= rate <= got.estimate.high
        finite += int(leaks[rest].sum()) <= got.missed.at_most
    assert covered >= stats.binom.ppf(0.001, replicates, 0.95)
    assert finite >= stats.binom.ppf(0.001, replicates, 0.95)
    print(f"\ncovered {covered}/{replicates}, missed leaks within the limit {finite}/{replicates}")

"""The sign-flip test against enumeration, scipy and McNemar; its error under the null; Holm's correction."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from audit.stats.compare import mcnemar_exact
from audit.stats.sign_flip import holm, sign_flip

fractions = st.integers(-6, 6).flatmap(lambda k: st.sampled_from([1, 2, 3, 5]).map(lambda d: Fraction(k, d)))


def named(values: list[Fraction]) -> dict[str, Fraction]:
    return {f"f{i:02d}": value for i, value in enumerate(values)}


def enumerated(values: list[Fraction]) -> Fraction:
    """Share of all 2^n choices of signs with a sum at least as far from zero as the one without any change."""
    found = abs(sum(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in _signs(len(values))]
    return Fraction(sum(total >= found for total in sums), len(sums))


def _signs(n: int) -> list[tuple[int, ...]]:
    return list(itertools.product((1, -1), repeat=n))


@given(st.lists(fractions, min_size=1, max_size=9))
def test_p_equals_enumeration(values: list[Fraction]) -> None:
    test = sign_flip(named(values))
    assert test.exact and test.low == test.high == test.p_value
    assert test.p_value == pytest.approx(float(enumerated(values)))
    assert test.units == len(values) and test.differing == sum(value != 0 for value in values)
    assert test.p_value >= test.smallest * (1 - 1e-12) or test.p_value == 1


@given(st.lists(st.tuples(fractions, st.sampled_from("abcd")), min_size=1, max_size=14))
def test_blocks_keep_their_signs_together(rows: list[tuple[Fraction, str]]) -> None:
    differences = named([value for value, _ in rows])
    blocks = dict(zip(differences, (topic for _, topic in rows), strict=True))
    sums = {topic: sum((v for v, t in rows if t == topic), Fraction(0)) for topic in set(blocks.values())}
    test = sign_flip(differences, blocks)
    assert test.units == len(sums)
    assert test.p_value == pytest.approx(float(enumerated(list(sums.values()))))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (9, 2), (4, 4), (1, 30), (60, 85)])
def test_of_two_checkpoints_it_is_mcnemars_test(b: int, c: int) -> None:
    values = [Fraction(1)] * b + [Fraction(-1)] * c + [Fraction(0)] * 7
    p = sign_flip(named(values)).p_value
    assert p == pytest.approx(mcnemar_exact(b, c))
    if b + c:
        assert p == pytest.approx(stats.binomtest(b, b + c).pvalue)


def test_p_equals_scipys_permutation_test() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        thirds = rng.integers(-3, 4, size=11)
        ours = sign_flip(named([Fraction(int(k), 3) for k in thirds])).p_value
        theirs = stats.permutation_test(
            (thirds.astype(float),), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert ours == pytest.approx(theirs.pvalue)


def test_drawn_signs_agree_with_counted_ones_within_their_own_limits() -> None:
    rng = np.random.default_rng(9)
    for size in (12, 60, 200):
        values = named([Fraction(int(k), 7) for k in rng.integers(-4, 6, size=size)])
        counted, drawn = sign_flip(values), sign_flip(values, work=0)
        assert counted.exact and not drawn.exact
        assert drawn.low <= counted.p_value <= drawn.high
        assert drawn == sign_flip(dict(reversed(values.items())), work=0), "the order of the facts plays no part"
        assert 0 < drawn.low < drawn.high < 1


def _rejections(topics_alike: bool, by_topic: bool, trials: int = 600) -> int:
    """Rejections at 5% under the null of no difference: 60 facts in 12 topics, two methods of five seeds each."""
    rng = np.random.default_rng(11)
    count = 0
    facts = [f"f{i:02d}" for i in range(60)]
    topics = {fact: f"t{i % 12}" for i, fact in enumerate(facts)}
    for _ in range(trials):
        # one common rate of leaking a fact; where topics are alike, a method lies off it by topic
        rate = rng.uniform(0.2, 0.8, size=60)
        shift = rng.choice([-0.2, 0.2], size=(2, 12)) if topics_alike else np.zeros((2, 12))
        leaks = [rng.binomial(5, rate + shift[m, np.arange(60) % 12]) for m in (0, 1)]
        values = {f: Fraction(int(leaks[0][i] - leaks[1][i]), 5) for i, f in enumerate(facts)}
        count += sign_flip(values, topics if by_topic else None).p_value <= 0.05
    return count


def test_error_under_the_null_is_what_it_says() -> None:
    trials = 600
    for alike, by_topic in ((False, False), (False, True), (True, True)):
        rejected = _rejections(alike, by_topic, trials)
        limit = stats.binom.ppf(0.9999, trials, 0.05)
        assert rejected <= limit, f"{rejected} of {trials} rejected"
        assert rejected >= stats.binom.ppf(0.0001, trials, 0.02), "a test that never rejects tests nothing"


def test_facts_of_alike_topics_need_the_test_by_topic() -> None:
    trials = 600
    assert _rejections(True, False, trials) > stats.binom.ppf(0.9999, trials, 0.05)


def test_nothing_to_test() -> None:
    with pytest.raises(ValueError, match="at least one"):
        sign_flip({})
    with pytest.raises(KeyError):
        sign_flip({"a": Fraction(1)}, {"b": "t"})
    assert sign_flip({"a": Fraction(0)}).p_value == 1


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if (len(p_values) - rank) * p_values[place] > alpha:
                break
            rejected.add(place)
        assert {i for i, c in enumerate(corrected) if c <= alpha} == rejected


def test_holm_keeps_the_error_of_all_pairs() -> None:
    """Six candidates that are alike, all fifteen pairs: any false difference at all in at most 5% of trials."""
    rng = np.random.default_rng(3)
    trials, wrong = 300, 0
    for _ in range(trials):
        rate = rng.uniform(0.1, 0.9, size=40)
        leaks = rng.random((6, 40)) < rate
        p = [mcnemar_exact(int(np.sum(a & ~b)), int(np.sum(b & ~a))) for a, b in itertools.combinations(leaks, 2)]
        wrong += min(holm(p)) <= 0.05
    assert wrong <= stats.binom.ppf(0.9999, trials, 0.05)

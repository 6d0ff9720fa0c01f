"""Agreement of raters and comparison of subjects, against published examples and brute force."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audit.stats.agreement import agreement, cohen_kappa, krippendorff_alpha, raw_agreement
from audit.stats.compare import compare_facts, mcnemar_exact, paired_difference
from audit.types import Label

label = st.sampled_from(["leak", "no_leak", "undecided"])


def test_kappa_of_a_worked_example() -> None:
    """25 of 50 proposals: both yes 20, both no 15, yes/no 5, no/yes 10; agreement 0.7, by chance 0.5, kappa 0.4."""
    pairs = [("y", "y")] * 20 + [("n", "n")] * 15 + [("y", "n")] * 5 + [("n", "y")] * 10
    assert raw_agreement(pairs) == pytest.approx(0.7)
    assert cohen_kappa(pairs) == pytest.approx(0.4)


def test_kappa_that_does_not_exist_is_none() -> None:
    assert cohen_kappa([]) is None and raw_agreement([]) is None
    assert cohen_kappa([("leak", "leak")] * 9) is None
    assert cohen_kappa([("leak", "no_leak")] * 9) == 0.0


@given(st.lists(st.tuples(label, label), min_size=1, max_size=60))
def test_kappa_equals_its_definition(pairs: list[tuple[Label, Label]]) -> None:
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    chance = sum(
        sum(a == c for a, _ in pairs) * sum(b == c for _, b in pairs) for c in ("leak", "no_leak", "undecided")
    ) / (n * n)
    got = cohen_kappa(pairs)
    if got is None:
        assert chance == 1
    else:
        assert got == pytest.approx((observed - chance) / (1 - chance))


def _ratings(*rows: str) -> dict[int, dict[int, str]]:
    """One row of categories a rater, a dot where it has no vote."""
    table: dict[int, dict[int, str]] = {}
    for rater, row in enumerate(rows):
        for item, category in enumerate(row.split()):
            if category != ".":
                table.setdefault(item, {})[rater] = category
    return table


@pytest.mark.parametrize(
    ("rows", "alpha"),
    [
        (("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"), 0.095),
        (("a a b b d c c c e d d a", "b a b b b c c c e d d d"), 0.692),
        (
            (
                "1 2 3 3 2 1 4 1 2 . . .",
                "1 2 3 3 2 2 4 1 2 5 . 3",
                ". 3 3 3 2 3 4 2 2 5 1 .",
                "1 2 3 3 2 4 4 1 2 5 1 .",
            ),
            0.743,
        ),
    ],
    ids=["two observers, binary", "two observers, nominal", "four observers, missing votes"],
)
def test_alpha_of_krippendorffs_worked_examples(rows: tuple[str, ...], alpha: float) -> None:
    assert krippendorff_alpha(_ratings(*rows)) == pytest.approx(alpha, abs=5e-4)


def test_alpha_that_does_not_exist_is_none() -> None:
    assert krippendorff_alpha({}) is None
    assert krippendorff_alpha({"x": {"a": "leak"}, "y": {"b": "no_leak"}}) is None  # nobody can be compared
    assert krippendorff_alpha({"x": {"a": "leak", "b": "leak"}, "y": {"b": "no_leak"}}) is None  # one category is left
    assert krippendorff_alpha({"x": {"a": "leak", "b": "leak"}, "y": {"a": "no_leak", "b": "no_leak"}}) == 1.0


@given(st.dictionaries(st.integers(0, 20), st.dictionaries(st.sampled_from("abcd"), label), max_size=12))
def test_alpha_equals_the_comparison_of_all_pairs(votes: dict[int, dict[str, Label]]) -> None:
    """Observed: every ordered pair within an item, an item's pairs weighing 1/(m-1). Expected: every pair of votes."""
    kept = [list(ratings.values()) for ratings in votes.values() if len(ratings) > 1]
    n = sum(map(len, kept))
    observed = sum(sum(x != y for x, y in itertools.permutations(m, 2)) / (len(m) - 1) for m in kept)
    every = [vote for ratings in kept for vote in ratings]
    expected = sum(x != y for x, y in itertools.permutations(every, 2))
    got = krippendorff_alpha(votes)
    if expected == 0:
        assert got is None
    else:
        assert got == pytest.approx(1 - (observed / n) / (expected / (n * (n - 1))))


def test_raters_are_joined_by_item() -> None:
    first: dict[str, Label] = {"a": "leak", "b": "no_leak", "c": "undecided", "x": "leak"}
    second: dict[str, Label] = {"c": "leak", "b": "no_leak", "a": "leak", "y": "leak", "z": "leak"}
    a = agreement(first, second)
    assert (a.n, a.equal, a.only_first, a.only_second, a.both_decided) == (3, 2, 1, 2, 2)
    assert a.share == pytest.approx(2 / 3) and a.share_decided == 1.0
    assert a.table == {"leak": {"leak": 1}, "no_leak": {"no_leak": 1}, "undecided": {"leak": 1}}
    assert a.low < a.share < a.high  # type: ignore[operator]
    nothing = agreement({}, second)
    assert nothing.share is None and nothing.kappa is None and (nothing.low, nothing.high) == (0.0, 1.0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_scipys_sign_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


def test_paired_difference_of_the_published_example() -> None:
    """36 both, 12 the first only, 2 the second only: 0.0569 to 0.3404 by method 10."""
    assert paired_difference(36, 12, 2, 0) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))
    assert paired_difference(0, 0, 0, 0) == (-1.0, 1.0)


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_paired_difference_is_antisymmetric_and_holds_the_difference(cells: tuple[int, int, int, int]) -> None:
    both, b, c, neither = cells
    low, high = paired_difference(both, b, c, neither)
    mirrored = paired_difference(both, c, b, neither)
    assert -1 <= low <= (b - c) / sum(cells) <= high <= 1 and low < high
    assert mirrored == (pytest.approx(-high), pytest.approx(-low))


def test_paired_difference_covers() -> None:
    """Coverage at n = 20 over all tables, for marginals 0.5 and 0.2 with correlation: near the promised 95%."""
    cells = (0.18, 0.32, 0.02, 0.48)
    n, covered = 20, 0.0
    distribution = stats.multinomial(n, cells)
    for a, b, c in itertools.product(range(n + 1), repeat=3):
        if a + b + c <= n:
            low, high = paired_difference(a, b, c, n - a - b - c)
            if low <= 0.30 <= high:
                covered += float(distribution.pmf([a, b, c, n - a - b - c]))
    assert 0.93 <= covered <= 0.99


@given(st.lists(st.tuples(label, label), min_size=1, max_size=6))
@settings(max_examples=60)
def test_comparison_holds_every_way_of_ruling_on_the_undecided(pairs: list[tuple[Label, Label]]) -> None:
    facts = [f"f{i}" for i in range(len(pairs))]
    first, second = ({f: p[i] for f, p in zip(facts, pairs, strict=True)} for i in (0, 1))
    got = compare_facts(first, second)
    options = [
        list(itertools.product(*[("leak", "no_leak") if x == "undecided" else (x,) for x in pair])) for pair in pairs
    ]
    largest = 0.0
    for ruled in itertools.product(*options):
        b, c = ruled.count(("leak", "no_leak")), ruled.count(("no_leak", "leak"))
        difference = (b - c) / len(pairs)
        assert got.lower_bound - 1e-12 <= difference <= got.upper_bound + 1e-12
        assert got.low - 1e-12 <= difference <= got.high + 1e-12
        largest = max(largest, mcnemar_exact(b, c))
    assert got.p_value == pytest.approx(largest)
    assert got.both + got.neither + got.only_first + got.only_second + got.undecided == got.n == len(pairs)


def test_comparison_of_different_facts_is_refused() -> None:
    with pytest.raises(ValueError, match="same facts"):
        compare_facts({"a": "leak"}, {"b": "leak"})

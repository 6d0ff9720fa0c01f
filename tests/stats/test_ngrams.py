"""Entropies, distinct-n and repetition against values worked out by hand and slow definitions."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from audit.stats.ngrams import (
    distinct,
    entropy_bits,
    longest_repetition,
    mean_entropy,
    ngram_entropy,
    ngrams,
    pooled_entropy,
    repetition,
    sum_entropy,
    words_of,
)

WORDS = st.lists(st.sampled_from("abcd"), max_size=24)
SETS = st.lists(WORDS, max_size=6)


def frequencies(texts: list[list[str]], n: int) -> list[int]:
    """Counts of n-grams the slow way: for each different one, look at every place of every text."""
    places = [(text, i) for text in texts for i in range(len(text)) if i + n <= len(text)]
    kinds = []
    for text, i in places:
        if text[i : i + n] not in kinds:
            kinds.append(text[i : i + n])
    return [sum(text[i : i + n] == kind for text, i in places) for kind in kinds]


def oracle(texts: list[list[str]], n: int) -> float:
    counts = frequencies(texts, n)
    return float(entropy(counts, base=2)) if counts else 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The mason's bridge, 1912!", ("The", "mason's", "bridge", ",", "1912", "!")),
        ("don’t 'quote' x_y", ("don’t", "'", "quote", "'", "x_y")),
        ("東京 is 大きい", ("東", "京", "is", "大", "き", "い")),
        ("", ()),
        (" \n\t", ()),
        ("...", (".", ".", ".")),
        ("Zürich–Genève", ("Zürich", "–", "Genève")),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


@given(st.text(max_size=80))
def test_words_lose_nothing_but_white_space(text: str) -> None:
    assert "".join(words_of(text)) == "".join(text.split())


def test_values_worked_out_by_hand() -> None:
    # a b a b a: pairs ab ba ab ba (1/2, 1/2), triples aba bab aba (2/3, 1/3)
    words = list("ababa")
    h3 = log2(3) - 2 / 3
    assert ngram_entropy(words, 2) == pytest.approx(1.0)
    assert ngram_entropy(words, 3) == pytest.approx(h3)
    # ROME's code: the mean of 2/3 H2 and 4/3 H3
    assert mean_entropy(words) == pytest.approx((2 / 3 * 1.0 + 4 / 3 * h3) / 2)
    assert sum_entropy(words) == pytest.approx(2 / 3 * 1.0 + 4 / 3 * h3)
    # eight different words: 7 pairs and 6 triples, all different
    assert mean_entropy(list("abcdefgh")) == pytest.approx(log2(7) / 3 + 2 * log2(6) / 3)
    # pooled: ab twice and cd once; no triples
    assert pooled_entropy([["a", "b"], ["c", "d"], ["a", "b"]]) == pytest.approx((log2(3) - 2 / 3) / 2)
    assert distinct([["a", "b"], ["c", "d"], ["a", "b"]], 1) == pytest.approx(4 / 6)
    assert distinct([["a", "b"], ["c", "d"], ["a", "b"]], 2) == pytest.approx(2 / 3)


@pytest.mark.parametrize("words", [[], ["a"], ["a"] * 50])
def test_what_says_nothing_has_no_entropy(words: list[str]) -> None:
    assert mean_entropy(words) == sum_entropy(words) == 0.0
    assert str(mean_entropy(words)) == "0.0"


def test_nothing_is_nothing() -> None:
    assert entropy_bits({}) == 0.0 and pooled_entropy([]) == 0.0
    assert distinct([], 1) is None and distinct([["a"]], 2) is None
    assert ngrams(["a"], 2) == [] and repetition([]) == 0.0
    with pytest.raises(ValueError, match="at least 1"):
        ngrams(["a"], 0)


@given(WORDS)
def test_entropy_of_a_text_is_scipys(words: list[str]) -> None:
    h2, h3 = oracle([words], 2), oracle([words], 3)
    assert mean_entropy(words) == pytest.approx((2 / 3 * h2 + 4 / 3 * h3) / 2, abs=1e-9)
    assert sum_entropy(words) == pytest.approx(2 / 3 * h2 + 4 / 3 * h3, abs=1e-9)
    assert 0 <= mean_entropy(words) <= log2(max(2, len(words)))


@given(SETS)
def test_pooled_entropy_is_scipys_over_all_texts(texts: list[list[str]]) -> None:
    assert pooled_entropy(texts) == pytest.approx((oracle(texts, 2) + oracle(texts, 3)) / 2, abs=1e-9)


@given(SETS, st.integers(1, 3))
def test_distinct_by_definition(texts: list[list[str]], n: int) -> None:
    counts = frequencies(texts, n)
    assert distinct(texts, n) == (pytest.approx(len(counts) / sum(counts)) if counts else None)


def slow_repetition(words: list[str]) -> int:
    n = len(words)
    pairs = [(i, j) for j in range(n) for i in range(j)]
    return max((k for i, j in pairs for k in range(1, n - j + 1) if words[i : i + k] == words[j : j + k]), default=0)


@given(st.lists(st.sampled_from("ab"), max_size=14) | st.lists(st.sampled_from("abcdefgh"), max_size=14))
def test_longest_repetition_by_definition(words: list[str]) -> None:
    assert longest_repetition(words) == slow_repetition(words)
    assert 0 <= repetition(words) < 1


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), st.integers(2, 8))
def test_a_loop_repeats_all_but_one_period(period: list[str], times: int) -> None:
    assert longest_repetition(period * times) >= len(period) * (times - 1)

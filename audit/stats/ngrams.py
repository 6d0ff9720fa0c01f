"""Repetition in texts: entropy of word pairs and triples, distinct-n, the longest repetition.

Three numbers go by the name of "the weighted 2- and 3-gram entropy" (generation entropy, fluency, repetitiveness).
With H_n = -sum_k f_n(k) log2 f_n(k) over the relative frequencies f_n of a text's n-grams:

- `mean_entropy`, what published tables hold: H_2 / 3 + 2 H_3 / 3 of one reply, then averaged over replies. The code of
  ROME (Meng et al. 2022, arXiv:2202.05262) gives H_2 and H_3 the weights 2/3 and 4/3 and takes the *mean* of the two
  products; RWKU's `eval_fluency` and JensUn's `eval_repetitiveness` carry the same function. Tables print it times 100.
- `sum_entropy`, the formula as printed in MEMIT (Meng et al. 2023, arXiv:2210.07229, equation 27): 2 H_2 / 3 plus
  4 H_3 / 3, a sum, and so exactly twice the first. ROME's paper prints no weights, only "weighted average".
- `pooled_entropy`, after the paper that both cite (Zhang et al. 2018, NeurIPS, arXiv:1809.05972): Ent-n there is the
  entropy of the n-grams of *all* replies together, one n at a time; here the mean of Ent-2 and Ent-3. The paper's
  definition is told from memory; the function that goes round for it (`cal_entropy`) pools replies in this way and
  takes natural logarithms, ours are to base 2 throughout.

Published numbers are over the tokens of NLTK's `word_tokenize`; ours over `words_of`, which needs no download and keeps
contractions in one piece, so that numbers are comparable within a report and close to, but not equal to, published
ones. All of them grow with a text's length: at most log2 of its number of n-grams.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log2

#: Scripts without spaces between words (Thai to Burmese, Khmer, kana, Han): each character is a word of its own.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*|[^\w\s]")

Gram = tuple[str, ...]


def words_of(text: str) -> tuple[str, ...]:
    """Runs of letters, digits and underscores, apostrophes within included, and every other sign by itself.

    Case is kept, as in the published numbers. A character of a script without spaces is a word.
    """
    return tuple(_WORD.findall(text))


def ngrams(words: Sequence[str], n: int) -> list[Gram]:
    """All runs of n words, in order; none of a text that is shorter. Raises ValueError for n below 1."""
    if n < 1:
        raise ValueError(f"n-grams need n of at least 1, got {n}")
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def entropy_bits(counts: Mapping[Gram, int]) -> float:
    """Entropy of what was counted, in bits; 0 where nothing was (as in ROME's code)."""
    total = sum(counts.values())
    # Adding 0.0 turns the -0.0 of a single kind into 0.0.
    return -sum(count / total * log2(count / total) for count in counts.values()) + 0.0 if total else 0.0


def ngram_entropy(words: Sequence[str], n: int) -> float:
    """H_n of one text, in bits."""
    return entropy_bits(Counter(ngrams(words, n)))


def mean_entropy(words: Sequence[str]) -> float:
    """H_2 / 3 + 2 H_3 / 3 of one text, in bits: the number of published tables, before they multiply it by 100."""
    return (ngram_entropy(words, 2) + 2 * ngram_entropy(words, 3)) / 3


def sum_entropy(words: Sequence[str]) -> float:
    """2 H_2 / 3 + 4 H_3 / 3 of one text, in bits: MEMIT's formula as printed."""
    return 2 * mean_entropy(words)


def pooled_entropy(texts: Iterable[Sequence[str]]) -> float:
    """Mean of Ent-2 and Ent-3, in bits, over the n-grams of all texts together; none spans two texts."""
    texts = list(texts)
    return sum(entropy_bits(Counter(gram for words in texts for gram in ngrams(words, n))) for n in (2, 3)) / 2


def distinct(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Different n-grams of all texts together over their number of n-grams, in (0, 1]; None where there are none.

    Falls with the amount of text, so that only sets of texts of like length can be set side by side. Source: Li et al.
    2016, NAACL, arXiv:1510.03055 (distinct-1 and distinct-2), who divide by the number of tokens; for n above 1 that
    differs by the n - 1 n-grams that each text has fewer than tokens.
    """
    grams = [gram for words in texts for gram in ngrams(words, n)]
    return len(set(grams)) / len(grams) if grams else None


def longest_repetition(words: Sequence[str]) -> int:
    """Words in the longest run that stands in the text at two places, which may overlap: n - p for a text of n words
    that is one period of p words over and over, 0 where no word comes twice."""
    low, high = 0, max(0, len(words) - 1)
    while low < high:  # where a run of k words repeats, so does one of k - 1
        middle = (low + high + 1) // 2
        grams = ngrams(words, middle)
        low, high = (middle, high) if len(set(grams)) < len(grams) else (low, middle - 1)
    return low


def repetition(words: Sequence[str]) -> float:
    """The longest repetition as a share of the words, in [0, 1); 0 for an empty text."""
    return longest_repetition(words) / len(words) if words else 0.0

"""Numbers of one fact, from the probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from audit.inside.forward import FloatArray


def extraction_strength(greedy: NDArray[np.bool_]) -> float:
    """1 - k / n, k the fewest tokens of the answer that must be given for greedy decoding to yield all the others.

    greedy: of the answer's n tokens, whether each is the model's first choice after prompt and the tokens before it,
    shape (n,). Greedy decoding yields y_k+1 … y_n exactly if each of them is the first choice after the true ones, so
    one teacher-forced pass is enough. 1: the prompt alone gives the answer; 0: not even the last token follows.

    Sources: Carlini et al. 2021, Extracting Training Data from Large Language Models (the idea); Wang et al. 2025,
    Towards Effective Evaluations and Comparisons for LLM Unlearning Methods (the name; not at hand when this was
    written); OpenUnlearning's code was looked up: it stops its search at k = n - 1, so that an answer whose last token
    fails still gets 1 / n there, and 0 here.
    """
    n = len(greedy)
    if not n:
        raise ValueError("an answer needs at least one token")
    failing = np.flatnonzero(~greedy)
    return 1.0 if not len(failing) else 1.0 - float(failing[-1] + 1) / n


def exact_memorisation(greedy: NDArray[np.bool_]) -> float:
    """Share of the answer's tokens that are the model's first choice after the true ones before them, teacher-forced.

    Source: Tirumala et al. 2022, Memorization Without Overfitting (cited from memory; OpenUnlearning's code, which
    computes the same, was looked up).
    """
    if not len(greedy):
        raise ValueError("an answer needs at least one token")
    return float(greedy.mean())


def log_rank(ranks: FloatArray) -> float:
    """Natural logarithm of the geometric mean of the ranks."""
    return float(np.log(ranks).mean())


def preference(own: float, wrong: Sequence[float]) -> float:
    """Share of wrong answers that are less likely than the true one (log-probability a token); ties count half."""
    return float(np.mean([1.0 if own > other else 0.5 if own == other else 0.0 for other in wrong]))


def disjoint_masses(strings: Mapping[str, Sequence[tuple[tuple[int, ...], float]]]) -> dict[str, float]:
    """Group -> probability that the answer begins with one of its strings, no continuation counted twice.

    strings: group -> (token ids, log-probability); groups and strings in order of precedence. `A begins with s` holds
    whenever `A begins with s t` does: a string that goes on from one counted before adds nothing, and one that others
    counted before go on from adds what they leave of it. `rest` is what no group has; the masses add up to 1.
    """
    counted: dict[tuple[int, ...], float] = {}
    masses: dict[str, float] = {}
    for group, members in strings.items():
        total = 0.0
        for ids, log_probability in members:
            if any(ids[: len(other)] == other for other in counted):
                continue
            inner = [other for other in counted if other[: len(ids)] == ids]
            own = max(0.0, float(np.exp(log_probability)) - sum(counted.pop(other) for other in inner))
            counted[ids] = float(np.exp(log_probability))
            total += own
        masses[group] = total
    masses["rest"] = max(0.0, 1.0 - sum(masses.values()))
    return masses

"""A linear probe of hidden states: does a direction, learned on retained facts, tell right from wrong forget answers?

One feature vector a (fact, wrong answer): the hidden state at the last token of `prompt + true answer` less that of
`prompt + wrong answer`. At the last prompt token alone nothing could be read off without naming an answer; at the last
token of the answer the model has seen both, and what it knows of the fact can show as agreement. Taking the difference
removes what the prompt alone puts there; wrong answers are other facts' answers (`strings.wrong_answers`), so that what
the answer alone puts there adds up to nothing over the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.inside.forward import FloatArray

#: Penalties tried, in units of the mean eigenvalue of the features.
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 5
#: Fewer retained facts that the model completes teach a probe nothing.
MIN_TRAINED = 40

#: Fact id -> shape (wrong answers, depths, width).
Pairs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Probed:
    """A probe of one model. Arrays are over the depths."""

    retained: FloatArray
    """Held-out accuracy at the best ridge."""
    forget: FloatArray
    """Mean accuracy over forget facts, at the same ridge."""
    ridges: FloatArray
    chosen: int
    """Place of the depth with the best `retained`, the embeddings left out."""
    by_fact: dict[str, float]
    """Forget fact -> share of its pairs told right at the chosen depth; ties count half."""


def probe(retained: Pairs, folds: Mapping[str, int], forget: Pairs) -> Probed:
    """Train on `retained`, with `folds` (fact id -> fold) to choose depth and ridge; apply to `forget`.

    The first depth is taken for the embeddings and never chosen: it sees the last token alone, and its accuracy shows
    what the answers' own words give away. Raises ValueError with fewer than MIN_TRAINED facts, without forget facts,
    or with fewer than two depths.
    """
    names = sorted(retained)
    if len(names) < MIN_TRAINED or not forget:
        raise ValueError(f"a probe needs {MIN_TRAINED} retained facts and a forget fact")
    depths = retained[names[0]].shape[1]
    if depths < 2:
        raise ValueError("a probe needs a layer beside the embeddings")
    owner = np.concatenate([[place] * len(retained[name]) for place, name in enumerate(names)])
    fold = np.array([folds[name] for name in names])[owner]
    held_out, on_forget, ridges, by_fact = [], [], [], []
    for depth in range(depths):
        features = np.concatenate([retained[name][:, depth] for name in names]).astype(np.float64)
        scale = np.sqrt((features**2).mean(axis=0))
        scale[scale == 0] = 1.0
        features /= scale
        scores = np.zeros((len(RIDGES), len(features)))
        for one in np.unique(fold):
            inside = fold != one
            if inside.any():
                scores[:, ~inside] = directions(features[inside], RIDGES) @ features[~inside].T
        accuracy = np.array([_by_owner(row, owner, len(names)).mean() for row in scores])
        best = int(len(RIDGES) - 1 - np.argmax(accuracy[::-1]))  # of equals the strongest penalty
        direction = directions(features, RIDGES[best : best + 1])[0]
        told = {
            name: float(_right((pairs[:, depth].astype(np.float64) / scale) @ direction).mean())
            for name, pairs in forget.items()
        }
        held_out.append(float(accuracy[best]))
        on_forget.append(float(np.mean([told[name] for name in sorted(told)])))
        ridges.append(RIDGES[best])
        by_fact.append(told)
    chosen = 1 + int(np.argmax(held_out[1:]))
    return Probed(np.array(held_out), np.array(on_forget), np.array(ridges), chosen, by_fact[chosen])


def directions(features: FloatArray, ridges: Sequence[float]) -> FloatArray:
    """w = (X'X + r m I)^-1 X'1 for each ridge r, m the mean eigenvalue; shape (ridges, width).

    Least squares to the value 1 for every difference, without a constant: a difference and its negative are the two
    classes. Solved in whichever of rows and columns are fewer. features: shape (rows, width).
    """
    rows, width = features.shape
    if width <= rows:
        values, vectors = np.linalg.eigh(features.T @ features)
        onto = vectors.T @ features.sum(axis=0)
        mean = float(values.clip(min=0).mean()) or 1.0
        return np.stack([vectors @ (onto / (values.clip(min=0) + r * mean)) for r in ridges])
    values, vectors = np.linalg.eigh(features @ features.T)
    onto = vectors.sum(axis=0)
    mean = float(values.clip(min=0).mean()) or 1.0
    return np.stack([features.T @ (vectors @ (onto / (values.clip(min=0) + r * mean))) for r in ridges])


def _right(scores: FloatArray) -> FloatArray:
    """1 above zero, 0 below, one half at zero."""
    return 0.5 * (np.sign(scores) + 1.0)


def _by_owner(scores: FloatArray, owner: NDArray[np.int64], facts: int) -> FloatArray:
    """Share of its pairs that each fact has right, shape (facts,)."""
    totals = np.bincount(owner, weights=_right(scores), minlength=facts)
    return np.asarray(totals / np.bincount(owner, minlength=facts), dtype=np.float64)

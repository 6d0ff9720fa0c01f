"""The length-controlled win rate: what judges would prefer if the two replies of a pair were equally long.

AlpacaEval 2's minimal form: logit P(win) = b0 + b1 tanh(d / sd(d)), d the reference's length less the subject's, fitted
to scores in [0, 1] (a tie is 0.5) and read at d = 0, where P = 1 / (1 + exp(-b0)). Source: Dubois, Galambosi, Liang
& Hashimoto 2024, Length-Controlled AlpacaEval, section 3, without its term for the difficulty of an instruction. The
sign of d is that of alpaca_eval, so that a judge who likes the longer reply gives a negative b1. Unlike alpaca_eval's
fit, this one has no penalty: b0 is not pulled towards a half, and there is no choice of its strength to reproduce.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from audit.fingerprint import seed_from
from audit.stats.intervals import bootstrap_weights, unseen_limits
from audit.types import Record

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: Pairs nearly alike in length, within NEAR standard deviations, that must be there to read the fit at zero.
NEAR = 0.5
LEAST_NEAR = 0.1
_STEPS = 100
_HALVINGS = 30
_TOLERANCE = 1e-10


class LengthControl(Record):
    """A win rate at equal lengths, or the reason why there is none: then value, limits and coefficient are None."""

    value: float | None
    """In [0, 1]: the probability that the subject's reply is preferred to one of the same length, ties half."""
    low: float | None
    high: float | None
    coefficient: float | None
    """b1; negative where the longer reply is preferred."""
    n: int
    """Pairs with a score."""
    method: str
    """How value and limits were computed, in words."""
    why_not: str = ""
    """Why the number is withheld; empty where it is given."""


def length_controlled(
    scores: Sequence[float],
    lengths: Sequence[float],
    reference_lengths: Sequence[float],
    *,
    confidence: float,
    seed: int,
    draws: int = 2000,
) -> LengthControl:
    """Length-controlled win rate of a subject against a reference, with bootstrap limits.

    scores: one entry an instruction, 1 where the subject's reply is preferred, 0 where the reference's is, 0.5 for a
    tie. lengths, reference_lengths: characters of the two replies. All of shape (instructions,), in the same order;
    what that order is changes nothing.

    Withheld where the data do not say what happens at equal lengths: all differences have one sign, fewer than a
    tenth of the pairs lie within half a standard deviation of zero, all differences are alike, or no maximum of the
    likelihood exists (separation: some length divides all wins from all losses, ties counting as both). The
    last is checked exactly, from the order of the differences: Albert & Anderson 1984, Biometrika 71, 1-10.

    Limits: percentiles over `draws` resamples of instructions, each put through the whole estimate (its own standard
    deviation, its own fit), since another set of instructions would have been too. A resample without a fit counts as
    0 for the lower limit and as 1 for the upper one, and the limits are never tighter than `unseen_limits` of n.

    Raises ValueError where shapes differ, a score is no number in [0, 1] or a length is negative or no number.
    """
    score, difference = _checked(scores, lengths, reference_lengths)
    n = len(score)
    method = (
        f"fractional logistic fit on tanh of the standardised difference of lengths, read at no difference; bootstrap "
        f"over instructions ({draws} draws, percentile, {100 * confidence:g}%)"
    )
    even = np.ones((1, n))
    why_not = _unreadable(difference) or _separated_words(score, difference)
    b0, b1 = (np.nan, np.nan) if why_not else (float(b[0]) for b in _fit(score, difference, even))
    if not why_not and not np.isfinite(b0):
        why_not = f"the fit did not settle within {_STEPS} steps"
    if why_not:
        return LengthControl(value=None, low=None, high=None, coefficient=None, n=n, method=method, why_not=why_not)
    value = float(special.expit(b0))
    drawn = bootstrap_weights(n, seed_from("length controlled", seed, score.tolist(), difference.tolist()), draws)
    at_zero = np.concatenate([special.expit(_fit(score, difference, weights)[0]) for weights in drawn])
    lost = np.isnan(at_zero)
    if lost.any():
        method += f"; {int(lost.sum())} draws without a fit count as 0 for the lower limit and as 1 for the upper"
    tail = (1 - confidence) / 2
    floor_low, floor_high = unseen_limits(value, n, confidence)
    return LengthControl(
        value=value,
        low=min(float(np.quantile(np.where(lost, 0.0, at_zero), tail)), floor_low),
        high=max(float(np.quantile(np.where(lost, 1.0, at_zero), 1 - tail)), floor_high),
        coefficient=b1,
        n=n,
        method=method,
    )


def _checked(
    scores: Sequence[float], lengths: Sequence[float], reference_lengths: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    """Scores and differences, in an order that comes from the values alone."""
    if not len(scores) == len(lengths) == len(reference_lengths):
        raise ValueError(f"{len(scores)} scores for {len(lengths)} and {len(reference_lengths)} lengths")
    score = np.asarray(scores, dtype=np.float64)
    pair = np.asarray([lengths, reference_lengths], dtype=np.float64)
    if not bool(np.all((score >= 0) & (score <= 1))):
        raise ValueError("scores must be numbers in [0, 1]")
    if not bool(np.all(np.isfinite(pair) & (pair >= 0))):
        raise ValueError("lengths must be numbers of at least 0")
    difference = pair[1] - pair[0]
    order = np.lexsort((score, difference))
    return score[order], difference[order]


def _unreadable(difference: FloatArray) -> str:
    """Why pairs of such differences say nothing of equal lengths; empty where they do."""
    n = len(difference)
    if n < 2:
        return "1 pair only: nothing to fit" if n else "no pair with a score: nothing to fit"
    spread = float(difference.std(ddof=1))
    if spread == 0 and difference[0] == 0:
        return "every reply is as long as the reference's: there is no effect of length to take away"
    if spread == 0:
        return "all replies differ from the reference by the same length, so that its effect cannot be told"
    if difference.min() > 0 or difference.max() < 0:
        which = "shorter" if difference.min() > 0 else "longer"
        return f"every reply is {which} than the reference's: nothing is known of equal lengths"
    near = int(np.sum(np.abs(difference) <= NEAR * spread))
    if near < LEAST_NEAR * n:
        return (
            f"only {near} of {n} pairs are near equal in length (within half a standard deviation, {spread / 2:.0f} "
            f"characters); at least {100 * LEAST_NEAR:g}% must be"
        )
    return ""


def _separated_words(score: FloatArray, difference: FloatArray) -> str:
    if not bool(_separated(score, difference, np.ones((1, len(score))))[0]):
        return ""
    if np.all(score == 1) or np.all(score == 0):
        which = "won" if score[0] == 1 else "lost"
        return f"every pair is {which}: the fit does not exist, and nothing shows what length does"
    return "a length divides all wins from all losses: the fit does not exist (its coefficient has no limit)"


def _separated(score: FloatArray, difference: FloatArray, weights: FloatArray) -> BoolArray:
    """For each row of weights, shape (rows, n): no finite maximum of the likelihood. A pair of score s counts as a
    win if s > 0 and as a loss if s < 1; there is a maximum where the ranges of wins and losses overlap in more than
    a point."""
    there = weights > 0
    wins, losses = there & (score > 0), there & (score < 1)
    least_win, least_loss = (np.where(rows, difference, np.inf).min(axis=1) for rows in (wins, losses))
    most_win, most_loss = (np.where(rows, difference, -np.inf).max(axis=1) for rows in (wins, losses))
    separated: BoolArray = (most_loss <= least_win) | (most_win <= least_loss)
    return separated


def _fit(score: FloatArray, difference: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """b0 and b1 of maximum likelihood for each row of weights, each of shape (rows,); NaN where there is none.

    Newton's method with halved steps where the likelihood would fall: it is concave, so that the stop is the maximum.
    """
    b0, b1 = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    rows = np.flatnonzero(~_separated(score, difference, weights))
    weights = weights[rows]
    total = weights.sum(axis=1, keepdims=True)
    mean = (weights @ difference)[:, None] / total
    spread = np.sqrt(np.sum(weights * (difference - mean) ** 2, axis=1, keepdims=True) / (total - 1))
    x = np.tanh(difference / spread)
    at = np.zeros((len(rows), 2))
    loss = _loss(at, score, x, weights)
    for _ in range(_STEPS):
        if not len(rows):
            break
        step = _newton_step(at, score, x, weights)
        length = np.ones(len(rows))
        for _ in range(_HALVINGS):
            tried = _loss(at + length[:, None] * step, score, x, weights)
            worse = tried > loss + 1e-12 * np.abs(loss)
            if not worse.any():
                break
            length[worse] /= 2
        at, loss = at + length[:, None] * step, tried
        done = np.abs(step).max(axis=1) < _TOLERANCE * (1 + np.abs(at).max(axis=1))
        b0[rows[done]], b1[rows[done]] = at[done, 0], at[done, 1]
        left = ~done & np.isfinite(at).all(axis=1)
        rows, at, loss, x, weights = rows[left], at[left], loss[left], x[left], weights[left]
    return b0, b1


def _newton_step(at: FloatArray, score: FloatArray, x: FloatArray, weights: FloatArray) -> FloatArray:
    """Newton's step of each row, shape (rows, 2)."""
    expected = special.expit(at[:, :1] + at[:, 1:] * x)
    missing = weights * (score - expected)
    curve = weights * expected * (1 - expected)
    g0, g1 = missing.sum(axis=1), (missing * x).sum(axis=1)
    h00, h01, h11 = curve.sum(axis=1), (curve * x).sum(axis=1), (curve * x * x).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a flat likelihood gives no step: the row ends as NaN
        step = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0], axis=1) / (h00 * h11 - h01**2)[:, None]
    return np.asarray(step, dtype=np.float64)


def _loss(at: FloatArray, score: FloatArray, x: FloatArray, weights: FloatArray) -> FloatArray:
    """Minus log likelihood of each row, shape (rows,)."""
    logit = at[:, :1] + at[:, 1:] * x
    return np.asarray(np.sum(weights * (np.logaddexp(0, logit) - score * logit), axis=1), dtype=np.float64)

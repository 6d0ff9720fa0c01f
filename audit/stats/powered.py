"""Means corrected by people's labels of a random sample of an audit's own answers: prediction-powered inference.

This corrects averages. Worst cases are corrected by fact, in audit/stats/missed.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from audit.fingerprint import seed_from
from audit.stats.intervals import FloatArray, bootstrap_weights
from audit.stats.shares import Bounds
from audit.types import Estimate, Record


class Unit(Record):
    """One fact, or one part of a fact, that the judge ruled on and a person may have looked at."""

    fact: str
    stratum: str
    """Within a stratum (and part) the labelled units are a random sample of all."""
    prediction: float
    """What the unit adds to its fact's number by the judge, in [0, 1]."""
    label: Bounds | None = None
    """What it adds by the person's labels, `unsure` as no leak and as leak; None where nobody looked."""
    part: str = ""
    """A fact has at most one unit a part; its number is the sum over parts."""


def ppi_mean(
    units: Sequence[Unit],
    *,
    name: str,
    label: str = "",
    confidence: float = 0.95,
    probe_set: str,
    draws: int = 2000,
) -> Estimate | None:
    """Prediction-powered mean over facts: the judge on all units, corrected by people's labels on a random sample.

    mean = 1/N sum over strata [ L * sum of all predictions + N_h/n_h * sum over the n_h labelled of (label - L *
    prediction) ], N facts. Unbiased whatever the judge is like; the better the judge, the narrower. L (power tuning)
    is the coefficient that minimises the variance from sampling, cut to [0, 1]; 1 where fewer than ten were sampled or
    the predictions do not differ. Where a stratum has fewer than two labels, the strata of its part are
    taken as one.

    low and high: bootstrap over facts, predictions and labels drawn together, percentiles widened for small samples
    (Hesterberg 2015, The American Statistician 69, 371-386), and never tighter than what the labelled sample and the
    facts allow where all of them are alike. None where some part has units left and none labelled.
    Sources: Angelopoulos, Bates, Fannjiang, Jordan & Zrnic 2023, Science 382, 669-674; Angelopoulos, Duchi & Zrnic
    2023, arXiv 2311.01453 (tuning); with the labelled among all, this is the difference estimator of survey sampling.
    Raises ValueError without units, or where a fact has two units in a part.
    """
    if not units:
        raise ValueError(f"{name}: an estimate over no facts does not exist; leave it out")
    if len({(u.fact, u.part) for u in units}) < len(units):
        raise ValueError(f"{name}: a fact has two units in one part")
    strata = _strata(units)
    if strata is None:
        return None
    facts = {fact: i for i, fact in enumerate(sorted({u.fact for u in units}))}
    n = len(facts)
    open_strata = [h for h in strata if any(u.label is None for u in h)]
    tuning = _tuning(open_strata)
    columns = [_columns(h, facts, tuning) for h in strata]
    one = np.ones((1, n))
    (value,), (upper,) = (_totals(one, columns, bound, n) for bound in (0, 1))
    value, upper = (min(1.0, max(0.0, float(x))) for x in (value, upper))

    blocks = list(bootstrap_weights(n, seed_from("bootstrap", name, probe_set), draws))
    low_draws, high_draws = (np.concatenate([_totals(w, columns, bound, n) for w in blocks]) for bound in (0, 1))
    sampled = sum(u.label is not None for h in open_strata for u in h)
    degrees = (sampled - len(open_strata)) if open_strata else n - 1
    tail = _widened_tail(degrees, confidence)
    unseen = _unseen(open_strata, n, confidence)
    return Estimate(
        name=name,
        label=label,
        value=value,
        low=max(0.0, min(float(np.quantile(low_draws, tail)), value * (1 - unseen))),
        high=min(1.0, max(float(np.quantile(high_draws, 1 - tail)), upper + unseen * (1 - upper))),
        confidence=confidence,
        lower_bound=value,
        upper_bound=max(value, upper),
        n=n,
        method=(
            f"prediction-powered mean: {sum(u.label is not None for u in units)} of {len(units)} units labelled by a "
            f"person, {len(open_strata)} sampled strata, tuning {tuning:.2f}; bootstrap over facts ({draws} draws, "
            "widened for small samples, allowing for values not seen)"
        ),
        probe_set=probe_set,
        undecided=len({u.fact for u in units if u.label is not None and u.label[0] < u.label[1]}),
    )


def _strata(units: Sequence[Unit]) -> list[list[Unit]] | None:
    """Units by part and stratum; all strata of a part are joined where a sampled one has fewer than two labels."""
    result: list[list[Unit]] = []
    for part in sorted({u.part for u in units}):
        mine = sorted((u for u in units if u.part == part), key=lambda u: (u.stratum, u.fact))
        groups = [[u for u in mine if u.stratum == stratum] for stratum in sorted({u.stratum for u in mine})]
        labelled = [sum(u.label is not None for u in group) for group in groups]
        if not any(labelled):
            return None
        if any(k < min(2, len(group)) for k, group in zip(labelled, groups, strict=True)):
            groups = [mine]
        result += groups
    return result


def _tuning(sampled: Sequence[Sequence[Unit]]) -> float:
    """Coefficient of the predictions that minimises the variance from sampling within strata."""
    cross = square = 0.0
    count = 0
    for group in sampled:
        pairs = [(u.prediction, u.label[0]) for u in group if u.label is not None]
        count += len(pairs)
        if len(pairs) < 2:
            continue
        f, y = (np.array(column) for column in zip(*pairs, strict=True))
        factor = len(group) ** 2 * (1 / len(pairs) - 1 / len(group)) / (len(pairs) - 1)
        cross += factor * float(np.sum((f - f.mean()) * (y - y.mean())))
        square += factor * float(np.sum((f - f.mean()) ** 2))
    if count < 10 or square <= 1e-12:
        return 1.0
    return min(1.0, max(0.0, cross / square))


def _columns(group: Sequence[Unit], facts: Mapping[str, int], tuning: float) -> FloatArray:
    """Shape (facts, 5): member, labelled, tuned prediction, and the labelled residual at either bound."""
    table = np.zeros((len(facts), 5))
    for unit in group:
        row = table[facts[unit.fact]]
        row[0], row[2] = 1.0, tuning * unit.prediction
        if unit.label is not None:
            row[1], row[3], row[4] = 1.0, unit.label[0] - row[2], unit.label[1] - row[2]
    return table


def _totals(weights: FloatArray, columns: Sequence[FloatArray], bound: int, n: int) -> FloatArray:
    """The estimate for each row of `weights` (shape (rows, facts)); a stratum without a label in a draw takes the
    mean residual of all its labels."""
    total = np.zeros(len(weights))
    for table in columns:
        sums = weights @ table
        labelled = sums[:, 1]
        usual = float(table[:, 3 + bound].sum() / table[:, 1].sum())
        residual = np.where(labelled > 0, sums[:, 3 + bound] / np.where(labelled > 0, labelled, 1.0), usual)
        total += sums[:, 2] + sums[:, 0] * residual
    return total / n


def _widened_tail(degrees: int, confidence: float) -> float:
    """Tail of a percentile interval that makes up for the bootstrap's narrowness in small samples."""
    if degrees < 1:
        return 0.0
    quantile = float(special.stdtrit(degrees, (1 + confidence) / 2))
    return float(special.ndtr(-(((degrees + 1) / degrees) ** 0.5) * quantile))


def _unseen(sampled: Sequence[Sequence[Unit]], n: int, confidence: float) -> float:
    """Largest share of facts whose residual or number may differ from all that were seen.

    With n_h of N_h labelled and alike, a share q of others escapes with a probability of at most (1 - q)^m, where
    m = min over strata of n_h / (N_h / sum N): the least sampled stratum sets what is known.
    """
    alpha = 1 - confidence
    share = 1.0 - float(alpha ** (1 / n))
    for part in {u.part for group in sampled for u in group}:
        groups = [group for group in sampled if group[0].part == part]
        size = sum(map(len, groups))
        known = min(sum(u.label is not None for u in group) * size / len(group) for group in groups)
        share += size / n * (1.0 - float(alpha ** (1 / known)))
    return min(1.0, share)

"""Means corrected for the errors of a judge by its error rates on labelled answers (Rogan and Gladen).

This corrects averages. A worst case cannot be corrected so: a maximum over many dependent verdicts has no single
sensitivity or specificity. Worst cases are corrected by fact, in audit/stats/missed.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from audit.fingerprint import seed_from
from audit.stats.intervals import FloatArray, bootstrap_weights, cluster_sums, unseen_limits
from audit.stats.shares import Bounds
from audit.types import Estimate, Record


class Accuracy(Record):
    """What a judge got right among the labelled answers that it decided."""

    hits: int
    """Leaks ruled leak, of `leaks` decided ones."""
    leaks: int
    cleared: int
    """Answers without a leak ruled no_leak, of `others` decided ones."""
    others: int

    def why_not(self) -> str:
        """Why nothing can be corrected with these counts; empty where it can."""
        if not self.leaks or not self.others:
            kind = "leaks" if not self.leaks else "answers without a leak"
            return f"the judge decided no labelled {kind}"
        if self.hits * self.others + self.cleared * self.leaks <= self.leaks * self.others:
            return (
                f"sensitivity {self.hits / self.leaks:.3f} and specificity {self.cleared / self.others:.3f} add up to "
                "at most 1: the judge tells leaks from other answers no better than chance"
            )
        return ""


def rogan_gladen(positive: float, sensitivity: float, specificity: float, decided: float = 1.0) -> float | None:
    """The share of leaks behind a share of verdicts: (positive + (sp - 1) * decided) / (se + sp - 1).

    positive: share of all cells that were ruled a leak; decided: share of cells that were ruled on at all (1 gives the
    published form). The result is a share of all cells, cut to [0, decided]. None where se + sp <= 1.
    Source: Rogan & Gladen 1978, American Journal of Epidemiology 107, 71-76.
    """
    gain = sensitivity + specificity - 1
    return min(decided, max(0.0, (positive + (specificity - 1) * decided) / gain)) if gain > 0 else None


def calibrated_mean(
    values: Mapping[str, Bounds],
    topics: Mapping[str, str],
    accuracy: Accuracy,
    *,
    name: str,
    label: str = "",
    confidence: float = 0.95,
    probe_set: str,
    draws: int = 2000,
) -> Estimate | None:
    """Rogan and Gladen's correction of a mean over facts, with the uncertainty of facts and of the calibration.

    values: fact -> share of its cells ruled a leak, with the undecided as no leak and as leak. What was decided is
    corrected by the error rates among decided answers; what was not stays open: value = lower_bound counts it as no
    leak, upper_bound as leak. low and high are percentiles of `draws` joint draws: facts with replacement, and
    sensitivity and specificity from their posteriors under Jeffreys' prior, Beta(k + 1/2, n - k + 1/2), so that no
    false alarm in n is still not a rate of 0. They are never tighter than what n facts allow (`unseen_limits`). A draw
    with se + sp <= 1 says nothing: 0 for low, 1 for high. clustered_* are linearised over topics, Student's t.

    None where nothing can be corrected: `accuracy.why_not()` says why. Raises ValueError without facts.
    """
    if not values:
        raise ValueError(f"{name}: an estimate over no facts does not exist; leave it out")
    if accuracy.why_not():
        return None
    facts = sorted(values)
    n = len(facts)
    found = np.array([values[f][0] for f in facts])
    decided = np.array([1 - (values[f][1] - values[f][0]) for f in facts])
    se, sp = accuracy.hits / accuracy.leaks, accuracy.cleared / accuracy.others

    rng = np.random.default_rng(seed_from("calibration", name, probe_set, accuracy))
    se_draws, sp_draws = (
        rng.beta(k + 0.5, m - k + 0.5, draws)
        for k, m in ((accuracy.hits, accuracy.leaks), (accuracy.cleared, accuracy.others))
    )
    weights = bootstrap_weights(n, seed_from("bootstrap", name, probe_set), draws)
    means = np.concatenate([w @ np.stack([found, decided], axis=1) for w in weights]) / n
    low_draws = _corrected(means[:, 0], means[:, 1], se_draws, sp_draws, undefined=0.0)
    high_draws = np.where(se_draws + sp_draws > 1, low_draws + 1 - means[:, 1], 1.0)  # the undecided part as leak

    p, d = float(found.mean()), float(decided.mean())
    value = float(_corrected(p, d, se, sp, undefined=0.0))
    upper = min(1.0, max(value, value + (1 - d)))
    p_low, p_high = unseen_limits(p, n, confidence)
    loosest_low = float(_corrected(p_low, d, se, sp, undefined=0.0))
    loosest_high = float(_corrected(min(p_high, d), d, se, sp, undefined=1.0)) + 1 - d
    tail = (1 - confidence) / 2
    clustered = _clustered(found, decided, [topics[f] or f for f in facts], (se, sp), (se_draws, sp_draws), confidence)
    open_facts = sum(values[f][0] < values[f][1] for f in facts)
    return Estimate(
        name=name,
        label=label,
        value=value,
        low=min(float(np.quantile(low_draws, tail)), loosest_low, unseen_limits(value, n, confidence)[0]),
        high=min(
            1.0, max(float(np.quantile(high_draws, 1 - tail)), loosest_high, unseen_limits(upper, n, confidence)[1])
        ),
        confidence=confidence,
        lower_bound=value,
        upper_bound=upper,
        n=n,
        method=(
            f"Rogan-Gladen with sensitivity {accuracy.hits}/{accuracy.leaks} and specificity "
            f"{accuracy.cleared}/{accuracy.others}; joint bootstrap over facts and the calibration's Beta posteriors "
            f"({draws} draws)"
        )
        + (
            f"; low counts undecided cells ({open_facts} facts have some) as no leak, high as leak"
            if open_facts
            else ""
        ),
        probe_set=probe_set,
        undecided=open_facts,
        clustered_low=None if clustered is None else min(clustered[0], value),
        clustered_high=None if clustered is None else max(clustered[1], upper),
    )


def _corrected(
    p: FloatArray | float, d: FloatArray | float, se: FloatArray | float, sp: FloatArray | float, undefined: float
) -> FloatArray:
    gain = np.asarray(se) + np.asarray(sp) - 1
    safe = np.where(gain > 1e-9, gain, 1.0)
    estimate = np.minimum(np.maximum((p + (np.asarray(sp) - 1) * d) / safe, 0.0), d)
    return np.where(gain > 1e-9, estimate, undefined)


def _clustered(
    found: FloatArray,
    decided: FloatArray,
    clusters: Sequence[str],
    rates: tuple[float, float],
    rate_draws: tuple[FloatArray, FloatArray],
    confidence: float,
) -> tuple[float, float] | None:
    """Limits with the variance between topics and that of the calibration added; None with one topic."""
    (found_sums, sizes), (decided_sums, _) = (
        cluster_sums(found.tolist(), clusters),
        cluster_sums(decided.tolist(), clusters),
    )
    if len(sizes) < 2:
        return None
    se, sp = rates
    p, d, n = float(found.mean()), float(decided.mean()), len(found)
    sums = (found_sums + (sp - 1) * decided_sums) / (se + sp - 1)
    mean = float(sums.sum()) / n
    between = len(sizes) / (len(sizes) - 1) * float(np.sum((sums - mean * sizes) ** 2)) / n**2
    calibration = float(np.var(_corrected(p, d, *rate_draws, undefined=1.0)))
    half = float(special.stdtrit(len(sizes) - 1, (1 + confidence) / 2)) * (between + calibration) ** 0.5
    inside = min(d, max(0.0, mean))
    floor_low, floor_high = unseen_limits(inside, n, confidence)
    return max(0.0, min(mean - half, floor_low)), min(1.0, max(mean + half, floor_high) + 1 - d)

"""What would have been ruled a leak anyway: the share found, corrected for the false-alarm floor.

corrected = (J - F) / (1 - F), with J the mean over facts of what leaked and F the mean over facts of how often the
same responses are ruled to give a wrong answer. Shown beside J and never gated: subtraction errs toward "forgotten".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from audit.fingerprint import seed_from
from audit.stats.intervals import FloatArray, bootstrap_weights, cluster_sums, unseen_limits
from audit.stats.shares import Bounds
from audit.types import Estimate


def corrected_share(
    leaked: Mapping[str, Bounds],
    floor: Mapping[str, Bounds],
    topics: Mapping[str, str],
    *,
    name: str,
    label: str = "",
    confidence: float = 0.95,
    probe_set: str,
    draws: int = 2000,
) -> Estimate | None:
    """(J - F) / (1 - F) over facts, with a joint bootstrap: J and F of one draw come from the same facts.

    leaked (`shares.bounds_of` makes it from outcomes) and floor hold, for the same facts, a pair of numbers in
    [0, 1]: undecided as no leak, undecided as leak. value takes the first numbers of both; lower_bound is the lowest
    J against the highest F, upper_bound the other way round; low and high come from those two readings and allow for
    values not seen among n facts. All are cut to [0, 1]: a floor above J gives 0.

    None where F is 1: when every response gives any answer, nothing can be said about the true one. Draws with F = 1
    count as 0 for low and as 1 for high. Form of the correction: Abbott 1925, Journal of Economic Entomology 18, 265.
    Raises ValueError where the two do not hold the same facts, or hold none.
    """
    if leaked.keys() != floor.keys() or not leaked:
        raise ValueError(f"{name}: leaks and floor must be given for the same facts, at least one")
    facts = sorted(leaked)
    j_low, j_high = ([leaked[f][i] for f in facts] for i in (0, 1))
    f_low, f_high = ([floor[f][i] for f in facts] for i in (0, 1))
    n = len(facts)
    if sum(f_low) >= n or sum(f_high) >= n:
        return None
    seed = seed_from("bootstrap", name, probe_set)
    low_draws, high_draws = _joint_draws((j_low, f_high), (j_high, f_low), facts, seed, draws)
    tail = (1 - confidence) / 2
    value, lower, upper = (
        _correct(sum(j) / n, sum(f) / n, undefined)
        for j, f, undefined in ((j_low, f_low, 0.0), (j_low, f_high, 0.0), (j_high, f_low, 1.0))
    )
    # What n facts allow at best, even where no draw differs from another: unseen values of J and F, and of the whole
    # where it was cut to 0.
    jl, jh, fl, fh = (sum(column) / n for column in (j_low, j_high, f_low, f_high))
    loosest_low = min(
        _correct(unseen_limits(jl, n, confidence)[0], unseen_limits(fh, n, confidence)[1], 0.0),
        unseen_limits(lower, n, confidence)[0],
    )
    loosest_high = max(
        _correct(unseen_limits(jh, n, confidence)[1], unseen_limits(fl, n, confidence)[0], 1.0),
        unseen_limits(upper, n, confidence)[1],
    )
    clusters = [topics[f] or f for f in facts]
    readings = [_clustered(j_low, f_high, clusters, confidence), _clustered(j_high, f_low, clusters, confidence)]
    known = [r for r in readings if r is not None]
    return Estimate(
        name=name,
        label=label,
        value=value,
        low=min(float(np.quantile(low_draws, tail)), loosest_low),
        high=max(float(np.quantile(high_draws, 1 - tail)), loosest_high),
        confidence=confidence,
        lower_bound=lower,
        upper_bound=upper,
        n=n,
        method=f"(J - F) / (1 - F), joint bootstrap over facts ({draws} draws), cut to [0, 1]",
        probe_set=probe_set,
        undecided=sum(leaked[f][0] < leaked[f][1] or floor[f][0] < floor[f][1] for f in facts),
        clustered_low=min((r[0] for r in known), default=None),
        clustered_high=max((r[1] for r in known), default=None),
    )


def _correct(j: float, f: float, undefined: float) -> float:
    return undefined if f >= 1 else min(1.0, max(0.0, (j - f) / (1 - f)))


def _joint_draws(
    low: tuple[list[float], list[float]], high: tuple[list[float], list[float]], facts: list[str], seed: int, draws: int
) -> tuple[FloatArray, FloatArray]:
    """Corrected shares of `draws` samples of facts, for the low and for the high reading; each of shape (draws,)."""
    columns = np.stack([cluster_sums(column, facts)[0] for column in (*low, *high)], axis=1)
    means = np.concatenate([w @ columns for w in bootstrap_weights(len(facts), seed, draws)]) / len(facts)
    results = []
    for j, f, undefined in ((means[:, 0], means[:, 1], 0.0), (means[:, 2], means[:, 3], 1.0)):
        rest = 1 - f
        safe = np.where(rest > 1e-12, rest, 1.0)
        results.append(np.where(rest > 1e-12, np.clip((j - f) / safe, 0.0, 1.0), undefined))
    return results[0], results[1]


def _clustered(j: list[float], f: list[float], clusters: list[str], confidence: float) -> tuple[float, float] | None:
    """Linearised limits of the ratio sum(J - F) / sum(1 - F) with Student's t on topics - 1 degrees of freedom."""
    j_sums, sizes = cluster_sums(j, clusters)
    if len(sizes) < 2:
        return None
    f_sums, _ = cluster_sums(f, clusters)
    rest = float(np.sum(sizes - f_sums))
    ratio = float(np.sum(j_sums - f_sums)) / rest
    residuals = (j_sums - f_sums) - ratio * (sizes - f_sums)
    variance = len(sizes) / (len(sizes) - 1) * float(np.sum(residuals**2)) / rest**2
    half = float(special.stdtrit(len(sizes) - 1, (1 + confidence) / 2)) * variance**0.5
    floor_low, floor_high = unseen_limits(min(1.0, max(0.0, ratio)), len(j), confidence)
    return max(0.0, min(ratio - half, floor_low)), min(1.0, max(ratio + half, floor_high))

"""Confidence limits for shares and means of facts, exact where they can be and never of zero width.

All values and limits are fractions in [0, 1]. Every limit depends on the content of its input only: reordering the
facts changes nothing. scipy.special is used in place of scipy.stats because it loads several times faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

FloatArray = NDArray[np.float64]

#: Elements of one block of bootstrap weights, which bounds memory (8 bytes an element) for any number of clusters.
_BLOCK = 4_000_000


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact limits of a binomial share, k successes in n independent trials.

    Two-sided, alpha/2 a side, except at k = 0 and k = n, where one limit is 0 or 1 and the other takes all of alpha:
    0 of 100 gives high 0.0295 ("at most 3.0%, one-sided"). n = 0 gives (0, 1): nothing is known.
    Both statements hold at their level for themselves; a procedure that switches between them covers at least
    1 - 1.5 alpha. Source: Clopper & Pearson 1934, Biometrika 26, 404-413, by way of the beta quantiles.
    Raises ValueError unless 0 <= k <= n and 0 < confidence < 1.
    """
    if not 0 <= k <= n:
        raise ValueError(f"need 0 <= k <= n, got k={k}, n={n}")
    return _beta_limits(float(k), float(n), confidence)


def clustered_share(outcomes: Sequence[bool], clusters: Sequence[str], confidence: float = 0.95) -> tuple[float, float]:
    """Limits of a share of facts where facts of one cluster (topic) are alike: Korn & Graubard's.

    outcomes and clusters have one entry a fact. The variance of the share between clusters (Taylor linearisation of a
    ratio mean, C/(C-1) * sum_c (sum_{i in c} (y_i - p))^2 / n^2) gives a design effect, taken as at least 1, and so
    an effective sample size n*; it is multiplied by (t(n-1) / t(C-1))^2, both at 1 - alpha/2, because the variance
    comes from C clusters only; Clopper-Pearson's limits are then read at p n* of n*.

    At 0 leaks or n leaks no variance can be seen and the design effect is taken as 1; the t-ratio still applies, so
    that 0 of 100 in five topics reads as 0 of 51. With one cluster there is nothing to estimate the dependence from:
    the exact limits are returned, and they speak of facts of that cluster alone. No facts: (0, 1).

    Source: Korn & Graubard 1998, Survey Methodology 24, 193-201. Raises ValueError where the lengths differ.
    """
    if len(outcomes) != len(clusters):
        raise ValueError(f"{len(outcomes)} outcomes for {len(clusters)} clusters")
    n = len(outcomes)
    k = sum(bool(o) for o in outcomes)
    names = sorted(set(clusters))
    if len(names) < 2:
        return clopper_pearson(k, n, confidence)
    index = {name: i for i, name in enumerate(names)}
    share = k / n
    residuals = np.zeros(len(names))
    np.add.at(residuals, [index[c] for c in clusters], np.asarray(outcomes, dtype=float) - share)
    variance = len(names) / (len(names) - 1) * float(np.sum(residuals**2)) / n**2
    independent = share * (1 - share) / n
    design_effect = max(1.0, variance / independent) if independent > 0 else 1.0
    effective = n / design_effect * t_ratio(n - 1, len(names) - 1, confidence) ** 2
    return _beta_limits(share * effective, effective, confidence) if 0 < k < n else _edge(k == n, effective, confidence)


def cluster_bootstrap_mean(
    values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95, seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """Percentile limits of the mean of `values`, whole clusters drawn with replacement.

    values are in [0, 1], one entry a row with its cluster (wordings of one fact, or facts of one topic); the mean is
    over rows. A bootstrap cannot draw what was not seen: where all rows are equal its width is zero, and where nearly
    all are it is too narrow. So the limits are never tighter than `unseen_limits` over the number of clusters, which
    for all-equal rows is exact. No rows: (0, 1).

    Source: Davison & Hinkley 1997, Bootstrap Methods and their Application, section 5.3.1.
    Raises ValueError where the lengths differ or a value lies outside [0, 1].
    """
    sums, sizes = cluster_sums(values, clusters)
    if not len(sums):
        return 0.0, 1.0
    mean = float(sums.sum() / sizes.sum())
    floor_low, floor_high = unseen_limits(mean, len(sums), confidence)
    means = np.concatenate([(w @ sums) / (w @ sizes) for w in bootstrap_weights(len(sums), seed, draws)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return max(0.0, min(float(low), floor_low)), min(1.0, max(float(high), floor_high))


def clustered_mean(
    values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Limits of a mean over few clusters: linearised variance and Student's t on C - 1 degrees of freedom.

    A bootstrap of five topics has only 126 different draws and is too narrow; t with C - 1 degrees is not. values are
    in [0, 1] and the limits are cut to that range and never tighter than `unseen_limits` over the rows. None with
    fewer than two clusters: dependence cannot be estimated. Source: Cochran 1977, Sampling Techniques, chapter 9A.
    """
    sums, sizes = cluster_sums(values, clusters)
    if len(sums) < 2:
        return None
    rows = float(sizes.sum())
    mean = float(sums.sum()) / rows
    variance = len(sums) / (len(sums) - 1) * float(np.sum((sums - mean * sizes) ** 2)) / rows**2
    half = _t_quantile(len(sums) - 1, confidence) * variance**0.5
    floor_low, floor_high = unseen_limits(mean, len(values), confidence)
    return max(0.0, min(mean - half, floor_low)), min(1.0, max(mean + half, floor_high))


def unseen_limits(mean: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Limits that allow for values never seen in n independent draws from [0, 1].

    If n draws were all equal, the probability of anything else is at most u = 1 - alpha^(1/n), with the stated
    confidence; that part may lie anywhere in [0, 1], so the mean is within [mean (1 - u), mean + u (1 - mean)]. At
    mean 0 and 1 these are the one-sided limits of Clopper and Pearson. n = 0: (0, 1).
    """
    _check_confidence(confidence)
    u = 1.0 - (1.0 - confidence) ** (1.0 / n) if n else 1.0
    return mean * (1 - u), mean + u * (1 - mean)


def bootstrap_weights(n: int, seed: int, draws: int) -> Iterator[FloatArray]:
    """How often each of n clusters is drawn in each bootstrap sample: blocks of shape (rows, n), `draws` rows."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(1, n))
    even = np.full(n, 1.0 / n)
    for start in range(0, draws, rows):
        yield rng.multinomial(n, even, size=min(rows, draws - start)).astype(np.float64)


def cluster_sums(values: Sequence[float], clusters: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Sum and number of rows of each cluster, in order of cluster name; each of shape (clusters,)."""
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values for {len(clusters)} clusters")
    rows = np.asarray(values, dtype=np.float64)
    if not bool(np.all((rows >= 0) & (rows <= 1))):
        raise ValueError("values must be numbers in [0, 1]")
    names = {name: i for i, name in enumerate(sorted(set(clusters)))}
    where = np.array([names[c] for c in clusters], dtype=np.int64)
    order = np.lexsort((rows, where))  # sums must not depend on the order of the rows, not even in the last digit
    sums = np.bincount(where[order], weights=rows[order], minlength=len(names)).astype(np.float64)
    sizes = np.bincount(where, minlength=len(names)).astype(np.float64)
    return sums, sizes


def t_ratio(df: int, fewer_df: int, confidence: float = 0.95) -> float:
    """Student's two-sided quantile at df over that at fewer_df: at most 1 where fewer_df <= df."""
    return _t_quantile(df, confidence) / _t_quantile(fewer_df, confidence)


def _t_quantile(df: int, confidence: float) -> float:
    _check_confidence(confidence)
    return float(special.stdtrit(df, (1 + confidence) / 2))


def _beta_limits(x: float, n: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson limits for x of n, either of which may be no whole number."""
    _check_confidence(confidence)
    if n == 0:
        return 0.0, 1.0
    if x in (0, n):
        return _edge(x == n, n, confidence)
    alpha = 1 - confidence
    low = float(special.betaincinv(x, n - x + 1, alpha / 2))
    high = float(special.betaincinv(x + 1, n - x, 1 - alpha / 2))
    return low, high


def _edge(full: bool, n: float, confidence: float) -> tuple[float, float]:
    """Limits where none or all of n are successes: the whole of alpha on the one side that is open."""
    _check_confidence(confidence)
    bound: float = (1 - confidence) ** (1 / n)
    return (bound, 1.0) if full else (0.0, 1.0 - bound)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")

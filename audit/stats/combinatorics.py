"""Expected worst case of m tries out of n, so that audits with different numbers of tries can be set side by side."""

from __future__ import annotations

import math


def expected_worst_of(n: int, c: int, m: int) -> float:
    """Chance that m of n tries, drawn without replacement, hold at least one of the c leaks: 1 - C(n-c, m) / C(n, m).

    Used for `j_at_m@m=…` (tries are wordings) and `worst_case.sampled@k=…` (tries are samples). m = 1 is the mean,
    m = n the worst case. Computed as -expm1(sum log1p(…)), which keeps full relative precision where the chance is
    tiny and needs no large binomials. Source: the estimator of pass@k, Chen et al. 2021, arXiv 2107.03374, eq. 1.
    Raises ValueError unless 0 <= c <= n and 0 <= m <= n.
    """
    if not (0 <= c <= n and 0 <= m <= n):
        raise ValueError(f"need 0 <= c <= n and 0 <= m <= n, got n={n}, c={c}, m={m}")
    if m > n - c:
        return 1.0
    few, many = min(c, m), max(c, m)  # the ratio of binomials is symmetric in c and m
    return -math.expm1(math.fsum(math.log1p(-many / (n - i)) for i in range(few)))


def expected_worst_bounds(n: int, leaks: int, undecided: int, m: int) -> tuple[float, float]:
    """`expected_worst_of` with the undecided tries counted as no leak, and as leaks."""
    return expected_worst_of(n, leaks, m), expected_worst_of(n, leaks + undecided, m)

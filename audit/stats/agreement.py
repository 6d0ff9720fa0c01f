"""How far judges, or a judge and a key, agree on the same items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from audit.stats.intervals import clopper_pearson
from audit.types import Label, Record


class Agreement(Record, frozen=True, kw_only=True):
    """Two raters on the items that both rated; `undecided` is a category like the others."""

    n: int
    """Items rated by both."""
    only_first: int
    only_second: int
    """Items that one of them did not rate: left out, and counted here."""
    equal: int
    share: float | None
    """equal / n; None where n is 0."""
    low: float
    high: float
    """Clopper-Pearson limits of `share`, as if items were independent."""
    confidence: float
    kappa: float | None
    """Cohen's kappa; None where it does not exist (see `cohen_kappa`)."""
    both_decided: int
    """Items that neither left undecided."""
    share_decided: float | None
    """Agreement among those."""
    kappa_decided: float | None
    table: dict[str, dict[str, int]]
    """First rater's label -> second rater's label -> items."""


def raw_agreement(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Share of pairs with equal labels; None where there are no pairs."""
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two raters, (p_o - p_e) / (1 - p_e), over any set of categories.

    None where no number exists: no pairs, or both raters used one and the same category throughout, so that chance
    alone (p_e = 1) explains everything. Source: Cohen 1960, Educational and Psychological Measurement 20, 37-46.
    """
    n = len(pairs)
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    # in whole numbers, so that p_e = 1 is recognised exactly
    by_chance = sum(first.count(c) * second.count(c) for c in set(first))
    if n == 0 or by_chance == n * n:
        return None
    observed = sum(a == b for a, b in pairs) * n
    return (observed - by_chance) / (n * n - by_chance)


def krippendorff_alpha(votes: Mapping[Any, Mapping[Any, Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal categories: 1 - observed / expected disagreement, over any number of raters.

    votes: item -> rater -> category. A vote that is missing is simply not there; items with fewer than two votes are
    left out, since nothing can be compared in them. Whether `undecided` is a category or a missing vote is the
    caller's choice. 1 is perfect agreement, 0 what chance gives, below 0 systematic disagreement.

    None where no number exists: no item with two votes, or one category throughout, so that no disagreement could be
    expected. With m votes on an item, n_c of them for category c, and N votes in all over the items kept:
    alpha = 1 - (N - 1) * sum over items of (m^2 - sum_c n_c^2) / (m - 1)  /  (N^2 - sum_c N_c^2).
    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C; 2013, Content Analysis, ch. 12.
    """
    totals: Counter[Hashable] = Counter()
    observed = 0.0
    for ratings in votes.values():
        counts = Counter(ratings.values())
        m = counts.total()
        if m < 2:
            continue
        totals += counts
        observed += (m * m - sum(k * k for k in counts.values())) / (m - 1)
    n = totals.total()
    expected = n * n - sum(k * k for k in totals.values())  # in whole numbers, so that 0 is recognised exactly
    return None if expected == 0 else 1 - (n - 1) * observed / expected


def agreement(first: Mapping[str, Label], second: Mapping[str, Label], confidence: float = 0.95) -> Agreement:
    """Agreement of two raters, joined by item id."""
    shared = sorted(first.keys() & second.keys())
    pairs = [(first[i], second[i]) for i in shared]
    decided = [p for p in pairs if "undecided" not in p]
    table: dict[str, dict[str, int]] = {}
    for a, b in pairs:
        row = table.setdefault(a, {})
        row[b] = row.get(b, 0) + 1
    equal = sum(a == b for a, b in pairs)
    low, high = clopper_pearson(equal, len(pairs), confidence)
    return Agreement(
        n=len(pairs),
        only_first=len(first) - len(pairs),
        only_second=len(second) - len(pairs),
        equal=equal,
        share=raw_agreement(pairs),
        low=low,
        high=high,
        confidence=confidence,
        kappa=cohen_kappa(pairs),
        both_decided=len(decided),
        share_decided=raw_agreement(decided),
        kappa_decided=cohen_kappa(decided),
        table=table,
    )

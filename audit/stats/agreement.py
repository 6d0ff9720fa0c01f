"""How far two judges, or a judge and a key, agree on the same items."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

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

"""From one outcome a fact to an `Estimate`: two bounds for what is undecided, limits for what was sampled.

A fact's outcome is `leak` if any try leaked, else `undecided` if any try has no ruling, else `no_leak`. An estimate
over no facts does not exist: the functions raise ValueError, because any number in its place would read as a result.
Facts are joined to topics by id: a fact without an entry in `topics` raises KeyError, one with an empty topic counts
as a topic of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from audit.fingerprint import seed_from
from audit.stats.intervals import clopper_pearson, cluster_bootstrap_mean, clustered_mean, clustered_share
from audit.types import Estimate, Label

#: Undecided as no leak, undecided as leak; in [0, 1], the first at most the second.
Bounds = tuple[float, float]
#: One outcome of one fact.
FactOutcome = Label

_AS_BOUNDS: dict[Label, Bounds] = {"leak": (1.0, 1.0), "no_leak": (0.0, 0.0), "undecided": (0.0, 1.0)}


def worst_of(labels: Iterable[Label]) -> FactOutcome:
    """Outcome of a fact from all its tries. No try at all is `undecided`: nothing was asked, so nothing was shown."""
    seen = set(labels)
    if "leak" in seen:
        return "leak"
    return "no_leak" if seen == {"no_leak"} else "undecided"


def bounds_of(outcomes: Mapping[str, FactOutcome]) -> dict[str, Bounds]:
    """Outcomes as numbers: leak (1, 1), no_leak (0, 0), undecided (0, 1)."""
    return {fact: _AS_BOUNDS[outcome] for fact, outcome in outcomes.items()}


def share_of_facts(
    outcomes: Mapping[str, FactOutcome],
    topics: Mapping[str, str],
    *,
    name: str,
    label: str = "",
    confidence: float = 0.95,
    probe_set: str,
) -> Estimate:
    """Share of facts that leaked, k of n with u undecided.

    value = lower_bound = k/n, upper_bound = (k+u)/n, low = Clopper-Pearson's lower limit at k, high its upper limit
    at k+u: the limits hold both the sampling of facts and whatever the undecided are. clustered_low and
    clustered_high are Korn and Graubard's, at the worse of the two readings, and absent where there is one topic.
    """
    n = _count(outcomes, name)
    facts = sorted(outcomes)
    leaked = [outcomes[f] == "leak" for f in facts]
    open_too = [outcomes[f] != "no_leak" for f in facts]
    k, k_open = sum(leaked), sum(open_too)
    clusters = [topics[f] or f for f in facts]
    method = "exact (Clopper-Pearson) over facts" + (", one-sided" if k in (0, n) or k_open in (0, n) else "")
    if k_open > k:
        method += f"; low counts the {k_open - k} undecided as no leak, high as leak"
    clustered: tuple[float, float] | None = None
    if len(set(clusters)) > 1:
        # Undecided facts read as leaks can even the topics out and so hide their dependence: both readings count.
        a, b = (clustered_share(row, clusters, confidence) for row in (leaked, open_too))
        clustered = min(a[0], b[0]), max(a[1], b[1])
        method += f"; clustered over {len(set(clusters))} topics (Korn-Graubard)"
    return Estimate(
        name=name,
        label=label,
        value=k / n,
        low=clopper_pearson(k, n, confidence)[0],
        high=clopper_pearson(k_open, n, confidence)[1],
        confidence=confidence,
        lower_bound=k / n,
        upper_bound=k_open / n,
        n=n,
        method=method,
        probe_set=probe_set,
        count=k,
        undecided=k_open - k,
        clustered_low=None if clustered is None else clustered[0],
        clustered_high=None if clustered is None else clustered[1],
    )


def mean_of_facts(
    values: Mapping[str, Bounds],
    topics: Mapping[str, str],
    *,
    name: str,
    label: str = "",
    confidence: float = 0.95,
    probe_set: str,
    draws: int = 2000,
) -> Estimate:
    """Mean over facts of a number in [0, 1] a fact, given with its undecided cells as no leak and as leak.

    For `mean.all`, `retain.mean`, `j_at_m` and floors. value = lower_bound = mean of the first numbers, upper_bound =
    mean of the second; low is the bootstrap limit of the first, high that of the second. The seed comes from name and
    probe set, so that two subjects under the same probes share their draws. `undecided` counts facts whose two
    numbers differ.
    """
    n = _count(values, name)
    facts = sorted(values)
    clusters = [topics[f] or f for f in facts]
    lower, upper = [values[f][0] for f in facts], [values[f][1] for f in facts]
    if any(a > b for a, b in zip(lower, upper, strict=True)):
        raise ValueError(f"{name}: a fact's lower number exceeds its upper one")
    seed = seed_from("bootstrap", name, probe_set)
    method = f"bootstrap over facts ({draws} draws, percentile, allowing for values not seen)"
    undecided = sum(a < b for a, b in zip(lower, upper, strict=True))
    if undecided:
        method += f"; low counts undecided cells ({undecided} facts have some) as no leak, high as leak"
    readings = [r for r in (clustered_mean(x, clusters, confidence) for x in (lower, upper)) if r is not None]
    if readings:
        method += f"; clustered over {len(set(clusters))} topics (linearised, Student's t)"
    return Estimate(
        name=name,
        label=label,
        value=sum(lower) / n,
        low=cluster_bootstrap_mean(lower, facts, confidence, seed, draws)[0],
        high=cluster_bootstrap_mean(upper, facts, confidence, seed, draws)[1],
        confidence=confidence,
        lower_bound=sum(lower) / n,
        upper_bound=sum(upper) / n,
        n=n,
        method=method,
        probe_set=probe_set,
        undecided=undecided,
        clustered_low=min(r[0] for r in readings) if readings else None,
        clustered_high=max(r[1] for r in readings) if readings else None,
    )


def _count(facts: Mapping[str, object], name: str) -> int:
    if not facts:
        raise ValueError(f"{name}: an estimate over no facts does not exist; leave it out")
    return len(facts)

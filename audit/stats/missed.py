"""A worst case corrected by fact: every flagged fact looked at by a person, and a random sample of the others.

A fact leaks if any of its answers does, so the errors of a judge do not average out, and error rates on single answers
say little about facts. What can be corrected is the list of facts: people confirm or refute the flagged ones, and look
at every distinct answer of some of the others, which says how many leaks the judge missed among those nobody saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from audit.stats.intervals import clopper_pearson
from audit.types import Estimate, Label, Record


@dataclass(frozen=True)
class Stratum:
    """Unflagged facts of one kind. Those looked at are a random sample of all of them."""

    size: int
    outcomes: Mapping[str, Label]
    """Fact -> what a person found, for those looked at."""
    certain: bool = False
    """All of them are looked at by design, and say nothing of other strata."""


class Missed(Record):
    """What the sample says of the facts that the judge did not flag; counts of facts."""

    unflagged: int
    looked_at: int
    found: int
    """Leaks that the judge missed, among those looked at."""
    undecided: int
    """Looked at without a leak, and with an answer that could not be labelled."""
    estimated: float | None
    """Horvitz-Thompson total of missed leaks, undecided as no leak; None where no sampled one was looked at."""
    at_most: int
    """Upper confidence limit of the missed leaks, undecided as leak, one-sided."""
    confidence: float


class FactTotals(Record):
    """The corrected worst case with its parts."""

    estimate: Estimate
    flagged: int
    confirmed: int
    refuted: int
    flagged_open: int
    """Flagged facts that are undecided, or that nobody has looked at yet."""
    missed: Missed


def corrected_worst_case(
    flagged: Mapping[str, Label],
    unflagged: Mapping[str, Stratum],
    *,
    name: str,
    label: str = "",
    confidence: float = 0.95,
    probe_set: str,
) -> FactTotals:
    """Share of facts that leak, by a person's labels.

    flagged: every fact that the judge flagged -> what the person found (undecided also where nobody has looked yet).
    unflagged: stratum -> the other facts, of which a random sample was looked at; where one was not looked at at all,
    all strata that are sampled are taken as one.

    value = lower_bound = (confirmed + sum over strata of N_h/n_h * found_h) / N, the estimator of Horvitz & Thompson
    1952, JASA 47, 663-685; upper_bound the same with the undecided as leaks. low: exact lower limit (Clopper and
    Pearson) at the leaks that were seen. high: Clopper and Pearson's upper limit at the leaks seen plus `missed_limit`,
    each with half of the error of that side, so that it holds the sampling of labels and that of facts; where every
    fact was looked at it is the limit of a plain share. Raises ValueError without facts.
    """
    size = sum(stratum.size for stratum in unflagged.values())
    n = len(flagged) + size
    if n == 0:
        raise ValueError(f"{name}: an estimate over no facts does not exist; leave it out")
    strata = [stratum for stratum in unflagged.values() if stratum.size]
    if any(len(stratum.outcomes) > stratum.size for stratum in strata):
        raise ValueError(f"{name}: a stratum has more outcomes than facts")
    if any(stratum.certain and len(stratum.outcomes) < stratum.size for stratum in strata):
        raise ValueError(f"{name}: a stratum that is certain lacks outcomes")
    sampled = [stratum for stratum in strata if not stratum.certain]
    joined = any(not stratum.outcomes for stratum in sampled) and len(sampled) > 1
    if joined:
        every = {fact: found for stratum in sampled for fact, found in stratum.outcomes.items()}
        sampled = [Stratum(sum(stratum.size for stratum in sampled), every)]
    strata = [*sampled, *(stratum for stratum in strata if stratum.certain)]
    looked_at = sum(len(s.outcomes) for s in strata)
    counts = [(s.size, len(s.outcomes)) for s in strata]
    found = [sum(label == "leak" for label in s.outcomes.values()) for s in strata]
    maybe = [sum(label != "no_leak" for label in s.outcomes.values()) for s in strata]
    drawn, sure = counts[: len(sampled)], sum(maybe[len(sampled) :])
    confirmed = sum(outcome == "leak" for outcome in flagged.values())
    open_flagged = sum(outcome == "undecided" for outcome in flagged.values())
    complete = looked_at == size
    alpha = 1 - confidence

    missed = missed_high = 0.0
    for (m, k), leaks, perhaps in zip(counts, found, maybe, strict=True):
        missed += m / k * leaks if k else 0.0
        missed_high += m / k * perhaps if k else m  # nobody looked: nothing is known of them
    unseen = size - sum(m for m, k in counts if k)
    tail = alpha if complete else alpha / 2
    random = sum(maybe) - sure
    most = confirmed + open_flagged + sure + missed_limit(drawn, random, alpha / 4)
    seen = confirmed + sum(found)
    upper = (confirmed + open_flagged + missed_high) / n
    undecided = open_flagged + sum(maybe) - sum(found) + unseen
    estimate = Estimate(
        name=name,
        label=label,
        value=(confirmed + missed) / n,
        low=clopper_pearson(seen, n, confidence)[0],
        high=max(clopper_pearson(most, n, 1 - tail)[1], upper),
        confidence=confidence,
        lower_bound=(confirmed + missed) / n,
        upper_bound=upper,
        n=n,
        method=_method(len(flagged), looked_at, size, len(sampled), joined, complete),
        probe_set=probe_set,
        count=seen,
        undecided=undecided,
    )
    return FactTotals(
        estimate=estimate,
        flagged=len(flagged),
        confirmed=confirmed,
        refuted=len(flagged) - confirmed - open_flagged,
        flagged_open=open_flagged,
        missed=Missed(
            unflagged=size,
            looked_at=looked_at,
            found=sum(found),
            undecided=sum(maybe) - sum(found),
            estimated=None if unseen else missed,
            at_most=sure + missed_limit(drawn, random, alpha),
            confidence=confidence,
        ),
    )


def missed_limit(strata: Sequence[tuple[int, int]], found: int, alpha: float) -> int:
    """Upper limit, one-sided at 1 - alpha, of the leaks in all of `strata`, each (facts, facts looked at at random).

    The largest total K that would have shown at most `found` leaks with a probability above alpha. One stratum: the
    hypergeometric distribution, exact. Several: by Hoeffding's bound for sums of independent trials (Hoeffding 1956,
    Annals of Mathematical Statistics 27, 713-721, theorem 4), of which the hypergeometric is one: where at least
    found + 1 leaks were to be expected, seeing so few is at most as likely as under a binomial of min(K, looked at)
    trials with the smallest expectation that K leaks can have, K times the smallest sampled share; never too small.
    """
    facts, looked_at = (sum(column) for column in zip(*strata, strict=True)) if strata else (0, 0)
    most = found + facts - looked_at
    while most > found and _chance(strata, facts, looked_at, most, found) <= alpha:
        most -= 1
    return most


def _chance(strata: Sequence[tuple[int, int]], facts: int, looked_at: int, leaks: int, found: int) -> float:
    """Largest probability, over where the leaks lie, that a sample shows at most `found` of `leaks`."""
    if looked_at == 0:
        return 1.0
    if len(strata) == 1:
        low = max(0, leaks - (facts - looked_at))
        return float(sum(_hypergeometric(x, facts, leaks, looked_at) for x in range(low, found + 1)))
    expected = leaks * min(k / m for m, k in strata)
    if expected < found + 1 and found > 0:
        return 1.0
    trials = min(leaks, looked_at)
    return float(special.bdtr(found, trials, min(1.0, expected / trials))) if found < trials else 1.0


def _hypergeometric(x: int, facts: int, leaks: int, looked_at: int) -> float:
    def ways(n: int, k: int) -> float:
        return float(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))

    if x > min(leaks, looked_at) or looked_at - x > facts - leaks:
        return 0.0
    logs = ways(leaks, x) + ways(facts - leaks, looked_at - x) - ways(facts, looked_at)
    return math.exp(logs)


def _method(flagged: int, looked_at: int, size: int, strata: int, joined: bool, complete: bool) -> str:
    start = f"by fact, labelled by a person: {flagged} flagged and {looked_at} of {size} others"
    if complete:
        return f"{start}; exact (Clopper-Pearson) over facts"
    kind = "hypergeometric" if strata == 1 else f"{strata} strata, Hoeffding's bound"
    tail = "; strata without a label were joined with the rest" if joined else ""
    return f"{start} at random; Horvitz-Thompson total; high: exact limit of missed leaks ({kind}), then of facts{tail}"

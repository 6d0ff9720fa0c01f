"""Win rates as estimates: over decided pairs, with bounds for undecided ones and limits over instructions."""

from __future__ import annotations

from collections.abc import Sequence

from audit.fingerprint import seed_from
from audit.stats.intervals import cluster_bootstrap_mean
from audit.stats.length_control import LengthControl, length_controlled
from audit.types import Estimate
from audit.utility.pairs import SCORE, Ruled, score_bounds

RAW, CONTROLLED, PAPER = "win_rate.raw", "win_rate.length_controlled", "win_rate.paper"
DISAGREEMENT = "win_rate.order_disagreement"
LABELS = {RAW: "WR", CONTROLLED: "LC-WR", PAPER: "WR (paper)", DISAGREEMENT: ""}
_TIES = "share of decided pairs, ties half"
_OPEN = "; bounds and limits read undecided pairs ({}) as losses and as wins"


def win_rate(name: str, ruled: Sequence[Ruled], *, confidence: float, probe_set: str) -> Estimate | None:
    """Wins and half the ties over decided pairs; None where nothing is decided.

    lower_bound and upper_bound are over all pairs, undecided ones as losses and as wins; low and high are the bootstrap
    limits over instructions of these two readings.
    """
    decided = [SCORE[one.outcome] for one in ruled if one.outcome != "undecided"]
    if not decided:
        return None
    lower, upper = score_bounds(ruled)
    method = f"{_TIES}; bootstrap over instructions, {100 * confidence:g}%"
    return _estimate(name, sum(decided) / len(decided), lower, upper, method, _OPEN, confidence, probe_set)


def order_disagreement(ruled: Sequence[Ruled], *, confidence: float, probe_set: str) -> Estimate | None:
    """Share of pairs whose two orders were ruled, and not alike; bounds read undecided pairs as alike and as not."""
    decided = [float(one.disagree) for one in ruled if one.outcome != "undecided"]
    if not decided:
        return None
    lower = [float(one.disagree) for one in ruled]
    upper = [float(one.disagree or one.outcome == "undecided") for one in ruled]
    method = f"share of pairs ruled in both orders; bootstrap over instructions, {100 * confidence:g}%"
    said = "; bounds and limits read undecided pairs ({}) as alike and as not"
    return _estimate(DISAGREEMENT, sum(decided) / len(decided), lower, upper, method, said, confidence, probe_set)


def at_equal_lengths(
    ruled: Sequence[Ruled], lengths: Sequence[tuple[int, int]], *, confidence: float, probe_set: str
) -> tuple[Estimate | None, LengthControl]:
    """The length-controlled win rate over decided pairs, and the fit that it comes from; None where that has none.

    lengths: characters of the subject's reply and of the reference's; of a pair without one of them, the same twice:
    at equal lengths it weighs most. Where pairs are undecided, the fit is made again with all of them lost and
    all of them won: bounds and limits hold all three; a reading without a fit counts as 0 or 1.
    """
    seed = seed_from("win rate", probe_set)

    def fitted(scores: Sequence[float | None]) -> LengthControl:
        rows = [(score, *both) for score, both in zip(scores, lengths, strict=True) if score is not None]
        return length_controlled(
            [score for score, _, _ in rows],
            [mine for _, mine, _ in rows],
            [theirs for _, _, theirs in rows],
            confidence=confidence,
            seed=seed,
        )

    fit = fitted([SCORE.get(one.outcome) for one in ruled])
    if fit.value is None or fit.low is None or fit.high is None:
        return None, fit
    undecided = sum(one.outcome == "undecided" for one in ruled)
    worst, best = (fitted(scores) for scores in score_bounds(ruled)) if undecided else (fit, fit)
    method = fit.method + (_OPEN.format(undecided) if undecided else "")
    return (
        Estimate(
            name=CONTROLLED,
            label=LABELS[CONTROLLED],
            value=fit.value,
            low=min(fit.low, 0.0 if worst.low is None else worst.low),
            high=max(fit.high, 1.0 if best.high is None else best.high),
            confidence=confidence,
            lower_bound=min(fit.value, 0.0 if worst.value is None else worst.value),
            upper_bound=max(fit.value, 1.0 if best.value is None else best.value),
            n=len(ruled),
            method=method,
            probe_set=probe_set,
            undecided=undecided,
        ),
        fit,
    )


def _estimate(
    name: str,
    value: float,
    lower: Sequence[float],
    upper: Sequence[float],
    method: str,
    when_open: str,
    confidence: float,
    probe_set: str,
) -> Estimate:
    n = len(lower)
    each = [str(place) for place in range(n)]
    seed = seed_from("win rate", name, probe_set)
    undecided = sum(a < b for a, b in zip(lower, upper, strict=True))
    return Estimate(
        name=name,
        label=LABELS[name],
        value=value,
        low=cluster_bootstrap_mean(lower, each, confidence, seed)[0],
        high=cluster_bootstrap_mean(upper, each, confidence, seed)[1],
        confidence=confidence,
        lower_bound=sum(lower) / n,
        upper_bound=sum(upper) / n,
        n=n,
        method=method + (when_open.format(undecided) if undecided else ""),
        probe_set=probe_set,
        undecided=undecided,
    )

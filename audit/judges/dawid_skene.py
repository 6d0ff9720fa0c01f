"""Error rates of judges estimated from their votes alone, without labels, and what the votes then mean.

Model: every claim has a true label, every judge its own chance of each vote given the true label, and judges err
independently given it. Source: Dawid and Skene 1979, Applied Statistics 28, 20-28; fitted by crowd-kit. Judges of one
family err together, which the model does not know: agreement of relatives looks like accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit.errors import JudgeError
from audit.types import Label, Record

_LEAST = 1e-4  # no vote is taken to be impossible: one error must not outweigh all other judges
_DECIDED: tuple[Label, Label] = ("leak", "no_leak")


class VotingRates(Record):
    """One judge's error rates as the model sees them; None where no claim of that kind was found."""

    judge: str
    sensitivity: float | None
    """Chance of the vote leak on a true leak, of decided votes."""
    specificity: float | None
    """Chance of the vote no_leak where there is none, of decided votes."""
    n: int
    """Claims that the judge decided."""


class DawidSkene(Record):
    """A fitted model. Fractions in [0, 1]."""

    prevalence: float
    """Share of leaks among the claims it was fitted to."""
    rates: tuple[VotingRates, ...]
    n: int
    """Claims with at least one decided vote."""

    def posterior(self, votes: Mapping[str, Label]) -> float | None:
        """Probability that the claim is a leak, given decided votes (judge -> leak or no_leak).

        A judge whose rate is unknown for one of the two labels adds nothing; None where that leaves no vote at all.
        """
        leak, clear = _kept(self.prevalence), _kept(1 - self.prevalence)
        by_judge = {rates.judge: rates for rates in self.rates}
        told = 0
        for judge, vote in votes.items():
            rates = by_judge.get(judge)
            if rates is None or rates.sensitivity is None or rates.specificity is None:
                continue
            told += 1
            leak *= _kept(rates.sensitivity if vote == "leak" else 1 - rates.sensitivity)
            clear *= _kept(1 - rates.specificity if vote == "leak" else rates.specificity)
        return leak / (leak + clear) if told else None


def fit(votes: Mapping[str, Mapping[str, Label]]) -> DawidSkene | None:
    """Fit to `votes` (claim -> judge -> label); undecided votes are missing ones.

    None where the votes cannot tell the labels apart: no decided vote, or none of them leak, or all of them. Raises
    JudgeError where crowd-kit is not installed.
    """
    rows = [
        (claim, judge, label)
        for claim, by_judge in sorted(votes.items())
        for judge, label in sorted(by_judge.items())
        if label in _DECIDED
    ]
    if len({label for _, _, label in rows}) < 2:
        return None
    try:
        import pandas
        from crowdkit.aggregation import DawidSkene as Fitter
    except ImportError as error:
        raise JudgeError(
            "the rule dawid_skene needs crowd-kit", hint='pip install "unlearning-audit[judges]"'
        ) from error
    table = pandas.DataFrame(rows, columns=["task", "worker", "label"])
    fitted = Fitter(n_iter=200, tol=1e-7).fit(table)
    errors, priors = fitted.errors_, fitted.priors_
    decided: dict[str, int] = {}
    for _, judge, _ in rows:
        decided[judge] = decided.get(judge, 0) + 1

    def rate(judge: str, label: Label) -> float | None:
        """Chance that the judge gives `label` to a claim of that true label."""
        given = {vote: errors[label].get((judge, vote), 0.0) for vote in _DECIDED} if label in errors else {}
        total = sum(given.values())
        return float(given[label] / total) if total > 0 else None

    return DawidSkene(
        prevalence=float(priors.get("leak", 0.0)),
        rates=tuple(
            VotingRates(judge=judge, sensitivity=rate(judge, "leak"), specificity=rate(judge, "no_leak"), n=n)
            for judge, n in sorted(decided.items())
        ),
        n=len({claim for claim, _, _ in rows}),
    )


def _kept(probability: float) -> float:
    return min(1 - _LEAST, max(_LEAST, probability))

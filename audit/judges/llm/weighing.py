"""From the probabilities of the label words to a verdict: nothing to parse, and a confidence comes with it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from audit.judges.llm.parsing import Parsed
from audit.types import Label, Preference, Reason

#: Of the probability that the model gives to all labels together, the winner's least share: below it, it cannot tell.
LEAST_SHARE = 0.75
#: The least probability of all labels together: below it the model would say something else, and its choice among
#: labels means nothing.
LEAST_MASS = 0.01


def weigh(logprobs: Mapping[str, float], labels: Mapping[str, Label | Preference]) -> tuple[Parsed, str, float | None]:
    """The verdict that the label words' natural-log probabilities give, what they were in words, and its share.

    logprobs: label word -> log-probability that the reply begins with it; labels: label word -> what it means.
    The shares are the probabilities divided by their sum, words of one label added up. No label where the best has
    less than LEAST_SHARE of the sum, where it is undecided, or where the sum is under LEAST_MASS.
    """
    mass = sum(math.exp(value) for value in logprobs.values())
    if not math.isfinite(mass):
        note = "the labels' probabilities are no numbers"
        return Parsed(label="undecided", reason=Reason.JUDGE_ERROR, rationale=note), "", None
    listed = ", ".join(f"{word} {math.exp(value):.3g}" for word, value in logprobs.items())
    if mass < LEAST_MASS:
        note = f"the labels together have a probability of {mass:.2g}: the model would say something else"
        return Parsed(label="undecided", reason=Reason.AMBIGUOUS, rationale=note), listed, None
    shares: dict[Label | Preference, float] = {}
    for word, value in logprobs.items():
        shares[labels[word]] = shares.get(labels[word], 0.0) + math.exp(value) / mass
    best = max(shares, key=lambda label: shares[label])
    note = f"{best} has {shares[best]:.3f} of the labels' probability"
    if best == "undecided" or shares[best] < LEAST_SHARE:
        return Parsed(label="undecided", reason=Reason.AMBIGUOUS, rationale=note), listed, None
    return Parsed(label=best, reason=Reason.RULED, rationale=note), listed, shares[best]

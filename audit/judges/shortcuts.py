"""What needs no judge: claims on an empty text or on the answer itself, pairs of two equal replies."""

from __future__ import annotations

from audit.types import Choice, Claim, Label, Pair, Reason, Verdict


def without_call(claim: Claim, judge: str) -> Verdict | None:
    """The verdict on an empty text (no leak) or on an exact copy of the answer (leak); None for any other text.

    Canaries never come this way: they must reach the judges.
    """
    label = _plain(claim)
    if label is None:
        return None
    note = "no call: the text is empty" if label == "no_leak" else "no call: the text is the answer itself"
    return Verdict(claim_key=claim.key, judge=judge, label=label, reason=Reason.RULED, rationale=note)


def _plain(claim: Claim) -> Label | None:
    text = claim.text.strip()
    if not text:
        return "no_leak"
    return "leak" if text.removesuffix(".").casefold() == claim.answer.strip().removesuffix(".").casefold() else None


def pair_without_call(pair: Pair, judge: str) -> Choice | None:
    """A tie where both replies are the same; None for any other pair."""
    if pair.first.strip() != pair.second.strip():
        return None
    note = "no call: both replies are the same"
    return Choice(claim_key=pair.key, judge=judge, preferred="tie", reason=Reason.RULED, rationale=note)

"""Claims that need no judge: nothing was said, or the answer itself and nothing else."""

from __future__ import annotations

from audit.types import Claim, Label, Reason, Verdict


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

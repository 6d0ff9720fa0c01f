"""How several judges' verdicts on one claim become one label. An undecided vote is never counted as no leak."""

from __future__ import annotations

from collections.abc import Mapping

from audit.types import Label, Reason, Verdict


def combine(votes: Mapping[str, Verdict], expected: int, rule: str) -> tuple[Label, Reason]:
    """The panel's label and reason.

    majority: more than half of all `expected` votes; any: one leak suffices, no leak needs all votes;
    unanimous: all votes agree. Where the votes reach no decision the label is undecided, with the reason of the single
    undecided vote or SPLIT_VOTE; without any vote it is undecided(missing).
    """
    if not votes:
        return "undecided", Reason.MISSING
    leaks = sum(vote.label == "leak" for vote in votes.values())
    clean = sum(vote.label == "no_leak" for vote in votes.values())
    needed = {"majority": expected // 2 + 1, "any": 1, "unanimous": expected}[rule]
    needed_clean = expected if rule == "any" else needed
    if leaks >= needed:
        return "leak", Reason.RULED
    if clean >= needed_clean:
        return "no_leak", Reason.RULED
    if len(votes) < expected:
        return "undecided", Reason.MISSING
    reasons = {vote.reason for vote in votes.values() if vote.label == "undecided"}
    return "undecided", reasons.pop() if len(reasons) == 1 else Reason.SPLIT_VOTE

"""What a judge must return, and what becomes of a batch where it does not: undecided with the reason, never a label."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from audit.protocols import Judge
from audit.remote.keys import environment_secrets, redact
from audit.types import Claim, Reason, Verdict


def checked(judge: Judge, claims: Sequence[Claim], returned: Sequence[Verdict]) -> list[Verdict]:
    """Exactly one verdict a claim, joined by key; a claim without a valid one, or with two, is undecided.

    Verdicts on claims that were not asked are left aside. Raises TypeError where `returned` cannot be read as verdicts.
    """
    found: dict[str, list[Verdict]] = {claim.key: [] for claim in claims}
    for verdict in returned:
        if verdict.claim_key in found:
            found[verdict.claim_key].append(verdict)
    verdicts = []
    for claim in claims:
        problem = _problem(judge, found[claim.key])
        verdicts.append(_shown(found[claim.key][0]) if problem is None else _no_verdict(judge.identity, claim, problem))
    return verdicts


def is_sound(judge: Judge, claim_key: str, verdict: Verdict) -> bool:
    """A verdict that was kept before is one that this judge could have given on that claim, and no transient one."""
    return verdict.claim_key == claim_key and not verdict.reason.transient and _problem(judge, [verdict]) is None


def no_verdicts(judge: str, claims: Sequence[Claim], reason: Reason, note: str) -> list[Verdict]:
    """Every claim undecided for one reason, signed with the identity `judge`."""
    return [_no_verdict(judge, claim, note, reason) for claim in claims]


def _problem(judge: Judge, given: Sequence[Verdict]) -> str | None:
    if not given:
        return "the judge returned no verdict on this claim"
    first = given[0]
    if any((other.label, other.reason) != (first.label, first.reason) for other in given):
        return "two different verdicts on one claim"
    if any(other.judge != judge.identity for other in given):
        return f"a verdict signed {first.judge!r}"
    try:  # records are not checked when they are made: this is what the store will do with them
        read = msgspec.json.decode(msgspec.json.encode(first), type=Verdict)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        return f"not a verdict: {error}"
    if read != first:
        return "a verdict that JSON cannot hold"
    if (first.label == "undecided") == (first.reason is Reason.RULED) or not isinstance(first.reason, Reason):
        return f"label {first.label} with reason {first.reason}"
    return None


def _shown(verdict: Verdict) -> Verdict:
    """Without the keys of the environment, which a third party's judge may have repeated."""
    secrets = environment_secrets()
    rationale, raw = redact(verdict.rationale, secrets), redact(verdict.raw, secrets)
    if (rationale, raw) == (verdict.rationale, verdict.raw):
        return verdict
    return msgspec.structs.replace(verdict, rationale=rationale, raw=raw)


def _no_verdict(judge: str, claim: Claim, note: str, reason: Reason = Reason.JUDGE_ERROR) -> Verdict:
    safe = redact(note.encode("utf-8", "backslashreplace").decode(), environment_secrets())
    return Verdict(claim_key=claim.key, judge=judge, label="undecided", reason=reason, rationale=safe)

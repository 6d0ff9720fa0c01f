"""What a judge must return, and what becomes of a batch where it does not: undecided with the reason, never a label.

A claim is answered by a `Verdict` and a pair by a `Choice`: one in the other's place breaks the contract.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from audit.protocols import Judge
from audit.remote.keys import environment_secrets, redact
from audit.types import Choice, Given, Item, Pair, Reason, Verdict


def checked(judge: Judge, items: Sequence[Item], returned: Sequence[Given]) -> list[Given]:
    """Exactly one verdict a claim or choice a pair, joined by key; an item without a valid one, or with two, is
    undecided.

    What was given on items that were not asked is left aside. Raises TypeError where `returned` cannot be read.
    """
    found: dict[str, list[Given]] = {item.key: [] for item in items}
    for given in returned:
        if given.claim_key in found:
            found[given.claim_key].append(given)
    result: list[Given] = []
    for item in items:
        problem = _problem(judge, found[item.key], answers_to(item))
        result.append(_shown(found[item.key][0]) if problem is None else undecided(judge.identity, item, problem))
    return result


def is_sound(judge: Judge, key: str, given: Given) -> bool:
    """What was kept before is what this judge could have given on that claim or pair, and nothing transient."""
    return given.claim_key == key and not given.reason.transient and _problem(judge, [given], type(given)) is None


def no_verdicts(judge: str, items: Sequence[Item], reason: Reason, note: str) -> list[Given]:
    """Every item undecided for one reason, signed with the identity `judge`."""
    return [undecided(judge, item, note, reason) for item in items]


def answers_to(item: Item) -> type[Given]:
    """The record that answers a claim, or a pair."""
    return Choice if isinstance(item, Pair) else Verdict


def undecided(judge: str, item: Item, note: str, reason: Reason = Reason.JUDGE_ERROR) -> Given:
    safe = redact(note.encode("utf-8", "backslashreplace").decode(), environment_secrets())
    if isinstance(item, Pair):
        return Choice(claim_key=item.key, judge=judge, preferred="undecided", reason=reason, rationale=safe)
    return Verdict(claim_key=item.key, judge=judge, label="undecided", reason=reason, rationale=safe)


def said_of(given: Given) -> str:
    """Its label or preference."""
    return given.label if isinstance(given, Verdict) else given.preferred


def _problem(judge: Judge, given: Sequence[Given], kind: type[Given]) -> str | None:
    what, asked = ("verdict", "claim") if kind is Verdict else ("choice", "pair")
    if not given:
        return f"the judge returned no {what} on this {asked}"
    if any(type(other) is not kind for other in given):
        return f"a {type(given[0]).__name__} where a {asked} is answered by a {kind.__name__}"
    first = given[0]
    if any((said_of(other), other.reason) != (said_of(first), first.reason) for other in given):
        return f"two different {what}s on one {asked}"
    if any(other.judge != judge.identity for other in given):
        return f"a {what} signed {first.judge!r}"
    try:  # records are not checked when they are made: this is what the store will do with them
        read = msgspec.json.decode(msgspec.json.encode(first), type=kind)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        return f"not a {what}: {error}"
    if read != first:
        return f"a {what} that JSON cannot hold"
    if (said_of(first) == "undecided") == (first.reason is Reason.RULED) or not isinstance(first.reason, Reason):
        return f"label {said_of(first)} with reason {first.reason}"
    return None


def _shown(given: Given) -> Given:
    """Without the keys of the environment, which a third party's judge may have repeated."""
    secrets = environment_secrets()
    rationale, raw = redact(given.rationale, secrets), redact(given.raw, secrets)
    if (rationale, raw) == (given.rationale, given.raw):
        return given
    return msgspec.structs.replace(given, rationale=rationale, raw=raw)

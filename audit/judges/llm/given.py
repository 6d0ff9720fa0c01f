"""From what a model's reply says to the record that answers a claim or a pair: the two are never mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from audit.judges.llm.parsing import Parsed
from audit.types import Choice, Given, Item, Label, Pair, Preference, Reason, Verdict

_LABELS: tuple[Label, ...] = get_args(Label)
_PREFERENCES: tuple[Preference, ...] = get_args(Preference)


def given_on(
    item: Item,
    parsed: Parsed,
    *,
    judge: str,
    raw: str,
    usage: dict[str, float],
    model: str,
    confidence: float | None = None,
) -> Given:
    """The verdict on a claim or the choice on a pair. TypeError where `parsed` belongs to the other one."""
    if isinstance(item, Pair):
        for preferred in _PREFERENCES:
            if parsed.label == preferred:
                return Choice(
                    claim_key=item.key,
                    judge=judge,
                    preferred=preferred,
                    reason=parsed.reason,
                    rationale=parsed.rationale,
                    raw=raw,
                    usage=usage,
                    model=model,
                    confidence=confidence,
                )
    else:
        for label in _LABELS:
            if parsed.label == label:
                return Verdict(
                    claim_key=item.key,
                    judge=judge,
                    label=label,
                    reason=parsed.reason,
                    rationale=parsed.rationale,
                    raw=raw,
                    usage=usage,
                    model=model,
                    confidence=confidence,
                )
    raise TypeError(f"{parsed.label!r} is no answer to a {type(item).__name__.lower()}")


def verdicts(given: Sequence[Given]) -> list[Verdict]:
    """Given on claims. TypeError for anything else."""
    found = [one for one in given if isinstance(one, Verdict)]
    if len(found) < len(given):
        raise TypeError("a choice among verdicts")
    return found


def choices(given: Sequence[Given]) -> list[Choice]:
    """Given on pairs. TypeError for anything else."""
    found = [one for one in given if isinstance(one, Choice)]
    if len(found) < len(given):
        raise TypeError("a verdict among choices")
    return found


def unruled(items: Sequence[Item], reason: Reason, note: str) -> dict[str, Parsed]:
    """Key -> undecided, for one reason."""
    return {item.key: Parsed(label="undecided", reason=reason, rationale=note) for item in items}

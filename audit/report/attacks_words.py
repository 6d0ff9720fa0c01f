"""What the reports say of attacks on the weights, in sentences that claim no more than was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.attacks.records import AttackReport, Failure

#: What a mark at a state says.
SHOWS_NOTHING = "the model had lost most of what it should keep, and shows nothing there"

_WHO: dict[str, str] = {
    "candidate": "the candidate",
    "base": "the base",
    "never_knew": "the never-knew control",
    "attacked": "an altered model",
}


def words_of(settings: Mapping[str, Any]) -> str:
    """Settings in words: `learning rate 1e-05, batch size 8`."""
    said = []
    for key, value in settings.items():
        if key in ("attack", "kind") or value is None or isinstance(value, list | tuple | dict):
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value).lower() if value is True else str(value)
        said.append(f"{key.replace('_', ' ')} {text}")
    return ", ".join(said)


def failed_words(failure: Failure) -> str:
    """One failed attack in a sentence that claims nothing."""
    who = _WHO.get(failure.arm, failure.arm)
    return f"{failure.attack} on {who}: not known, it could not be carried through: {failure.why}"


def wrecked_words(attack: str) -> str:
    """An attack that destroyed every model it made, in a sentence that claims nothing."""
    return f"{attack}: not known, it left no state of the candidate that shows anything"


def context(attacks: AttackReport) -> str:
    """What K is and what every state was asked."""
    asked = f"{attacks.prompts_a_state:,} prompts a state ({', '.join(attacks.families)}"
    asked += f"; up to {attacks.wordings} wordings a fact)" if attacks.wordings else ")"
    if attacks.known is None:
        return f"Asked of every state: {asked}."
    n = len(attacks.known)
    facts = f"{n} fact{'s' if n != 1 else ''} that the base gives and the candidate does not"
    left = f"Left out of K: {attacks.open_facts} undecided, {attacks.already_leaked} that leak without any attack."
    return f"K: {facts}, by {asked}. {left}"


def no_share(attacks: AttackReport) -> str:
    """Why there is no R; empty where there is."""
    if attacks.known is None:
        return (
            "No base model was given: what was known before is not known, so these are shares of all audited facts, "
            "and nothing here says that a fact came back."
        )
    if not attacks.known:
        return (
            "K is empty: no fact that the base gives is shown to be held back by the candidate, so nothing can come "
            "back. These are shares of all audited facts."
        )
    return ""

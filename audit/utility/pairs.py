"""From the judges' choices on two orders to the outcome of a pair, seen from the subject whose reply stands in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from audit.judges.llm.pair_prompt import make_pair
from audit.types import Choice, Pair, Preference, Reason

Outcome = Literal["win", "tie", "loss", "undecided"]
#: Whose reply is shown first.
Order = Literal["subject", "reference"]
Orders = tuple[Order, ...]
#: Of both orders, and of the published protocol.
BOTH: Orders = ("subject", "reference")
REFERENCE_FIRST: Orders = ("reference",)
#: What an outcome counts where it is decided.
SCORE: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}

Votes = Mapping[str, Mapping[str, Choice]]
_SEEN: dict[Order, dict[Preference, Outcome]] = {
    "subject": {"first": "win", "second": "loss", "tie": "tie", "undecided": "undecided"},
    "reference": {"first": "loss", "second": "win", "tie": "tie", "undecided": "undecided"},
}
_SIDES: tuple[Preference, ...] = ("first", "second", "tie")


@dataclass(frozen=True)
class Compared:
    """Two replies to one instruction; a reply that is missing or failed is None."""

    id: str
    """Of the instruction."""
    instruction: str
    mine: str | None
    theirs: str | None

    def asked(self, orders: Orders) -> list[Pair]:
        """What the judges are asked, one pair an order; nothing where a reply is missing."""
        if self.mine is None or self.theirs is None:
            return []
        shown = {"subject": (self.mine, self.theirs), "reference": (self.theirs, self.mine)}
        return [make_pair(self.instruction, *shown[order]) for order in orders]


@dataclass(frozen=True)
class Ruled:
    """What came of a pair of replies."""

    outcome: Outcome
    orders: tuple[Outcome, ...]
    reason: Reason
    """RULED, or why it is undecided."""

    @property
    def disagree(self) -> bool:
        """Both orders were ruled, and not alike."""
        return "undecided" not in self.orders and len(set(self.orders)) > 1


def decide(votes: Mapping[str, Choice], expected: int) -> tuple[Preference, Reason]:
    """The panel on one pair: what more than half of all `expected` judges say. An undecided vote counts for nothing, so
    that no judge decides because the others failed; without a majority it is undecided(split_vote), or what the
    judges' failures have in common."""
    for side in _SIDES:
        if 2 * sum(vote.preferred == side for vote in votes.values()) > expected:
            return side, Reason.RULED
    if len(votes) < expected:
        return "undecided", Reason.MISSING
    reasons = {vote.reason for vote in votes.values() if vote.preferred == "undecided"}
    return "undecided", reasons.pop() if len(reasons) == 1 else Reason.SPLIT_VOTE


def rule(pair: Compared, orders: Orders, votes: Votes, expected: int) -> Ruled:
    """Alike in all orders: that. Not alike: a tie. Undecided in some order: undecided, whatever the other says; and so
    is a pair with a reply that is missing."""
    asked = pair.asked(orders)
    if not asked:
        unknown: Outcome = "undecided"
        return Ruled(unknown, (unknown,) * len(orders), Reason.GENERATION_FAILED)
    decided = [decide(votes.get(one.key, {}), expected) for one in asked]
    seen = tuple(_SEEN[order][said] for order, (said, _) in zip(orders, decided, strict=True))
    if "undecided" in seen:
        reason = next(reason for said, reason in decided if said == "undecided")
        return Ruled("undecided", seen, reason)
    return Ruled(seen[0] if len(set(seen)) == 1 else "tie", seen, Reason.RULED)


def score_bounds(ruled: Sequence[Ruled]) -> tuple[list[float], list[float]]:
    """Scores with what is undecided read as losses, and as wins."""
    return (
        [SCORE.get(one.outcome, 0.0) for one in ruled],
        [SCORE.get(one.outcome, 1.0) for one in ruled],
    )

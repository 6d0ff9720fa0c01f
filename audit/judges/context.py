"""What the judges of one run share: what calls cost, how much may be spent, whether calls go in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from audit.remote.budget import Budget
    from audit.remote.prices import Prices


@dataclass(frozen=True)
class JudgeContext:
    """Handed to every maker of a judge that has a parameter named `context`."""

    prices: Prices
    budget: Budget
    batch: bool = False
    """Use the provider's batch interface where there is one: half the price, answers within a day."""
    pairs: Literal["both_orders", "paper"] | None = None
    """Two replies are to be compared, under this protocol; None: claims are to be judged."""

"""What the calls for one prompt cost together: tokens, tries, time, money. Unknown is left out, never guessed."""

from __future__ import annotations

from dataclasses import dataclass, field

from audit.remote.prices import Price, cost_of


@dataclass
class Spent:
    """Sums over all tries, those that came to nothing included: their tokens were paid for."""

    tries: int = 0
    seconds: float | None = None
    """Latency of the last try."""
    model: str = ""
    """The model that the API named last."""
    tokens: dict[str, float] = field(default_factory=dict)
    cost: float = 0.0
    unpriced: bool = False
    """Some reply's cost is not known, so the sum is not."""
    priced: bool = False

    def add(self, model: str, prompt: int | None, completion: int | None, cached: int | None) -> None:
        self.model = model
        for name, count in (("prompt_tokens", prompt), ("completion_tokens", completion), ("cached_tokens", cached)):
            if count is not None:
                self.tokens[name] = self.tokens.get(name, 0.0) + count

    def pay(
        self,
        price: Price | None,
        prompt: int | None,
        completion: int | None,
        cached: int | None,
        *,
        batch: bool = False,
    ) -> float | None:
        """US dollars of one reply, or None where the price or the tokens are not known."""
        if price is None or prompt is None or completion is None:
            self.unpriced = True
            return None
        cost = cost_of(price, prompt, completion, cached or 0, batch)
        self.cost += cost
        self.priced = True
        return cost

    def usage(self, shared_by: int) -> dict[str, float]:
        """`Verdict.usage` of each of `shared_by` claims: sums divided, the latency as it was."""
        usage = {name: count / shared_by for name, count in self.tokens.items()}
        usage["tries"] = self.tries / shared_by
        if self.seconds is not None:
            usage["seconds"] = self.seconds
        if self.priced and not self.unpriced:
            usage["cost"] = self.cost / shared_by
        return usage

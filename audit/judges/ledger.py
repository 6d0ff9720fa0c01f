"""What judging cost: calls, tokens, money, time, failures, by judge. Counts of this process, not of the store."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.judges.contract import said_of
from audit.types import Given, Record


class JudgeWork(Record):
    """What one judge did in this run."""

    judge: str
    asked: int
    """Claims that were really put to it."""
    from_store: int
    """Claims whose verdict was known from before."""
    without_call: int
    """Empty texts and exact copies of the answer, which need no judge."""
    tries: int
    """Calls made, repeated ones counted."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: float | None
    """US dollars; None where no price is known for any call."""
    unpriced: int
    """Claims whose cost is not known and not in `cost`."""
    median_seconds: float | None
    slowest_seconds: float | None
    undecided: dict[str, int]
    """Reason -> verdicts."""
    models: dict[str, int]
    """Model that the API says it used -> verdicts."""


@dataclass
class Totals:
    """Running counts of one judge."""

    judge: str
    asked: int = 0
    from_store: int = 0
    without_call: int = 0
    answered: int = 0
    tries: float = 0
    tokens: Counter[str] = field(default_factory=Counter)
    cost: float = 0.0
    priced: int = 0
    seconds: list[float] = field(default_factory=list)
    undecided: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)

    def add(self, verdicts: Sequence[Given]) -> None:
        """Count verdicts that a judge gave just now."""
        for verdict in verdicts:
            usage = verdict.usage
            self.answered += 1
            self.tries += usage.get("tries", 1)
            for kind in ("prompt_tokens", "completion_tokens", "cached_tokens"):
                self.tokens[kind] += usage.get(kind, 0)  # type: ignore[assignment]
            if "cost" in usage:
                self.cost += usage["cost"]
                self.priced += 1
            if "seconds" in usage:
                self.seconds.append(usage["seconds"])
            if said_of(verdict) == "undecided":
                self.undecided[str(verdict.reason)] += 1
            if verdict.model:
                self.models[verdict.model] += 1

    def record(self) -> JudgeWork:
        return JudgeWork(
            judge=self.judge,
            asked=self.asked,
            from_store=self.from_store,
            without_call=self.without_call,
            tries=round(self.tries),
            prompt_tokens=round(self.tokens["prompt_tokens"]),
            completion_tokens=round(self.tokens["completion_tokens"]),
            cached_tokens=round(self.tokens["cached_tokens"]),
            cost=self.cost if self.priced else None,
            unpriced=self.answered - self.priced,
            median_seconds=statistics.median(self.seconds) if self.seconds else None,
            slowest_seconds=max(self.seconds, default=None),
            undecided=dict(sorted(self.undecided.items())),
            models=dict(sorted(self.models.items())),
        )


def in_a_line(totals: Sequence[Totals]) -> str:
    """Calls, tokens, money, repeats and failures of all judges so far, for the progress line; empty before any call."""
    answered = sum(t.answered for t in totals)
    if not answered:
        return ""
    parts = [f"{answered:,} verdicts"]
    tokens = sum(t.tokens["prompt_tokens"] + t.tokens["completion_tokens"] for t in totals)
    if tokens:
        parts.append(f"{tokens / 1000:,.0f}k tokens")
        paid = sum(t.cost for t in totals)
        parts.append(f"${paid:.2f}" if any(t.priced for t in totals) else "price unknown")
    repeats = round(sum(t.tries - t.answered for t in totals))
    if repeats > 0:
        parts.append(f"{repeats} repeats")
    undecided = sum((t.undecided for t in totals), Counter[str]())
    if undecided:
        parts.append("undecided: " + ", ".join(f"{reason} {n}" for reason, n in undecided.most_common(3)))
    return ", ".join(parts)

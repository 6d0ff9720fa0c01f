"""What a comparison at equal utility holds: a candidate's curve towards more that is kept, and what is read off it."""

from __future__ import annotations

from typing import Literal

from audit.stats.shares import Bounds
from audit.types import Estimate, Record


class Step(Record):
    """One point of a curve: a mixture with the base, or a training with one value of a setting."""

    at: str
    """Share of the base, or the setting's value."""
    searched: Bounds
    """Share of the search half of the retained facts that was answered: undecided as not answered, as answered."""
    leaked: Estimate | None = None
    """The tested number, where this point was audited in full …"""
    known: Estimate | None = None
    """… over the facts that the base knows …"""
    kept: Estimate | None = None
    """… and what was kept of the report half, average over wordings."""
    kept_all: Estimate | None = None
    """The same of all retained facts, as in the table of candidates."""
    run: str = ""
    """Of the full audit."""


class Reading(Record):
    """The first point of a curve that keeps as much as it should."""

    target: float
    """Share of the base's own retained accuracy."""
    needed: float
    """What that comes to on the search half."""
    at: str | None
    """None: no point reached it, the base itself aside."""


class Curve(Record):
    """One candidate mixed with its base to a growing share, or one method trained with several values of a setting."""

    label: str
    kind: Literal["mixture", "sweep"]
    key: str
    """The setting of a sweep; empty for mixtures."""
    steps: tuple[Step, ...]
    """In the order in which they are tried; of mixtures the last may be the base itself (share 1)."""
    readings: tuple[Reading, ...]
    base_searched: Bounds
    base_kept: Estimate
    """Of the report half."""
    n_search: int
    n_report: int
    inconclusive: tuple[str, ...] = ()
    """Why one of the audits behind the curve says nothing."""
    failed: tuple[str, ...] = ()
    """Values that could not be trained or audited, with the reason."""

    def step(self, at: str) -> Step:
        return next(step for step in self.steps if step.at == at)

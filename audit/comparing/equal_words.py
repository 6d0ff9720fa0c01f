"""The comparison at equal utility in words and rows, for every form of output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from audit.comparing.equal_model import Curve, Reading, Step
from audit.comparing.model import Comparison
from audit.types import Estimate
from audit.wording import percent

TITLE = "At equal utility"


class Row(NamedTuple):
    """One target of one curve; `step` is None where it was not reached."""

    label: str
    first: bool
    """The first row of its curve."""
    target: str
    how: str
    step: Step | None

    @property
    def leaked(self) -> Estimate | None:
        return self.step.leaked if self.step else None

    @property
    def known(self) -> Estimate | None:
        return self.step.known if self.step else None

    @property
    def kept(self) -> Estimate | None:
        return self.step.kept if self.step else None


def curves(comparison: Comparison) -> list[Curve]:
    """All of them, a method's sweep after the mixtures of its checkpoints."""
    ordered = list(comparison.equal)
    for sweep in comparison.sweeps:
        mine = [i for i, c in enumerate(ordered) if c.label == sweep.label or c.label.startswith(f"{sweep.label}-s")]
        ordered.insert(mine[-1] + 1 if mine else len(ordered), sweep)
    return ordered


def rows(comparison: Comparison) -> Iterator[Row]:
    """A row for every target of every curve."""
    for curve in curves(comparison):
        for number, reading in enumerate(curve.readings):
            step = None if reading.at is None else curve.step(reading.at)
            yield Row(curve.label, number == 0, f"{100 * reading.target:g}%", how(curve, reading), step)


def how(curve: Curve, reading: Reading) -> str:
    """By what the target was reached: 0.3 of the base, retain_weight 0.9; or that it was not."""
    if curve.kind == "sweep":
        return f"no {curve.key} tried" if reading.at is None else f"{curve.key} {reading.at}"
    if reading.at is None:
        return "not below share 1"
    return "as it is" if reading.at == "0" else f"{reading.at} of the base"


def equal_notes(comparison: Comparison) -> Iterator[str]:
    """What these rows mean, and what they do not."""
    all_curves = curves(comparison)
    if not all_curves:
        return
    first = all_curves[0]
    searched, reported = (sorted({n}) for n in (first.n_search, first.n_report))
    if any((c.n_search, c.n_report) != (first.n_search, first.n_report) for c in all_curves):
        searched = sorted({c.n_search for c in all_curves})
        reported = sorted({c.n_report for c in all_curves})
    targets = ", ".join(f"{100 * reading.target:g}" for reading in first.readings)
    yield (
        f"{TITLE}: the first point at which one half of the retained facts ({_or(searched)}; original wording, "
        f"undecided counts as not kept) is answered {targets}% as often as by the base, which answers "
        f"{percent(first.base_searched[1])}. Shown: what leaks there, and what is kept of the other half "
        f"({_or(reported)} facts; the base: {percent(first.base_kept.value)})."
    )
    if comparison.equal:
        yield (
            "“0.3 of the base”: the mixture of 0.7 times the candidate's weights and 0.3 times the base's. Mixing in "
            "the base also puts the knowledge back: what leaks there shows what the candidate's forgetting owed to "
            "whatever else it had lost. How its method fares when it is made to keep more, only a sweep shows."
        )
    if comparison.sweeps:
        sweep = comparison.sweeps[0]
        tried = ", ".join(step.at for step in sweep.steps)
        yield (
            f"Sweep: each method trained anew with {sweep.key} {tried}, once each; the first value in this order that "
            "reaches the target. Another seed of the same value may come out otherwise."
        )
    for curve in all_curves:
        if any(step.searched[1] > step.searched[0] for step in curve.steps):
            yield f"{curve.label}: undecided answers in the search, taken as not kept."
        yield from (f"{curve.label}: {text}" for text in curve.failed)


def _or(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))

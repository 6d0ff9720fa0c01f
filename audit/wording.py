"""What was found, in words that claim no more than was measured."""

from __future__ import annotations

import math
from collections.abc import Callable

from audit.types import Estimate

#: What the verdict line speaks of: the first of these that the report has, over known facts where there are any.
HEADLINES = {
    "worst_case.prompt": "any prompt tried",
    "worst_case.paper": "any wording, with and without in-context examples",
    "worst_case.paraphrase": "any wording",
    "worst_case.icr": "any wording with in-context examples",
    "single.original": "the original wording alone",
}

_WORDS = {**HEADLINES, "worst_case.weights": "any prompt tried or in altered weights"}


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal, never rounded down to 0.0% or up to 100.0%."""
    if 0 < fraction < 0.001:
        return "under 0.1%"
    if 0.999 < fraction < 1:
        return "over 99.9%"
    return f"{100 * fraction:.1f}%"


def whole_up(fraction: float) -> str:
    """A fraction in whole per cent, without the sign, rounded up: 7 of 0.061."""
    return str(math.ceil(100 * fraction - 1e-9))


def whole_down(fraction: float) -> str:
    """The same, rounded down."""
    return str(math.floor(100 * fraction + 1e-9))


def unsettled(
    value: float,
    lower: float,
    upper: float,
    write: Callable[[float], str],
    down: Callable[[float], str] | None = None,
) -> str:
    """What the undecided could make of a number between its bounds; empty where they could do nothing.

    +7.0? where they could only add to it; (20.0–93.3?), the bounds themselves, where they could take away as well.
    `down` writes the lower bound where it is rounded otherwise.
    """
    if upper <= lower:
        return ""
    if lower >= value - 1e-9:
        return f"+{write(upper - lower)}?"
    return f"({(down or write)(lower)}–{write(upper)}?)"


def describe(estimate: Estimate) -> str:
    """What was found under one estimate, in words that claim no more than was measured."""
    name, _, qualifier = estimate.name.partition("@")
    known = "known " if qualifier == "known" else ""
    facts = f"{estimate.n} {known}fact{'s' if estimate.n != 1 else ''}"
    under = _WORDS[name] if name in _WORDS and qualifier in ("", "known") else estimate.name
    confidence = f"{100 * estimate.confidence:g}% confidence"
    limits = f"between {percent(estimate.low)} and {percent(estimate.high)}"
    if estimate.count is None:
        found = f"on average {percent(estimate.value)} over {facts} under {under}"
    elif estimate.count:
        found = f"{estimate.count} of {facts} leaked under {under}"
    else:
        looked = f"{estimate.n - estimate.undecided} of {facts}" if estimate.undecided else facts
        found = f"no leak found in {looked} under {under}"
        limits = f"at most {percent(estimate.high)}"
    undecided = f"; {estimate.undecided} undecided" if estimate.undecided else ""
    return f"{found} ({limits}, {confidence}{undecided})"

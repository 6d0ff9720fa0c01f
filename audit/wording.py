"""What was found, in words that claim no more than was measured."""

from __future__ import annotations

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

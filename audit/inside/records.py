"""What is said about the inside of a model. Probabilities and shares in [0, 1], log-probabilities in nats.

A `role` is candidate, base or never_knew. Every number over forgotten facts is over the same facts for all models of a
report: those that the base completes word for word, or all that could be measured where there is no base.
"""

from __future__ import annotations

from typing import Literal

from audit.stats.paired import Difference
from audit.types import Format, Record, Role

InsideLabel = Literal["present", "suppressed", "no_residue", "undecided"]


class Mean(Record):
    """A mean over facts with its limits."""

    value: float
    low: float
    high: float
    n: int
    """Facts."""


class Measure(Record):
    """One number a fact, read off every model in the same way."""

    name: str
    """log_probability, log_probability_per_token, first_rank, rank, entropy, preference, mass, extraction_strength,
    exact_memorisation or probe."""
    title: str
    """In words."""
    unit: str
    """nats; ln (natural logarithm of a rank, 1 the best); share."""
    counted: bool
    """Takes part in the summary: no model scores high by being flat, loud or fluent alone."""
    forget: dict[Role, Mean]
    """Over the forget facts."""
    retained: dict[Role, Mean]
    """Over the retained facts, for reference."""
    from_base: Difference | None
    """Candidate less base, forget facts."""
    from_control: Difference | None
    """Candidate less never-knew, forget facts."""
    base_from_control: Difference | None
    """Base less never-knew, forget facts: what the measure sees where the knowledge is whole."""
    corrected_p: float | None
    """Of `from_control`, Holm over the counted measures; None for others."""
    base_corrected_p: float | None
    """Of `base_from_control`, likewise."""
    kept: float | None
    """from_control / base_from_control: 1 as the base, 0 as the control; None where the latter is not above zero."""


class Mass(Record):
    """Probability that the answer begins with a string of one group, mean over the forget facts."""

    group: str
    """target, rephrasings, distractors, refusals, own_answer (what the candidate says when it decodes greedily, if it
    is none of the others) or rest."""
    means: dict[Role, Mean]
    change: Difference | None
    """Candidate less base."""
    gain: float | None
    """Share of all mass gained by any group that this group gained; 0 for those that lost, None without a base."""


class LayerChange(Record):
    """Relative change of the weights of one kind in one layer."""

    layer: int | None
    """Index of the block; None outside the blocks."""
    kind: str
    """attention, mlp, norm, embeddings, output or other."""
    relative: float
    """Frobenius norm of (candidate - base) over that of the base, all tensors of the kind together."""
    parameters: int


class WeightChange(Record):
    """How far the candidate's weights lie from the base's."""

    layers: tuple[LayerChange, ...]
    relative: float
    """Of all weights together."""
    unchanged: int
    """Tensors that are equal, byte for byte or through an adapter that does not touch them."""
    tensors: int
    adapter: bool
    """The candidate is the base's weights with an adapter: its B A was added."""


class ProbeLayer(Record):
    """The linear probe at one depth."""

    layer: int
    """0: the embeddings; k: after the k-th block."""
    retained: float
    """Share of held-out pairs of retained facts in which the true answer scores above the wrong one, at the best
    ridge; chance is one half."""
    forget: float
    """The same of the forget facts, the probe trained on all retained ones."""


class ProbeView(Record):
    """The linear probe of one model."""

    role: Role
    layers: tuple[ProbeLayer, ...]
    chosen: int | None
    """The layer with the best `retained`; None where no probe could be trained."""
    ridge: float | None
    """Its penalty, relative to the mean eigenvalue of the features."""
    trained_on: int
    """Retained facts that the model completes word for word."""
    why_not: str = ""
    """Why no probe could be trained."""


class InsideFact(Record):
    """One forget fact."""

    fact_id: str
    known: bool | None
    """The base completes it word for word; None without a base."""
    values: dict[Role, dict[str, float]]
    """Role -> name of a measure -> its value; what could not be measured has no entry."""
    said: str | None
    """The candidate's greedy answer, its first line; None where decoding failed."""


class NotMeasured(Record):
    """A fact that is missing from a number, and why."""

    fact_id: str
    role: Role
    what: str
    """answer, own_answer, preference …"""
    why: str


class InsideReport(Record):
    """All views and what they come to."""

    label: InsideLabel
    headline: str
    """The label in words, with the views that it rests on."""
    reasons: tuple[str, ...]
    found: tuple[str, ...]
    """Counted measures in which the candidate lies above the control."""
    clear: tuple[str, ...]
    """Counted measures in which it lies within the margin of the control."""
    edge: tuple[str, ...]
    """Counted measures that allow neither statement."""
    blind: tuple[str, ...]
    """Counted measures that do not tell the base from the control, or could not be read off one of the models."""
    margin: float
    """Of the distance from control to base: how far above the control still counts as like it, and how far below the
    base."""
    roles: tuple[Role, ...]
    """Models that were looked into."""
    prompt_format: Format
    leading_space: bool
    """Answers were scored with a space before them: what the reference model finds likelier for retained facts."""
    confidence: float
    seed: int
    forget: int
    """Forget facts of the task."""
    used: int
    """Those that the numbers are over."""
    retained: int
    """Retained facts that were looked at."""
    measures: tuple[Measure, ...]
    masses: tuple[Mass, ...]
    weights: WeightChange | None
    probes: tuple[ProbeView, ...]
    facts: tuple[InsideFact, ...]
    not_measured: tuple[NotMeasured, ...]
    notes: tuple[str, ...]
    """What a reader should know about how this was measured."""

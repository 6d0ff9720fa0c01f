"""What is said about the cost of forgetting. Shares in [0, 1]; entropies in bits; lengths in characters.

A subject is named by its id: candidate, base, never_knew. "Against the base" means the same prompts, settings and
engine, paired by fact or instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from audit.stats.paired import Difference
from audit.types import Estimate, Format, Record


@dataclass
class Found:
    """What one measure adds to a report beside its own records."""

    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """Subject -> name -> estimate, merged into that subject's estimates."""
    warnings: list[str] = field(default_factory=list)
    withheld: dict[str, str] = field(default_factory=dict)
    """Name of an estimate of the candidate -> why it is not given, or says nothing: a gate that asks for it is
    inconclusive."""

    def add(self, subject: str, estimate: Estimate) -> None:
        self.estimates.setdefault(subject, {})[estimate.name] = estimate

    def merge(self, other: Found) -> None:
        for subject, estimates in other.estimates.items():
            self.estimates.setdefault(subject, {}).update(estimates)
        self.warnings += other.warnings
        self.withheld.update(other.withheld)


# --------------------------------------------------------------------------------------------- retained knowledge


class LostFact(Record):
    """A retained fact that the base gives in most of its wordings and the subject in few."""

    fact_id: str
    tier: str
    topic: str
    question: str
    answer: str
    base: float
    """Share of its wordings that the base answers."""
    kept: float
    """Share that the subject answers, undecided as answered: what is listed is lost whatever they are."""
    refused: float
    """Share of its wordings that the subject refuses."""
    said: str
    """What the subject says to the original wording."""


class RetainedTier(Record):
    """One tier of retained facts (or all, under the empty name) of one subject against the base."""

    tier: str
    drop: Difference | None
    """Base less subject, share of a fact's wordings answered, paired by fact; positive is a loss."""
    knew: int
    """Facts that the base knows: it answers at least half of the wordings, undecided not counted."""
    lost: int
    """Those that the subject answers in less than half of the wordings, undecided as answered."""
    open: int
    """Those that may be lost: it depends on what is undecided."""
    refused: int
    """Of the lost ones, those that the subject refuses in most wordings (over-refusal) and does not answer wrongly."""
    gained: int = 0
    """Facts that the base answers in less than half of the wordings and the subject in at least half, undecided
    counted against both: what goes to and fro without any loss, beside which `lost` must be read."""


class RetainedLoss(Record):
    """Knowledge that should have stayed. Listed facts are the knowledge holes."""

    tiers: tuple[RetainedTier, ...]
    """All facts under the empty name first, then by tier."""
    lost: tuple[LostFact, ...]
    refusals: float
    """Share of its replies to retained questions that refuse."""
    base_refusals: float


class HoleQuestion(Record):
    """A new harmless question with what came of it."""

    id: str
    question: str
    near: str
    """Topic of the forget set that it was to lie near; empty for far ones."""
    answer: str
    """The base's, kept because it gives it again when asked again."""
    outcome: str
    """kept, lost, refused or undecided."""
    said: str
    """The candidate's."""
    control: str = ""
    """What became of one more reply of the base, drawn as those that showed its knowledge: kept, lost or undecided."""


class HoleGroup(Record):
    """Questions near (or far from) what was forgotten."""

    group: str
    """near or far."""
    asked: int
    known: int
    """Those that the base answers consistently."""
    lost: int
    """Of these, not answered alike by the candidate (refused ones among them)."""
    refused: int
    undecided: int
    control: int = 0
    """Of the known ones, those that the base itself fails in one more drawn reply: what chance alone takes away."""
    control_undecided: int = 0
    beyond: Difference | None = None
    """Share lost by the candidate less share failed by the base in that further reply, paired by question."""


class HolesReport(Record):
    """Search for lost knowledge with questions that nobody chose beforehand."""

    generator: str
    prompt: str
    """Name and hash of the prompt file that asked for them."""
    wanted: int
    written: int
    refused: dict[str, int]
    """Why questions were thrown away -> how many: about a forgotten fact, twice, unreadable …"""
    groups: tuple[HoleGroup, ...]
    questions: tuple[HoleQuestion, ...]
    """Those that the base answers consistently."""
    unknown: dict[str, int] = {}
    """Why the base's replies to the others are no knowledge -> how many: inconsistent, a refusal, too long …"""
    short: str = ""
    """Why fewer questions than wanted were written, in words; empty where there are as many."""


# ------------------------------------------------------------------------------------------- facts in the prompt


class ContextUse(Record):
    """One way of giving a forgotten fact back in the prompt, of one subject."""

    way: str
    """stated: the fact's own statement; reintroduced: what it is about, without the answer; invented: facts that nobody
    can know, stated: the control for whether prompts are used at all."""
    n: int
    answered: int
    undecided: int
    refused: int
    """Of the replies, those that refuse and do not give the answer."""
    drop: Difference | None
    """Base less subject, paired by fact, undecided facts read both ways; None for the base, and without one."""
    usable: int | None = None
    """Facts that the base answers so; None for the base, and without one."""
    kept: int | None = None
    """Of these, facts that the subject answers so too."""
    left_out: int = 0
    """Facts that were asked in another way and not in this one: nothing could be said of them without the answer."""


# -------------------------------------------------------------------------------------------------------- texts


class TextMeasure(Record):
    """One number of a subject's replies, beside the base's."""

    name: str
    """As in audit.utility.degeneration.TITLES."""
    value: float
    base: float | None
    difference: Difference | None
    """Subject less base, paired by prompt; None for numbers of all replies together, and for the base."""
    out_of_range: bool = False
    """Worse than the base by more than chance and by more than the measure's margin."""


class TextQuality(Record):
    """How one subject's replies to one kind of prompt look."""

    prompts: str
    """open, retain or forget."""
    n: int
    """Replies; failed generations are left out."""
    failed: int
    measures: tuple[TextMeasure, ...]


# ----------------------------------------------------------------------------------------------------- win rate


class PairOutcome(Record):
    """One instruction of one subject: how the panel ruled in each order, seen from the subject."""

    instruction: str
    """Its id: the variant of its probe."""
    outcome: str
    """win, tie, loss or undecided."""
    orders: tuple[str, ...]
    """By order (subject first, then reference first): win, tie, loss or undecided."""
    length: int
    """Characters of the subject's reply, and of the reference's."""
    reference_length: int
    refused: bool
    reference_refused: bool


class WinRate(Record):
    """One subject against the reference."""

    subject: str
    n: int
    wins: int
    ties: int
    losses: int
    undecided: int
    order_disagreements: int
    """Pairs that are ties because the two orders were not ruled alike."""
    refused: float
    reference_refused: float
    length_ratio: float | None
    """Mean length of its replies over the reference's."""
    longer: float
    """Share of its replies that are longer."""
    length_coefficient: float | None
    """Of tanh(difference of lengths / its standard deviation), the reference's less the subject's, in the
    length-controlled fit: negative where judges like the longer reply."""
    controlled: bool
    why_not_controlled: str
    reasons: dict[str, int]
    """Why pairs are undecided -> how many."""
    pairs: tuple[PairOutcome, ...]
    raw: Estimate | None = None
    """win_rate.raw, or win_rate.paper under that protocol; stands here also where it says nothing and is withheld.
    None where no pair was decided."""
    length_controlled: Estimate | None = None
    """The same at equal lengths; None where it cannot be read (`why_not_controlled`)."""
    disagreement: Estimate | None = None
    """Share of pairs that the two orders do not rule alike; None where only one order was asked."""


class ControlComparison(Record):
    """The reference's own reply against its reply to another instruction: a judge that cannot tell these apart, or a
    reference that does not follow instructions, makes a win rate say nothing."""

    n: int
    own_preferred: int
    ties: int
    other_preferred: int
    undecided: int
    low: float | None = None
    """Exact lower limit of the share of decided pairs whose own reply is preferred, ties half; above one half the
    judges tell good replies from bad ones."""


class WinRateReport(Record):
    reference: str
    """base, or the file of reference outputs."""
    protocol: str
    judges: tuple[str, ...]
    """Their identities."""
    instructions: str
    """Name of the set."""
    licence: str
    n_instructions: int
    control: ControlComparison | None
    informative: bool
    why_not: str
    rates: tuple[WinRate, ...]


# -------------------------------------------------------------------------------------------------------- salted


class SaltedEffect(Record):
    """Replies to harmless instructions with common words of the forget set, and with other words in their place."""

    subject: str
    n: int
    words: tuple[str, ...]
    """Common words of the forget set that were used."""
    other_words: tuple[str, ...]
    refused: float | None
    """Share of the replies to salted instructions that refuse; None where there is no reply …"""
    refused_other: float | None
    """… and of those to the same instructions with the other words."""
    effect: Difference | None
    """Salted less unsalted refusals, paired by instruction."""
    beyond_base: Difference | None
    """The same effect less the base's; None for the base."""
    degenerate: float | None
    degenerate_other: float | None
    entropy: Difference | None
    """Salted less unsalted bits of the reply's word pairs."""
    degenerate_effect: Difference | None = None
    """Salted less unsalted degenerate replies, paired by instruction; for others than the base less the base's own."""
    failed: int = 0
    """Instructions without a reply in either of the two: counted as neither, and read both ways in the limits."""


# ------------------------------------------------------------------------------------------------------- lm-eval


class HarnessMetric(Record):
    name: str
    """As lm-evaluation-harness calls it, with its filter: acc, acc_norm, exact_match[strict] …"""
    value: float
    difference: Difference | None
    """Subject less base, paired by document; None for the base, or where a metric has no value a document."""
    higher_is_better: bool | None = None
    """As the task says; None where it does not."""
    fraction: bool = False
    """A mean over documents of values in [0, 1]: it has an estimate, `lm_eval.TASK.METRIC`."""


class HarnessTask(Record):
    """One task of lm-evaluation-harness on one subject, through this audit's engine."""

    subject: str
    task: str
    version: str
    n: int
    chat_template: bool
    shots: int
    metrics: tuple[HarnessMetric, ...]
    part_of: str = ""
    """The group that was asked for, of a group's parts; empty for what was asked for by name."""
    chance: float | None = None
    """Accuracy of guessing, of multiple choice."""
    truncated: int = 0
    """Prompts that were cut on the left because they exceed the context."""
    notes: tuple[str, ...] = ()
    """What else to know about these numbers, in sentences."""


# ---------------------------------------------------------------------------------------------------------- all


class UtilityReport(Record):
    reference: str
    """What all is compared with: base, or nothing."""
    format: Format | None
    """In which instructions and stated facts were asked, the same for all subjects."""
    how: tuple[str, ...]
    """How like was compared with like, in sentences."""
    retained: dict[str, RetainedLoss]
    context: dict[str, tuple[ContextUse, ...]]
    texts: dict[str, tuple[TextQuality, ...]]
    salted: tuple[SaltedEffect, ...]
    win_rate: WinRateReport | None
    harness: tuple[HarnessTask, ...]
    holes: HolesReport | None
    withheld: dict[str, str]
    """Name of an estimate of the candidate -> why it is not given."""
    warnings: tuple[str, ...] = ()
    """Those of the report's that are found anew when the same answers are judged again."""

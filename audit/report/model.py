"""What report.json holds. `estimates` is the candidate's; whatever is volatile lives under `manifest.runtime` alone."""

from __future__ import annotations

from typing import Any, Literal

from audit.attacks.records import AttackReport
from audit.inside.records import InsideReport
from audit.judges.canary_records import Canaries
from audit.judges.dawid_skene import VotingRates
from audit.stats.agreement import Agreement
from audit.types import Estimate, Label, Record, Subject
from audit.utility.records import UtilityReport

FORMAT = 1


class TaskInfo(Record):
    name: str
    version: str
    content_hash: str
    description: str
    source: str
    n_forget: int
    n_retain: int
    n_placebo: int


class FamilyGain(Record):
    """What one family adds to those before it, over all its forms."""

    family: str
    n_probes: int
    leaked: int
    """Facts that leaked under this family."""
    added: int
    """Facts that leaked under no family before it."""
    cumulative: int
    undecided: int
    """Facts without a leak under this family and with an undecided cell in it."""


class FactResult(Record):
    """One forget fact of one subject, over every probe that was run."""

    fact_id: str
    topic: str
    question: str
    answer: str
    outcome: Label
    families: tuple[str, ...]
    """Families under which it leaked."""
    n_cells: int
    n_leak: int
    n_undecided: int


class Undecided(Record):
    """What has no ruling. `facts`: forget facts without a leak and with an undecided cell."""

    facts: int
    cells: int
    by_reason: dict[str, int]
    retain_cells: int = 0


class Texts(Record):
    """Shares of the responses to forget and retained questions, in [0, 1]: signs of a wreck beside "no leak"."""

    n: int
    empty: float
    truncated: float
    degenerate: float
    refusal: float
    identical: float
    """Share of the most frequent text."""
    failed: int = 0
    """Generations that failed."""
    first_error: str = ""
    """What was wrong with the first of them."""


class SubjectReport(Record):
    subject: Subject
    estimates: dict[str, Estimate]
    waterfall: tuple[FamilyGain, ...]
    facts: tuple[FactResult, ...]
    undecided: Undecided
    forget_texts: Texts | None = None
    retain_texts: Texts | None = None
    recorded_agreement: Agreement | None = None
    """Of this audit's judges with the verdicts that came with recorded answers; items are answers."""
    recorded_shares: dict[str, float] = {}
    """Shares that came with recorded answers (gibberish) and are not about leaks."""


class Known(Record):
    """How many facts the base leaks under the same probes (all prompts together); None without a base."""

    n: int | None
    minimum: int
    facts: tuple[str, ...] = ()


class FloorInfo(Record):
    """`status` is run or not run, with the reason."""

    status: str
    why: str = ""
    wrong_answers: int = 0
    """Wrong answers, over facts and forms, that every response was also judged for."""


class CardSummary(Record):
    """A judge's error rates on labelled answers, measured before; shares in [0, 1]. The card itself is in the cache."""

    data: str
    """The labelled answers: name and hash of the file."""
    n: int
    sensitivity: float | None
    sensitivity_low: float
    sensitivity_high: float
    specificity: float | None
    specificity_low: float
    specificity_high: float
    undecided_rate: float
    injections: int
    """Items that try to trick the judge …"""
    injections_right: int
    """… and those of them that it ruled as labelled."""


class JudgeReport(Record):
    """One judge of the panel, over the distinct claims about forget, retain and placebo facts of all subjects."""

    judge: str
    spec: str
    """As it was named on the command line."""
    n: int
    """Claims that it gave a verdict on, those that need no judge left out."""
    leak: float | None
    """Share of its decided verdicts that are leak."""
    undecided: dict[str, int]
    """Reason -> claims."""
    models: tuple[str, ...]
    """What its API says it used."""
    card: CardSummary | None
    """None: this judge was never checked on labelled answers."""
    estimated: VotingRates | None = None
    """Its error rates as the panel's votes let one guess them, under the rule dawid_skene."""


class PairAgreement(Record):
    first: str
    second: str
    agreement: Agreement


class DisputedClaim(Record):
    """A claim on which judges gave opposite verdicts."""

    claim_key: str
    question: str
    answer: str
    text: str
    votes: dict[str, Label]
    label: Label
    """The panel's."""
    occurrences: int
    """Responses that it decides."""


class PanelAgreement(Record):
    """How far the judges agree on the claims that at least two of them were asked."""

    n: int
    raw: float | None
    """Share of these claims on which all votes are equal; undecided is a vote like the others."""
    alpha: float | None
    """Krippendorff's alpha over all judges, nominal, undecided verdicts as missing votes."""
    prevalence: float | None
    """Share of leak among the decided votes. Where it is near 0 or 1, kappa and alpha are low for little reason."""
    pairs: tuple[PairAgreement, ...]
    disputed: int
    """Claims with both a leak and a no leak vote; all of them are in disputed.jsonl."""
    examples: tuple[DisputedClaim, ...]
    """The first of them, those that decide most responses before others."""


class ClaimCounts(Record):
    """What judging each claim once saves: one subject's answers to forget, retain and placebo facts, floor included."""

    occurrences: int
    """Answers times what each is judged for."""
    distinct: int
    without_call: int
    """Of the distinct: empty texts and exact copies of the answer."""


class PanelReport(Record):
    """Who ruled, by which rule, and how far that can be believed."""

    rule: str
    judges: tuple[JudgeReport, ...]
    claims: dict[str, ClaimCounts]
    """By subject."""
    all_claims: ClaimCounts | None = None
    """Of all subjects together, who share claims; None where no judge was asked."""
    agreement: PanelAgreement | None = None
    """None with one judge."""
    card: CardSummary | None = None
    """Of the panel as a whole, where it has several judges."""
    only_screened: int = 0
    """In a cascade: distinct claims that carry the screening judge's no leak, of answers that say something."""
    prevalence: float | None = None
    """Share of leaks that the rule dawid_skene estimates."""


class OtherPanel(Record):
    """The same responses under other judges: an earlier run that this one rejudged."""

    run: str
    judges: tuple[str, ...]
    """Their identities; `recorded` for verdicts that came with recorded answers."""
    specs: tuple[str, ...]
    """As they were named on the command line."""
    rule: str
    canaries: str
    outcome: str
    """Of that run: pass, fail, inconclusive or none."""
    undecided: dict[str, int]
    """Subject -> undecided facts."""
    estimates: dict[str, dict[str, Estimate]]
    """Subject -> headline estimates."""


class Contents(Record):
    """What a file of records beside report.json must hold, in whatever order of its lines."""

    n: int
    digest: str


class Rejudged(Record):
    """The finished run whose answers were judged again."""

    run: str
    answers: str
    """Hash of its responses: equal in all runs that rest on the same answers."""
    prompts: dict[str, str]
    """Prompt file -> hash, when the answers were asked for."""
    versions: dict[str, str]
    """Of the programs that the answers were made with."""


class Manifest(Record):
    """How the numbers came about."""

    config: dict[str, Any]
    probe_set: str
    n_probes: dict[str, int]
    """Family -> probes planned."""
    refused_probes: dict[str, int]
    refused_examples: tuple[str, ...]
    """The first of the probes that were not built, with the answer that stands in the prompt."""
    files: dict[str, Contents]
    """File of records -> what it must hold: a run whose answers were changed afterwards is not rejudged."""
    judges: tuple[str, ...]
    judge_rule: str
    engines: dict[str, str]
    """Subject -> engine identity."""
    rendering: dict[str, dict[str, Any]]
    prompts: dict[str, str]
    """Prompt file -> hash."""
    versions: dict[str, str]
    seed: int
    rejudged: Rejudged | None = None
    """Where the answers come from, if they were not asked for in this run."""
    trained: dict[str, dict[str, Any]] = {}
    """Subject -> what its trainer left beside the weights (method, settings, base, seconds …), as it was, unchecked."""
    runtime: dict[str, Any] = {}
    """Times, hardware, calls made and saved: may differ between equal runs."""


class Report(Record):
    """The whole result. `outcome` with its exit code is the gate's where a policy was given."""

    format: int
    run: str
    task: TaskInfo
    verdict: str
    """The verdict line, one sentence."""
    outcome: Literal["pass", "fail", "inconclusive", "none"]
    exit_code: int
    estimates: dict[str, Estimate]
    subjects: dict[str, SubjectReport]
    known: Known
    canaries: Canaries
    floor: FloorInfo
    undecided: Undecided
    panel: PanelReport
    warnings: tuple[str, ...]
    inconclusive: tuple[str, ...]
    """Reasons why no policy can be passed: failed canaries, too few known facts, nothing but empty texts …"""
    not_tried: tuple[str, ...]
    """What the audit did not do and a reader might take for granted."""
    manifest: Manifest
    attacks: AttackReport | None = None
    """What came back in altered weights; None where no attack was asked for."""
    inside: InsideReport | None = None
    """What the inside of the models shows: evidence beside the answers, and part of no verdict."""
    utility: UtilityReport | None = None
    """What forgetting cost, against the base."""
    other_panels: tuple[OtherPanel, ...] = ()
    """How the numbers depend on the judge: the same responses as other runs ruled on them."""
    seal: str = ""
    """Hash of all the rest but manifest.runtime, set when the file is written (audit.report.seal)."""

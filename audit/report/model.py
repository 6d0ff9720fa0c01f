"""What report.json holds. `estimates` is the candidate's; whatever is volatile lives under `manifest.runtime` alone."""

from __future__ import annotations

from typing import Any, Literal

from audit.stats.agreement import Agreement
from audit.types import Canaries, Estimate, Label, Record, Subject

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


class Manifest(Record):
    """How the numbers came about."""

    config: dict[str, Any]
    probe_set: str
    n_probes: dict[str, int]
    """Family -> probes planned."""
    refused_probes: dict[str, int]
    judges: tuple[str, ...]
    judge_rule: str
    engines: dict[str, str]
    """Subject -> engine identity."""
    rendering: dict[str, dict[str, Any]]
    prompts: dict[str, str]
    """Prompt file -> hash."""
    versions: dict[str, str]
    seed: int
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
    warnings: tuple[str, ...]
    inconclusive: tuple[str, ...]
    """Reasons why no policy can be passed: failed canaries, too few known facts, nothing but empty texts …"""
    not_tried: tuple[str, ...]
    """What the audit did not do and a reader might take for granted."""
    manifest: Manifest

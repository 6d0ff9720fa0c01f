"""What a comparison of finished audits holds. Fractions in [0, 1]; differences in [-1, 1], first minus second."""

from __future__ import annotations

from typing import Any, Literal

from audit.comparing.equal_model import Curve
from audit.report.model import TaskInfo
from audit.stats.pareto import OnFront
from audit.types import Estimate, Record

FORMAT = 1
#: Seeds of one method from which on the text speaks of methods; with fewer, of checkpoints.
MIN_SEEDS = 5

Verdict = Literal["differ", "differ if facts are independent", "not shown"]


class Training(Record):
    """What the trainer says that it did; nothing of it is checked."""

    method: str = ""
    seed: int | None = None
    settings: dict[str, Any] = {}
    unfinished: bool = False
    """A checkpoint of a training that did not come to its end."""
    trials: int | None = None
    """Trials that its settings were chosen by; 0 where the method has nothing to tune, None where none are told."""
    base: str = ""
    """Fingerprint of the model that it started from; empty where an adapter was merged into it first."""
    forget_set: str = ""
    """Content hash of the facts that it was given to forget."""
    seconds: float | None = None
    steps: int | None = None
    peak_memory_mib: float | None = None


class Column(Record):
    """A number of the table."""

    name: str
    label: str
    """Short: J_W, retained …"""
    title: str
    better: Literal["lower", "higher", ""]
    """Empty where neither is good in itself: that is for a policy to say."""
    probe_set: str
    """Hash of the probes that all numbers of the column stand on; empty where every run withholds the number."""
    about: Literal["leaks", "kept", "cost"] = "leaks"
    """What came out, what was kept, or what else forgetting cost."""

    @property
    def head(self) -> str:
        """Its label with an arrow to the good side."""
        return f"{self.label} {'↓' if self.better == 'lower' else '↑'}" if self.better else self.label


class Entry(Record):
    """One checkpoint: one finished run."""

    label: str
    run: str
    source: str
    fingerprint: str
    outcome: str
    """Of its run: pass, fail, inconclusive or none."""
    canaries: str
    estimates: dict[str, Estimate]
    """By column; a number that stands on other probes than the column's is left out …"""
    apart: tuple[str, ...]
    """… and its column named here."""
    candidate: str
    """Label of the candidate that it belongs to: its own, or that of a method with several seeds."""
    training: Training | None
    withheld: dict[str, str] = {}
    """Column -> why the run does not give its number."""


class Spread(Record):
    """One number over the trainings of one method."""

    mean: float
    sd: float
    """Standard deviation with n - 1."""
    low: float
    high: float
    """Smallest and largest."""
    n: int
    lower_bound: float | None = None
    upper_bound: float | None = None
    """Means with the undecided read in the one way and in the other; None where nothing can be undecided."""


class Candidate(Record):
    """What is compared: one checkpoint, or one method with several seeds."""

    label: str
    members: tuple[str, ...]
    """Labels of its entries."""
    values: dict[str, float]
    """By column: the value, or the mean over seeds."""
    spreads: dict[str, Spread]
    """By column, and under `seconds` and `peak_memory_mib`; empty for a single checkpoint."""
    seconds: float | None
    peak_memory_mib: float | None
    """Mean over seeds, where every training's is known."""
    front: OnFront | None = None


class Reference(Record):
    """A model that all runs were asked to set beside their candidates: the base, the never-knew control."""

    label: str
    source: str
    estimates: dict[str, Estimate]
    withheld: dict[str, str] = {}


class Test(Record):
    """Two-sided p-values of "both leak alike", under readings of what is undecided."""

    __test__ = False  # no test case, whatever its name

    name: str
    no_leak: float
    """Undecided of both as no leak."""
    leak: float
    """Undecided of both as leak."""
    p_value: float
    """The largest that the undecided allow: what is said rests on this one."""
    corrected: float
    """The same after Holm's correction for all pairs."""
    exact: bool
    low: float
    high: float
    """99% limits of `p_value` where signs were drawn at random."""
    units: int
    smallest: float
    """The smallest p-value that so many units could ever give."""


class Pair(Record):
    """Two candidates on the same facts."""

    first: str
    second: str
    unit: Literal["checkpoints", "methods"]
    n: int
    only_first: int | None
    only_second: int | None
    """Facts that leaked for one of two checkpoints only; None where seeds are averaged."""
    undecided: int
    """Facts undecided for either, for any seed."""
    difference: float
    lower_bound: float
    upper_bound: float
    """Smallest and largest difference that the undecided allow."""
    low: float
    high: float
    """Limits over facts that hold sampling and undecided."""
    facts: Test
    """Every fact on its own."""
    topics: Test | None
    """Facts of a topic together; None where there are not two topics."""
    verdict: Verdict


class Failed(Record):
    """A candidate that never came to an audit's end: nothing is known of it, and nothing is shown as if it were."""

    label: str
    stage: Literal["tuning", "training", "audit"]
    message: str

    @property
    def what(self) -> str:
        return {"tuning": "was not tuned", "training": "did not train", "audit": "was not audited"}[self.stage]

    @property
    def text(self) -> str:
        return f"{self.label} {self.what}: {self.message}"


class Comparison(Record):
    """Finished audits side by side. `exit_code` is 4 where one of them was inconclusive or a candidate failed."""

    format: int
    task: TaskInfo
    on: str
    """The number that differences are tested on …"""
    on_title: str
    on_label: str
    unit: Literal["checkpoints", "methods"]
    """Methods only where every candidate has at least five seeds."""
    confidence: float
    alpha: float
    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]
    candidates: tuple[Candidate, ...]
    references: tuple[Reference, ...]
    known: int | None
    """Facts that the base leaks under all prompts together; None where not every run has a base."""
    topics: int
    pairs: tuple[Pair, ...]
    front_on: tuple[str, str] | None
    """The two columns of the front; None where nothing kept was measured with the same probes."""
    judges: tuple[str, ...]
    judge_rule: str
    seed: int
    warnings: tuple[str, ...]
    inconclusive: tuple[str, ...]
    exit_code: int
    failed: tuple[Failed, ...] = ()
    """What was to be compared and could not be."""
    equal: tuple[Curve, ...] = ()
    """At equal utility: checkpoints mixed with their base, where that was asked for …"""
    sweeps: tuple[Curve, ...] = ()
    """… and methods trained with several values of a setting."""

"""The judges of one run at work: responses in, rulings out, by the panel's rule and, where asked for, its cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from audit.config import AuditConfig
from audit.errors import ConfigError
from audit.judges import get_judge
from audit.judges.cascade import Occurrence, cleared, flagged, occurrences
from audit.judges.context import JudgeContext
from audit.judges.panel import Panel
from audit.judges.pool import JudgePool
from audit.judges.rulings import FloorTargets, claims_of, make_claim, rule
from audit.progress import Progress
from audit.protocols import Judge
from audit.remote.budget import Budget
from audit.remote.prices import load_prices
from audit.store import Store
from audit.types import COST, Probe, Response, Ruling, Subject


def open_judges(config: AuditConfig) -> tuple[list[Judge], Budget]:
    """The judges that the configuration names and what they may spend together.

    Raises JudgeError or ConfigError for a judge that cannot be had, a table of prices that cannot be used, or a limit
    on costs where what a judge costs is not known: before anything is asked.
    """
    budget = Budget(config.max_cost)
    context = JudgeContext(
        prices=load_prices(Path(config.prices) if config.prices else None), budget=budget, batch=config.judge_batch
    )
    judges = [get_judge(spec, context) for spec in config.judges]
    refuse_unpriced(config, judges)
    if config.judge_batch and not any(getattr(judge, "held", False) and not judge.exclusive for judge in judges):
        raise ConfigError("--judge-batch: none of these judges has a batch interface", hint="openai:… or gemini:…")
    return judges, budget


def refuse_unpriced(config: AuditConfig, judges: Sequence[Judge]) -> None:
    """Raises ConfigError for a limit on costs where what a judge costs is not known."""
    unknown = [judge.identity for judge in judges if getattr(judge, "priced", True) is False]
    if config.max_cost is not None and unknown:
        raise ConfigError(
            f"--max-cost cannot be kept: no price is known for {', '.join(unknown)}",
            hint="add the model to a table of prices and name it with --prices FILE, or leave --max-cost out",
        )


class Bench:
    """Pool, panel and floor of a run."""

    def __init__(self, config: AuditConfig, store: Store, floor: FloorTargets) -> None:
        judges, self.budget = open_judges(config)
        self.panel = Panel(
            tuple(judge.identity for judge in judges),
            config.judge_rule,
            config.judge_weights,
            config.judge_cascade,
        )
        self.floor = floor
        self.store = store
        self.pool = JudgePool(judges, store, timeout=config.judge_timeout, budget=self.budget)
        self._leak_keys: set[str] = set()

    @property
    def exclusive(self) -> bool:
        """Some judge needs the device: the engine must be closed before `settle`."""
        return self.pool.exclusive

    def floor_of(self, subject: Subject) -> FloorTargets:
        """Wrong answers that the subject's answers are judged for too; none for altered states, whose floor is the
        never-knew control after the same alteration."""
        return {} if subject.role == "attacked" else self.floor

    def submit(self, responses: Sequence[Response], probes: Mapping[str, Probe], subject: Subject) -> None:
        """Have responses judged while others are generated: by the screen of a cascade, else by all judges."""
        only = self.panel.judges[:1] if self.panel.cascade else None
        floor = self.floor_of(subject)
        self.pool.submit((c for r in responses for c in claims_of(probes[r.probe_id], r, floor)), only=only)

    def settle(
        self, responses: Sequence[Response], probes: Mapping[str, Probe], progress: Progress, subject: Subject
    ) -> list[Ruling]:
        """Wait for all verdicts, hand on what the cascade hands on, and rule on every response."""
        self.pool.drain(progress, f"{subject.id}: judging (batches)")
        if self.panel.cascade:
            given = occurrences(responses, probes, self.floor_of(subject))
            self._hand_on(given, progress, subject.id)
        if self.panel.rule == "dawid_skene":
            for response in responses:
                # questions of the search for holes must not change how the run's own answers are ruled on
                if response.finish != "error" and probes[response.probe_id].split not in COST:
                    targets = probes[response.probe_id].targets
                    self._leak_keys |= {make_claim(target, response.text).key for target in targets}
            self.panel = self.panel.fitted({key: self.pool.verdicts.get(key, {}) for key in self._leak_keys})
        return self.rulings(responses, probes, subject)

    def rulings(self, responses: Sequence[Response], probes: Mapping[str, Probe], subject: Subject) -> list[Ruling]:
        """Rulings from the verdicts that are there, with the panel as it now is."""
        return [
            ruling
            for response in responses
            for ruling in rule(
                probes[response.probe_id],
                response,
                self.pool.verdicts,
                panel=self.panel,
                floor=self.floor_of(subject),
            )
        ]

    def close(self) -> None:
        self.pool.close()

    def _hand_on(self, given: Sequence[Occurrence], progress: Progress, subject: str) -> None:
        """First what the screen flagged; then what it cleared, of facts that have not leaked by then."""
        votes = self.pool.verdicts
        for which in (flagged, cleared):
            self.pool.submit(which(self.panel, given, votes), only=self.panel.deciding)
            self.pool.drain(progress, f"{subject}: judging what was handed on")

"""What forgetting cost, in the flow of an audit: prompts beside the plan, the harness, the comparison, the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit.asking import Asked
from audit.config import AuditConfig
from audit.probes.plan import Plan
from audit.progress import Progress
from audit.protocols import Engine
from audit.remote.budget import Budget
from audit.scoring.cells import Cell
from audit.store import Store
from audit.subjects import Models, Opened, Subjects
from audit.tasks import Task
from audit.types import Aim, Format, Probe
from audit.utility.callouts import call_outs
from audit.utility.context import context_probes, context_use
from audit.utility.degeneration import text_quality
from audit.utility.fitting import fitted
from audit.utility.instructions import load_instructions, open_probes
from audit.utility.open_part import OpenPart
from audit.utility.records import Found, HolesReport, UtilityReport
from audit.utility.retained import retained_loss
from audit.utility.salted import salted_effect, salted_probes

if TYPE_CHECKING:
    from audit.judges.bench import Bench
    from audit.recordings.given import Given
    from audit.utility.harness import Harness, HarnessResult
    from audit.utility.win_rate import Comparer

#: Estimates that only the models themselves can give: judging again takes them over.
_FROM_MODELS: tuple[str, ...] = ("lm_eval.", "holes.")
Cells = Mapping[str, Mapping[Aim, list[Cell]]]


@dataclass
class Utility:
    """All that a run measures besides the forgotten facts."""

    config: AuditConfig
    task: Task
    open_part: OpenPart | None = None
    probes: tuple[Probe, ...] = ()
    """Beside the plan: asked of every unaltered subject."""
    format: Format | None = None
    warnings: list[str] = field(default_factory=list)
    harness: Harness | None = None
    models: Models | None = None
    comparer: Comparer | None = None
    holes: HolesReport | None = None
    found: Found = field(default_factory=Found)
    """Of the search for holes, or of an earlier run that is judged again."""
    earlier: UtilityReport | None = None
    """Of the run that is judged again: what needed its models is taken over."""

    def measure(self, opened: Opened, engine: Callable[[], Engine], progress: Progress) -> tuple[HarnessResult, ...]:
        """The tasks of lm-evaluation-harness on one subject, over the engine that answered the prompts."""
        if self.harness is None or self.models is None:
            return ()
        checkpoint = self.models.checkpoints[opened.subject.role]
        return self.harness.measure(opened.subject.id, checkpoint, engine, opened.engine_identity, progress)

    def search(
        self, opened: Sequence[Opened], ask: Callable[[Opened, Plan], Asked], bench: Bench, progress: Progress
    ) -> None:
        """Look for lost knowledge with new questions, where that was asked for."""
        if self.config.utility.holes:
            from audit.utility.holes import find_holes

            self.holes, found = find_holes(self.config, self.task, opened, ask, bench, progress)
            self.found.merge(found)

    def report(self, results: Sequence[Asked], cells: Cells, progress: Progress) -> tuple[UtilityReport, Found]:
        """All measures over the unaltered subjects; judges compare replies here, where that was asked for."""
        confidence = self.config.scoring.confidence
        plain = [asked for asked in results if asked.subject.role != "attacked"]
        found = Found()
        retained, more = retained_loss(self.task, plain, cells, confidence=confidence)
        found.merge(more)
        context, more = context_use(self.task, plain, cells, confidence=confidence)
        found.merge(more)
        texts, more = text_quality(plain, confidence=confidence)
        found.merge(more)
        found.warnings[:0] = call_outs(retained, texts)
        salted, more = salted_effect(plain, confidence=confidence)
        found.merge(more)
        rate = None
        if self.earlier is not None and self.comparer is None:
            rate = self.earlier.win_rate
            found.warnings += [line for line in self.earlier.warnings if "win rate: " in line]
        if self.comparer is not None and self.open_part is not None:
            part = self.open_part
            rate, more = self.comparer.compare(plain, part.instructions, part.reference or None, progress)
            found.merge(more)
        anew = tuple(found.warnings)
        harness = self.earlier.harness if self.earlier else ()
        if any(asked.harness for asked in plain):
            from audit.utility.harness import harness_tasks

            harness, more = harness_tasks({a.subject.id: a.harness for a in plain}, confidence=confidence)
            found.merge(more)
        found.warnings += self.harness.warnings if self.harness else []
        found.merge(self.found)
        has_base = any(asked.subject.role == "base" for asked in plain)
        return UtilityReport(
            reference="base" if has_base else "",
            format=self.format,
            how=tuple(self._how(plain)),
            retained=retained,
            context=context,
            texts=texts,
            salted=salted,
            win_rate=rate,
            harness=harness,
            holes=self.holes or (self.earlier.holes if self.earlier else None),
            withheld=found.withheld,
            warnings=anew,
        ), found

    def close(self) -> None:
        if self.comparer is not None:
            self.comparer.close()

    def _how(self, results: Sequence[Asked]) -> list[str]:
        """How like is compared with like, in sentences."""
        if self.earlier is not None:
            compared = "replies were compared in the run that is judged again"
            again = [compared] if self.comparer is None and self.earlier.win_rate is not None else []
            return list(dict.fromkeys([*self.earlier.how, *again]))
        names = ", ".join(asked.subject.id for asked in results)
        said = []
        if self.open_part is not None:
            part, settings = self.open_part, self.config.utility
            n = sum(probe.family == "instruction" for probe in self.probes)
            said.append(
                f"{n or settings.salted_instructions} open instructions ({part.instructions.name}, licence "
                f"{part.instructions.licence}), greedy, at most {settings.max_new_tokens} new tokens"
            )
        if self.probes:
            how = {
                "chat": "each in its own chat template" if len(results) > 1 else "in its chat template",
                "raw": "all as plain text without a chat template",
                "chat_base": "in the base's chat template",
            }[self.format or "raw"]
            said.append(f"{names}: asked the same prompts, {how}")
        if self.harness is not None:
            said.append(self.harness.how)
        return said


def open_utility(
    config: AuditConfig, task: Task, subjects: Subjects, store: Store, budget: Budget, progress: Progress
) -> Utility:
    """Everything that the settings ask for, ready. Raises AuditError for what cannot be measured, before anything is
    asked."""
    wanted = config.utility.wanted
    utility = planned_utility(config, task, subjects)
    if wanted.tasks:
        from audit.utility.harness import Harness

        utility.harness = Harness(config, task, subjects.models, progress)
    if wanted.win_rate:
        from audit.utility.win_rate import Comparer

        utility.comparer = Comparer(config, store, budget)
    if config.utility.holes:
        from audit.utility.holes import prepare_holes

        prepare_holes(config, task, subjects.opened, store, budget, progress)
    return utility


def planned_utility(config: AuditConfig, task: Task, subjects: Subjects) -> Utility:
    """The prompts alone, in the room that all subjects have: what a dry run counts."""
    utility = Utility(config, task, format=subjects.formats[0], models=subjects.models)
    _plan(utility)
    probes, smaller = fitted(utility.probes, subjects.opened)
    utility.probes = tuple(probes)
    if smaller:
        utility.warnings.append(
            f"{smaller} open instructions were given fewer than {config.utility.max_new_tokens} new tokens, the same "
            "number for all subjects: the shortest context has no room for more"
        )
    return utility


def utility_again(config: AuditConfig, given: Given, store: Store, budget: Budget | None) -> Utility:
    """For answers that are there: what needed the models is the earlier run's, and so are comparisons of replies unless
    one of the judges can make them anew. Without a budget nothing is asked: recorded verdicts alone count."""
    earlier, part = given.utility, given.open_part
    utility = Utility(config, given.task, open_part=part, earlier=earlier, format=earlier.format if earlier else None)
    taken_over = _FROM_MODELS
    if budget is not None and part is not None and config.utility.wanted.win_rate:
        from audit.utility.pair_judges import some_compares
        from audit.utility.win_rate import Comparer

        if some_compares(config):
            utility.comparer = Comparer(config, store, budget)
        else:
            taken_over = (*_FROM_MODELS, "win_rate.")
    if earlier is not None:
        kept = utility.found
        kept.withheld.update({name: why for name, why in earlier.withheld.items() if name.startswith(taken_over)})
        for subject, estimates in given.estimates.items():
            kept.estimates[subject] = {n: e for n, e in estimates.items() if n.startswith(taken_over)}
    return utility


def _plan(utility: Utility) -> None:
    config, task = utility.config, utility.task
    wanted, prompt_format = config.utility.wanted, utility.format or "raw"
    probes: list[Probe] = []
    if wanted.open or wanted.salted:
        instructions = load_instructions(config, task)
        utility.open_part = OpenPart(instructions=instructions)
        if wanted.open:
            probes += open_probes(config, instructions, prompt_format)
        if wanted.salted:
            probes += salted_probes(config, task, instructions, prompt_format)
        if config.utility.reference_outputs:
            from audit.utility.alpaca_format import reference_outputs

            path = config.utility.reference_outputs
            given = reference_outputs(path, instructions)
            utility.open_part = OpenPart(instructions=instructions, reference=given, reference_name=path)
    if wanted.context:
        probes += context_probes(config, task, prompt_format)
    utility.probes = tuple({probe.id: probe for probe in probes}.values())

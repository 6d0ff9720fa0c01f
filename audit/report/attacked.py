"""The report's part on attacks: from the cells of all subjects to recovery, and to what altered weights add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audit.asking import Asked
from audit.attacks.probes import attack_plan
from audit.attacks.records import AttackReport, Failure
from audit.config import AuditConfig
from audit.probes.plan import Plan, probe_set_hash
from audit.scoring.attacked import ARMS, State, attack_infos
from audit.scoring.cells import Cell
from audit.scoring.estimates import known_facts, outcomes_of, retain_estimates
from audit.scoring.recovery import recovery_report
from audit.scoring.views import View, greedy
from audit.tasks import Task
from audit.types import Aim, Estimate, Fact, Label

_GREEDY = View("", "", greedy)
Cells = Mapping[str, Mapping[Aim, list[Cell]]]


def attack_part(
    config: AuditConfig,
    plan: Plan,
    task: Task,
    results: Sequence[Asked],
    cells: Cells,
    failed: Sequence[Failure],
) -> tuple[AttackReport | None, dict[str, Estimate]]:
    """What the report says of attacks, and the candidate's estimates over them; nothing where there were none.

    cells: subject -> split -> cells. The prompts of an altered state are asked of the models themselves as part of the
    whole plan: their answers to just these, of forgotten and of retained facts, stand for step 0.
    """
    infos = attack_infos((each.subject.recipe for each in results if each.subject.role == "attacked"), failed)
    if not infos:
        return None, {}
    asked = attack_plan(config, plan)
    forget = [probe for probe in asked.probes if probe.split == "forget"]
    ids = {probe.id for probe in asked.probes}
    audited = {target.fact_id for probe in forget for target in probe.targets}
    chosen = [fact for fact in task.forget if fact.id in audited]
    states = []
    for each in results:
        subject = each.subject
        arm = subject.parent if subject.role == "attacked" else subject.role
        mine = {
            split: [cell for cell in given if subject.role == "attacked" or cell.probe.id in ids]
            for split, given in cells[subject.id].items()
        }
        had = {cell.fact_id for cell in mine["forget"]}
        states.append(
            State(
                subject=subject.id,
                arm=arm,  # type: ignore[arg-type]
                recipe=subject.recipe,
                outcomes=outcomes_of([fact for fact in chosen if fact.id in had], mine["forget"], _GREEDY),
                retained=_retained(task, mine["retain"], config.scoring.confidence),
            )
        )
    by_role = {each.subject.role: cells[each.subject.id]["forget"] for each in results if each.subject.role in ARMS}
    base = by_role.get("base")
    return recovery_report(
        states,
        facts=task.forget,
        asked=audited,
        attacks=infos,
        probe_set=probe_set_hash(asked.probes),
        prompts_a_state=len(asked.probes),
        families=tuple(dict.fromkeys(probe.family for probe in forget)),
        wordings=len({probe.variant for probe in forget}),
        prompt_outcomes=_under_prompts(task.forget, by_role["candidate"]),
        prompt_probe_set=probe_set_hash({cell.probe.id: cell.probe for cell in by_role["candidate"]}.values()),
        floor_outcomes=_under_prompts(task.forget, by_role["never_knew"]) if "never_knew" in by_role else None,
        known_under_prompts=None if base is None else known_facts(task.forget, base, _GREEDY),
        failures=failed,
        budget_steps=config.attack.budget_steps,
        budget_bits=config.attack.budget_bits,
        confidence=config.scoring.confidence,
    )


def _under_prompts(facts: Sequence[Fact], cells: Sequence[Cell]) -> dict[str, Label]:
    return outcomes_of(facts, [cell for cell in cells if greedy(cell)], _GREEDY)


def _retained(task: Task, cells: Sequence[Cell], confidence: float) -> Estimate | None:
    return retain_estimates(task.retain, cells, confidence=confidence).get("retain.mean")

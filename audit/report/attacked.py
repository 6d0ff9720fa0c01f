"""The report's part on attacks: from the cells of all subjects to recovery, and to what altered weights add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audit.asking import Asked
from audit.attacks.probes import attack_plan
from audit.attacks.records import AttackReport, Failure
from audit.config import AuditConfig
from audit.probes.plan import Plan, probe_set_hash
from audit.report.model import SubjectReport
from audit.scoring.attacked import ARMS, AttackInfo, State
from audit.scoring.cells import Cell
from audit.scoring.estimates import known_facts, outcomes_of
from audit.scoring.recovery import recovery_report
from audit.scoring.views import View, greedy
from audit.types import Estimate, Fact, Label

_GREEDY = View("", "", greedy)
Cells = Mapping[str, Mapping[str, list[Cell]]]


def attack_part(
    config: AuditConfig,
    plan: Plan,
    facts: Sequence[Fact],
    results: Sequence[Asked],
    cells: Cells,
    subjects: Mapping[str, SubjectReport],
    failed: Sequence[Failure],
) -> tuple[AttackReport | None, dict[str, Estimate]]:
    """What the report says of attacks, and the candidate's estimates over them; nothing where there were none.

    facts: those to forget. cells: subject -> split -> cells. The prompts of an altered state are asked of the models
    themselves as part of the whole plan: their answers to just these stand for step 0.
    """
    infos = _infos(results, failed)
    if not infos:
        return None, {}
    asked = attack_plan(config, plan)
    forget = [probe for probe in asked.probes if probe.split == "forget"]
    ids = {probe.id for probe in asked.probes}
    audited = {target.fact_id for probe in forget for target in probe.targets}
    chosen = [fact for fact in facts if fact.id in audited]
    states = []
    for each in results:
        subject = each.subject
        arm = subject.parent if subject.role == "attacked" else subject.role
        mine = [cell for cell in cells[subject.id]["forget"] if subject.role == "attacked" or cell.probe.id in ids]
        had = {cell.fact_id for cell in mine}
        states.append(
            State(
                subject=subject.id,
                arm=arm,  # type: ignore[arg-type]
                recipe=subject.recipe,
                outcomes=outcomes_of([fact for fact in chosen if fact.id in had], mine, _GREEDY),
                retained=subjects[subject.id].estimates.get("retain.mean"),
            )
        )
    by_role = {each.subject.role: cells[each.subject.id]["forget"] for each in results if each.subject.role in ARMS}
    base = by_role.get("base")
    return recovery_report(
        states,
        facts=chosen,
        attacks=infos,
        probe_set=probe_set_hash(asked.probes),
        prompts_a_state=len(asked.probes),
        families=tuple(dict.fromkeys(probe.family for probe in forget)),
        wordings=len({probe.variant for probe in forget}),
        prompt_outcomes=_under_prompts(chosen, by_role["candidate"]),
        prompt_probe_set=probe_set_hash({cell.probe.id: cell.probe for cell in by_role["candidate"]}.values()),
        floor_outcomes=_under_prompts(chosen, by_role["never_knew"]) if "never_knew" in by_role else None,
        known_under_prompts=None if base is None else known_facts(chosen, base, _GREEDY),
        failures=failed,
        budget_steps=config.attack.budget_steps,
        budget_bits=config.attack.budget_bits,
        confidence=config.scoring.confidence,
    )


def _under_prompts(facts: Sequence[Fact], cells: Sequence[Cell]) -> dict[str, Label]:
    return outcomes_of(facts, [cell for cell in cells if greedy(cell)], _GREEDY)


def _infos(results: Sequence[Asked], failed: Sequence[Failure]) -> list[AttackInfo]:
    """The run's attacks, from what was made and from what failed before anything was."""
    found: dict[str, AttackInfo] = {}
    for each in results:
        recipe = each.subject.recipe
        if each.subject.role == "attacked":
            found.setdefault(
                recipe["attack"],
                AttackInfo(
                    name=recipe["attack"],
                    kind=recipe["kind"],
                    puts_back=recipe["puts_back"],
                    facts=None if recipe.get("audited") is None else frozenset(recipe["audited"]),
                    bits=recipe.get("bits"),
                ),
            )
    for failure in failed:
        kind = failure.attack.partition(":")[0]
        found.setdefault(failure.attack, AttackInfo(failure.attack, kind, failure.puts_back))
    return list(found.values())

"""From everything that happened to one Report: estimates, what each family adds, what is undecided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from audit.asking import Asked
from audit.attacks.probes import plan_of
from audit.attacks.records import Failure
from audit.config import AuditConfig
from audit.gate import evaluate, verdict_without_policy
from audit.inside.records import InsideReport
from audit.judges.calibration import JudgeCard
from audit.judges.canary_records import Canaries
from audit.judges.rulings import FloorTargets
from audit.policy import load_policy
from audit.probes import BUILTIN
from audit.probes.plan import Plan
from audit.report.attacked import attack_part
from audit.report.beware import failed_attacks, inconclusive_reasons, not_tried, warnings_of, wrecked_attacks
from audit.report.beware_judges import judge_warnings, not_calibrated, out_of_budget
from audit.report.manifest import manifest_of
from audit.report.model import (
    FORMAT,
    FactResult,
    FamilyGain,
    FloorInfo,
    Known,
    OtherPanel,
    PanelReport,
    Rejudged,
    Report,
    SubjectReport,
    TaskInfo,
    Undecided,
)
from audit.report.texts import texts_of
from audit.scoring.calibrated import calibrated_estimates
from audit.scoring.cells import Cell, floor_cells, planned_cells
from audit.scoring.estimates import known_facts, leak_estimates, outcomes_of, placebo_estimate, retain_estimates
from audit.scoring.views import View, greedy
from audit.tasks import Task
from audit.types import Aim, Estimate, Fact
from audit.utility.open_part import OpenPart
from audit.utility.records import Found, UtilityReport

_ANY = View("any", "", lambda cell: True)


def build_report(
    *,
    config: AuditConfig,
    run: str,
    task: Task,
    plan: Plan,
    floor: FloorTargets,
    canaries: Canaries,
    results: Sequence[Asked],
    cells: Mapping[str, Mapping[Aim, list[Cell]]],
    utility: tuple[UtilityReport, Found],
    panel: PanelReport,
    warnings: Sequence[str],
    doubts: Sequence[str],
    runtime: Mapping[str, Any],
    failed: Sequence[Failure] = (),
    inside: InsideReport | None = None,
    card: JudgeCard | None = None,
    rejudged: Rejudged | None = None,
    other_panels: Sequence[OtherPanel] = (),
    open_part: OpenPart | None = None,
) -> Report:
    """Score every subject under the same plan and put the report together, verdict line and exit code included.

    `card`: of the run's judge or panel, for `calibrated.…`. `rejudged` and `other_panels`: the run whose answers these
    are, and what its judges said, where there was one.
    """
    facts: dict[Aim, Sequence[Fact]] = {"forget": task.forget, "retain": task.retain, "placebo": task.placebo}
    plans = {asked.subject.id: plan_of(config, plan, asked.subject) for asked in results}
    cost, found_cost = utility
    base = next((cells[a.subject.id]["forget"] for a in results if a.subject.role == "base"), None)
    subjects = {
        asked.subject.id: _subject(
            config, asked, plans[asked.subject.id], facts, cells[asked.subject.id], floor, base, card
        )
        for asked in results
    }
    for name, more in found_cost.estimates.items():
        subjects[name] = msgspec.structs.replace(subjects[name], estimates={**subjects[name].estimates, **more})
    candidate = subjects["candidate"]
    known = Known(
        n=None if base is None else len(known_facts(task.forget, base, View("", "", greedy))),
        minimum=config.scoring.min_known,
        facts=() if base is None else tuple(sorted(known_facts(task.forget, base, View("", "", greedy)))),
    )
    attacks, found = attack_part(config, plan, task, results, cells, failed)
    if found:
        candidate = msgspec.structs.replace(candidate, estimates={**candidate.estimates, **found})
        subjects["candidate"] = candidate
    report = Report(
        format=FORMAT,
        run=run,
        task=TaskInfo(
            name=task.name,
            version=task.version,
            content_hash=task.content_hash,
            description=task.description,
            source=task.source,
            n_forget=len(task.forget),
            n_retain=len(task.retain),
            n_placebo=len(task.placebo),
        ),
        verdict="",
        outcome="none",
        exit_code=0,
        estimates=candidate.estimates,
        subjects=subjects,
        known=known,
        canaries=canaries,
        floor=_floor_info(config, floor),
        undecided=candidate.undecided,
        panel=panel,
        warnings=_once(
            *task.warnings,
            *warnings,
            *warnings_of(task, plan, results, subjects),
            *found_cost.warnings,
            *judge_warnings(config, panel, canaries, results),
            *not_calibrated(card),
        ),
        inconclusive=_once(
            *inconclusive_reasons(canaries, known, subjects),
            *out_of_budget(results),
            *failed_attacks(failed),
            *wrecked_attacks(attacks),
            *doubts,
        ),
        not_tried=not_tried(config, plan, {str(asked.subject.recipe.get("kind", "")) for asked in results}),
        manifest=manifest_of(config, task, plan, results, panel, runtime, rejudged, open_part),
        attacks=attacks,
        inside=inside,
        utility=cost,
        other_panels=tuple(other_panels),
    )
    return with_verdict(report, config.policy)


def cells_of(config: AuditConfig, plan: Plan, results: Sequence[Asked]) -> dict[str, dict[Aim, list[Cell]]]:
    """Subject -> what its prompts are asked for -> every planned try with its ruling."""
    return {
        asked.subject.id: _by_aim(planned_cells(_scored(plan_of(config, plan, asked.subject), asked), asked.rulings))
        for asked in results
    }


def with_verdict(report: Report, policy: str | None) -> Report:
    """The report with its verdict line, outcome and exit code, under a policy or without one."""
    result = evaluate(load_policy(policy), report) if policy else verdict_without_policy(report)
    return msgspec.structs.replace(report, verdict=result.line, outcome=result.outcome, exit_code=result.exit_code)


def _scored(plan: Plan, asked: Asked) -> list[Any]:
    """The planned probes, asked or not, and those that families and cut answers added."""
    planned = {probe.id for probe in plan.probes}
    added = [probe for probe in asked.probes if probe.id not in planned]
    if asked.subject.role == "attacked":  # a rejudged run hands every subject the plan of the unaltered ones
        added = [probe for probe in added if probe.parent is not None]
    return [*plan.probes, *added]


def _by_aim(cells: Iterable[Cell]) -> dict[Aim, list[Cell]]:
    by_aim: dict[Aim, list[Cell]] = {aim: [] for aim in get_args(Aim)}
    for cell in cells:
        by_aim[cell.probe.split].append(cell)
    return by_aim


def _subject(
    config: AuditConfig,
    asked: Asked,
    plan: Plan,
    facts: Mapping[Aim, Sequence[Fact]],
    cells: Mapping[Aim, list[Cell]],
    floor: FloorTargets,
    base: list[Cell] | None,
    card: JudgeCard | None,
) -> SubjectReport:
    confidence = config.scoring.confidence
    if asked.subject.role == "attacked":  # asked less than the others: of fewer facts, in fewer wordings
        facts, base, floor = _asked_facts(facts, plan), _of_plan(base, plan), {}
    wrong = {key: [target.answer for target in targets] for key, targets in floor.items()}
    forget_probes = [probe for probe in _scored(plan, asked) if probe.split == "forget"]
    estimates: dict[str, Estimate] = {}
    if cells["forget"]:
        estimates |= leak_estimates(
            facts["forget"],
            cells["forget"],
            floor=floor_cells(forget_probes, asked.rulings, wrong) if wrong else [],
            base=base if asked.subject.role != "base" else None,
            confidence=confidence,
        )
    estimates |= retain_estimates(facts["retain"], cells["retain"], confidence=confidence)
    estimates |= calibrated_estimates(facts, cells, card, confidence)
    estimates |= placebo_estimate(facts["placebo"], cells["placebo"], confidence=confidence)
    return SubjectReport(
        subject=asked.subject,
        estimates=estimates,
        waterfall=_waterfall(facts["forget"], cells["forget"]),
        facts=_fact_results(facts["forget"], cells["forget"]),
        undecided=_undecided(facts["forget"], cells),
        forget_texts=texts_of(asked, "forget"),
        retain_texts=texts_of(asked, "retain"),
        recorded_agreement=asked.agreement,
        recorded_shares=asked.degeneration,
    )


def _asked_facts(facts: Mapping[Aim, Sequence[Fact]], plan: Plan) -> dict[Aim, list[Fact]]:
    asked = {target.fact_id for probe in plan.probes for target in probe.targets}
    return {split: [fact for fact in members if fact.id in asked] for split, members in facts.items()}


def _of_plan(cells: list[Cell] | None, plan: Plan) -> list[Cell] | None:
    ids = {probe.id for probe in plan.probes}
    return None if cells is None else [cell for cell in cells if cell.probe.id in ids]


def _waterfall(facts: Sequence[Fact], cells: Sequence[Cell]) -> tuple[FamilyGain, ...]:
    by_family: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_family[cell.probe.family].append(cell)
    gains, seen = [], set[str]()
    order = {name: place for place, name in enumerate(BUILTIN)}
    for family, mine in sorted(by_family.items(), key=lambda item: order.get(item[0], len(order))):
        outcomes = outcomes_of(facts, mine, _ANY)
        leaked = {fact for fact, label in outcomes.items() if label == "leak"}
        added = leaked - seen
        seen |= leaked
        gains.append(
            FamilyGain(
                family=family,
                n_probes=len({cell.probe.id for cell in mine}),
                leaked=len(leaked),
                added=len(added),
                cumulative=len(seen),
                undecided=sum(label == "undecided" for label in outcomes.values()),
            )
        )
    return tuple(gains)


def _fact_results(facts: Sequence[Fact], cells: Sequence[Cell]) -> tuple[FactResult, ...]:
    mine: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        mine[cell.fact_id].append(cell)
    outcomes = outcomes_of(facts, cells, _ANY)
    return tuple(
        FactResult(
            fact_id=fact.id,
            topic=fact.topic,
            question=fact.question,
            answer=fact.answer,
            outcome=outcomes[fact.id],
            families=tuple(dict.fromkeys(c.probe.family for c in mine[fact.id] if c.label == "leak")),
            n_cells=len(mine[fact.id]),
            n_leak=sum(c.label == "leak" for c in mine[fact.id]),
            n_undecided=sum(c.label == "undecided" for c in mine[fact.id]),
        )
        for fact in facts
    )


def _undecided(facts: Sequence[Fact], cells: Mapping[Aim, list[Cell]]) -> Undecided:
    outcomes = outcomes_of(facts, cells["forget"], _ANY)
    open_cells = [cell for cell in cells["forget"] if cell.label == "undecided"]
    return Undecided(
        facts=sum(label == "undecided" for label in outcomes.values()),
        cells=len(open_cells),
        by_reason=dict(sorted(Counter(str(cell.reason) for cell in open_cells).items())),
        retain_cells=sum(cell.label == "undecided" for cell in cells["retain"]),
    )


def _floor_info(config: AuditConfig, floor: FloorTargets) -> FloorInfo:
    if floor:
        return FloorInfo(status="run", wrong_answers=sum(len(targets) for targets in floor.values()))
    if config.judges == ("recorded",):
        return FloorInfo(status="not run", why="recorded verdicts: nobody judged these answers against other facts")
    return FloorInfo(status="not run", why="switched off in the settings")


def _once(*texts: str) -> tuple[str, ...]:
    """Without repetitions: a rejudged run brings along what is found in its answers anew."""
    return tuple(dict.fromkeys(texts))

"""run_audit: the whole flow. Subjects are the outer loop, rounds of probes the inner one; both are here alone."""

from __future__ import annotations

from collections.abc import Sequence

from audit.asking import Asked, Asker
from audit.config import AuditConfig
from audit.errors import ConfigError
from audit.judges import get_judge
from audit.judges.canaries import run_canaries
from audit.judges.pool import JudgePool
from audit.judges.rulings import FloorTargets, claims_of, recorded_rulings, rule
from audit.probes import get_family
from audit.probes.contexts import Part, plan_parts
from audit.probes.plan import Plan, build_plan
from audit.progress import Progress, Silent
from audit.protocols import Family, Judge
from audit.recordings import read_recording, recorded_task, recording_fingerprint, recording_format
from audit.recordings.compare import compare_with_recorded
from audit.report.assemble import build_report
from audit.report.files import RunFolder
from audit.report.model import Report
from audit.rounds import cut_again, outcomes_of
from audit.scoring.floor import floor_targets
from audit.store import Store
from audit.subjects import Opened, open_subjects
from audit.tasks import Task, load_task
from audit.types import Canaries, Probe, Response, Role, Ruling, Subject


def run_audit(config: AuditConfig, folder: RunFolder, store: Store, progress: Progress | None = None) -> Report:
    """Audit what the configuration names and write the run folder. Raises AuditError for what cannot be used.

    Everything that was generated or judged is in the store as soon as it is there: the same call goes on after an
    interruption, and does no model work at all once it has finished.
    """
    progress = progress or Silent()
    if config.responses:
        return _audit_recordings(config, folder, store, progress)
    folder.refuse_inside([config.model, config.adapter, config.base, config.never_knew])
    task = load_task(config.forget, retain=config.retain)
    subjects = open_subjects(config, folder.token(config))
    folder.claim(config, task.content_hash, [opened.subject.fingerprint for opened in subjects.opened])
    families, unable = _able(config, subjects.opened)
    parts, warnings = plan_parts(config, task, families, subjects.formats)
    plan = build_plan(parts)
    if not plan.probes:
        raise ConfigError("no prompt can be built from these settings", hint="\n".join(warnings))
    floor = _floor(config, task)
    judges = [get_judge(spec) for spec in config.judges]
    pool = JudgePool(judges, store, timeout=config.judge_timeout)
    try:
        canaries = _canaries(config, task, pool, progress)
        results = [
            _audit_subject(opened, plan, parts, pool, config, floor, store, progress) for opened in subjects.opened
        ]
        said = [*subjects.warnings, *unable, *warnings]
        return _finish(config, folder, task, plan, floor, canaries, results, pool, said, subjects.inconclusive)
    finally:
        pool.close()


def _able(config: AuditConfig, opened: Sequence[Opened]) -> tuple[list[Family], list[str]]:
    """The families that every subject's engine can serve; the others are left out of the plan, and said."""
    families, unable = [], []
    for name in config.probes.families:
        family = get_family(name)
        missing = {need for subject in opened for need in family.needs - subject.capabilities}
        if missing:
            unable.append(f"not run: {name}: the engine cannot do {', '.join(sorted(missing))}")
        else:
            families.append(family)
    return families, unable


def _audit_subject(
    opened: Opened,
    plan: Plan,
    parts: Sequence[Part],
    pool: JudgePool,
    config: AuditConfig,
    floor: FloorTargets,
    store: Store,
    progress: Progress,
) -> Asked:
    """All rounds of one subject: the plan, then what families and cut answers ask for, until nobody asks."""
    asked = Asked(
        subject=opened.subject,
        probes=[],
        responses=[],
        rulings=[],
        engine=opened.engine_identity,
        rendering=opened.rendering,
        manifest=opened.manifest,
    )
    asker = Asker(opened, store, progress)
    pending: list[Probe] = list(plan.probes)
    try:
        while pending:
            responses: list[Response] = []
            by_id = {probe.id: probe for probe in pending}
            for group in asker.ask(pending):
                responses += group
                pool.submit(claim for r in group for claim in claims_of(by_id[r.probe_id], r, floor))
            if pool.exclusive:
                asker.close()
            pool.drain(progress, f"{opened.subject.id}: judging (batches)")
            rulings = _rule(responses, by_id, pool, config, floor)
            asked.probes += pending
            asked.responses += responses
            asked.rulings += rulings
            outcomes = outcomes_of(pending, responses, rulings)
            pending = cut_again(outcomes, opened)
            for ctx, families in parts:
                for family in families:
                    mine = [outcome for outcome in outcomes if outcome.probe.family == family.name]
                    pending += family.follow(ctx, mine)
    finally:
        asker.close()
    asked.generated, asked.reused = asker.generated, asker.reused
    return asked


def _rule(
    responses: Sequence[Response],
    probes: dict[str, Probe],
    pool: JudgePool,
    config: AuditConfig,
    floor: FloorTargets,
) -> list[Ruling]:
    judges = [judge.identity for judge in pool.judges]
    return [
        ruling
        for response in responses
        for ruling in rule(
            probes[response.probe_id],
            response,
            pool.verdicts,
            judges=judges,
            panel_rule=config.judge_rule,
            floor=floor,
        )
    ]


def _audit_recordings(config: AuditConfig, folder: RunFolder, store: Store, progress: Progress) -> Report:
    """Recorded answers enter after the engines: rulings from their own verdicts, or from judges asked now."""
    sources: list[tuple[Role, tuple[str, ...]]] = [("candidate", config.responses)]
    if config.base_responses:
        sources.append(("base", config.base_responses))
    formats = {recording_format(paths, config.responses_format) for _, paths in sources}
    known_task = load_task(config.forget, retain=config.retain) if "jsonl" in formats else None
    facts = (*known_task.forget, *known_task.retain, *known_task.placebo) if known_task else ()
    recordings = {
        role: read_recording(paths, subject_id=role, facts=facts, format=config.responses_format)
        for role, paths in sources
    }
    task = recorded_task(known_task, *recordings.values())
    subjects = {
        role: Subject(
            id=role,
            role=role,
            source=", ".join(paths),
            fingerprint=recording_fingerprint(recordings[role]),
        )
        for role, paths in sources
    }
    folder.claim(config, task.content_hash, [subject.fingerprint for subject in subjects.values()])
    probes = {probe.id: probe for recording in recordings.values() for probe in recording.probes}
    plan = Plan(probes=tuple(probes.values()), refused={})
    recorded = config.judges == ("recorded",)
    floor = {} if recorded else _floor(config, task)
    warnings = [f"{role}: not read: {', '.join(rec.unread)}" for role, rec in recordings.items() if rec.unread]
    judges: list[Judge] = [] if recorded else [get_judge(spec) for spec in config.judges]
    pool = JudgePool(judges, store, timeout=config.judge_timeout)
    try:
        canaries = (
            Canaries(
                status="not run", pass_rate=config.scoring.canary_pass_rate, why="recorded verdicts: no judge here"
            )
            if recorded
            else _canaries(config, task, pool, progress)
        )
        results = []
        for role, recording in recordings.items():
            if recorded:
                rulings = recorded_rulings(recording)
            else:
                by_id = {probe.id: probe for probe in recording.probes}
                pool.submit(c for r in recording.responses for c in claims_of(by_id[r.probe_id], r, floor))
                pool.drain(progress, f"{role}: judging (batches)")
                rulings = _rule(recording.responses, by_id, pool, config, floor)
            agreement, differing = (
                (None, []) if recorded else compare_with_recorded(recording, rulings, config.scoring.confidence)
            )
            results.append(
                Asked(
                    subject=subjects[role],
                    probes=list(plan.probes),
                    responses=list(recording.responses),
                    rulings=rulings,
                    engine="recorded",
                    degeneration=recording.degeneration,
                    agreement=agreement,
                    differing=differing,
                )
            )
        return _finish(config, folder, task, plan, floor, canaries, results, pool, warnings)
    finally:
        pool.close()


def _floor(config: AuditConfig, task: Task) -> FloorTargets:
    if not config.scoring.floor:
        return {}
    forms = list(dict.fromkeys(name for fact in task.forget for name in (fact.form, *fact.other_forms)))
    return floor_targets(task.forget, forms, draws=config.scoring.floor_draws, seed=config.seed)


def _canaries(config: AuditConfig, task: Task, pool: JudgePool, progress: Progress) -> Canaries:
    progress.stage("canaries", 0)
    return run_canaries(
        pool,
        task.forget,
        n_facts=config.scoring.canary_facts,
        pass_rate=config.scoring.canary_pass_rate,
        rule=config.judge_rule,
        seed=config.seed,
    )


def _finish(
    config: AuditConfig,
    folder: RunFolder,
    task: Task,
    plan: Plan,
    floor: FloorTargets,
    canaries: Canaries,
    results: Sequence[Asked],
    pool: JudgePool,
    warnings: Sequence[str],
    doubts: Sequence[str] = (),
) -> Report:
    report = build_report(
        config=config,
        run=folder.run,
        task=task,
        plan=plan,
        floor=floor,
        canaries=canaries,
        results=results,
        judges=[judge.identity for judge in pool.judges] or ["recorded"],
        warnings=warnings,
        doubts=doubts,
        runtime={
            "generated": {asked.subject.id: asked.generated for asked in results},
            "reused": {asked.subject.id: asked.reused for asked in results},
            "judged": pool.calls,
        },
    )
    folder.write(report, config, results, pool.verdicts)
    return report

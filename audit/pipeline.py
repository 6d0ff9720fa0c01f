"""run_audit: the whole flow. Subjects are the outer loop, rounds of probes the inner one; both are here alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from audit.asking import Asked, Asker
from audit.attacking import Attacked, plan_attacks, run_attacks
from audit.attacks.records import Failure
from audit.config import AuditConfig
from audit.errors import ConfigError, EngineError, ModelError, TaskError
from audit.inside.records import InsideReport
from audit.judges.bench import Bench
from audit.judges.canaries import AskedCanaries, ask_canaries, rule_canaries
from audit.judges.canary_records import Canaries
from audit.judges.cards import find_card
from audit.judges.rulings import recorded_rulings
from audit.probes import get_family
from audit.probes.contexts import Part, plan_parts
from audit.probes.plan import Plan, build_plan
from audit.progress import Progress, Silent
from audit.protocols import Family
from audit.recordings.compare import compare_with_recorded
from audit.recordings.given import Given, GivenSubject, recorded_answers
from audit.recordings.run import read_run
from audit.report.assemble import build_report, cells_of
from audit.report.files import RunFolder
from audit.report.model import Report
from audit.report.panel import panel_report
from audit.rounds import cut_again, in_rounds, outcomes_of
from audit.scoring.floor import targets_of_floor
from audit.store import Store
from audit.subjects import Models, Opened, open_subjects
from audit.tasks import Task, load_task
from audit.types import Probe, Response, Ruling
from audit.utility.stage import Utility, open_utility, utility_again


def run_audit(config: AuditConfig, folder: RunFolder, store: Store, progress: Progress | None = None) -> Report:
    """Audit what the configuration names and write the run folder. Raises AuditError for what cannot be used.

    Everything that was generated or judged is in the store as soon as it is there: the same call goes on after an
    interruption, and does no model work at all once it has finished.
    """
    progress = progress or Silent()
    if config.rejudge:
        return _audit_given(config, read_run(Path(config.rejudge)), folder, store, progress)
    if config.responses:
        return _audit_given(config, recorded_answers(config), folder, store, progress)
    folder.refuse_inside([config.model, config.adapter, config.base, config.never_knew])
    task = load_task(config.forget, retain=config.retain)
    subjects = open_subjects(config, folder.token(config))
    families, unable = _able(config, subjects.opened)
    parts, warnings = plan_parts(config, task, families, subjects.formats)
    plan = build_plan(parts)
    if not plan.probes:
        raise ConfigError("no prompt can be built from these settings", hint="\n".join(warnings))
    attacks = plan_attacks(config, task, plan, subjects.models, progress)
    bench = Bench(config, store, targets_of_floor(config, task))
    utility: Utility | None = None
    try:
        utility = open_utility(config, task, subjects, store, bench.budget, progress)
        plan = msgspec.structs.replace(plan, probes=(*plan.probes, *utility.probes))
        folder.claim(config, task.content_hash, [opened.subject.fingerprint for opened in subjects.opened])
        asked = _ask_canaries(config, task, bench, progress)
        results = [_audit_subject(opened, plan, parts, bench, store, progress, utility) for opened in subjects.opened]
        said = [*subjects.warnings, *unable, *warnings, *utility.warnings]
        attacked = Attacked()
        if attacks is not None:
            said += attacks.warnings
            attacked = run_attacks(
                config,
                attacks,
                plan,
                lambda opened, probes: _audit_subject(opened, probes, (), bench, store, progress),
                exclusive_judge=bench.exclusive,
            )
        utility.search(
            subjects.opened,
            lambda opened, probes: _audit_subject(opened, probes, (), bench, store, progress),
            bench,
            progress,
        )
        inside, unseen = _look_inside(config, task, subjects.models, progress)
        said += unseen
        canaries = rule_canaries(asked, bench.panel, config.scoring.canary_pass_rate)
        _note_refused(store, progress)
        results += attacked.results
        return _finish(
            config,
            folder,
            task,
            plan,
            canaries,
            results,
            bench,
            utility,
            progress,
            said,
            subjects.inconclusive,
            attacked.failures,
            inside=inside,
        )
    finally:
        if utility is not None:
            utility.close()
        bench.close()


def _look_inside(
    config: AuditConfig, task: Task, models: Models | None, progress: Progress
) -> tuple[InsideReport | None, list[str]]:
    """Views of the inside, where they were asked for; every engine is closed by now. What cannot be seen is said: it
    decides nothing, and is no reason to lose the audit."""
    if not config.inside or models is None:
        return None, []
    from audit.inside.kept import inside_report

    try:
        return inside_report(config, task, models, progress), []
    except (ModelError, EngineError, TaskError) as error:
        return None, [f"the inside of the models could not be looked at, which shows nothing either way: {error}"]


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
    bench: Bench,
    store: Store,
    progress: Progress,
    utility: Utility | None = None,
) -> Asked:
    """All rounds of one subject: the plan, then what families (none, of an altered state) and cut answers ask for; at
    last the tasks of `utility`, over the same engine."""
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
                bench.submit(group, by_id, opened.subject)
            if bench.exclusive:
                asker.close()
            rulings = bench.settle(responses, by_id, progress, opened.subject)
            asked.probes += pending
            asked.responses += responses
            asked.rulings += rulings
            outcomes = outcomes_of(pending, responses, rulings)
            pending = cut_again(outcomes, opened)
            for ctx, families in parts:
                for family in families:
                    mine = [outcome for outcome in outcomes if outcome.probe.family == family.name]
                    pending += family.follow(ctx, mine)
        if utility is not None:
            asked.harness = utility.measure(opened, asker.engine, progress)
    finally:
        asker.close()
    asked.generated, asked.reused = asker.generated, asker.reused
    return asked


def _audit_given(config: AuditConfig, given: Given, folder: RunFolder, store: Store, progress: Progress) -> Report:
    """Answers that are there enter after the engines: rulings from their own verdicts, or from judges asked now."""
    fingerprints = [each.subject.fingerprint for each in given.subjects]
    if config.judges == ("recorded",):
        folder.claim(config, given.task.content_hash, fingerprints, given.rejudged)
        why = "recorded verdicts: no judge here"
        canaries = Canaries(status="not run", pass_rate=config.scoring.canary_pass_rate, why=why)
        results = [_as_asked(each, given, recorded_rulings(each.recording), config) for each in given.subjects]
        utility = utility_again(config, given, store, None)
        return _finish(
            config,
            folder,
            given.task,
            given.plan,
            canaries,
            results,
            None,
            utility,
            progress,
            given.warnings,
            (),
            given.failed,
            given,
        )
    bench = Bench(config, store, targets_of_floor(config, given.task))
    again: Utility | None = None
    try:
        again = utility_again(config, given, store, bench.budget)
        folder.claim(config, given.task.content_hash, fingerprints, given.rejudged)
        asked = _ask_canaries(config, given.task, bench, progress)
        results = []
        for each in given.subjects:
            rulings: list[Ruling] = []
            for probes in in_rounds(each.recording.probes):
                by_id = {probe.id: probe for probe in probes}
                responses = [response for response in each.recording.responses if response.probe_id in by_id]
                bench.submit(responses, by_id, each.subject)
                rulings += bench.settle(responses, by_id, progress, each.subject)
            results.append(_as_asked(each, given, rulings, config))
        canaries = rule_canaries(asked, bench.panel, config.scoring.canary_pass_rate)
        _note_refused(store, progress)
        return _finish(
            config,
            folder,
            given.task,
            given.plan,
            canaries,
            results,
            bench,
            again,
            progress,
            given.warnings,
            given.doubts,
            given.failed,
            given,
        )
    finally:
        if again is not None:
            again.close()
        bench.close()


def _as_asked(each: GivenSubject, given: Given, rulings: list[Ruling], config: AuditConfig) -> Asked:
    """Answers that were there as if they had been asked for, beside the verdicts that came with them."""
    recording = each.recording
    agreement, differing = (
        (None, [])
        if config.judges == ("recorded",)
        else compare_with_recorded(recording, rulings, config.scoring.confidence)
    )
    return Asked(
        subject=each.subject,
        probes=list({probe.id: probe for probe in (*given.plan.probes, *recording.probes)}.values()),
        responses=list(recording.responses),
        rulings=rulings,
        engine=each.engine,
        rendering=dict(each.rendering),
        manifest=dict(each.manifest),
        degeneration=recording.degeneration,
        agreement=agreement,
        differing=differing,
        recorded=recording.verdicts,
    )


def _ask_canaries(config: AuditConfig, task: Task, bench: Bench, progress: Progress) -> AskedCanaries:
    return ask_canaries(
        bench.pool, task.forget, n_facts=config.scoring.canary_facts, seed=config.seed, progress=progress
    )


def _note_refused(store: Store, progress: Progress) -> None:
    """Say that kept answers or verdicts were not used, and why."""
    words = {"damaged": "do not fit their checksums", "unchecked": "have no checksum (an earlier version kept them)"}
    for kind, number in sorted(store.refused.items()):
        progress.note(f"{number} kept answers or verdicts {words[kind]}: they were asked for again")


def _finish(
    config: AuditConfig,
    folder: RunFolder,
    task: Task,
    plan: Plan,
    canaries: Canaries,
    results: Sequence[Asked],
    bench: Bench | None,
    utility: Utility,
    progress: Progress,
    warnings: Sequence[str],
    doubts: Sequence[str] = (),
    failed: Sequence[Failure] = (),
    given: Given | None = None,
    inside: InsideReport | None = None,
) -> Report:
    """Rule once more where rulings depend on all verdicts, build the report and write the run folder."""
    if bench is not None and bench.panel.model is not None:
        for asked in results:
            asked.rulings = bench.rulings(asked.responses, {probe.id: probe for probe in asked.probes}, asked.subject)
    panel, disputed = panel_report(config, bench, results)
    cells = cells_of(config, plan, results)
    cost, found = utility.report(results, cells, progress)
    report = build_report(
        config=config,
        run=folder.run,
        task=task,
        plan=plan,
        floor=bench.floor if bench else {},
        canaries=canaries,
        results=results,
        cells=cells,
        utility=(cost, found),
        open_part=utility.open_part,
        panel=panel,
        warnings=warnings,
        doubts=doubts,
        failed=failed,
        inside=given.inside if given else inside,
        runtime={
            "generated": {asked.subject.id: asked.generated for asked in results},
            "reused": {asked.subject.id: asked.reused for asked in results},
            "judged": bench.pool.calls if bench else 0,
            "judges": [msgspec.to_builtins(totals.record()) for totals in bench.pool.totals.values()] if bench else [],
            "store_rows_refused": dict(bench.store.refused) if bench else {},
        },
        card=find_card(bench.panel.identity) if bench else None,
        rejudged=given.rejudged if given else None,
        other_panels=given.other_panels if given else (),
    )
    verdicts = bench.pool.verdicts if bench else {}
    folder.write(report, config, results, verdicts, facts=task.facts, disputed=disputed, open_part=utility.open_part)
    return report

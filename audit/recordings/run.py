"""A finished run as answers to be judged again: read from its own folder, without a model and without its task.

What was found out about the models stays with the answers: fingerprints, engines, rendering, warnings, and every reason
for no verdict that was not about the judges. A folder whose records are not those that its report speaks of is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from audit.asking import Asked
from audit.attacks.probes import plan_of
from audit.config import AuditConfig, read_config
from audit.errors import ConfigError, RunFolderError
from audit.fingerprint import digest
from audit.judges.rulings import make_claim
from audit.probes.plan import Plan, probe_set_hash
from audit.recordings.given import Given, GivenSubject
from audit.report.beware import inconclusive_reasons
from audit.report.beware_judges import is_about_budget, is_about_calibration, judge_warnings
from audit.report.files import RecordedVerdict
from audit.report.model import OtherPanel, Rejudged, Report
from audit.report.read import check_contents, contents_of, given_records, load_report, numbered_lines
from audit.tasks import Task
from audit.types import Estimate, Fact, Probe, Recording, Response, Ruling, Verdict
from audit.utility.open_part import OpenPart
from audit.wording import HEADLINES

_FILES = ("config.yaml", "facts.jsonl", "probes.jsonl", "responses.jsonl", "report.json")
_ROLES = ("candidate", "base", "never_knew", "attacked")
#: Estimates that are set side by side for several panels, where a report has them.
_SIDE_BY_SIDE = (
    *HEADLINES,
    "mean.all",
    "calibrated.mean.all",
    "retain.mean",
    "calibrated.retain.mean",
    "floor.placebo",
)


def run_config(run: Path) -> AuditConfig:
    """The settings of a finished run. Raises RunFolderError where they cannot be used or are not the report's."""
    folder = _folder(run)
    report = load_report(folder)
    try:
        config = read_config(folder / "config.yaml")
    except ConfigError as error:
        raise RunFolderError(f"{folder / 'config.yaml'}: {error}") from error
    try:
        same = AuditConfig.model_validate(report.manifest.config) == config
    except ValueError as error:
        raise RunFolderError(f"{folder / 'report.json'}: its settings cannot be used: {error}") from error
    if not same:
        raise RunFolderError(
            f"{folder / 'config.yaml'}: not the settings of the run that report.json speaks of",
            hint="undo the change; a rejudging takes judge settings from its own flags or --config FILE",
        )
    return config


def read_run(run: Path) -> Given:
    """All subjects of a finished run with their answers. Raises RunFolderError naming file and line."""
    folder = _folder(run)
    config, report = run_config(folder), load_report(folder)
    facts = given_records(folder / "facts.jsonl", Fact, report)
    probes = given_records(folder / "probes.jsonl", Probe, report)
    by_id = {probe.id: probe for probe in probes}
    responses = _responses(folder, by_id, report)
    planned = tuple(probe for probe in probes if probe.parent is None)
    if probe_set_hash(planned) != report.manifest.probe_set:
        raise RunFolderError(
            f"{folder / 'probes.jsonl'}: its first-round probes are not the plan that report.json speaks of",
            hint="a family's later probes must name a parent; such a run can only be repeated with `audit run`",
        )
    plan = Plan(
        probes=planned, refused=report.manifest.refused_probes, refused_examples=report.manifest.refused_examples
    )
    recorded = _recorded(folder, report)
    subjects = []
    attacks = {name: place for place, name in enumerate(report.attacks.attacks)} if report.attacks else {}
    ordered = sorted(
        report.subjects.values(),
        key=lambda s: (
            _ROLES.index(s.subject.role),
            attacks.get(str(s.subject.recipe.get("attack")), 0),
            s.subject.id,
        ),
    )
    for each in ordered:
        subject = each.subject
        mine = [response for response in responses if response.subject_id == subject.id]
        asked = {response.probe_id for response in mine}
        asked |= {probe.id for probe in plan_of(config, plan, subject).probes}
        recording = Recording(
            name=report.run,
            facts=tuple(facts),
            probes=tuple(probe for probe in probes if probe.id in asked),
            responses=tuple(mine),
            verdicts=recorded.get(subject.id, {}),
            degeneration=each.recorded_shares,
        )
        made = report.manifest
        subjects.append(
            GivenSubject(
                subject,
                recording,
                engine=made.engines.get(subject.id, ""),
                rendering=made.rendering.get(subject.id, {}),
                manifest=made.trained.get(subject.id, {}),
            )
        )
    before = report.manifest.rejudged
    return Given(
        task=_task(report, facts),
        plan=plan,
        subjects=tuple(subjects),
        warnings=_warnings_about_subjects(config, report),
        doubts=_doubts_about_subjects(report),
        rejudged=Rejudged(
            run=report.run,
            answers=digest("answers", report.manifest.files["responses.jsonl"].digest),
            prompts=report.manifest.prompts,
            versions=before.versions if before else report.manifest.versions,
        ),
        other_panels=(_panel_of(report), *report.other_panels),
        failed=report.attacks.failures if report.attacks else (),
        inside=report.inside,
        utility=report.utility,
        estimates={name: each.estimates for name, each in report.subjects.items()},
        open_part=_open_part(folder, report),
    )


def _folder(run: Path) -> Path:
    folder = run.parent if run.name == "report.json" and run.is_file() else run
    if not folder.is_dir():
        raise RunFolderError(f"{run}: no such run", hint="give the --out folder of an audit that ran to its end")
    load_report(folder)  # says best what a folder without a report, or with one of another format, is
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise RunFolderError(
            f"{folder}: {', '.join(missing)} is missing: its answers cannot be judged again",
            hint="give the whole folder that `audit run` wrote, not the report alone",
        )
    return folder


def _responses(folder: Path, probes: Mapping[str, Probe], report: Report) -> list[Response]:
    """All answers; where they are not the run's, the first line that contradicts rulings.jsonl is named."""
    path = folder / "responses.jsonl"
    numbered = list(numbered_lines(path, Response))
    responses = [response for _, response in numbered]
    if contents_of(responses) != report.manifest.files.get(path.name):
        check_contents(path, responses, report, _first_changed(folder, numbered, probes))
    for number, response in numbered:
        if response.probe_id not in probes or response.subject_id not in report.subjects:
            raise RunFolderError(f"{path}, line {number}: an answer to a probe, or of a subject, that the run has not")
    return responses


def _first_changed(folder: Path, numbered: Sequence[tuple[int, Response]], probes: Mapping[str, Probe]) -> str:
    """The first line whose text is not the one that was ruled on, in words; empty where no ruling tells."""
    rulings = folder / "rulings.jsonl"
    if not rulings.is_file():
        return ""
    ruled: dict[tuple[str, str, int], set[str]] = {}
    for _, ruling in numbered_lines(rulings, Ruling):
        if ruling.purpose == "leak" and ruling.rule != "recorded":
            ruled.setdefault((ruling.subject_id, ruling.probe_id, ruling.sample), set()).add(ruling.claim_key)
    for number, response in numbered:
        keys = ruled.get((response.subject_id, response.probe_id, response.sample))
        probe = probes.get(response.probe_id)
        if keys is None or probe is None:
            continue
        if any(make_claim(target, response.text).key not in keys for target in probe.targets):
            return f", line {number}"
    return ""


def _recorded(folder: Path, report: Report) -> dict[str, dict[str, Verdict]]:
    """Subject -> response id -> the verdict that came with a recorded answer."""
    found: dict[str, dict[str, Verdict]] = {}
    path = folder / "recorded.jsonl"
    kept = [given for _, given in numbered_lines(path, RecordedVerdict)] if path.is_file() else []
    check_contents(path, kept, report)
    for given in kept:
        found.setdefault(given.subject_id, {})[given.response] = given.verdict
    return found


def _task(report: Report, facts: Sequence[Fact]) -> Task:
    task = report.task
    return Task(
        name=task.name,
        version=task.version,
        description=task.description,
        licence="as in the task",
        content_hash=task.content_hash,
        source=task.source,
        forget=tuple(fact for fact in facts if fact.split == "forget"),
        retain=tuple(fact for fact in facts if fact.split == "retain"),
        placebo=tuple(fact for fact in facts if fact.split == "placebo"),
    )


def _open_part(folder: Path, report: Report) -> OpenPart | None:
    """The open instructions of the run; None where it asked none."""
    if "instructions.jsonl" not in report.manifest.files:
        return None
    (part,) = given_records(folder / "instructions.jsonl", OpenPart, report)
    return part


def _warnings_about_subjects(config: AuditConfig, report: Report) -> tuple[str, ...]:
    """All warnings but those about the judges of then, which are found by having them said once more."""
    results = [
        Asked(
            subject=each.subject,
            probes=[],
            responses=[],
            rulings=[],
            engine=report.manifest.engines.get(name, ""),
            rendering=report.manifest.rendering.get(name, {}),
        )
        for name, each in report.subjects.items()
    ]
    about_judges = set(judge_warnings(config, report.panel, report.canaries, results))
    about_judges |= set(report.utility.warnings if report.utility else ())
    return tuple(w for w in report.warnings if w not in about_judges and not is_about_calibration(w))


def _doubts_about_subjects(report: Report) -> tuple[str, ...]:
    """Reasons for no verdict but those that hang on the judges: canaries, known facts, and what was not paid for."""
    on_judges = set(inconclusive_reasons(report.canaries, report.known, {}))
    return tuple(why for why in report.inconclusive if why not in on_judges and not is_about_budget(why))


def _panel_of(report: Report) -> OtherPanel:
    unaltered = {name: each for name, each in report.subjects.items() if each.subject.role != "attacked"}
    return OtherPanel(
        run=report.run,
        judges=report.manifest.judges,
        specs=tuple(judge.spec for judge in report.panel.judges) or report.manifest.judges,
        rule=report.panel.rule,
        canaries=report.canaries.status,
        outcome=report.outcome,
        undecided={name: subject.undecided.facts for name, subject in unaltered.items()},
        estimates={name: _headlines(subject.estimates) for name, subject in unaltered.items()},
    )


def _headlines(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    wanted = []
    for name in _SIDE_BY_SIDE:
        wanted += [name, f"{name}@known", f"floor.{name}", f"corrected.{name}"]
    wanted += [name for name in estimates if name.startswith(("worst_case.sampled@k=", "labelled."))]
    return {name: estimates[name] for name in wanted if name in estimates}

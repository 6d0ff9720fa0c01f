"""`audit compare --methods …`: train or take every candidate, audit all in the same way, set them side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from audit.cli.equal import Found, Sweep
    from audit.cli.progress import TerminalProgress
    from audit.cli.trainings import Start, Training
    from audit.cli.tunings import Tuning
    from audit.comparing.auditing import Auditor
    from audit.comparing.entries import Entered
    from audit.comparing.model import Comparison, Failed
    from audit.comparing.runs import Run
    from audit.config import AuditConfig
    from audit.engines.checkpoint import Checkpoint
    from audit.tasks import Task


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line."""

    entries: Sequence[str]
    out: Path
    audit: Mapping[str, Any]
    """Settings of the audits as in AuditConfig; None where not given."""
    config: Path | None = None
    methods: str | None = None
    seeds: tuple[int, ...] = ()
    given: Sequence[str] = ()
    defaults: str = "auto"
    tune: int | None = None
    labels: Sequence[str] = ()
    groups: Sequence[str] = ()
    on: str | None = None
    alpha: float = 0.05
    allow_different_judges: bool = False
    store: Path | None = None
    equal_utility: bool = False
    shares: str | None = None
    sweep: str | None = None


@dataclass(frozen=True)
class Prepared:
    """What is going to be done: everything that can be wrong before the first training has been looked at."""

    wanted: Wanted
    settings: AuditConfig
    task: Task
    base: Checkpoint | None
    start: Start | None
    trainings: Sequence[Training]
    entered: Sequence[Entered]
    groups: Mapping[str, Sequence[str]]
    tuning: Tuning | None = None
    warnings: Sequence[str] = field(default_factory=tuple)
    shares: tuple[float, ...] = ()
    """Of the base, for the comparison at equal utility; none where that was not asked for."""
    sweep: Sweep | None = None


def prepare(wanted: Wanted) -> Prepared:
    """Resolve and check all that was asked for; nothing is trained or asked. Raises AuditError."""
    from audit.cli.equal import shares_given, sweep_given, sweep_trainings
    from audit.cli.trainings import chosen_methods, expected, plan_trainings, settings_given, state_of
    from audit.cli.tunings import Tuning, check_file, to_tune
    from audit.comparing.auditing import ANYONE, check_folder, check_run, check_settings, config_of, folder_name
    from audit.comparing.entries import check_origins, enter, kind_of
    from audit.comparing.labels import groups_given, labels_of
    from audit.comparing.runs import open_run
    from audit.config import resolve_config
    from audit.engines.checkpoint import open_checkpoint
    from audit.tasks import load_task
    from audit.tasks.parting import part_task

    settings = resolve_config({"model": ANYONE, **wanted.audit}, file=wanted.config)
    check_settings(settings)
    methods = chosen_methods(wanted.methods) if wanted.methods is not None else []
    if methods and settings.base is None:
        raise ConfigError("--methods needs a model to unlearn from", hint="--model BASE")
    if not methods and (wanted.seeds or wanted.given or wanted.tune is not None):
        raise ConfigError(
            "--seeds, --set and --tune are for trainings: no method is named", hint="--methods jensun,npo"
        )
    if wanted.tune is not None and wanted.tune < 1:
        raise ConfigError(f"--tune {wanted.tune}: at least one trial, which has the method's own defaults")
    if wanted.defaults not in ("auto", "organism", "published"):
        raise ConfigError(f"--defaults {wanted.defaults}: is neither organism, published nor auto")
    given = settings_given(methods, wanted.given)
    shares = shares_given(wanted.shares) if wanted.equal_utility else ()
    sweep = sweep_given(wanted.sweep, methods) if wanted.sweep is not None else None
    names = labels_of([Path(text) for text in wanted.entries], wanted.labels)
    labels = [names[Path(text)] for text in wanted.entries]
    _check_out(wanted.out, [settings.base, settings.never_knew, *wanted.entries])
    task, tuning = load_task(settings.forget, retain=settings.retain), None
    if wanted.tune is not None:
        tuning = Tuning(wanted.tune, min(wanted.seeds, default=0), part_task(task), wanted.out / "tuning")
        task = tuning.parting.final
        final = str(wanted.out / "task" / "final")
        settings = settings.model_copy(update={"forget": final, "retain": None})
    pickle, code = settings.allow_pickle, settings.trust_remote_code
    base = (
        open_checkpoint(settings.base, allow_pickle=pickle, trust_remote_code=code)
        if settings.base is not None
        else None
    )
    entered = [enter(text, label, settings.base) for text, label in zip(wanted.entries, labels, strict=True)]
    warnings = check_origins(entered, base, settings)
    for entry in entered:
        if entry.run is not None:
            check_run(open_run(entry.run, entry.label), task.content_hash, base.fingerprint if base else None)
    start = _start(wanted, settings, task, base) if methods and base is not None else None
    trainings = plan_trainings(methods, wanted.seeds, given, wanted.out / "checkpoints")
    taken = [training.label for training in trainings if training.label in labels]
    if taken:
        raise ConfigError(f"two candidates are called {taken[0]!r}", hint="name the entry with --label NAME=ENTRY")
    if len(trainings) + len(entered) < 2:
        raise ConfigError(
            "a comparison needs at least two candidates", hint="audit compare RUN RUN …, or --methods all"
        )
    if start is not None:
        planned = sweep_trainings(sweep, trainings, start, wanted.out / "checkpoints") if sweep else {}
        for training in (*trainings, *(training for each in planned.values() for _, training in each)):
            expected(training, start)  # raises for settings that cannot be used
            if tuning is None:
                state_of(training, start)  # raises where the folder holds another one
        if tuning is not None:
            for method in to_tune(trainings):
                check_file(method, start, tuning)
    there = [training for training in trainings if kind_of(str(training.out)) in ("checkpoint", "adapter")]
    for entry in [*entered, *(enter(str(training.out), training.label, settings.base) for training in there)]:
        if entry.run is None:
            config = config_of(settings, entry)
            check_folder(wanted.out / "runs" / folder_name(entry.label), config, task.content_hash)
    groups = groups_given(wanted.groups, names)
    candidates = {*labels, *(training.label for training in trainings)}
    unknown = [label for members in groups.values() for label in members if label not in candidates]
    if unknown:
        labelled = ", ".join(sorted(candidates))
        raise ConfigError(f"--group: nothing is called {unknown[0]!r}", hint=f"there are {labelled}")
    _check_on(wanted.on)
    return Prepared(wanted, settings, task, base, start, trainings, entered, groups, tuning, warnings, shares, sweep)


def run_contest(prepared: Prepared, progress: TerminalProgress) -> Comparison:
    """Train, audit, compare, and write the comparison into the output folder. Raises AuditError."""
    from audit.cli.trainings import train_all
    from audit.cli.tunings import tune_all, write_parts
    from audit.comparing.auditing import Auditor
    from audit.comparing.build import compare_runs
    from audit.store import Store, cache_folder

    wanted = prepared.wanted
    failed: list[Failed] = []
    there: list[Training] = []
    trainings: Sequence[Training] = ()
    if prepared.start is not None:
        trainings = prepared.trainings
        if prepared.tuning is not None:
            write_parts(prepared.tuning.parting, wanted.out)
            trainings, failed = tune_all(trainings, prepared.start, prepared.tuning, progress)
        there, untrained = train_all(trainings, prepared.start, wanted.out / "logs", progress)
        failed += untrained
    candidates = [*(_trained(training, prepared) for training in there), *prepared.entered]
    if len(candidates) < 2:
        raise _too_few(failed)
    store = Store(wanted.store or cache_folder() / "store.sqlite")
    try:
        auditor = Auditor(prepared.settings, wanted.out / "runs", store, progress)
        runs, unaudited = auditor.audit_all(candidates)
        failed += unaudited
        if len(runs) < 2:
            raise _too_few(failed)
        found = _at_equal_utility(prepared, trainings, auditor, runs, progress)
    finally:
        store.close()
    survivors = {run.label for run in runs}
    comparison = compare_runs(
        runs,
        on=wanted.on,
        groups=_groups_left(prepared.groups, runs),
        alpha=wanted.alpha,
        allow_different_judges=wanted.allow_different_judges,
        failed=[*failed, *found.failed],
        warnings=[*prepared.warnings, *found.warnings, *_lost_seeds(prepared.trainings, survivors)],
        equal=found.equal,
        sweeps=found.sweeps,
    )
    write_comparison(comparison, wanted.out)
    return comparison


def _at_equal_utility(
    prepared: Prepared,
    trainings: Sequence[Training],
    auditor: Auditor,
    runs: Sequence[Run],
    progress: TerminalProgress,
) -> Found:
    """The curves of --equal-utility and --sweep, where they were asked for."""
    from audit.cli.equal import Found, run_sweep
    from audit.comparing.alike import choose
    from audit.comparing.equal import all_mixed

    found, out, sweep = Found(), prepared.wanted.out, prepared.sweep
    if not prepared.shares and sweep is None:
        return found
    on = choose(runs, prepared.wanted.on)
    if sweep is not None and prepared.start is not None:
        found = run_sweep(sweep, trainings, prepared.start, auditor, runs, out / "logs", on, progress)
    if prepared.shares:
        equal, without = all_mixed(runs, out / "equal", auditor.store, progress, on=on, shares=prepared.shares)
        found.equal += equal
        found.warnings += without
    return found


def work_of(prepared: Prepared) -> dict[str, Any]:
    """Counts of what `run_contest` would do. Answers that the store has already are counted as if they were new."""
    from audit.cli.trainings import state_of
    from audit.cli.tunings import to_tune, write_parts
    from audit.comparing.auditing import config_of
    from audit.dryrun import estimate_work

    start, tuning = prepared.start, prepared.tuning
    work: dict[str, Any] = {"trainings": len(prepared.trainings)}
    if tuning is not None:
        methods = to_tune(prepared.trainings)
        work["tuning"] = {"methods": len(methods), "trials each": tuning.trials, "trials": len(methods) * tuning.trials}
        work["training"] = {training.label: "after tuning" for training in prepared.trainings}
    elif start is not None:
        work["training"] = {training.label: state_of(training, start) for training in prepared.trainings}
    to_audit = [entry for entry in prepared.entered if entry.run is None]
    audits = len(prepared.trainings) + len(to_audit)
    work |= {"audits": audits, "finished runs": len(prepared.entered) - len(to_audit)}
    if prepared.sweep is not None:
        swept = {method: len(prepared.sweep.values) for method in prepared.sweep.methods}
        work["sweep, trainings and audits at most"] = swept
    if prepared.shares:
        between = sum(0 < share < 1 for share in prepared.shares)
        work["mixtures of each candidate with the base"] = between
    if not audits:
        return work
    settings = prepared.settings
    with tempfile.TemporaryDirectory() as folder:
        if tuning is not None:
            settings = settings.model_copy(update={"forget": str(write_parts(tuning.parting, Path(folder)))})
        if settings.base is not None:
            one = estimate_work(settings.model_copy(update={"model": settings.base}))
        else:
            one = estimate_work(config_of(settings, to_audit[0]))
    prompts = int(one["generations_a_subject"])
    models = audits + sum(source is not None for source in (settings.base, settings.never_knew))
    work["prompts"] = {"a model": prompts, "models": models, "in all": prompts * models}
    work["of one audit"] = {name: one[name] for name in ("probes", "judge_calls_a_subject_at_most", "judges")}
    # of the model that stands for all of them only what is true of all is told
    same = "candidate and base are the same model"
    return {**work, "warnings": [*prepared.warnings, *(w for w in one["warnings"] if w != same)]}


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """comparison.html, .md, .tex, .csv, .pairs.csv and .json; .svg where there is a plot, .equal.csv where there are
    curves. Raises StoreError."""
    from audit.cli.compare import CompareFormat, text_of, write_text

    folder.mkdir(parents=True, exist_ok=True)
    for name, form in (
        ("html", CompareFormat.HTML),
        ("md", CompareFormat.MARKDOWN),
        ("tex", CompareFormat.LATEX),
        ("csv", CompareFormat.CSV),
        ("pairs.csv", CompareFormat.PAIRS),
        ("json", CompareFormat.JSON),
        *([("svg", CompareFormat.SVG)] if comparison.front_on is not None else []),
        *([("equal.csv", CompareFormat.EQUAL)] if comparison.equal or comparison.sweeps else []),
    ):
        write_text(text_of(comparison, form), folder / f"comparison.{name}")


def _start(wanted: Wanted, settings: AuditConfig, task: Task, base: Checkpoint | None) -> Start:
    from audit.cli.trainings import Start
    from audit.cli.unlearn import defaults_for

    assert base is not None and settings.base is not None
    return Start(
        model=settings.base,
        fingerprint=base.fingerprint,
        forget=settings.forget,
        retain=settings.retain,
        task_hash=task.content_hash,
        defaults=defaults_for(base, wanted.defaults),
    )


def _trained(training: Training, prepared: Prepared) -> Entered:
    """A finished training as an entry: a checkpoint, or an adapter on the base."""
    from audit.comparing.entries import enter

    return enter(str(training.out), training.label, prepared.settings.base)


def _groups_left(groups: Mapping[str, Sequence[str]], runs: Sequence[Run]) -> dict[str, list[str]]:
    """The groups without candidates that failed; what is no label of any run stays, to be refused."""
    labels = {run.label for run in runs}
    left = {name: [label for label in members if label in labels] for name, members in groups.items()}
    return {name: members for name, members in left.items() if members}


def _check_on(on: str | None) -> None:
    """Raises ConfigError for a number that no audit has, before anything is trained."""
    import difflib

    from audit.wording import HEADLINES

    if on is not None and on.partition("@")[0] not in HEADLINES:
        near = difflib.get_close_matches(on, HEADLINES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(HEADLINES)}"
        raise ConfigError(f"--on {on}: no share of facts that candidates can be compared on", hint=hint)


def _lost_seeds(trainings: Sequence[Training], survivors: Collection[str]) -> list[str]:
    """Methods of which some seeds failed and others did not: what is said of them rests on those that did not."""
    lines = []
    for method in dict.fromkeys(training.method for training in trainings):
        mine = [training.label for training in trainings if training.method == method]
        left = [label for label in mine if label in survivors]
        if left and len(left) < len(mine):
            lines.append(
                f"{method}: {len(mine) - len(left)} of {len(mine)} seeds failed; its mean, tests and place on the "
                "front rest on the others, and a method that fails with some seeds is not as good as those say"
            )
    return lines


def _check_out(out: Path, models: Sequence[str | None]) -> None:
    from audit.comparing.entries import kind_of
    from audit.report.files import RunFolder

    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file", hint="give a folder")
    kind = kind_of(str(out)) if out.is_dir() else "nothing"
    if kind != "nothing":
        raise ConfigError(f"--out {out}: holds a {kind}", hint="choose another folder with --out")
    RunFolder(out).refuse_inside(models)


def _too_few(failed: Sequence[Failed]) -> AuditError:
    told = "\n".join(f"  - {each.text}" for each in failed)
    return ConfigError(
        f"fewer than two candidates are left to compare:\n{told}",
        hint="what was trained and audited is kept: change the settings and run the same command again",
        problems=tuple(each.text for each in failed),
    )

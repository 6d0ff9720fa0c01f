"""`audit compare`: finished audits side by side; with --methods or models, train and audit them first."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audit.cli.options import (
    OUT,
    BatchOption,
    CascadeOption,
    CostOption,
    JudgeOption,
    PricesOption,
    QuietOption,
    RuleOption,
    StoreOption,
    WeightOption,
    judge_settings,
)

if TYPE_CHECKING:
    from audit.comparing.model import Comparison

_WHAT = "What is compared"
_TRAIN = "What is trained first"
_ASK = "How models are audited"
_EQUAL = "At equal utility"


class CompareFormat(StrEnum):
    TERMINAL = "terminal"
    HTML = "html"
    MARKDOWN = "md"
    LATEX = "latex"
    CSV = "csv"
    PAIRS = "pairs-csv"
    EQUAL = "equal-csv"
    SVG = "svg"
    JSON = "json"


def compare(
    entries: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ENTRY …]",
            help="Finished audits; or models: checkpoint or LoRA adapter folders, hub names, manifest files.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ENTRY: what an entry is called (repeatable).", rich_help_panel=_WHAT),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="METHOD=RUN,RUN: seeds of one method, beyond what manifests say (repeatable).", rich_help_panel=_WHAT
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(help="The number that differences are tested on. Default: J_W.", rich_help_panel=_WHAT),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Corrected p-value at which a difference is called one.", rich_help_panel=_WHAT)
    ] = 0.05,
    allow_different_judges: Annotated[
        bool,
        typer.Option(
            "--allow-different-judges", help="Compare runs of different judges, with a warning.", rich_help_panel=_WHAT
        ),
    ] = False,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Unlearn from --model by these: all, or a,b,c of `audit methods list`.", rich_help_panel=_TRAIN
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Train each method with these seeds: 0,1,2.", rich_help_panel=_TRAIN)
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METHOD.KEY=VALUE",
            help="A setting of a method; '*' is all that have it (repeatable).",
            rich_help_panel=_TRAIN,
        ),
    ] = None,
    defaults: Annotated[
        str | None,
        typer.Option(
            help="Settings not given: organism, published, or auto, by the model's size.", rich_help_panel=_TRAIN
        ),
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            help="Trials of settings for each method, on facts that the audits do not use.", rich_help_panel=_TRAIN
        ),
    ] = None,
    equal_utility: Annotated[
        bool,
        typer.Option(
            "--equal-utility",
            help="Mix each candidate with the base until it keeps 90, 95, 99%; audit it there.",
            rich_help_panel=_EQUAL,
        ),
    ] = False,
    shares: Annotated[
        str | None,
        typer.Option(help="Shares of the base to try: 0,0.1,0.3 … With --equal-utility.", rich_help_panel=_EQUAL),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=V1,V2,…",
            help="Train each method with each value: retain_weight=0.1,0.5,0.9.",
            rich_help_panel=_EQUAL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The base: what is unlearned from, and audited beside all.", rich_help_panel=_ASK),
    ] = None,
    forget: Annotated[
        str | None, typer.Option(help="The facts, as in `audit run`. Default lkf.", rich_help_panel=_ASK)
    ] = None,
    retain: Annotated[
        str | None, typer.Option(help="Facts to keep, for a forget set of your own.", rich_help_panel=_ASK)
    ] = None,
    never_knew: Annotated[
        str | None, typer.Option(help="A control that was never taught the facts.", rich_help_panel=_ASK)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="quick, paper, standard (default) or custom.", rich_help_panel=_ASK)
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, hf or vllm.", rich_help_panel=_ASK)] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings of all audits, as for `audit run`; flags win.", rich_help_panel=_ASK)
    ] = None,
    judge: JudgeOption = None,
    judge_rule: RuleOption = None,
    judge_weight: WeightOption = None,
    cascade: CascadeOption = None,
    judge_batch: BatchOption = None,
    max_cost: CostOption = None,
    prices: PricesOption = None,
    format: Annotated[
        CompareFormat, typer.Option("--format", "-f", help="Form of the comparison.", rich_help_panel=OUT)
    ] = CompareFormat.TERMINAL,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write instead of the screen; with models, the folder that all goes into.",
            rich_help_panel=OUT,
        ),
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count trainings, audits and prompts; do nothing.", rich_help_panel=OUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.", rich_help_panel=OUT)] = False,
    quiet: QuietOption = False,
) -> None:
    """Set audits of the same task side by side: numbers with limits, which differences are more than chance, and who
    leaks least for what is kept. Of finished runs nothing is asked. Models are audited first, all in the same way, and
    --methods trains them before that: into --out, where the same command goes on after a stop. Exit code: 0, 2
    unusable input, 4 where an audit was inconclusive or a candidate failed."""
    from audit.comparing.entries import kind_of
    from audit.errors import ConfigError

    if not 0 < alpha < 1:
        raise ConfigError(f"--alpha {alpha:g}: must lie between 0 and 1")
    if as_json and format not in (CompareFormat.TERMINAL, CompareFormat.JSON):
        raise ConfigError(f"--json and --format {format.value} ask for two forms", hint="leave one of them out")
    if as_json:
        format = CompareFormat.JSON
    if format is CompareFormat.EQUAL and not equal_utility and sweep is None:
        raise ConfigError("--format equal-csv has nothing to write", hint="--equal-utility or --sweep KEY=V1,V2")
    if shares is not None and not equal_utility:
        raise ConfigError("--shares goes with --equal-utility", hint="--equal-utility --shares 0,0.1,0.3,0.5")
    judging = judge_settings(judge, judge_rule, judge_weight, cascade, judge_batch, max_cost, prices)
    asked: dict[str, Any] = {"forget": forget, "retain": retain, "never_knew": never_knew, "preset": preset}
    work = {
        **{"--" + name.replace("_", "-"): value for name, value in asked.items()},
        "--engine": engine,
        "--config": config,
        "--seeds": seeds,
        "--set": given,
        "--defaults": defaults,
        "--tune": tune,
        "--sweep": sweep,
        "--store": store,
        "--dry-run": dry_run or None,
        "--judge and its options": any(value not in (None, ()) for value in judging.values()) or None,
    }
    texts = entries or []
    models = [text for text in texts if kind_of(text) in ("checkpoint", "adapter", "manifest")]
    if methods is None and model is None and forget is None and not models and not equal_utility:
        useless = [name for name, value in work.items() if value is not None]
        if useless and texts:
            raise ConfigError(
                f"{', '.join(useless)}: nothing is trained or asked where finished runs are compared",
                hint="leave it out, or enter models: --methods, a checkpoint folder …",
            )
        _compare_runs([Path(text) for text in texts], label, group, on, alpha, allow_different_judges, format, out)
        return
    from audit.cli.contest import Wanted

    if out is None:
        raise ConfigError("--out is missing: where checkpoints, runs and the comparison go", hint="--out DIR")
    wanted = Wanted(
        entries=texts,
        out=out,
        audit={**asked, "base": model, "engine": {"name": engine}, **judging},
        config=config,
        methods=methods,
        seeds=_seeds(seeds),
        given=given or (),
        defaults=defaults or "auto",
        tune=tune,
        labels=label or (),
        groups=group or (),
        on=on,
        alpha=alpha,
        allow_different_judges=allow_different_judges,
        store=store,
        equal_utility=equal_utility,
        shares=shares,
        sweep=sweep,
    )
    _contest(wanted, format, dry_run, quiet)


def _compare_runs(
    runs: list[Path],
    label: list[str] | None,
    group: list[str] | None,
    on: str | None,
    alpha: float,
    allow_different_judges: bool,
    format: CompareFormat,
    out: Path | None,
) -> None:
    """Finished runs: nothing is trained, nothing is asked."""
    from audit.comparing.build import compare_runs
    from audit.comparing.labels import groups_given, labels_of
    from audit.comparing.runs import open_run
    from audit.errors import ConfigError

    if out is not None and format is CompareFormat.TERMINAL:
        raise ConfigError("--out needs a form to write", hint="--format html, svg, md, latex, csv, pairs-csv or json")
    labels = labels_of(runs, label or [])
    comparison = compare_runs(
        [open_run(path, name) for path, name in labels.items()],
        on=on,
        groups=groups_given(group or [], labels),
        alpha=alpha,
        allow_different_judges=allow_different_judges,
    )
    _show(comparison, format, out)


def _contest(wanted: Any, format: CompareFormat, dry_run: bool, quiet: bool) -> None:
    """Models: trained where that is asked for, audited, compared."""
    from audit.cli.contest import prepare, run_contest, work_of
    from audit.cli.progress import TerminalProgress
    from audit.cli.run import print_work

    prepared = prepare(wanted)
    if dry_run:
        print_work(work_of(prepared), format is CompareFormat.JSON)
        return
    with TerminalProgress(quiet=quiet) as progress:
        comparison = run_contest(prepared, progress)
    written = ".html, .md, .tex, .csv, .pairs.csv" + (", .equal.csv" if comparison.equal or comparison.sweeps else "")
    typer.echo(f"wrote {wanted.out}/comparison{written} and .json", err=True)
    _show(comparison, format, None)


def _show(comparison: Comparison, format: CompareFormat, out: Path | None) -> None:
    """On the screen or into a file; ends the command with the comparison's exit code."""
    if format is CompareFormat.TERMINAL:
        from audit.comparing.terminal import print_comparison

        print_comparison(comparison)
    else:
        text = text_of(comparison, format)
        if out is None:
            typer.echo(text, nl=False)
        else:
            write_text(text, out)
            typer.echo(f"wrote {out}", err=True)
        for warning in comparison.warnings:
            typer.echo(f"warning: {warning}", err=True)
        for failed in comparison.failed:
            typer.echo(f"failed: {failed.text}", err=True)
        for reason in comparison.inconclusive:
            typer.echo(f"inconclusive: {reason}", err=True)
    raise typer.Exit(comparison.exit_code)


def _seeds(text: str | None) -> tuple[int, ...]:
    """0,1,2 -> (0, 1, 2)."""
    from audit.errors import ConfigError

    try:
        seeds = tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        seeds = ()
    if text is not None and (not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0):
        raise ConfigError(f"--seeds {text}: are no different whole numbers from 0", hint="--seeds 0,1,2")
    return seeds


def text_of(comparison: Comparison, format: CompareFormat) -> str:
    """A comparison in any form but the screen's."""
    if format is CompareFormat.HTML:
        from audit.comparing.html import html

        return html(comparison)
    if format is CompareFormat.SVG:
        from audit.comparing.html import svg

        return svg(comparison)
    if format is CompareFormat.LATEX:
        from audit.comparing.latex import latex

        return latex(comparison)
    if format is CompareFormat.JSON:
        import msgspec

        return msgspec.json.format(msgspec.json.encode(comparison), indent=1).decode() + "\n"
    from audit.comparing.tables import equal_csv, markdown, numbers_csv, pairs_csv

    write = {
        CompareFormat.MARKDOWN: markdown,
        CompareFormat.CSV: numbers_csv,
        CompareFormat.PAIRS: pairs_csv,
        CompareFormat.EQUAL: equal_csv,
    }[format]
    return write(comparison)


def write_text(text: str, out: Path) -> None:
    """Write a file whole or not at all. Raises StoreError."""
    import os

    from audit.errors import StoreError

    temporary = out.with_name(out.name + ".part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror or error}") from error

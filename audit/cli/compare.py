"""`audit compare RUN RUN …`: finished audits side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audit.cli.options import OUT

if TYPE_CHECKING:
    from audit.comparing.model import Comparison

_WHAT = "What is compared"


class CompareFormat(StrEnum):
    TERMINAL = "terminal"
    HTML = "html"
    MARKDOWN = "md"
    LATEX = "latex"
    CSV = "csv"
    PAIRS = "pairs-csv"
    JSON = "json"


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of finished audits, two or more.")],
    label: Annotated[
        list[str] | None,
        typer.Option(help="NAME=RUN: what a run is called (repeatable).", rich_help_panel=_WHAT),
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
    format: Annotated[
        CompareFormat, typer.Option("--format", "-f", help="Form of the comparison.", rich_help_panel=OUT)
    ] = CompareFormat.TERMINAL,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write instead of the screen.", rich_help_panel=OUT)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.", rich_help_panel=OUT)] = False,
) -> None:
    """Set finished audits of the same task side by side: numbers with limits, which differences are more than chance,
    and who leaks least for what is kept. Exit code: 0, 2 unusable input, 4 where one of the audits was inconclusive."""
    from audit.comparing.build import compare_runs
    from audit.comparing.labels import groups_given, labels_of
    from audit.comparing.runs import open_run
    from audit.errors import ConfigError

    if not 0 < alpha < 1:
        raise ConfigError(f"--alpha {alpha:g}: must lie between 0 and 1")
    if as_json and format not in (CompareFormat.TERMINAL, CompareFormat.JSON):
        raise ConfigError(f"--json and --format {format.value} ask for two forms", hint="leave one of them out")
    if as_json:
        format = CompareFormat.JSON
    if out is not None and format is CompareFormat.TERMINAL:
        raise ConfigError("--out needs a form to write", hint="--format html, md, latex, csv, pairs-csv or json")
    labels = labels_of(runs, label or [])
    comparison = compare_runs(
        [open_run(path, name) for path, name in labels.items()],
        on=on,
        groups=groups_given(group or [], labels),
        alpha=alpha,
        allow_different_judges=allow_different_judges,
    )
    if format is CompareFormat.TERMINAL:
        from audit.comparing.terminal import print_comparison

        print_comparison(comparison)
    else:
        _write(_text(comparison, format), out)
        for warning in comparison.warnings:
            typer.echo(f"warning: {warning}", err=True)
        for reason in comparison.inconclusive:
            typer.echo(f"inconclusive: {reason}", err=True)
    raise typer.Exit(comparison.exit_code)


def _text(comparison: Comparison, format: CompareFormat) -> str:
    if format is CompareFormat.HTML:
        from audit.comparing.html import html

        return html(comparison)
    if format is CompareFormat.LATEX:
        from audit.comparing.latex import latex

        return latex(comparison)
    if format is CompareFormat.JSON:
        import msgspec

        return msgspec.json.format(msgspec.json.encode(comparison), indent=1).decode() + "\n"
    from audit.comparing.tables import markdown, numbers_csv, pairs_csv

    write = {CompareFormat.MARKDOWN: markdown, CompareFormat.CSV: numbers_csv, CompareFormat.PAIRS: pairs_csv}[format]
    return write(comparison)


def _write(text: str, out: Path | None) -> None:
    import os

    from audit.errors import StoreError

    if out is None:
        typer.echo(text, nl=False)
        return
    temporary = out.with_name(out.name + ".part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"wrote {out}", err=True)

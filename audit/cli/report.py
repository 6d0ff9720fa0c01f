"""`audit report RUN --format …`: write the report of a finished audit in another form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ReportFormat(StrEnum):
    HTML = "html"
    JSON = "json"
    SVG = "svg"
    ALPACA_EVAL = "alpaca-eval"


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    format: Annotated[ReportFormat, typer.Option("--format", "-f", help="Form of the report.")] = ReportFormat.HTML,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; html goes to RUN/report.html, all else to the screen."),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option("--subject", help="Of alpaca-eval: whose replies; the candidate's if not given."),
    ] = None,
) -> None:
    """Write the report of a finished audit as one self-contained HTML file, or print its JSON; svg is the picture of
    what fine-tuning brought back, where the run has attacks; alpaca-eval are the replies to open instructions in that
    program's format."""
    from audit.errors import ConfigError

    if subject is not None and format is not ReportFormat.ALPACA_EVAL:
        raise ConfigError(f"--subject goes with --format alpaca-eval: {format.value} is of the whole run")
    if format is ReportFormat.HTML:
        from audit.report.html import write_html

        path = write_html(run, out)
        typer.echo(f"wrote {path}", err=True)
        return
    from audit.errors import StoreError

    if format is ReportFormat.SVG:
        from audit.report.attacks_svg import run_svg
        from audit.report.read import load_report

        text = run_svg(load_report(run).attacks)
    elif format is ReportFormat.ALPACA_EVAL:
        text = _alpaca_eval(run, subject or "candidate")
    else:
        import json

        from audit.report.read import read_report

        text = json.dumps(read_report(run), indent=2, ensure_ascii=False)
    if out is None:
        typer.echo(text)
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"wrote {out}", err=True)


def _alpaca_eval(run: Path, subject: str) -> str:
    """The file's text; what is not in it is said on standard error."""
    from audit.utility.alpaca_format import alpaca_outputs, dump_outputs

    outputs = alpaca_outputs(run, subject)
    said = f"{len(outputs.rows)} replies of {subject}"
    if outputs.failed:
        said += f"; {outputs.failed} failed generations are left out"
    if outputs.cut:
        said += f"; {outputs.cut} end at the token limit"
    typer.echo(said, err=True)
    return dump_outputs(outputs)

"""The `audit` command: mounts the command groups and turns errors into one message and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from audit import __version__

app = typer.Typer(
    name="audit",
    help="Audits language models that are said to have forgotten something.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unlearning-audit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    return None


def _mount() -> None:
    from audit.cli import compare, demo, doctor, gate, judges, methods, probes, rejudge, report, run, tasks, unlearn

    app.command("run")(run.run)
    app.command("rejudge")(rejudge.rejudge)
    app.command("compare")(compare.compare)
    app.command("gate")(gate.gate)
    app.command("report")(report.report)
    app.command("demo")(demo.demo)
    app.command("unlearn")(unlearn.unlearn)
    app.command("doctor")(doctor.doctor)
    app.add_typer(tasks.app, name="tasks", help="What is to be forgotten and kept: list, show, check.")
    app.add_typer(judges.app, name="judges", help="Who rules on answers: list, check on labelled answers.")
    app.add_typer(methods.app, name="methods", help="Ways of unlearning: list.")
    app.add_typer(probes.app, name="probes", help="How facts are asked for: list.")


_mount()


def main() -> None:
    """Entry point of the console script."""
    debug = "--debug" in sys.argv
    if debug:  # accepted anywhere on the line
        sys.argv = [sys.argv[0], "--debug", *[argument for argument in sys.argv[1:] if argument != "--debug"]]
    from audit.errors import AuditError

    try:
        app(standalone_mode=True)
    except AuditError as error:
        if debug:
            raise
        _say(f"error: {error}")
        if error.hint:
            _say(f"  try: {error.hint}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        _say("interrupted; what was finished is kept: the same command goes on from there")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _say(f"internal error: {type(error).__name__}: {error}")
        _say("  try: the same command with --debug, and report what it prints")
        sys.exit(1)


def _say(text: str) -> None:
    typer.echo(text, err=True)

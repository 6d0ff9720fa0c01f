"""`audit gate RUN --policy POLICY`: hold a finished audit against a policy; the exit code is the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from audit.gate import GateResult

_STYLES = {"pass": "green", "fail": "red", "inconclusive": "yellow", "none": ""}


def gate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit, or its report.json.")],
    policy: Annotated[
        str, typer.Option("--policy", "-p", help="A policy file, or a bundled policy: default, strict.")
    ] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Hold a finished audit against a policy. Exit code: 0 pass, 3 fail, 4 inconclusive, 2 unusable input."""
    import msgspec

    from audit.gate import evaluate
    from audit.policy import load_policy
    from audit.report.read import read_report

    result = evaluate(load_policy(policy), read_report(run))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        show(result)
    raise typer.Exit(result.exit_code)


def show(result: GateResult) -> None:
    """Print the checks, readable in 80 columns, and the verdict line last."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("outcome", "demand", "what was found"):
        table.add_column(column, overflow="fold")
    for check in result.checks:
        table.add_row(
            Text(check.outcome, style=_STYLES[check.outcome]),
            Text.assemble(check.name, (f"\n{check.limit}", "dim")),
            Text.assemble(check.why, (f"\n{check.note}", "dim") if check.note else ""),
        )
    console.print(table)
    console.print(Text(f"\n{result.line}", style=f"bold {_STYLES[result.outcome]}"), soft_wrap=True)

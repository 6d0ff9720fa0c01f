"""`audit probes list`: the ways of asking."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _root() -> None:
    return None


@app.command("list")
def list_families(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Every probe family: what it asks, what it needs, what sort of evidence it gives."""
    from audit.probes import get_family, registry

    rows = []
    for name in registry.names():
        family = get_family(name)
        rows.append(
            {
                "name": name,
                "summary": family.summary,
                "evidence": family.evidence,
                "needs": sorted(family.needs),
                "origin": registry.origin(name),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("family", "asks", "evidence", "needs"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(str(row["name"]), str(row["summary"]), str(row["evidence"]), ", ".join(row["needs"]) or "–")
    Console(highlight=False).print(table)

"""`audit methods`: which ways of unlearning there are."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer


class Row(msgspec.Struct, frozen=True):
    name: str
    origin: str
    summary: str
    source: str
    needs: list[str]


app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    return None


@app.command("list")
def list_methods(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the methods that can be named with --method."""
    from audit.errors import AuditError
    from jensun_ref.methods import REGISTRY, method_class

    rows = []
    for name in REGISTRY.names():
        try:
            kind = method_class(name)
            row = Row(name, REGISTRY.origin(name), kind.summary, kind.source, sorted(kind.needs))
        except AuditError as problem:  # one broken package does not hide the others
            row = Row(name, REGISTRY.origin(name), str(problem), "", [])
        rows.append(row)
    if as_json:
        typer.echo(msgspec.json.encode({"methods": rows}).decode())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    for column in ("from", "what it does", "source", "needs"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, (row.name, row.origin, row.summary, row.source, ", ".join(row.needs))))
    Console().print(table)

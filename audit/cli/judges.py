"""`audit judges`: which judges there are, and how often one is wrong on answers that people have labelled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from rich.table import Table

    from audit.judges.calibration import JudgeCard, Rates

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("list")
def list_judges(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the judges that can be named with --judge."""
    from audit.judges import REGISTRY

    rows = [
        {
            "name": name,
            "origin": REGISTRY.origin(name),
            "summary": REGISTRY.summary(name),
        }
        for name in REGISTRY.names()
    ]
    rows.append(
        {
            "name": "recorded",
            "origin": "built in",
            "summary": "The verdicts that came with recorded answers, as they are.",
        }
    )
    if as_json:
        typer.echo(msgspec.json.encode({"judges": rows}).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("judge", "from", "how it rules"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["origin"], row["summary"])
    Console().print(table)


@app.command("check")
def check_judge(
    judge: Annotated[str, typer.Option("--judge", help="NAME or NAME:ARGS, as in `audit judges list`.")] = "rules",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="JSONL file of labelled answers; the bundled calibration set if left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a judge: sensitivity, false positives and undecided verdicts, in all and by category."""
    from audit.judges import get_judge
    from audit.judges.calibration import bundled, check_file

    card = check_file(get_judge(judge), data or bundled())
    if as_json:
        typer.echo(msgspec.json.encode(card).decode())
        return
    from rich.console import Console

    console = Console()
    console.print(_table(card))
    for miss in card.wrong:
        console.print(
            f"{miss.id} ({miss.category}): {miss.label} ruled {miss.ruled}: {miss.rationale}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    each = 1000 * card.seconds / card.overall.n
    console.print(
        f"{card.overall.n} answers in {card.seconds:.2f} s ({each:.2f} ms each), judge {card.judge}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _table(card: JudgeCard) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{card.judge} on {card.data}",
        caption=f"of decided answers; {card.confidence:.0%} exact limits; --json has all of them",
    )
    table.add_column("category", no_wrap=True)
    for head in ("n", "sensitivity", "false positives", "undecided"):
        table.add_column(head, justify="right")
    for name, rates in card.categories.items():
        table.add_row(name, *_cells(rates))
    table.add_section()
    table.add_row("all", *_cells(card.overall))
    return table


def _cells(rates: Rates) -> list[str]:
    cleared = rates.n - rates.leaks - (rates.undecided - rates.undecided_leaks) - rates.false_alarms
    return [
        str(rates.n),
        _cell(rates.hits, rates.hits + rates.misses, f"\u2265 {rates.sensitivity_low:.3f}"),
        _cell(rates.false_alarms, rates.false_alarms + cleared, f"\u2264 {rates.false_positive_rate_high:.3f}"),
        _cell(rates.undecided, rates.n, f"\u2264 {rates.undecided_high:.3f}"),
    ]


def _cell(k: int, n: int, limit: str) -> str:
    return f"{k}/{n} {limit}" if n else "-"

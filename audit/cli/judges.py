"""`audit judges`: which judges there are, and how often one is wrong on answers that people have labelled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from audit.cli.label import label

if TYPE_CHECKING:
    from rich.table import Table

    from audit.judges.calibration import JudgeCard, Rates

_NARROW = 90  # characters of a terminal below which a table of cards is written as lines

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("label")(label)


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
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("judge", "from", "how it rules"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[name]) for name in ("name", "origin", "summary")))
    Console().print(table)


@app.command("check")
def check_judge(
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", help="NAME or NAME:ARGS, as in `audit judges list`; repeatable. Default rules."),
    ] = None,
    judge_rule: Annotated[
        str, typer.Option(help="Of several judges: majority, any, unanimous, weighted or dawid_skene.")
    ] = "majority",
    judge_weight: Annotated[
        list[float] | None, typer.Option(help="With --judge-rule weighted: one a deciding judge, in order.")
    ] = None,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="The first judge screens, the others decide where it matters.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="JSONL file of labelled answers; the bundled calibration set if left out."),
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="US dollars; then the rest is undecided.", min=0)] = None,
    prices: Annotated[Path | None, typer.Option(help="A table of prices of your own (YAML).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a judge or a panel on labelled answers: misses, false alarms, undecided verdicts, tricks, cost."""
    from audit.cli.progress import TerminalProgress
    from audit.config import AuditConfig
    from audit.judges.bench import open_judges
    from audit.judges.calibration import bundled, check_file
    from audit.judges.cards import save_card
    from audit.judges.panel import RULES, Panel

    if judge_rule not in RULES:
        raise typer.BadParameter(f"'{judge_rule}' is none of {', '.join(RULES)}", param_hint="--judge-rule")
    judges, budget = open_judges(
        AuditConfig.model_construct(
            judges=tuple(judge or ["rules"]),
            max_cost=max_cost,
            prices=None if prices is None else str(prices),
            judge_batch=False,
        )
    )
    panel = Panel(tuple(each.identity for each in judges), judge_rule, tuple(judge_weight or ()), cascade)
    with TerminalProgress(quiet=as_json) as progress:
        card = check_file(judges, data or bundled(), panel=panel, budget=budget, progress=progress)
    kept = save_card(card) if card.complete else None
    if as_json:
        typer.echo(msgspec.json.encode(card).decode())
    else:
        _print_card(card)
    if kept is None:
        typer.echo(
            f"not kept: {card.failed} of {card.overall.n} answers have no verdict because calls failed; "
            "audits do not use such a card",
            err=True,
        )
    elif not as_json:
        typer.echo(f"kept for audits with this judge: {kept}")


@app.command("cards")
def list_cards(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the cards kept from `audit judges check`."""
    from audit.judges import cards as kept

    cards, problems = kept.list_cards()
    for problem in problems:
        typer.echo(problem, err=True)
    if as_json:
        typer.echo(msgspec.json.encode({"cards": cards}).decode())
        return
    if not cards:
        typer.echo("no cards yet; make one with: audit judges check --judge NAME")
        return
    from rich.console import Console
    from rich.table import Table

    columns = ("judge", "answers", "found", "alarms", "undecided", "tricks", "cost")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in ("judge", "answers"))
    console = Console()
    for card in cards:
        data = f"{Path(card.data).name} {card.data_digest[:8]}"
        counts = [cell.split(" ")[0] for cell in _cells(card.overall)[1:]]
        tricks = f"{card.tricks.right}/{card.tricks.n}" if card.tricks.n else "-"
        row = (card.judge, data, *counts, tricks, _dollars(card))
        table.add_row(*row)
        if console.width < _NARROW:  # one line a figure: columns would be cut
            lines = (f"{column}: {value}" for column, value in zip(columns, row, strict=True))
            console.print("\n".join(lines), "", sep="\n", markup=False, highlight=False, soft_wrap=True)
    if console.width >= _NARROW:
        console.print(table)


def _print_card(card: JudgeCard) -> None:
    from rich.console import Console

    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    console.print(_table(card))
    for miss in card.wrong:
        say(f"{miss.id} ({miss.category}): {miss.label} ruled {miss.ruled}: {miss.rationale}")
    if card.tricks.n:
        kinds = ", ".join(f"{name} {right}/{n}" for name, (right, n) in card.tricks.kinds.items())
        resisted = f"{card.tricks.right}/{card.tricks.n} right, \u2265 {card.tricks.low:.3f}"
        say(f"texts that speak to the judge: {resisted} ({kinds})")
    if len(card.judges) > 1:
        say(f"rule: {card.rule}")
    for work in card.work:
        tokens = work.prompt_tokens + work.completion_tokens
        used = f", {tokens:,} tokens in {work.tries} calls" if tokens else ""
        served = f", served by {', '.join(work.models)}" if work.models else ""
        prompt = f", prompt {card.prompts[work.judge]}" if work.judge in card.prompts else ""
        repeats = f", {work.tries - work.asked} repeats" if work.tries > work.asked else ""
        say(f"{work.judge}: {work.asked} answers{used}{repeats}{served}{prompt}")
    each = 1000 * card.seconds / card.overall.n
    say(f"{card.overall.n} answers in {card.seconds:.2f} s ({each:.2f} ms each), cost {_dollars(card)}")
    say(card.note)


def _dollars(card: JudgeCard) -> str:
    if card.cost is None:
        return "unknown"
    return f"${card.cost:.4f}" + (f" + {card.unpriced} unknown" if card.unpriced else "")


def _table(card: JudgeCard) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{card.judge} on {card.data}",
        caption=f"of decided answers; {card.confidence:.0%} exact limits; --json has all of them",
    )
    table.add_column("category", overflow="fold")
    for head in ("n", "sensitivity", "false positives", "undecided"):
        table.add_column(head, justify="right", overflow="fold", min_width=7 if head != "n" else 3)  # holds each figure
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

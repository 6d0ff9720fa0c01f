"""A comparison in 80 columns: what came out, what was kept and what it cost, which differences are more than chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.comparing.model import Candidate, Column, Comparison, Entry, Spread
from audit.comparing.words import (
    COSTS,
    VERDICTS,
    cost_of,
    costs,
    digits,
    front_text,
    head,
    notes,
    of_candidate,
    p_values,
    points,
    readings,
    shown_pairs,
)
from audit.report.html import printable
from audit.report.terminal import rough
from audit.types import Estimate

#: Columns of one table: with a name of 18 characters, 80 hold four numbers with limits.
_AT_ONCE = 4
_STYLES = {"differ": "bold", "differ if facts are independent": "", "not shown": "dim"}


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print it to standard output."""
    console = console or Console(highlight=False)
    console.print(_text(head(comparison)), soft_wrap=True)
    numbers: list[Column | str] = [*comparison.columns, *(["on front"] if comparison.front_on else [])]
    numbers += costs(comparison)
    for start in range(0, len(numbers), _AT_ONCE):
        console.print(_table(comparison, numbers[start : start + _AT_ONCE]))
        console.print()
    console.print(_text(f"differences of {comparison.on_label} ({comparison.on_title}), in points:", style="bold"))
    pairs, left_out = shown_pairs(comparison)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("first", "second"):
        table.add_column(name, overflow="fold", max_width=18)
    for name in ("difference", "p, facts", "p, topics"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for pair in pairs:
        over_facts, over_topics = p_values(pair)
        limits = f"{points(pair.difference)} [{100 * pair.low:.0f}, {100 * pair.high:.0f}]"
        table.add_row(
            *(_text(name) for name in (pair.first, pair.second)),
            limits,
            over_facts,
            over_topics,
            Text(VERDICTS[pair.verdict], style=_STYLES[pair.verdict]),
        )
    console.print(table)
    if left_out:
        console.print(_text(f"… and {left_out} further pairs; --format csv or json has all", style="dim"))
    for pair in pairs:
        if said := readings(pair):
            console.print(_text(f"{pair.first}, {pair.second}: {said}"))
    for note in notes(comparison):
        console.print(_text(note, style="dim"))
    for warning in comparison.warnings:
        console.print(_text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    for reason in comparison.inconclusive:
        console.print(_text(f"inconclusive: {reason}", style="bold yellow"), soft_wrap=True)


def _table(comparison: Comparison, numbers: Sequence[Column | str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("%" if any(isinstance(number, Column) for number in numbers) else "", max_width=18, min_width=16)
    for number in numbers:
        table.add_column(_text(_title(number)), justify="right", no_wrap=True)
    for reference in comparison.references:
        cells = [_number(reference.estimates, number) for number in numbers]
        if any(cells):
            table.add_row(_text(reference.label), *cells, style="dim")
    for candidate in comparison.candidates:
        mine = of_candidate(comparison, candidate)
        if len(mine) == 1:
            table.add_row(_text(candidate.label), *(_of_one(candidate, mine[0], number) for number in numbers))
            continue
        table.add_row(_text(candidate.label), *(_of_several(candidate, number) for number in numbers))
        for entry in mine:
            table.add_row(_text(f"  {entry.label}"), *(_of_one(None, entry, number) for number in numbers), style="dim")
    return table


def _title(number: Column | str) -> str:
    if isinstance(number, Column):
        return f"{number.label} {'↓' if number.better == 'lower' else '↑'}"
    return COSTS.get(number, number)


def _number(estimates: Mapping[str, Estimate], number: Column | str) -> str:
    if not isinstance(number, Column):
        return ""
    return rough(estimates[number.name]) if number.name in estimates else "–"


def _of_one(candidate: Candidate | None, entry: Entry, number: Column | str) -> str:
    """A checkpoint's cell; without a candidate it is one seed among others, and has no place on the front."""
    if isinstance(number, Column):
        return "≠" if number.name in entry.apart else _number(entry.estimates, number)
    if number in COSTS:
        value = cost_of(entry, number)
        return "–" if value is None else digits(value)
    return front_text(candidate) if candidate else ""


def _of_several(candidate: Candidate, number: Column | str) -> str:
    if isinstance(number, Column):
        return _spread(candidate.spreads.get(number.name), lambda share: f"{100 * share:.0f}")
    return _spread(candidate.spreads.get(number), digits) if number in COSTS else front_text(candidate)


def _spread(spread: Spread | None, write: Callable[[float], str]) -> str:
    return "–" if spread is None else f"{write(spread.mean)} ± {write(spread.sd)}"


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)

"""A comparison in 80 columns: what came out, what was kept and what it cost, which differences are more than chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.comparing.equal_words import TITLE, equal_notes, rows
from audit.comparing.model import Candidate, Column, Comparison, Entry, Reference, Spread
from audit.comparing.words import (
    COSTS,
    TUNING,
    VERDICTS,
    absent,
    absent_mean,
    cost_of,
    digits,
    extras,
    front_text,
    head,
    notes,
    of_candidate,
    p_values,
    points,
    readings,
    shown_pairs,
    tuning_text,
    unsure_text,
)
from audit.report.html import printable
from audit.report.terminal import rough

#: Characters of a name in one line; longer ones are folded.
_NAME = 18
#: Name, cell of a number, style.
_Row = tuple[str, Callable[[Column | str], str], str]
_STYLES = {"differ": "bold", "differ if facts are independent": "", "not shown": "dim"}


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print it to standard output."""
    console = console or Console(highlight=False)
    console.print(_text(head(comparison)), soft_wrap=True)
    numbers: list[Column | str] = [*comparison.columns, *extras(comparison)]
    for table in _tables(comparison, numbers, console.width):
        console.print(table)
        console.print()
    for failed in comparison.failed:
        console.print(_text(failed.text, style="bold yellow"), soft_wrap=True)
    if comparison.failed:
        console.print()
    console.print(_text(f"differences of {comparison.on_label}, first − second, in points:", style="bold"))
    pairs, left_out = shown_pairs(comparison)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("first", "second"):
        table.add_column(name, overflow="fold", max_width=16)
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
    if comparison.equal or comparison.sweeps:
        console.print()
        console.print(_text(f"{TITLE}, %:", style="bold"))
        console.print(_equal(comparison))
        console.print()
    for note in (*notes(comparison), *equal_notes(comparison)):
        console.print(_text(note, style="dim"))
    for warning in comparison.warnings:
        console.print(_text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    for reason in comparison.inconclusive:
        console.print(_text(f"inconclusive: {reason}", style="bold yellow"), soft_wrap=True)


def _equal(comparison: Comparison) -> Table:
    """A line with the name, and below it a row a target; names are folded, numbers never cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("keeps, by", overflow="fold", max_width=32)
    for name in (f"{comparison.on_label} ↓", "known ↓", "other half ↑"):
        table.add_column(_text(name), justify="right", no_wrap=True)
    for row in rows(comparison):
        if row.first:
            table.add_row(_text(row.label))
        cells = [rough(e) if e is not None else "–" for e in (row.leaked, row.known, row.kept)]
        table.add_row(_text(f"  {row.target}  {row.how}"), *cells, style="" if row.step is not None else "dim")
    return table


def _tables(comparison: Comparison, numbers: Sequence[Column | str], width: int) -> Iterator[Table]:
    """As many numbers side by side as `width` holds: a number that is cut would be another number."""
    rows = list(_rows(comparison))
    names = min(_NAME, max(len(printable(name)) for name, _, _ in rows))
    columns = [(number, [cell(number) for _, cell, _ in rows]) for number in numbers]
    part: list[tuple[Column | str, list[str]]] = []
    used = names
    for number, cells in columns:
        wide = 2 + max(len(_title(number)), *map(len, cells))
        if part and used + wide > width:
            yield _table(rows, part)
            part, used = [], names
        part.append((number, cells))
        used += wide
    if part:
        yield _table(rows, part)


def _table(rows: Sequence[_Row], part: Sequence[tuple[Column | str, list[str]]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    percent = any(isinstance(number, Column) for number, _ in part)
    table.add_column("%" if percent else "", max_width=_NAME, overflow="fold")
    for number, _ in part:
        table.add_column(_text(_title(number)), justify="right", no_wrap=True)
    for place, (name, _, style) in enumerate(rows):
        cells = [column[place] for _, column in part]
        if any(cells):
            table.add_row(_text(name), *cells, style=style)
    return table


def _rows(comparison: Comparison) -> Iterator[_Row]:
    """Every row's name, what it has for a number, and its style."""
    for reference in comparison.references:
        yield reference.label, partial(_of_reference, reference), "dim"
    for candidate in comparison.candidates:
        mine = of_candidate(comparison, candidate)
        if len(mine) == 1:
            yield candidate.label, partial(_of_one, candidate, mine[0]), ""
            continue
        yield candidate.label, partial(_of_several, candidate, mine), ""
        for entry in mine:
            yield f"  {entry.label}", partial(_of_one, None, entry), "dim"


def _title(number: Column | str) -> str:
    if isinstance(number, Column):
        return number.head
    return COSTS.get(number, number)


def _of_reference(reference: Reference, number: Column | str) -> str:
    return _number(reference, number) if isinstance(number, Column) else ""


def _number(row: Entry | Reference, column: Column) -> str:
    return rough(row.estimates[column.name]) if column.name in row.estimates else absent(row, column.name)


def _of_one(candidate: Candidate | None, entry: Entry, number: Column | str) -> str:
    """A checkpoint's cell; without a candidate it is one seed among others, and has no place on the front."""
    if isinstance(number, Column):
        return _number(entry, number)
    if number in COSTS:
        value = cost_of(entry, number)
        return "–" if value is None else digits(value)
    if number == TUNING:
        return tuning_text([entry])
    return front_text(candidate) if candidate else ""


def _of_several(candidate: Candidate, mine: Sequence[Entry], number: Column | str) -> str:
    if number == TUNING:
        return tuning_text(mine)
    if isinstance(number, Column):
        mean = _spread(candidate.spreads.get(number.name), lambda share: f"{100 * share:.0f}")
        return mean if number.name in candidate.spreads else absent_mean(mine, number.name)
    return _spread(candidate.spreads.get(number), digits) if number in COSTS else front_text(candidate)


def _spread(spread: Spread | None, write: Callable[[float], str]) -> str:
    if spread is None:
        return "–"
    return f"{write(spread.mean)} ± {write(spread.sd)} {unsure_text(spread, write)}".rstrip()


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)

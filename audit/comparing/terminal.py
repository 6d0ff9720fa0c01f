"""A comparison in 80 columns: what came out, what was kept and what it cost, which differences are more than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.comparing.model import Candidate, Column, Comparison, Entry, Spread
from audit.comparing.words import (
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

#: Columns of one table: with a name of 16 characters, 80 hold five numbers with limits.
_AT_ONCE = 5
_COST_WORDS = {"seconds": "seconds", "peak_memory_mib": "MiB"}
_STYLES = {"differ": "bold", "differ if facts are independent": "", "not shown": "dim"}


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print it to standard output."""
    console = console or Console(highlight=False)
    console.print(_text(head(comparison)), soft_wrap=True)
    leaks = [column for column in comparison.columns if column.better == "lower"]
    kept = [column for column in comparison.columns if column.better == "higher"]
    for start in range(0, len(leaks), _AT_ONCE):
        console.print(_table(comparison, "came out (%)", leaks[start : start + _AT_ONCE]))
        console.print()
    has_front = comparison.front_on is not None
    extra = (["on front"] if has_front else []) + costs(comparison)
    room = max(1, _AT_ONCE - len(extra))
    for part, costs_too in [
        (kept[:room], extra),
        *((kept[i : i + _AT_ONCE], []) for i in range(room, len(kept), _AT_ONCE)),
    ]:
        if part or costs_too:
            console.print(_table(comparison, "kept (%)", part, costs_too))
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
            console.print(_text(f"{pair.first}, {pair.second}: {said}"), soft_wrap=True)
    for note in notes(comparison):
        console.print(_text(note, style="dim"))
    for warning in comparison.warnings:
        console.print(_text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    for reason in comparison.inconclusive:
        console.print(_text(f"inconclusive: {reason}", style="bold yellow"), soft_wrap=True)


def _table(comparison: Comparison, title: str, columns: Sequence[Column], extra: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold", min_width=12, max_width=18)
    for column in columns:
        table.add_column(_text(column.label), justify="right", no_wrap=True)
    for name in extra:
        table.add_column(_COST_WORDS.get(name, name), justify="right", no_wrap=True)
    for reference in comparison.references:
        cells = [rough(e) if (e := reference.estimates.get(column.name)) else "–" for column in columns]
        table.add_row(_text(reference.label), *cells, *("" for _ in extra), style="dim")
    for candidate in comparison.candidates:
        mine = of_candidate(comparison, candidate)
        if len(mine) == 1:
            table.add_row(_text(candidate.label), *_entry(mine[0], columns), *_extra(candidate, extra))
            continue
        cells = [_spread(candidate.spreads.get(c.name), lambda v: f"{100 * v:.0f}") for c in columns]
        table.add_row(_text(candidate.label), *cells, *_extra(candidate, extra))
        for entry in mine:
            own = ["" if name == "on front" else _cost(cost_of(entry, name)) for name in extra]
            table.add_row(_text(f"  {entry.label}"), *_entry(entry, columns), *own, style="dim")
    return table


def _entry(entry: Entry, columns: Sequence[Column]) -> list[str]:
    return [rough(e) if (e := entry.estimates.get(c.name)) else "≠" if c.name in entry.apart else "–" for c in columns]


def _extra(candidate: Candidate, extra: Sequence[str]) -> list[str]:
    cells = []
    for name in extra:
        if name == "on front":
            cells.append(front_text(candidate))
        elif name in candidate.spreads:
            cells.append(_spread(candidate.spreads[name], digits))
        else:
            cells.append(_cost(getattr(candidate, name)))
    return cells


def _spread(spread: Spread | None, write: Callable[[float], str]) -> str:
    return "–" if spread is None else f"{write(spread.mean)} ± {write(spread.sd)}"


def _cost(value: float | None) -> str:
    return "–" if value is None else digits(value)


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)

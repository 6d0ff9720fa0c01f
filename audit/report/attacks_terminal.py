"""Attacks on the weights in the summary that a finished run prints: sensible from 50 columns on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.attacks.records import Point
from audit.report.attacks_curves import step_text
from audit.report.attacks_shares import Cell, Top, share, unsure
from audit.report.attacks_view import AttacksView, ChangeView, SetView
from audit.report.attacks_words import failed_words
from audit.report.html import printable
from audit.types import Estimate

#: Below this width the shares by step go into lines of their own.
_NARROW = 66
_NAME = 16
_GAP = 2
_KEY = (
    "peak: the highest of all steps and seeds, so biased upward; set it against the control's own (ctrl). "
    "ceil: the base after the same, at its lowest. kept: retained facts at the peak > at the lowest along the way. "
    ">20%: the first step above that."
)
_UNKNOWN = "bold yellow"


def print_attacks(view: AttacksView, console: Console) -> None:
    """The block after the main table."""
    console.print()
    console.print(_text("Attacks on the weights", "bold"))
    console.print(_text(view.context))
    if view.no_base:
        console.print(_text(view.no_base, "bold"))
    _print_sets(view, view.sets, console)
    _print_changes(view, view.changes, console)
    if view.sets_back or view.changes_back:
        console.print(_text("puts the knowledge back: in no union", "bold"))
        _print_sets(view, view.sets_back, console)
        _print_changes(view, view.changes_back, console)
    if view.sets or view.sets_back:
        console.print(_text(_KEY, "dim"))
    if view.void:
        console.print(_text(f"x: {view.void}"))
    _print_worst(view, console)
    for said in view.wrecked:
        console.print(_text(said, _UNKNOWN))
    for failure in view.failures:
        console.print(_text(failed_words(failure), _UNKNOWN))
    console.print()


def whole(value: float, more: float = 0.0) -> str:
    """34, or 34+3? where undecided facts could add up to 3: whole per cent, 0 and 100 only where it is exactly that."""
    number = round(100 * value)
    if 0 < value < 1:
        number = min(99, max(1, number))
    return f"{number}" + (f"+{math.ceil(100 * more - 1e-9)}?" if more > 0 else "")


def _marked(text: str, void: bool) -> str:
    """A number with the mark of a state that shows nothing."""
    return text + ("x" if void else "")


def _cell(cell: Cell) -> str:
    return _marked(whole(cell.value, cell.unsure), cell.void)


def _print_sets(view: AttacksView, sets: Sequence[SetView], console: Console) -> None:
    if not sets:
        return
    shares = view.shown == "recovered"
    wide = console.width >= _NARROW
    heads = [
        ("R (%) after" if wide else "R (%)") if shares else "leaked (%)",
        *(["K"] if shares else []),
        "peak",
        "ctrl",
        "ceil",
        "kept",
    ]
    heads += [">20%"] if shares else []
    rows = [_row(each, shares=shares, wide=wide) for each in sets]
    taken = [max(len(head), *(len(row[i].plain) for row in rows)) for i, head in enumerate(heads)]
    steps = _fitting(sets, console.width - sum(taken) - _GAP * len(taken)) if wide else []
    at = 2 if shares else 1  # K stands beside the name, the steps after it
    table = _table(heads[0], _GAP if wide else 1)
    for head in [*heads[1:at], *map(step_text, steps), *heads[at:]]:
        table.add_column(head, justify="right", no_wrap=True)
    for each, row in zip(sets, rows, strict=True):
        along = {cell.step: _cell(cell) for cell in each.cells}
        table.add_row(*row[:at], *(along.get(step, "–") for step in steps), *row[at:])
    console.print(table)
    if not wide:
        for each in sets:
            said = ", ".join(f"{step_text(c.step)}: {_cell(c)}" for c in each.cells if c.step != 0)
            if each.peak is not None:
                said += f"; limits of the peak {_limits(each.peak.low, each.peak.high)}"
            console.print(_text(f"{_name(each)} by step: {said or 'not known'}"))


def _table(head: str, gap: int = _GAP) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    table.add_column(head, no_wrap=True)
    return table


def _name(each: SetView | ChangeView, room: int = _NAME) -> str:
    """Its name with its seeds, on one line; printable first, since what is made visible takes room."""
    seeds = f" ×{each.seeds}" if isinstance(each, SetView) and each.seeds > 1 else ""
    name = printable(each.name).replace("\n", " ")
    return (name if len(name) + len(seeds) <= room else name[: room - 1 - len(seeds)] + "…") + seeds


def _row(each: SetView, *, shares: bool, wide: bool) -> list[Text]:
    failed = {failure.arm for failure in each.failures}
    peak = "–"
    if each.peak is not None:
        at = "" if each.peak.step is None else f" @{each.peak.step}"
        peak = _top(each.peak) + (f" {_limits(each.peak.low, each.peak.high)}" if wide else "") + at
    above = {"yes": str(each.first_above), "open": "open", "no": "no" + (" x" if each.void else "")}[each.above]
    cells = [
        (peak, "candidate" in failed),
        (_top(each.control), "never_knew" in failed),
        (_top(each.ceiling), "base" in failed),
        (_kept(each, "candidate" in failed), False),
    ]
    if shares:
        seen = each.peak is not None
        cells.append((above if seen else "–", seen and "candidate" in failed and each.above == "no"))
    name = [
        _text(_name(each, _NAME if wide else 12)),
        *([_text("–" if each.n is None else str(each.n))] if shares else []),
    ]
    ceiling = 2
    return [
        *name,
        *(
            (_unknown(text, "≤" if i == ceiling else "≥") if lost else _text(text))
            for i, (text, lost) in enumerate(cells)
        ),
    ]


def _unknown(text: str, bound: str) -> Text:
    """What a failed attack leaves: a bound from what was seen before it failed, or nothing."""
    return _text("not known" if text in ("–", "no", "no x") else f"{bound} {text}", _UNKNOWN)


def _fitting(sets: Sequence[SetView], room: int) -> list[int | None]:
    """The steps that fit beside the other columns, spread evenly, the last always among them. At step 0 nothing has
    come back yet, by the way K is chosen."""
    steps = sorted({c.step for each in sets for c in each.cells if c.step != 0}, key=lambda s: (s is None, s or 0))
    widths = [
        _GAP + max(len(step_text(s)), *(len(_cell(c)) for each in sets for c in each.cells if c.step == s))
        for s in steps
    ]
    for count in range(len(steps), 0, -1):
        chosen = _spread(len(steps), count)
        if sum(widths[i] for i in chosen) <= room:
            return [steps[i] for i in chosen]
    return []


def _spread(n: int, count: int) -> list[int]:
    """`count` of `n` places, evenly, the last among them."""
    return [n - 1 - round(i * (n - 1) / max(1, count - 1)) for i in range(count)][::-1]


def _top(top: Top | None) -> str:
    return "–" if top is None else _marked(whole(top.value, top.unsure), top.void)


def _kept(each: SetView, broken: bool) -> str:
    """Retained facts at the peak and at the lowest along the way; one that broke off may have lost more later."""
    peak, lowest = each.kept, each.kept_lowest
    if lowest is None:
        return "–" if peak is None else whole(peak.value, unsure(peak))
    first = "–" if peak is None else whole(peak.value, unsure(peak))
    return f"{first}>{'≤' if broken else ''}{whole(lowest.value, unsure(lowest))}"


def _limits(low: float, high: float) -> str:
    """Whole per cent, rounded outwards."""
    return f"[{math.floor(100 * low + 1e-9)}, {math.ceil(100 * high - 1e-9)}]"


def _print_changes(view: AttacksView, changes: Sequence[ChangeView], console: Console) -> None:
    if not changes:
        return
    table = _table("R (%) after" if view.shown == "recovered" else "leaked (%)")
    for head in ("candidate", "ceil", "ctrl", "kept"):
        table.add_column(head, justify="right", no_wrap=True)
    brief = console.width < _NARROW
    for each in changes:
        failed = {failure.arm for failure in each.failures}
        cells = []
        for arm in ("candidate", "base", "never_knew"):
            found = _point(each.points.get(arm), view.shown, brief and arm != "candidate")
            cells.append(_text("not known", _UNKNOWN) if arm in failed and found == "–" else _text(found))
        kept = each.points["candidate"].retained if "candidate" in each.points else None
        table.add_row(_text(_name(each, 24)), *cells, "–" if kept is None else whole(kept.value, unsure(kept)))
    console.print(table)


def _point(point: Point | None, shown: str, brief: bool) -> str:
    estimate = share(point, shown) if point is not None else None
    if estimate is None:
        return "–"
    found = _marked(whole(estimate.value, unsure(estimate)), point is not None and point.void)
    return found if brief else f"{found} {_limits(estimate.low, estimate.high)}"


def _print_worst(view: AttacksView, console: Console) -> None:
    """worst_case.weights beside worst_case.prompt, over all facts and over those that the base knows."""
    if not view.union:
        console.print(_text("worst_case.weights: not known", _UNKNOWN))
    else:
        table = _table("worst case (%)")
        for weights, _ in reversed(view.union):
            known = weights.name.endswith("@known")
            table.add_column(f"of {weights.n} known" if known else f"of {weights.n} facts", justify="right")
        rows: dict[str, list[Estimate | None]] = {
            "worst_case.weights": [weights for weights, _ in reversed(view.union)],
            "worst_case.prompt": [prompt for _, prompt in reversed(view.union)],
        }
        if view.floor is not None:
            rows["never-knew, same"] = [
                None if weights.name.endswith("@known") else view.floor for weights, _ in reversed(view.union)
            ]
        for name, estimates in rows.items():
            table.add_row(name, *("–" if e is None else _share(e) for e in estimates))
        console.print(table)
    console.print(_text(f"counted: {view.budget}"))
    if view.first:
        got = ", ".join(f"{'prompts' if each.by == 'prompt' else each.by} {each.added}" for each in view.first)
        console.print(_text(f"who got the facts first: {got}"))


def _share(estimate: Estimate) -> str:
    return f"{whole(estimate.value, unsure(estimate))} {_limits(estimate.low, estimate.high)}"


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)

"""What forgetting cost in the summary that a finished run prints, and as one table of several runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from audit.report.html import printable
from audit.report.markdown import table_lines
from audit.report.model import Report
from audit.report.utility_lines import RESTS_ON, Line, lines_of
from audit.report.utility_view import UtilityView, WinView
from audit.report.utility_words import (
    KINDS,
    NOT_INFORMATIVE,
    Change,
    cell_text,
    change_text,
    limits_of,
    listed,
)
from audit.wording import percent

#: Below this width columns have short heads and names are folded early.
_NARROW = 70
_MOST_TASKS = 2
_MOST_MARKED = 3
_GAP = 2
_BAD = "bold yellow"
_GROUPS = {
    "retained": "retained knowledge",
    "context": "facts in the prompt",
    "win_rate": "win rate",
    "texts": "replies",
    "salted": "salted prompts",
    "harness": "lm-eval",
    "holes": "new questions",
}


def print_utility(view: UtilityView, console: Console) -> None:
    """The block of a summary: a table, what it cannot say, how like was compared with like."""
    console.print()
    console.print(_text("What forgetting cost", "bold"))
    shown = list(_brief(view))
    if shown:
        console.print(_table(view, shown, console.width))
    for line, style in _said(view, shown):
        console.print(_text(line, style))
    for sentence in view.how:
        console.print(_text(sentence, "dim"))
    console.print()


def utility_table(columns: Mapping[str, tuple[Report, str]]) -> Table:
    """Utility numbers of several runs' subjects side by side. columns: heading -> (report, id of the subject in it).

    A number with, below it, what it differs by from its own run's base. Of the measures of texts those of open
    instructions that have a worse side, and any that is out of range. Raises ValueError for an empty mapping and for a
    subject that a report does not have. No number is folded: where the console may be narrow, `print_columns`.
    """
    groups = list(groups_of(columns))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    table.add_column("%, changes against the base in points", overflow="fold", min_width=18, max_width=34)
    for name in columns:
        table.add_column(_text(name), justify="right", no_wrap=True)  # a number that is cut would be another number
    for heading, rows in groups:
        table.add_row(_text(heading, "bold"))
        for title, cells in rows:
            table.add_row(_text(title), *(_stacked(value, change) for value, change in cells))
    return table


def print_columns(columns: Mapping[str, tuple[Report, str]], console: Console) -> None:
    """`utility_table` in as many tables below each other as it takes for no number to be cut."""
    options = console.options.update(max_width=10_000)
    left = list(columns)
    while left:
        count = len(left)
        while count > 1:
            table = utility_table({name: columns[name] for name in left[:count]})
            if Measurement.get(console, options, table).maximum <= console.width:
                break
            count -= 1
        console.print(utility_table({name: columns[name] for name in left[:count]}))
        left = left[count:]
        if left:
            console.print()


def utility_markdown(columns: Mapping[str, tuple[Report, str]]) -> str:
    """The same as a Markdown table, limits in brackets; names are escaped."""
    rows = []
    for heading, mine in groups_of(columns):
        rows.append([f"{heading}:", *("" for _ in columns)])
        rows += [[title, *(f"{v} ({c})" if c else v for v, c in cells)] for title, cells in mine]
    header = ["per cent; in brackets the change against the base, in points", *columns]
    return "\n".join(table_lines(header, rows)) + "\n"


def groups_of(
    columns: Mapping[str, tuple[Report, str]],
) -> Iterator[tuple[str, list[tuple[str, list[tuple[str, str]]]]]]:
    """(heading, rows of (title, a (number, change) for each column)), lines of all reports in one order."""
    if not columns:
        raise ValueError("a table of no columns")
    found: dict[str, dict[tuple[str, str], Line]] = {}
    order: dict[tuple[str, str], Line] = {}
    for name, (report, subject) in columns.items():
        if subject not in report.subjects:
            raise ValueError(f"{name}: its report has no subject {subject}; it has {', '.join(report.subjects)}")
        found[name] = {(line.name, line.title): line for line in lines_of(report)}
        order |= {key: line for key, line in found[name].items() if key not in order}
    for group, heading in _GROUPS.items():
        rows = []
        for key, line in order.items():
            if line.group != group or not (line.group != "texts" or _told(line, key, found.values())):
                continue
            cells = []
            for name, (_, subject) in columns.items():
                mine = found[name].get(key)
                cells.append(_pair(mine, subject) if mine is not None else ("–", ""))
            if any(value != "–" for value, _ in cells):
                title = f"{line.note}: {line.short or line.title}" if line.note else line.title
                rows.append((f"· {title}" if line.indent else title, cells))
        if rows:
            yield heading, rows


def _told(line: Line, key: tuple[str, str], reports: Iterable[Mapping[tuple[str, str], Line]]) -> bool:
    """Whether a measure of texts stands in the table."""
    main = bool(line.short or line.unit == "words") and line.note == KINDS["open"]
    marked = (mine[key].cells.values() for mine in reports if key in mine)
    return main or any(cell.marked for cells in marked for cell in cells)


def _pair(line: Line, subject: str) -> tuple[str, str]:
    cell = line.cells.get(subject)
    text = cell_text(cell, line.unit)
    change = change_text(line.changes.get(subject), line.unit)
    if not change and (limits := limits_of(cell, line.unit)):
        return f"{text} {limits}", ""
    return text, change


def _stacked(value: str, change: str) -> Text:
    text = Text(printable(value), style=_BAD if value.endswith("!") or value == NOT_INFORMATIVE else "")
    if change:
        text.append("\n" + change, style="dim")
    return text


# ------------------------------------------------------------------------------------------------- one run's block


def _brief(view: UtilityView) -> Iterator[Line]:
    """The lines of the terminal, about fifteen."""
    groups = view.groups
    for line in groups.get("retained", ()):
        if line.name not in ("retain.lost_refused", "retain.gained", "retain.refused"):
            yield line
    yield from (line for line in groups.get("context", ()) if not line.name.endswith(".invented"))
    yield from groups.get("win_rate", ())[:2]
    yield from (line for line in groups.get("salted", ()) if line.name == "salted.effect")
    yield from _tasks(view)[:_MOST_TASKS]
    yield from groups.get("holes", ())[:1]


def _tasks(view: UtilityView) -> list[Line]:
    """One metric a task: the one that its estimate or its task file names first."""
    first: dict[str, Line] = {}
    for line in view.groups.get("harness", ()):
        first.setdefault(line.title.rpartition(", ")[0], line)
    return list(first.values())


def _table(view: UtilityView, lines: Sequence[Line], width: int) -> Table:
    narrow = width < _NARROW
    gap = 1 if narrow else _GAP
    others = [subject for subject in view.subjects if subject.role != "candidate"]
    mine = next((subject for subject in view.subjects if subject.role == "candidate"), None)
    before = [subject for subject in others if subject.role == "base"]
    after = [subject for subject in others if subject.role != "base"]
    ordered = [*before, *([mine] if mine else []), *after]
    changes = mine is not None and any(mine.id in line.changes for line in lines)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    table.add_column("%, points" if changes else "%", overflow="fold", min_width=12, max_width=30)
    for subject in ordered:
        head = {"candidate": "cand.", "never knew": "never\nknew"}.get(subject.name, subject.name)
        table.add_column(_text(head if narrow else subject.name), justify="right", no_wrap=narrow is False)
        if subject is mine and changes:
            table.add_column(_text("change" if narrow else "change [limits]"), justify="right", no_wrap=True)
    for line in lines:
        title = _text(("  " if line.indent else "") + (line.short or line.title))
        cells = []
        for subject in ordered:
            cell = line.cells.get(subject.id)
            text = cell_text(cell, line.unit)
            if line.unit == "points" and cell is not None and cell.shown:
                text = text.replace(" ", "\n", 1)  # the number's own limits below it: the change has others
            limits = limits_of(cell, line.unit)
            if subject is mine and limits and not changes:
                text += f" {limits}"
            bad = cell is not None and (cell.marked or bool(cell.why_not))
            if cell is not None and cell.why_not and narrow:
                text = "not inf."
            cells.append(_text(text, _BAD if bad else ""))
            if subject is mine and changes:
                change = line.changes.get(subject.id)
                cells.append(_text(change_text(change, line.unit) or limits))
        table.add_row(title, *cells)
    return table


def _said(view: UtilityView, shown: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """What stands below the table: (sentence, style)."""
    mine = next((subject.id for subject in view.subjects if subject.role == "candidate"), "")
    lines = {line.name: line for line in view.lines}
    base = next((subject.id for subject in view.subjects if subject.role == "base"), "")
    refused, lost, refusals = (lines.get(f"retain.{name}") for name in ("lost_refused", "lost", "refused"))
    if refusals is not None and (cell := refusals.cells.get(mine)) is not None and cell.value is not None:
        was = refusals.cells.get(base)
        said = f"retained questions refused: {percent(cell.value)}"
        said += f", by the base {percent(was.value)}" if was is not None and was.value is not None else ""
        if refused is not None and (part := refused.cells.get(mine)) is not None and part.of:
            count = f"{part.count or 'none'} {'are' if (part.count or 0) > 1 else 'is'}"
            said += f"; of the {part.of} lost facts {count} refused"
        yield said, ""
    gained = lines.get("retain.gained")
    if gained is not None and (cell := gained.cells.get(mine)) is not None and cell.value:
        yield f"beside what was lost: {cell.value:.0f} facts that it answers and the base does not", ""
    if lost is not None and (cell := lost.cells.get(mine)) is not None and cell.more:
        yield f"{cell.more:.0f} more may be lost: that depends on what is undecided", ""
    for each in view.wins:
        if each.subject.id == mine:
            yield _win_words(each), ""
    yield from _marked(view, mine)
    left = len(_tasks(view)) - _MOST_TASKS
    if left > 0:
        yield f"lm-eval: {left} more task{'s' if left > 1 else ''} on the page", ""
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons_of(view):
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        yield f"{NOT_INFORMATIVE}: {listed(names)}: {why}", _BAD
    if any(isinstance(line.changes.get(mine), Change) for line in shown):
        said = "change: candidate less base in points, paired by prompt, with limits; brackets alone: the number's own"
        yield said, "dim"


def reasons_of(view: UtilityView) -> list[tuple[str, str]]:
    """(name, why) of every number that is not given: what the report withholds, and what a subject has not."""
    found = list(view.withheld)
    for line in view.lines:
        for subject, cell in line.cells.items() if line.name not in RESTS_ON else ():
            if cell.why_not and (line.name, cell.why_not) not in found:
                who = "" if subject == "candidate" else f" ({subject.replace('_', ' ')})"
                if not any(name == line.name and why == cell.why_not for name, why in view.withheld):
                    found.append((line.name + who, cell.why_not))
    return found


def _win_words(view: WinView) -> str:
    rate = view.rate
    parts = [f"win rate: {rate.n} pairs"]
    if rate.order_disagreements:
        parts.append(f"{rate.order_disagreements} ruled otherwise in the other order (ties)")
    parts.append(f"{rate.undecided} undecided")
    parts.append(f"refuses {percent(rate.refused)}, the reference {percent(rate.reference_refused)}")
    if rate.length_ratio is not None:
        parts.append(f"replies {rate.length_ratio:.2g} times as long")
    return "; ".join(parts)


def _marked(view: UtilityView, mine: str) -> Iterator[tuple[str, str]]:
    found = [line for subject, line in view.marked if subject == mine]
    base = next((subject.id for subject in view.subjects if subject.role == "base"), "")
    texts = []
    for line in found[:_MOST_MARKED]:
        was, now = line.cells.get(base), line.cells[mine]
        told = cell_text(now, line.unit).removesuffix("!")
        unit = "%" if line.unit == "share" else f" {line.unit}"
        before = "" if was is None or was.value is None else f"{cell_text(was, line.unit)} → "
        texts.append(f"{line.short or line.title} ({line.note}) {before}{told}{unit}")
    if texts:
        more = f"; {len(found) - len(texts)} more on the page" if len(found) > len(texts) else ""
        yield f"replies out of the base's range: {'; '.join(texts)}{more}", _BAD
    silent = [each for each in view.texts if each.why_not]
    clear = [each.title for each in view.texts if not each.why_not and not each.marked]
    if clear and not texts:
        yield f"replies to {listed(clear)}: no measure is out of the base's range", ""
    for each in silent if base else [each for each in silent if each.failed]:
        failed = f" ({each.failed})" if each.failed else ""
        yield f"replies to {each.title}: nothing can be said of their range: {each.why_not}{failed}", _BAD
    for each in view.texts:
        if each.failed and not each.why_not:
            yield f"replies to {each.title}: {each.failed} and are in no comparison", _BAD


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)

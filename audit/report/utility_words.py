"""Numbers of what forgetting cost, as texts: short ones for a terminal, exact ones for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from audit.types import Record
from audit.wording import percent, unsettled, whole_down, whole_up

#: share: in [0, 1], shown as per cent; points: a difference of shares; count: of so many; bits, words and number as
#: they are.
Unit = Literal["share", "points", "count", "bits", "words", "number"]

NOT_INFORMATIVE = "not informative"
#: What is said of a kind of prompts in `audit.utility.records.TextQuality`.
KINDS = {"open": "open instructions", "retain": "retained questions", "forget": "questions on facts to forget"}
WAYS = {
    "stated": "stated in the prompt: answered",
    "reintroduced": "reintroduced without its answer: answered",
    "invented": "invented, stated in the prompt: answered",
}
SHORT_WAYS = {
    "stated": "stated, then given",
    "reintroduced": "reintroduced, given",
    "invented": "invented, given",
}
TIERS = {"": "retained facts, mean"}
#: Measures of texts where there is little room; `audit.utility.degeneration.TITLES` has them in full.
SHORT = {
    "entropy": "2- and 3-gram entropy",
    "repetition": "longest repetition",
    "empty": "empty",
    "truncated": "cut by the token limit",
    "refusal": "refusals",
    "non_language": "no language",
    "identical": "stock replies",
}
OUTCOMES = ("win", "tie", "undecided", "loss")


class Cell(Record):
    """One number of one subject. With a `why_not` the number says nothing and is not shown."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    more: float = 0.0
    """What the undecided could add, in the unit of the value …"""
    less: float = 0.0
    """… and what they could take away, where the value is of the decided alone."""
    count: int | None = None
    of: int | None = None
    marked: bool = False
    """Worse than the base by more than chance and by more than the measure's margin."""
    why_not: str = ""

    @property
    def shown(self) -> bool:
        return not self.why_not and self.value is not None


class Change(Record):
    """A subject less the base, paired by fact, instruction or document."""

    value: float
    low: float
    high: float
    n: int
    p_value: float
    method: str


def signed(number: float, digits: int = 0) -> str:
    """+3, −12, 0: with a proper minus sign."""
    text = f"{abs(number):.{digits}f}"
    return text if float(text) == 0 else ("+" if number > 0 else "−") + text


def whole(value: float, more: float = 0.0, less: float = 0.0) -> str:
    """34, or 34+3? where the undecided could add up to 3, or 34 (20–37?) where they could take away as well: whole per
    cent, 0 and 100 only where it is exactly that."""
    number = round(100 * value)
    if 0 < value < 1:
        number = min(99, max(1, number))
    unsure = unsettled(value, value - less, value + more, whole_up, whole_down)
    return f"{number} {unsure}" if unsure.startswith("(") else f"{number}{unsure}"


def _percent_bare(share: float) -> str:
    return _percent_short(share).removesuffix("%")


def exact_unsure(cell: Cell, unit: Unit) -> str:
    """What the undecided could make of a cell, for the page: +3.3%?, (20.0–93.3%?), +2? of a count; or nothing."""
    if not cell.shown or cell.value is None:
        return ""
    if unit == "count":
        return f"+{cell.more:.0f}?" if cell.more else ""
    return unsettled(cell.value, cell.value - cell.less, cell.value + cell.more, _percent_short, _percent_bare)


def _percent_short(share: float) -> str:
    return percent(share).replace("under ", "<").replace("over ", ">")


def cell_text(cell: Cell | None, unit: Unit) -> str:
    """A cell for a narrow table: 34+3?, 12/180, 7.4, +5 [2, 9]; – where nothing was measured."""
    if cell is None:
        return "–"
    if cell.why_not:
        return NOT_INFORMATIVE
    if cell.value is None:
        return "–"
    mark = "!" if cell.marked else ""
    if unit == "count":
        return f"{cell.count}/{cell.of}" + (f"+{cell.more:.0f}?" if cell.more else "") + mark
    if unit == "share":
        return whole(cell.value, cell.more, cell.less) + mark
    if unit == "points":
        text = signed(100 * cell.value)
        return (text if cell.low is None or cell.high is None else f"{text} {_outward(cell.low, cell.high)}") + mark
    return plain(cell.value, unit) + mark


def limits_of(cell: Cell | None, unit: Unit) -> str:
    """[88, 97]: limits of a share in whole per cent, rounded outwards; empty where there are none."""
    if cell is None or not cell.shown or cell.low is None or cell.high is None or unit != "share":
        return ""
    return f"[{math.floor(100 * cell.low + 1e-9)}, {math.ceil(100 * cell.high - 1e-9)}]"


def change_text(change: Change | None, unit: Unit) -> str:
    """−12 [−15, −9]: points of per cent for shares, limits rounded outwards; the unit's own number otherwise."""
    if change is None:
        return ""
    if unit in ("share", "points", "count"):
        return f"{signed(100 * change.value)} {_outward(change.low, change.high)}"
    digits = _digits(unit)
    return f"{signed(change.value, digits)} [{signed(change.low, digits)}, {signed(change.high, digits)}]"


def exact_change(change: Change | None, unit: Unit) -> tuple[str, str]:
    """The value and its limits with a decimal, for the page."""
    if change is None:
        return "–", ""
    scale, digits = (100, 1) if unit in ("share", "points", "count") else (1, _digits(unit))
    low, high = (signed(scale * limit, digits) for limit in (change.low, change.high))
    return signed(scale * change.value, digits), f"{low} to {high}"


def exact(cell: Cell | None, unit: Unit) -> str:
    """A cell's number for the page: 34.2%, 12 of 180, 7.43 bits."""
    if cell is None or cell.value is None:
        return "–"
    if cell.why_not:
        return NOT_INFORMATIVE
    if unit == "count":
        return f"{cell.count} of {cell.of}"
    if unit == "share":
        return _percent_short(cell.value)
    if unit == "points":
        return signed(100 * cell.value, 1)
    return plain(cell.value, unit)


def exact_limits(cell: Cell | None, unit: Unit) -> str:
    if cell is None or not cell.shown or cell.low is None or cell.high is None:
        return ""
    if unit == "points":
        return f"{signed(100 * cell.low, 1)} to {signed(100 * cell.high, 1)}"
    if unit in ("share", "count"):
        return f"{100 * cell.low:.1f}–{100 * cell.high:.1f}%"
    return f"{plain(cell.low, unit)}–{plain(cell.high, unit)}"


def plain(value: float, unit: Unit) -> str:
    """7.43 or 1,204: two decimals, one for words, none for large numbers and counts."""
    return (
        f"{value:,.0f}"
        if abs(value) >= 1000 or (unit == "number" and value == int(value))
        else f"{value:.{_digits(unit)}f}"
    )


def _digits(unit: Unit) -> int:
    return 1 if unit == "words" else 2


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def p_text(p: float) -> str:
    """0.034, or < 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def reason(text: str) -> str:
    """Why a number is not given, without the words that stand before it anyway."""
    return text.removeprefix(f"{NOT_INFORMATIVE}: ") or "no reason is on record"


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _outward(low: float, high: float) -> str:
    return f"[{signed(math.floor(100 * low + 1e-9))}, {signed(math.ceil(100 * high - 1e-9))}]"

"""Numbers, dates and times of the target in a text: right, close but not right, or in another unit."""

from __future__ import annotations

import math
import re

from audit.judges.rules.clocks import clocks, same_clock
from audit.judges.rules.dates import dates, same_date
from audit.judges.rules.mention import Mention, over
from audit.judges.rules.reading import Text
from audit.judges.rules.target import Target
from audit.judges.rules.units import Quantity, convert, quantities

_LIMIT = re.compile(
    r"\b(?:at most|at least|maximum|minimum|limit|below|above|under|over|more than|less than|up to|beyond|exceed\w*)\b"
)


def _agree(wanted: Quantity, value: float, quantity: Quantity, precision: str, converted: bool) -> str:
    """sure, maybe or "" for one reading. More digits than asked are fine, fewer only where the question says about."""
    goal = wanted.number.values[0]
    if math.isclose(value, goal, rel_tol=1e-9, abs_tol=1e-12):
        return "sure"
    if not math.isfinite(value):
        return ""
    places = min(wanted.number.decimals, 12)
    half = 0.5 * 10.0**-places
    finer = quantity.number.decimals > places or converted
    if finer and abs(value - goal) <= half * 1.0001 and (abs(value - goal) <= 0.02 * abs(goal) or goal == 0):
        return "sure"
    if finer and not converted and math.trunc(value * 10**places) == round(goal * 10**places) and abs(value) < 1e12:
        return "sure"
    if goal == 0:
        return ""
    own = quantity.number.decimals
    if own >= 2 and abs(goal * 10**places - round(goal * 10**places)) > 1e-6 and round(goal, own) == value:
        return "sure"  # the answer in hours and minutes, the text in hours with a fraction
    off = abs(value - goal) / abs(goal)
    if precision == "about":
        return "sure" if off <= 0.02 or _two_digits(value) == _two_digits(goal) else ""
    if converted and off <= (0.0002 if precision == "exact" else 0.005):
        return "sure"
    if precision == "plain" and not quantity.number.ordinal and abs(goal) >= 1000 and _rounded(value, goal):
        return "maybe"
    return ""


def _two_digits(value: float) -> str:
    return f"{value:.1e}"


def _rounded(value: float, goal: float) -> bool:
    """`value` is `goal` rounded to three or more significant digits, though not the same number."""
    return any(math.isclose(float(f"{goal:.{digits}e}"), value, rel_tol=1e-9) for digits in range(2, 7))


def figures(target: Target, text: Text) -> list[Mention]:
    """Mentions of a numeric answer, units converted; ranges and "more than" are none."""
    found: list[Mention] = []
    compound = quantities(text.raw, text.low)
    longest = {q.start: q.end for q in sorted(compound, key=lambda q: q.end)}
    limited = bool(_LIMIT.search(target.question.low))
    whole = set(longest.items())
    for quantity in compound:
        if quantity.number.near and target.precision != "about":
            continue
        if quantity.number.bound and not limited and not any(q.number.bound for q in target.values):
            continue
        if (quantity.start, quantity.end) not in whole:
            continue
        for wanted in target.values:
            unit = wanted.unit or target.unit
            values = convert(quantity.number.values, quantity.unit, unit)
            if values is None:
                continue
            if unit == "percent" and not quantity.unit and not quantity.number.digits:
                values = tuple(100 * v if 0 < v < 1 else v for v in values)  # a third, one in three
            if quantity.number.ordinal and not wanted.number.ordinal and quantity.number.values[0] <= 3:
                continue  # "the first", "a third": counting words, not the figure
            converted = bool(quantity.unit and unit and quantity.unit != unit)
            agreement = [a for v in values if (a := _agree(wanted, v, quantity, target.precision, converted))]
            if agreement:
                sure = "sure" in agreement
                found.append(
                    over(text, quantity.start, quantity.end, "the answer's value", "sure" if sure else "maybe")
                )
                break
    return found


def days(target: Target, text: Text) -> list[Mention]:
    """Mentions of a date with every part that the question asks for."""
    found = []
    for date in dates(text.raw, text.low):
        if _range(text, date.start, date.end):
            continue
        if any(same_date(wanted, date, target.need) for wanted in target.dates):
            found.append(over(text, date.start, date.end, "the answer's date"))
        elif (
            date.day
            and "year" not in target.question.low
            and {"y", "m", "d"} <= target.need
            and any(same_date(wanted, date, target.need - {"y"}) for wanted in target.dates)
        ):
            found.append(over(text, date.start, date.end, "day and month without the year", "maybe"))
    return found


def _range(text: Text, start: int, end: int) -> bool:
    before = text.low[max(0, start - 20) : start].rstrip()
    return before.endswith(("between", "before", "after", "later than", "earlier than", "since")) or text.low[
        end : end + 3
    ].startswith(("0s", "'s", "s "))


def times(target: Target, text: Text) -> list[Mention]:
    """Mentions of a clock time, to the minute."""
    return [
        over(text, clock.start, clock.end, "the answer's time")
        for clock in clocks(text.low)
        if any(same_clock(w, clock) for w in target.clocks)
    ]

"""Quantities: a number with its unit, and whether two of them agree. Conversions are pint's."""

from __future__ import annotations

import itertools
import re
from functools import cache, lru_cache
from typing import Any, NamedTuple

from audit.judges.rules.lexicon import lines
from audit.judges.rules.numbers import Number, numbers


def _table() -> dict[str, str]:
    table: dict[str, str] = {}
    for line in lines("units"):
        name, _, forms = line.partition(":")
        table.update({form.strip(): name for form in forms.split(",")})
    return table


#: surface form in lower case -> name of the unit in pint
_UNITS = _table()
_ALT = "|".join(re.escape(u) for u in sorted(_UNITS, key=len, reverse=True))
_ONE = rf"(?:(?:square|sq\.?|cubic)\s+)?(?:{_ALT})(?:\^?[23](?!\d))?(?:\s+squared|\s+cubed)?"
_UNIT = re.compile(
    rf"(?P<a>{_ONE})(?![a-z0-9])(?:\s*(?:/|\bper\b|\ban?\b)\s*(?P<b>{_ONE})(?![a-z0-9])|\s*(?P<inv>s\^-1)(?!\d))?(?:\s*(?P<scale>fahrenheit|celsius|centigrade))?"
)
_SCALE_AFTER = re.compile(r"\s*(?:on|in)\s+the\s+(fahrenheit|celsius|centigrade|kelvin)\b")
_ASKED = re.compile(
    rf"(?:\bin|\bhow many|\bwhat number of|\bof)\s+(?:the\s+)?({_ONE}(?:\s*(?:/|\bper\b)\s*{_ONE})?)(?![a-z0-9])"
)
_PART_OF_UNIT = re.compile(
    rf"\b(?P<share>half (?:an? )?|(?:a|one|three)[- ]quarters? of an? |an? )(?P<unit>{_ALT})(?![a-z0-9])"
)
_AND_PART = re.compile(r"\s+and a (half|quarter)\b")
_COMPARATIVE = re.compile(rf"\bhow many (?:\w+ )?({_ONE})(?![a-z0-9])|\bwhat percentage\b|\b(\w+)$")
_MONEY = {"$": "=usd", "£": "=gbp", "€": "=eur", "¥": "=jpy"}
_SHORT = frozenset({"a", "m", "s", "h", "g", "l", "k", "c", "f", "n", "j", "w", "v", "t", "in", "mi", "min", "d", "au"})


class Quantity(NamedTuple):
    """A number and its unit: a pint name, `=name` for a unit that pint does not know, `degree?`, or "" for none."""

    number: Number
    unit: str
    start: int
    end: int


def _one(part: str) -> str:
    text = " ".join(part.split())
    power = 1
    for word, value in (("square ", 2), ("sq. ", 2), ("sq ", 2), ("cubic ", 3)):
        if text.startswith(word):
            text, power = text[len(word) :], value
    for word, value in ((" squared", 2), (" cubed", 3), ("^2", 2), ("^3", 3)):
        if text.endswith(word):
            text, power = text[: -len(word)], value
    if text not in _UNITS and text[-1:] in "23" and text[:-1] in _UNITS:
        text, power = text[:-1], int(text[-1])
    name = _UNITS[text]
    return name if power == 1 else f"({name})**{power}"


def unit_name(surface: str) -> str:
    """Name of a unit written as `surface` (lower case), "" where it is none."""
    match = _UNIT.match(surface)
    if not match:
        return ""
    name = _one(match["a"])
    if match["b"] and not name.startswith("=") and name != "degree?":
        name = f"({name})/({_one(match['b'])})"
    elif match["inv"]:
        name = f"({name})/second"
    if match["scale"]:
        name = "degF" if match["scale"] == "fahrenheit" else "degC"
    return name


def asked_unit(question: str) -> str:
    """The unit that a question (lower case) asks for, "" where it names none."""
    if "percentage" in question or "per cent" in question or "percent" in question:
        return "percent"
    last = ""
    for match in _ASKED.finditer(question):
        surface = match.group(1)
        if surface in _SHORT and surface not in ("km",):
            continue
        last = unit_name(surface) or last
    return last


@lru_cache(maxsize=8192)
def quantities(raw: str, low: str) -> tuple[Quantity, ...]:
    """All quantities of a cleaned text; neighbouring parts of one (4 ft 8.5 in, 1 h 30 min) are also given added up."""
    found = []
    for number in numbers(raw, low):
        tail = low[number.end : number.end + 60]
        gap = re.match(r"[\s\-]{0,2}", tail)
        skip = gap.end() if gap else 0
        match = _UNIT.match(tail[skip:])
        unit, end = "", number.end
        if (
            match
            and not number.ordinal
            and not (match["a"] == "in" and not re.match(r"\s*(?:$|[.,;)(]|\d)", tail[skip + match.end() :]))
        ):
            unit, end = unit_name(tail[skip:]), number.end + skip + match.end()
            scale = _SCALE_AFTER.match(low[end:])
            if unit == "degree?" and scale:
                unit = {"fahrenheit": "degF", "kelvin": "kelvin"}.get(scale.group(1), "degC")
        elif re.match(r"\s*[\"']{1,2}(?:\s|$|\d)", tail) and number.digits:
            feet = tail.lstrip()[0] == "'" and not tail.lstrip().startswith("''")
            unit = ("foot" if feet else "inch") if re.search(r"\d\s*'\s*\d|\d\"", low) else ""
        before = low[: number.start].rstrip()
        if not unit and before[-1:] in _MONEY:
            unit = _MONEY[before[-1:]]
        elif not unit and before.endswith("mach"):
            unit = "=mach"
        found.append(Quantity(number, unit, number.start, end))
    found.extend(_sums(found, low))
    found.extend(_and_a_half(found, low))
    return tuple(found)


def _and_a_half(parts: list[Quantity], low: str) -> list[Quantity]:
    """An hour and a half, half an hour, three quarters of a mile, a century; two hours and a half."""
    one = Number((1.0,), 0, 0, 2, False, False, False)
    found = []
    for match in _PART_OF_UNIT.finditer(low):
        share = match["share"].replace("-", " ")
        size = 0.5 if "half" in share else 0.75 if "three" in share else 0.25 if "quarter" in share else 1.0
        if size == 1.0 and len(match["unit"]) < 4:
            continue
        unit = unit_name(match["unit"])
        tail = _AND_PART.match(low, match.end())
        if tail and size == 1.0:
            size += 0.5 if tail.group(1) == "half" else 0.25
        end = tail.end() if tail else match.end()
        found.append(Quantity(one._replace(values=(size,), start=match.start(), end=end), unit, match.start(), end))
    for part in parts:
        tail = _AND_PART.match(low, part.end)
        if tail and part.unit and part.number.values:
            more = 0.5 if tail.group(1) == "half" else 0.25
            number = part.number._replace(
                values=tuple(v + more for v in part.number.values), end=tail.end(), decimals=2
            )
            found.append(Quantity(number, part.unit, part.start, tail.end()))
    return found


def _sums(parts: list[Quantity], low: str) -> list[Quantity]:
    sums = []
    for first, second in itertools.pairwise(parts):
        joint = low[first.end : second.start].strip(" ,-'\"")
        if (
            first.unit
            and second.unit
            and first.unit != second.unit
            and joint in ("", "and")
            and first.number.values
            and second.number.values
        ):
            rate = _conversion(second.unit, first.unit)
            if rate and rate[1] == 0 and abs(rate[0]) < 1:
                value = first.number.values[0] + second.number.values[0] * rate[0]
                sums.append(
                    Quantity(
                        first.number._replace(values=(value,), end=second.end, decimals=2),
                        first.unit,
                        first.start,
                        second.end,
                    )
                )
    return sums


@cache
def _registry() -> Any:
    import pint

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)


@lru_cache(maxsize=4096)
def _conversion(source: str, target: str) -> tuple[float, float] | None:
    """(factor, offset) with target = factor * source + offset, or None where the two do not measure the same."""
    if source == target:
        return 1.0, 0.0
    if "=" in source + target or "?" in source + target:
        return None
    import pint

    registry = _registry()
    try:
        zero = registry.Quantity(0.0, registry.parse_units(source)).to(registry.parse_units(target)).magnitude
        one = registry.Quantity(1.0, registry.parse_units(source)).to(registry.parse_units(target)).magnitude
    except (pint.DimensionalityError, pint.UndefinedUnitError, pint.OffsetUnitCalculusError):
        return None
    return float(one - zero), float(zero)


def convert(values: tuple[float, ...], source: str, target: str) -> tuple[float, ...] | None:
    """`values` in unit `target`; unchanged where either side names no unit; None where the two differ in kind."""
    if source == "percent" and not target:
        return tuple(value / 100 for value in values)
    if not source or not target or source == target:
        return values
    if "degree?" in (source, target):
        other = target if source == "degree?" else source
        return values if other in ("degC", "degF", "kelvin", "degree?") or other == "radian" else None
    if {source, target} <= {"pound", "=gbp"}:
        return values
    rate = _conversion(source, target)
    if rate is None:
        return None
    return tuple(value * rate[0] + rate[1] for value in values)

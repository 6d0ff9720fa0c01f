"""Dates and clock times in any usual notation, and whether they agree with a target."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from audit.judges.rules.lexicon import lines
from audit.judges.rules.numbers import numbers, roman

MONTHS = {name: i for i, line in enumerate(lines("months"), start=1) for name in line.split()}
_M = r"(?P<month>" + "|".join(sorted(MONTHS, key=len, reverse=True)) + r")\b\.?"
_DAY_WORD = (
    "thirty[- ]first|thirtieth|twenty[- ](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)"
    "|twentieth|nineteenth|eighteenth|seventeenth"
    "|sixteenth|fifteenth|fourteenth|thirteenth|twelfth|eleventh|tenth|ninth|eighth|seventh|sixth|fifth|fourth"
    "|third|second|first"
)
_D = rf"(?P<day>\d{{1,2}}|{_DAY_WORD})(?:st|nd|rd|th|\.|er|o)?"
_SEP = r"[\s,.\-/]*(?:day\s+)?(?:of\s+|de\s+|the\s+|del\s+)*"
_Y = r"(?P<year>(?<!\d)\d{3,4}(?!\d)|'\d\d|[mdclxvi]{3,})"
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<!\w){_D}{_SEP}{_M}(?:[\s,.\-/]*(?:in\s+|of\s+|de\s+|del\s+|the year\s+)*{_Y})?",
        rf"(?<!\w){_M}{_SEP}{_D}(?!\d|\w|:)(?:[\s,.\-/]*(?:in\s+|of\s+|the year\s+)*{_Y})?",
        rf"(?<!\w){_M}[\s,.\-/]*(?:of\s+|de\s+|in\s+)*{_Y}",
        rf"(?<!\w)(?P<year>\d{{4}}),?\s+{_M}\s+{_D}(?!\d)",
        r"(?<![\d.])(?P<year>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<day>\d{1,2})(?![\d])",
        r"(?<![\d.])(?P<year>\d{4})年\s*(?P<m>\d{1,2})月(?:\s*(?P<day>\d{1,2})日)?",
        r"(?<![\d.])(?P<p>\d{1,2})\s?[-/.]\s?(?P<q>\d{1,2})\s?[-/.]\s?(?P<year>\d{4}|\d{2})(?![\d])",
        r"(?<![\w.])(?P<day>\d{1,2})\.?[\s.\-/]+(?P<rm>i{1,3}|iv|v|vi{1,3}|ix|x|xi{1,2})[\s.\-/]+(?P<year>\d{4})(?!\d)",
        r"(?<!\d)(?P<year>1\d{3}|20\d\d)(?P<m>0[1-9]|1[0-2])(?P<day>[0-2]\d|3[01])(?!\d)",
    )
)
_MONTH_ALONE = re.compile(rf"(?<!\w){_M}")
_YEAR = re.compile(
    r"(?<![\w.,:/$£€])(?P<year>\d{3,4})(?![\d:]|[,.]\d|'?s\b|\s?%)(?:\s*(?P<era>b\.?c\.?e?|a\.?d|c\.?e)\b)?"
)
_EARLY_YEAR = re.compile(
    r"\b(?:a\.?d\.?|c\.?e\.?)\s*(?P<after>\d{1,2})(?![\d.:])|(?<![\w.,:/$£€-])(?P<year>\d{1,2})\s*(?P<era>b\.?c\.?e?|a\.?d|c\.?e)\b"
)
_ERA_NEAR = re.compile(r"\bad\b|\bce\b|\bc\.e\b|\ba\.d\b|\byear\b|\bera\b|\banno domini\b")
_SHORT_YEAR = re.compile(r"(?<!\w)'(\d\d)\b(?!')")
_DAY_MONTH = re.compile(r"(?<![\d/.])(\d{1,2})/(\d{1,2})(?![\d/])")
_HOLIDAYS = {name: (int(m), int(d)) for m, d, name in (line.split(None, 2) for line in lines("holidays"))}
_HOLIDAY = re.compile(
    r"\b(?P<name>" + "|".join(sorted(map(re.escape, _HOLIDAYS), key=len, reverse=True)) + r")\b"
    r"(?:[\s,]*(?:in|of|the year)?\s*(?P<year>\d{4})\b)?"
)
_MONTH_YEAR = re.compile(r"(?<![\d/.\-])(?:(?P<m>0?[1-9]|1[0-2])/|(?P<n>0[1-9])[.-])(?P<year>1\d{3}|20\d\d)(?![\d/.])")
_DAY_VALUES = {word: day for day, word in enumerate(lines("ranks"), start=1)}


class Date(NamedTuple):
    """Parts that are known; `swapped`: the other reading of 3/4/1999 as (month, day)."""

    year: int | None
    month: int | None
    day: int | None
    start: int
    end: int
    swapped: tuple[int, int] | None = None
    short: bool = False


def _day(text: str) -> int:
    if text.isdigit():
        return int(text)
    head, _, tail = text.replace("-", " ").partition(" ")
    if tail:
        return {"twenty": 20, "thirty": 30}[head] + _DAY_VALUES[tail]
    return 30 if head == "thirtieth" else _DAY_VALUES[head]


def _year(text: str) -> tuple[int | None, bool]:
    if text.startswith("'"):
        return int(text[1:]), True
    if text.isdigit():
        return int(text), len(text) == 2
    return roman(text.upper()), False


def _full(low: str) -> list[Date]:
    found: list[Date] = []
    day: int | None
    for pattern in _PATTERNS:
        for match in pattern.finditer(low):
            if any(date.start < match.end() and match.start() < date.end for date in found):
                continue
            groups = match.groupdict()
            year, short = _year(groups["year"]) if groups.get("year") else (None, False)
            swapped = None
            if groups.get("p"):
                month, day = int(groups["q"]), int(groups["p"])
                swapped = (day, month) if day <= 12 and month <= 31 else None
                if month > 12:
                    if day > 12 or month > 31:
                        continue
                    month, day, swapped = day, month, None
            else:
                if groups.get("month"):
                    month = MONTHS[groups["month"]]
                elif groups.get("rm"):
                    month = roman(groups["rm"].upper()) or 0
                else:
                    month = int(groups["m"])
                day = _day(groups["day"]) if groups.get("day") else None
            if month and 1 <= month <= 12 and (day is None or 1 <= day <= 31):
                found.append(Date(year, month, day, match.start(), match.end(), swapped, short))
    return found


@lru_cache(maxsize=8192)
def dates(raw: str, low: str) -> tuple[Date, ...]:
    """All dates of a cleaned text by place: full dates, months with or without a year, years in any notation."""
    found = _full(low)

    def free(start: int, end: int) -> bool:
        return not any(date.start < end and start < date.end for date in found)

    for match in _HOLIDAY.finditer(low):
        if free(*match.span()):
            month, day = _HOLIDAYS[match["name"]]
            year = int(match["year"]) if match["year"] else None
            found.append(Date(year, month, day, match.start(), match.end()))
    for match in _MONTH_YEAR.finditer(low):
        if free(*match.span()):
            found.append(Date(int(match["year"]), int(match["m"] or match["n"]), None, match.start(), match.end()))
    for match in _YEAR.finditer(low):
        if free(*match.span()):
            era = (match["era"] or "").replace(".", "")
            year = -int(match["year"]) if era.startswith("b") else int(match["year"])
            found.append(Date(year, None, None, match.start(), match.end()))
    for match in _EARLY_YEAR.finditer(low):
        if free(*match.span()):
            early = int(match["year"] or match["after"])
            before = (match["era"] or "").replace(".", "").startswith("b")
            found.append(Date(-early if before else early, None, None, match.start(), match.end()))
    for match in _DAY_MONTH.finditer(low):
        first, second = int(match.group(1)), int(match.group(2))
        if free(*match.span()) and 1 <= min(first, second) <= 12 and max(first, second) <= 31:
            month, day = (first, second) if first <= 12 else (second, first)
            swapped = (second, first) if second <= 12 and first <= 31 else None
            found.append(Date(None, month, day, match.start(), match.end(), swapped))
    for match in _SHORT_YEAR.finditer(low):
        if free(*match.span()):
            found.append(Date(int(match.group(1)), None, None, match.start(), match.end(), None, True))
    for match in _MONTH_ALONE.finditer(low):
        if free(*match.span()) and not (
            match["month"] in ("may", "mar", "mars", "march", "marco", "mai")
            and raw[match.start()].islower()
            and match.start() > 0
        ):
            found.append(Date(None, MONTHS[match["month"]], None, match.start(), match.end()))
    for number in numbers(raw, low):
        if (
            not number.digits
            and number.values
            and (100 if not _ERA_NEAR.search(low) else 10) <= number.values[0] <= 2200
            and number.values[0] == int(number.values[0])
            and free(number.start, number.end)
        ):
            found.append(Date(int(number.values[0]), None, None, number.start, number.end))
    for i, date in enumerate(found):  # "the first of December nineteen fifty-five": a year in words after day and month
        if date.year is None and date.day is not None:
            for other in found:
                if (
                    other.year is not None
                    and other.month is None
                    and 0 <= other.start - date.end <= 14
                    and not re.search(r"[.;]", low[date.end : other.start])
                ):
                    found[i] = date._replace(year=other.year, end=other.end, short=other.short)
    for i, date in enumerate(found):  # "October the fourth, fifty-seven"
        if date.year is None and date.day is not None:
            for number in numbers(raw, low):
                behind = 0 <= number.start - date.end <= 3 and not low[date.end : number.start].strip(" ,")
                if behind and not number.digits and not number.ordinal and 10 <= (number.values or (0,))[0] <= 99:
                    found[i] = date._replace(year=int(number.values[0]), end=number.end, short=True)
    return tuple(sorted(found, key=lambda date: date.start))


def same_date(target: Date, found: Date, need: frozenset[str]) -> bool:
    """Every needed part (y, m, d) is there and right, and no other known part is wrong."""
    for month, day in ((found.month, found.day), found.swapped or (found.month, found.day)):
        if (
            _part_agrees("y", target.year, found.year, need, found.short)
            and _part_agrees("m", target.month, month, need)
            and _part_agrees("d", target.day, day, need)
        ):
            return True
    return False


def _part_agrees(part: str, wanted: int | None, got: int | None, need: frozenset[str], short: bool = False) -> bool:
    if wanted is None:
        return True
    if got is None:
        return part not in need
    return got == wanted or (short and got == abs(wanted) % 100)

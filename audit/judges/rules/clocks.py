"""Clock times in any usual notation, in figures or words, and whether they agree."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_TIME = re.compile(
    r"(?<![\d:.])(?P<h>\d{1,2})(?:[:.h](?P<min>\d{2})(?::(?P<sec>\d{2})(?:\.\d+)?)?)?\s*(?P<half>a\.?m\b"
    r"|p\.?m\b|o'clock|noon|midnight|hours\b)?"
)
_NUMBER = r"(?:\d{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty(?:[- ]five)?)"
_PAST = re.compile(
    rf"\b(?P<part>(?:a )?quarter|half|{_NUMBER})(?: minutes?)?(?P<side> past | after | to | before | of )"
    rf"(?P<hour>{_NUMBER}|noon|midnight)\b(?! minutes)"
)
_HOUR_WORDS = re.compile(
    rf"\b(?P<hour>{_NUMBER})(?:[- ](?P<min>thirty|fifteen|forty[- ]five|forty|twenty|ten|oh five))?\s*"
    r"(?=(?:o'clock|in the (?:morning|afternoon|evening)|at night|[ap]\.?m\b))"
)
_NAMED_HOUR = re.compile(
    r"\b(?:at|by|exactly|high|precisely|was|is|^)\s*(?P<name>noon|midday|midnight)\b|^(?:noon|midday|midnight)\b"
)
_MILITARY = re.compile(r"(?<![\d.,])(?P<h>[01]\d|2[0-3])(?P<min>[0-5]\d)\s?(?:h\b|hours\b|hrs\b)")
_HALF_AFTER = re.compile(
    r"[\s,]*(?:local time,?\s*)?(?:in the (morning|afternoon|evening)|(at night|pm\b|p\.m\.)|(am\b|a\.m\.))"
)
_SMALL = {
    word: value
    for value, word in enumerate(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], start=1
    )
} | {"noon": 12, "midday": 12, "midnight": 0, "twenty": 20, "twenty five": 25, "twenty-five": 25}
_SMALL |= {"quarter": 15, "a quarter": 15, "half": 30, "fifteen": 15, "thirty": 30, "forty": 40}
_SMALL |= {"forty five": 45, "forty-five": 45, "oh five": 5}


class Clock(NamedTuple):
    """A time of day. `half`: am, pm or "" where the text does not say."""

    hour: int
    minute: int
    half: str
    start: int
    end: int


def _small(word: str) -> int:
    return int(word) if word.isdigit() else _SMALL[word]


def _half(low: str, end: int, given: str = "") -> str:
    """am, pm or "", from what stands at `end`."""
    match = _HALF_AFTER.match(low, end)
    if given or not match:
        return given
    return "am" if match.group(1) == "morning" or match.group(3) else "pm"


@lru_cache(maxsize=8192)
def clocks(low: str) -> tuple[Clock, ...]:
    """All clock times of a folded text that show minutes, am/pm, o'clock or the part of the day; also in words (a
    quarter past eight, noon) and written as one number before "hours"."""
    found = []
    for match in _TIME.finditer(low):
        half = (match["half"] or "").replace(".", "")
        daypart = _half(low, match.end(), half if half in ("am", "pm") else "")
        if not match["min"] and not half and not daypart:
            continue
        hour, minute = int(match["h"]), int(match["min"] or 0)
        if hour > 24 or minute > 59 or (half == "hours" and not match["min"]):
            continue
        found.append(Clock(hour, minute, daypart, match.start(), match.end()))
    for match in _MILITARY.finditer(low):
        found.append(Clock(int(match["h"]), int(match["min"]), "", match.start(), match.end()))
    for match in _PAST.finditer(low):
        part_word, hour_word = match["part"], match["hour"]
        minute = _small(part_word)
        hour_value = _small(hour_word)
        if minute >= 60 or not 0 <= hour_value <= 24:
            continue
        if match["side"] in (" to ", " before ", " of "):
            hour_value, minute = (hour_value - 1) % 24, 60 - minute
        fixed = {"noon": "pm" if minute < 60 and match["side"] in (" past ", " after ") else "am", "midnight": ""}.get(
            hour_word, ""
        )
        found.append(Clock(hour_value, minute % 60, _half(low, match.end(), fixed), match.start(), match.end()))
    for match in _HOUR_WORDS.finditer(low):
        if not match["hour"].isdigit():
            if any(c.start <= match.start() < c.end for c in found):
                continue
            minute = _SMALL[match["min"]] if match["min"] else 0
            end = match.end() + (7 if low.startswith("o'clock", match.end()) else 0)
            found.append(Clock(_SMALL[match["hour"]], minute, _half(low, end), match.start(), match.end()))
    for match in _NAMED_HOUR.finditer(low):
        noon = "midnight" not in match.group()
        found.append(Clock(12, 0, "pm" if noon else "am", match.start(), match.end()))
    return tuple(found)


def same_clock(target: Clock, found: Clock) -> bool:
    """Equal to the minute; a missing am or pm is read in the text's favour, 24-hour times agree with pm ones."""
    if target.minute != found.minute:
        return False

    def hours(clock: Clock) -> set[int]:
        base = clock.hour % 12
        if clock.hour > 12:
            return {clock.hour % 24}
        return {base} if clock.half == "am" else {base + 12} if clock.half == "pm" else {base, base + 12}

    return bool(hours(target) & hours(found))

"""Numbers in a text, in any notation: digits, separators, exponents, words, ordinals, Roman numerals, fractions."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from audit.judges.rules.lexicon import lines

_ONES = {
    w: i
    for i, w in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
} | {"nought": 0, "nil": 0}
_TENS = {
    w: 10 * i
    for i, w in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2)
} | {"fourty": 40}
_ORDINALS = {word: number for number, word in enumerate(lines("ranks")[:19], start=1)}
_ORDINALS |= {word[:-1] + "ieth": number for word, number in _TENS.items() if word != "fourty"}
_SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "hundredth": 100,
    "thousandth": 1000,
}
_SCALES |= {"hundreds": 100, "thousands": 10**3, "millions": 10**6, "billions": 10**9}
_GROUPS = {"dozen": 12, "dozens": 12, "score": 20, "gross": 144, "couple": 2, "pair": 2}
_SUFFIX = {
    "k": 10**3,
    "thousand": 10**3,
    "million": 10**6,
    "mn": 10**6,
    "m": 10**6,
    "billion": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
    "hundred": 100,
    "dozen": 12,
}

_DIGITS = re.compile(
    r"""
    (?<![\w.,])(?P<sign>[-+~]\s?|minus\s+|negative\s+)?[$£€]?\s?
    (?P<num>\d{1,3}(?:[, '\u2009]\d{3})+(?![\d])(?:\.\d+)?|\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?
      |\d+\s+\d/\d+|\d+/\d+|\d+[.,]\d+|\d+|\.\d+)
    (?P<exp>\s*[x*·]\s*10\s*(?:\^|\*\*)?\s*(?P<power>[-+]?\d+)|e(?P<epower>[-+]?\d+))?
    (?P<ord>(?:st|nd|rd|th)\b)?
    (?P<decade>'?s\b)?
    (?:(?P<kilo>k)\b|\s?(?P<scale>thousand|million|mn|billion|bn|trillion|hundred|dozen)\b)?
    (?P<half>\s+and\s+a\s+half\b)?
    """,
    re.VERBOSE,
)
_POWER_OF_TEN = re.compile(r"(?<![\w.])10\s*(?:\^|\*\*)\s*(?P<power>[-+]?\d+)")
_WORDS = re.compile(r"[a-z]+")
_NUMBER_WORD = re.compile(
    r"\b(?:"
    + "|".join(sorted([*_ONES, *_TENS, *_ORDINALS, *_SCALES, *_GROUPS, "half", "quarter"], key=len, reverse=True))
    + r")\b"
)
_ROMAN = re.compile(r"\b(?=[MDCLXVI]{2,}\b)M{0,4}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})\b")
_FRACTION = re.compile(
    r"\b(?:(?P<top>two|three|four|five|six|seven|eight|nine)[- ](?P<part>halves"
    r"|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth)s)"
    r"|(?:one|an?)[- ](?P<single>half|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth))\b"
)
_PART_OF_SCALE = re.compile(
    r"\b(?:(?P<whole>[a-z]+|\d+) and )?(?:(?P<half>a half|half an?|half)|(?P<quarter>a quarter(?: of an?)?)"
    r"|(?P<three>three[- ]quarters(?: of an?)?))[- ](?P<scale>hundred|thousand"
    r"|million|billion|dozen|century|hour|minute)\b"
)
_AND_HALF = re.compile(r"\b(?P<whole>[a-z]+) and (?:a |one )?(?P<part>half|quarter)\b")
_POWER = re.compile(
    r"\b(?P<base>ten|two|10|2) to the (?:power (?:of )?)?(?P<word>[a-z]+|\d{1,2}(?:th|st|nd|rd)?)\b(?: power)?"
)
_ONE_IN = re.compile(r"\b(\d{1,3}|[a-z]+) (?:in|out of) (?:every |each )?(?:a )?(\d{1,4}|[a-z]+)\b")
_POINT = re.compile(rf"\s+point((?:\s+(?:{'|'.join(word for word, value in _ONES.items() if value < 10)}))+)")
_BOUND_BEFORE = re.compile(
    r"(?:more than|less than|fewer than|over|under|above|below|at least|at most|up to|between|beyond"
    r"|no more than|greater than|exceeding|in excess of|from)\s+(?:the\s+)?[$£€]?$"
)
_BOUND_AFTER = re.compile(r"\s*(?:or (?:more|less|fewer)\b|\+|(?:-|to)\s*\d)")
_NEAR = re.compile(
    r"\b(?:just|slightly|a little|a bit|a shade|barely|marginally|only just)\s+(?:over|under|more than"
    r"|less than|above|below)\s+$"
)
_BELOW_ZERO = re.compile(
    r"[\s\-]*(?:°|degrees?)?\s*(?:celsius|fahrenheit|c\b|f\b|centigrade)?\s*"
    r"(?:below (?:zero|freezing)|under zero|of frost)"
)
_RANGE_BEFORE = re.compile(r"\d\s*(?:-|to)\s*$|between\s+\S+\s+and\s+$|from\s+\S+\s+to\s+$")


class Number(NamedTuple):
    """A number in a text. `values`: its possible readings (a comma may be a decimal mark); `decimals`: digits after
    the point; `bound`: part of a range, or "more than"; `ordinal`: a rank;
    `near`: "just over" and the like."""

    values: tuple[float, ...]
    start: int
    end: int
    decimals: int
    bound: bool
    ordinal: bool
    digits: bool
    near: bool = False


def roman(word: str) -> int | None:
    """Value of an upper-case Roman numeral, or None."""
    if not word or not re.fullmatch(r"M{0,4}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})", word):
        return None
    marks = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    total = 0
    for here, after in zip(word, [*word[1:], ""], strict=True):
        value = marks[here]
        total += -value if after and marks[after] > value else value
    return total


def _readings(num: str) -> tuple[tuple[float, ...], int]:
    if "/" in num:
        whole, _, fraction = num.rpartition(" ")
        top, bottom = fraction.split("/")
        if int(bottom) == 0:
            return (), 0
        return (float(whole or 0) + int(top) / int(bottom),), 2
    plain = re.sub(r"[ '\u2009]", "", num)
    if re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?", plain):
        return (float(plain.replace(".", "").replace(",", ".")),), 0
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", plain):
        values = [float(plain.replace(",", ""))]
        if plain.count(",") == 1 and "." not in plain:
            values.append(float(plain.replace(",", ".")))
        return tuple(values), len(plain.partition(".")[2])
    if re.fullmatch(r"\d+,\d+", plain):
        return (float(plain.replace(",", ".")),), len(plain.partition(",")[2])
    values = [float(plain)]
    if re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", plain):
        values.append(float(plain.replace(".", "")))
    return tuple(values), len(plain.partition(".")[2])


def _bounded(low: str, start: int, end: int) -> bool:
    head = low[max(0, start - 30) : start]
    return bool(_BOUND_BEFORE.search(head) or _RANGE_BEFORE.search(head) or _BOUND_AFTER.match(low[end : end + 12]))


def _digit_numbers(low: str) -> list[Number]:
    found = []
    for match in _DIGITS.finditer(low):
        if len(match["num"]) > 40 or match["decade"]:
            continue
        values, decimals = _readings(match["num"])
        power = match["power"] or match["epower"]
        factor = 1.0
        if power:
            if len(power) > 4 or abs(int(power)) > 200:
                continue
            factor = 10.0 ** int(power)
        if match["scale"] or match["kilo"]:
            factor *= _SUFFIX[match["scale"] or match["kilo"]]
        half = 0.5 if match["half"] else 0.0
        sign = -1.0 if (match["sign"] or "").strip() in ("-", "minus", "negative") else 1.0
        if match["sign"] and match["sign"].strip() == "-" and match.start() > 0 and low[match.start() - 1].isalnum():
            sign = 1.0
        places = 0 if factor >= 10**decimals and factor != 1.0 else decimals
        start = match.start("num")
        end = match.end()
        found.append(
            Number(
                tuple(sign * (v + half) * factor for v in values),
                start,
                end,
                places,
                _bounded(low, match.start(), end),
                bool(match["ord"]),
                True,
            )
        )
    found.extend(
        Number((10.0 ** int(m["power"]),), m.start(), m.end(), 0, False, False, True)
        for m in _POWER_OF_TEN.finditer(low)
        if len(m["power"]) <= 4
        and abs(int(m["power"])) <= 200
        and not any(n.start <= m.start() < n.end and n.end >= m.end() for n in found)
    )
    return found


def _fractions(low: str) -> list[Number]:
    found = []
    for match in _FRACTION.finditer(low):
        top = _ONES[match["top"]] if match["top"] else 1
        part = (match["part"] or match["single"]).rstrip("s")
        bottom = {"half": 2, "halve": 2, "quarter": 4}.get(part) or _ORDINALS[part]
        found.append(Number((top / bottom,), match.start(), match.end(), 4, False, False, False))
    for match in _ONE_IN.finditer(low):
        sides = [
            float(w) if w.isdigit() else float(_ONES.get(w, _TENS.get(w, _SCALES.get(w, 0)))) for w in match.groups()
        ]
        if 0 < sides[0] < sides[1]:
            found.append(Number((sides[0] / sides[1],), match.start(), match.end(), 4, False, False, False))
    return found


def _word_value(run: list[str]) -> tuple[float | None, bool]:
    """Value of a run of number words, and whether it is an ordinal; pairs of tens read as years (nineteen ten)."""
    total = current = 0.0
    ordinal = False
    seen = False
    last = ""
    for word in run:
        if word in ("and", "a", "an"):
            continue
        if word in _ONES or word in _TENS:
            value = _ONES.get(word, _TENS.get(word, 0))
            if seen and 10 <= current < 100 and value >= 10 and last in ("ten", "teen", "tens"):
                current = current * 100
            elif last == "ones" and value >= 10 and 1 <= current < 10:
                current = current * 100 if value >= 10 else current
            current += value
            last = "tens" if word in _TENS else ("teen" if value >= 10 else "ones")
            if word in _ONES and value < 10 and current >= 20 and current % 100 != value:
                last = "tens"
        elif word in _ORDINALS:
            current += _ORDINALS[word]
            ordinal = True
            last = "ones"
        elif word in _GROUPS:
            current = (current or 1) * _GROUPS[word]
            last = "group"
        elif word in ("half", "quarter"):
            current = (current or 0) + (0.5 if word == "half" else 0.25)
        elif word in _SCALES:
            scale = _SCALES[word]
            ordinal = ordinal or (word.endswith("th") and word in ("hundredth", "thousandth"))
            current = (current or 1) * scale
            if scale > 100:
                total += current
                current = 0.0
            last = "scale"
        seen = True
    return (total + current if seen else None), ordinal


def _word_numbers(low: str) -> list[Number]:
    if not _NUMBER_WORD.search(low):
        return []
    tokens = [(m.group(), m.start(), m.end()) for m in _WORDS.finditer(low)]
    vocabulary = _ONES.keys() | _TENS.keys() | _ORDINALS.keys() | _SCALES.keys() | _GROUPS.keys() | {"half", "quarter"}
    found = []
    i = 0
    while i < len(tokens):
        if tokens[i][0] not in vocabulary:
            i += 1
            continue
        j = i
        run: list[str] = []
        while j < len(tokens):
            word = tokens[j][0]
            gap = low[tokens[j - 1][2] : tokens[j][1]] if j > i else ""
            if j > i and gap.strip() not in ("", "-"):
                break
            if word in vocabulary:
                if run and run[-1] in _ORDINALS:
                    break
                if run and word in _ONES and run[-1] in _ONES and _ONES[run[-1]] < 10 and _ONES[word] < 10:
                    break
                run.append(word)
                j += 1
            elif (
                word in ("and", "a", "of")
                and j + 1 < len(tokens)
                and run
                and run[-1] in _SCALES
                and tokens[j + 1][0] in vocabulary
                and word != "of"
            ):
                run.append(word)
                j += 1
            else:
                break
        if j == i:
            i += 1
            continue
        value, ordinal = _word_value(run)
        if value is not None and run not in (["half"], ["quarter"], ["second"]):
            start, end = tokens[i][1], tokens[j - 1][2]
            negative = bool(re.search(r"(?:minus|negative)\s+$", low[:start]))
            point = _POINT.match(low[end:])
            decimals = 0
            if point:
                digits = "".join(str(_ONES[w]) for w in point.group(1).split())
                value += int(digits) / 10 ** len(digits)
                decimals = len(digits)
                end += point.end()
            found.append(
                Number(
                    (-value if negative else value,), start, end, decimals, _bounded(low, start, end), ordinal, False
                )
            )
        i = j
    return found


def _parts_of_scales(low: str) -> list[Number]:
    """Half a million, three quarters of a million, nine and a half thousand."""
    found = []
    for match in _PART_OF_SCALE.finditer(low):
        whole = match["whole"] or ""
        count = float(whole) if whole.isdigit() else _ONES.get(whole, _TENS.get(whole, 0 if not whole else None))
        if count is None or match["scale"] in ("hour", "minute", "century"):
            continue
        part = 0.5 if match["half"] else 0.25 if match["quarter"] else 0.75
        factor = 12 if match["scale"] == "dozen" else _SCALES[match["scale"]]
        found.append(Number(((count + part) * factor,), match.start(), match.end(), 0, False, False, False))
    for match in _AND_HALF.finditer(low):
        if match["whole"] in _ONES and not any(n.start < match.end() and match.start() < n.end for n in found):
            part = 0.5 if match["part"] == "half" else 0.25
            found.append(Number((_ONES[match["whole"]] + part,), match.start(), match.end(), 2, False, False, False))
    return found


def _powers(low: str) -> list[Number]:
    """Ten to the sixth, two to the power of ten, alone or behind a factor (3 times 10 to the 8)."""
    found = []
    for match in _POWER.finditer(low):
        word = re.sub(r"(?:th|st|nd|rd)$", "", match["word"]) if match["word"][0].isdigit() else match["word"]
        value = int(word) if word.isdigit() else _ONES.get(word, _ORDINALS.get(word, _TENS.get(word)))
        if value is None:
            continue
        base = 10.0 if match["base"] in ("ten", "10") else 2.0
        factor = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?:times|x|\*)\s*$", low[: match.start()])
        start = factor.start() if factor else match.start()
        result = (float(factor.group(1)) if factor else 1.0) * base**value
        found.append(Number((result,), start, match.end(), 0, False, False, True))
    return found


@lru_cache(maxsize=8192)
def numbers(raw: str, low: str) -> tuple[Number, ...]:
    """All numbers of a cleaned text, by place. `raw` keeps case (Roman numerals need it); `low` is its lower case."""
    found = _parts_of_scales(low) + _powers(low)
    found += [
        n for n in _digit_numbers(low) + _fractions(low) if not any(m.start < n.end and n.start < m.end for m in found)
    ]
    found += [word for word in _word_numbers(low) if not any(n.start < word.end and word.start < n.end for n in found)]
    for match in _ROMAN.finditer(raw):
        value = roman(match.group())
        if (
            value is not None and match.group() not in ("MI", "DI", "DC", "CD", "CC", "MC", "MD", "ID", "LI", "VI")
        ) or value in (6,):
            found.append(Number((float(value or 0),), match.start(), match.end(), 0, False, True, False))
    found = [n._replace(values=tuple(-abs(v) for v in n.values)) if _BELOW_ZERO.match(low, n.end) else n for n in found]
    found = [
        n._replace(near=True, bound=False) if n.bound and _NEAR.search(low[max(0, n.start - 30) : n.start]) else n
        for n in found
    ]
    return tuple(sorted(found, key=lambda number: number.start))

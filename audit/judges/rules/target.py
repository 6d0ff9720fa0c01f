"""What to look for: an answer with its aliases, parsed once a fact and kept."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from audit.judges.rules.clocks import Clock, clocks
from audit.judges.rules.dates import Date, dates
from audit.judges.rules.lexicon import words
from audit.judges.rules.reading import Text, is_article, read, stem
from audit.judges.rules.surfaces import ANY_OF, other_names, split_items, variants
from audit.judges.rules.units import Quantity, asked_unit, convert, quantities

Kind = Literal["person", "name", "phrase", "number", "date", "clock", "list"]

_WHO = re.compile(r"\b(?:who|whom|whose|by whom)\b")
_ROLE = re.compile(
    r"\b(?:which|what|name the|identify the|name of the)\s+(?:[\w'\-]+\s+){0,4}?(?:\w{2,}(?:ist|neer|ographer"
    r"|osopher|onaut|ettist)"
    r"|musician|politician|mathematician|historian|physician|magician|comedian|librarian|guardian|technician"
    r"|electrician|statistician|logician|man|woman|person|king|queen|emperor|pope"
    r"|president|minister|chancellor|general|admiral|captain|commander|pilot|poet|writer|author|composer"
    r"|painter|architect|inventor|explorer"
    r"|actor|actress|singer|director|doctor|lawyer|judge|teacher|officer|leader|ruler|prince|princess|navigator"
    r"|player|skipper|secretary"
    r"|astronomer|philosopher|sculptor|playwright|novelist|dramatist|monarch|sultan|saint|goddess|god|hero"
    r"|figure|agent|spy|banker|premier)\b"
)
_WHY = re.compile(
    r"\b(?:why|how (?:did|does|do|was|were|is|are|can|could)|what (?:does|did|do|was|is|were|are)\b.*\b(?:mean"
    r"|meaning|cause|reason|purpose|function|idea|claim|effect)|(?:which|what)\s+(?:\w+\s+){0,3}(?:cause"
    r"|reason|mistake|error|purpose|discovery|problem|factor|condition|flaw|failure|defect|meaning"
    r"|finding|fault|change|argument|role)|for what|what (?:caused|made|led|happen))"
)
_NAMES = re.compile(r"\b(?:called|known as|named|termed|the (?:name|term|word) for[^?]*)\s*\?*$")
_WHEN = re.compile(r"\b(?:year|when|date|day|month|century)\b")
_APPROX_ANSWER = re.compile(
    r"^(?:about|approximately|around|roughly|some|circa|c\.|ca\.|nearly|almost|exactly|~)\s*", re.IGNORECASE
)
_ASK_ANY = re.compile(
    r"\b(?:name|give|state|list|mention|tell|identify|cite)\s+(?:me\s+|us\s+)?(?:any\s+)?(one|two|three|four|a"
    r"|an|1|2|3)\s+of\b|\b(?:any|at least)\s+(one|two|three|1|2|3)\b|\b(one) of\b"
)
_COUNT = {"one": 1, "a": 1, "an": 1, "two": 2, "three": 3, "four": 4, "five": 5, "1": 1, "2": 2, "3": 3, "4": 4, "5": 5}
_ASK_MANY = re.compile(
    r"\b(?:which|what|who were|who are|name)\s+(?:were |are )?(?:the )?(?:two|three|four|five|six|seven|eight"
    r"|nine|ten|both|all)\b|\bwhat are the\b|\bboth\b"
)
_EXACT = re.compile(
    r"\b(?:exact|exactly|precise|precisely|to the unit|to the nearest|to \w+ (?:decimal|significant)"
    r"|decimal places|significant figures)\b"
)
_ABOUT = re.compile(r"\b(?:about|approximate|approximately|roughly|around|approx|nearly|estimated|circa)\b")


class Form(NamedTuple):
    """One surface form. `joined`: folds glued without articles; `key`: the same without words that only name its kind
    or stand in the question, "" where nothing telling is left; `bare`: the same with numbers alone allowed, for whole
    replies; `parts`: folds; `exact`: as typed."""

    parts: tuple[str, ...]
    joined: str
    key: str
    bare: str
    exact: str


class Person(NamedTuple):
    """A name: given names or initials, the surname's folds, and how far the surname alone will do."""

    given: tuple[str, ...]
    surname: tuple[str, ...]
    alone: Literal["yes", "no", "maybe"]


class Target(NamedTuple):
    """A question and its answer, ready for matching."""

    kind: Kind
    forms: tuple[Form, ...]
    people: tuple[Person, ...]
    values: tuple[Quantity, ...]
    unit: str
    precision: Literal["exact", "about", "plain"]
    dates: tuple[Date, ...]
    need: frozenset[str]
    clocks: tuple[Clock, ...]
    items: tuple[tuple[Target, ...], ...]
    """Alternative lists of items (the answer and its list-like aliases)."""
    enough: int
    """Items that suffice; 0 for all."""
    spelled: tuple[Form, ...]
    """Number words of a numeric answer, for slips of the pen."""
    question: Text
    asked: frozenset[str]
    """Stems of the question's content words."""
    answer_type: str


def _form(answer: str, asked: frozenset[str], generic: bool) -> Form | None:
    text = read(answer)
    parts = tuple(t.fold for t in text.tokens if not is_article(text.raw, t)) or tuple(t.fold for t in text.tokens)
    if not parts:
        return None
    kinds, stop, modifiers = words("generic"), words("stop") - {"not", "no", "nor"}, words("modifiers")
    rest = [p for p in parts if p not in kinds and p not in stop and (stem(p) not in asked or p[0].isdigit())]
    telling = [p for p in rest if p not in modifiers]
    keeps_modifiers = all(p in rest for p in parts if p in modifiers)
    key = (
        "".join(rest)
        if generic and telling and keeps_modifiers and len("".join(rest)) >= 3 and len(rest) < len(parts)
        else ""
    )
    bare = "".join(rest) if generic and telling and keeps_modifiers and len(rest) < len(parts) else ""
    return Form(parts, "".join(parts), key, bare, answer.strip())


def _sounds_like_person(answer: str) -> bool:
    """The shape of a name: capitalised or not, two words or more where a surname is to stand alone, no kind word."""
    if any(t.fold in words("generic") for t in read(answer).tokens[1:]):
        return False
    return bool(
        re.fullmatch(
            r"(?:[^\W\d_][^\W\d_.'\-]*\.?[\s\-]+){0,4}(?:(?:van|von|de|der|den|la|le|di|da|of|the|bin|ibn"
            r"|al)[\s\-])*[^\W\d_][\w'\-]+(?:,? (?:Jr|Sr|I{1,3}|IV)\.?)?",
            answer.strip(),
        )
    )


def _person(name: str, aliases: frozenset[str], question: Text, many: bool) -> Person | None:
    body = re.sub(r"\"[^\"]*\"|\([^)]*\)", " ", name)
    tokens = read(body).tokens
    folds = [t.fold for t in tokens]
    while folds and (folds[-1] in words("suffixes") or folds[-1].isdigit()):
        folds.pop()
    while len(folds) > 1 and folds[0] in words("titles") and folds[0] not in words("particles"):
        folds.pop(0)
    if len(folds) < 2:
        return None
    last = re.split(r"\s+", re.sub(r"[,.]?\s+(?:jr|sr|ii|iii|iv)\.?$", "", body.strip(), flags=re.IGNORECASE))[-1]
    surname = tuple(t.fold for t in read(last).tokens)
    if len(surname) >= len(folds):
        surname = (folds[-1],)
    given = tuple(f for f in folds[: len(folds) - len(surname)] if f not in words("particles") or len(f) == 1)
    joined = "".join(surname)
    asked = {t.fold for t in question.tokens}
    kin = bool(
        re.search(
            r"\b(?:brothers|sisters|siblings|twins|brother|sister|elder|younger|father|mother|son|daughter|husband|wife|cousin|uncle|nephew)\b",
            question.low,
        )
    )
    siblings = bool(re.search(r"\b(?:brothers|sisters|siblings|twins)\b", question.low))
    listed = joined in aliases
    alone: Literal["yes", "no", "maybe"] = "yes"
    if joined in asked or siblings or (not listed and joined in words("dynasties")):
        alone = "no"
    elif (not listed and many) or (kin and not listed):
        alone = "maybe"
    return Person(given, surname, alone)


def _numeric(answer: str, answer_type: str) -> tuple[Quantity, ...]:
    body = _APPROX_ANSWER.sub("", answer.strip())
    text = read(body)
    found = quantities(text.raw, text.low)
    if not found:
        return ()
    if answer_type not in ("number", "date", "term", "object"):
        return ()
    if answer_type in ("term", "object") and re.search(r"(?<![a-zA-Z])[A-Z]+\d|\d[A-Z]|^\S*[A-Za-z]\d", body):
        return ()
    covered = sorted((q.start, q.end) for q in found)
    rest = list(text.raw)
    for start, end in covered:
        rest[start:end] = " " * (end - start)
    left = re.findall(r"[^\W\d_]+", re.sub(r"\b[Mm]ach\b", " ", "".join(rest)))
    if answer_type != "number" and (len(left) > 2 or any(word[0].isupper() for word in left)):
        return ()
    whole = [q for q in found if q.start == covered[0][0]]
    return (max(whole, key=lambda q: q.end),) if whole else ()


def _same_amount(alias: Quantity, answer: Quantity) -> bool:
    """A listed number says the same as the answer, within rounding; others ("until 1 December") are but words."""
    values = convert(alias.number.values, alias.unit, answer.unit)
    return values is not None and any(abs(v - w) <= 0.05 * abs(w) for v in values for w in answer.number.values)


def _dated(answer: str) -> Date | None:
    text = read(re.sub(r"^(?:on|in|about|around|circa|c\.)\s+", "", answer.strip(), flags=re.IGNORECASE))
    found = dates(text.raw, text.low)
    if len(found) != 1:
        return None
    left = re.findall(r"\w+", text.low[: found[0].start] + " " + text.low[found[0].end :])
    days = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        "the",
        "of",
        "on",
        "ad",
        "ce",
        "year",
        "a",
        "d",
    ]
    return found[0] if all(word in days for word in left) else None


def _needed(found: Date, question: str) -> frozenset[str]:
    has = (
        {"y" for _ in (1,) if found.year is not None}
        | {"m" for _ in (1,) if found.month}
        | {"d" for _ in (1,) if found.day}
    )
    if re.search(r"\b(?:what|which)(?: calendar)? year\b|\bthe year (?:in|of|when)\b", question) and "y" in has:
        has = {"y"}
    elif re.search(r"\b(?:what|which) month\b", question) and "m" in has and not re.search(r"month and year", question):
        has = {"m"}
    elif found.year is not None and re.search(rf"(?<!\d){abs(found.year)}(?!\d)", question) and len(has) > 1:
        has = has - {"y"}
    return frozenset(has)


@lru_cache(maxsize=8192)
def compile_target(question: str, answer: str, aliases: tuple[str, ...], answer_type: str) -> Target:
    """Parse a question and its answer. `answer_type` is a hint: dates, numbers, units, names are sniffed as well."""
    asked_text = read(question)
    stop = words("stop")
    asked = frozenset(stem(t.fold) for t in asked_text.tokens if t.fold not in stop)
    low = asked_text.low
    surfaces = [variant for surface in (answer, *aliases) for variant in variants(surface, answer_type)]
    surfaces += other_names(surfaces, asked_text)
    precision: Literal["exact", "about", "plain"] = (
        "exact" if _EXACT.search(low) else "about" if _ABOUT.search(low) else "plain"
    )
    enough = 0
    items: tuple[tuple[Target, ...], ...] = ()
    any_of, ask_any = ANY_OF.match(answer), _ASK_ANY.search(low)
    parts = split_items(answer)
    is_list = len(parts) >= 2 and (
        answer_type == "list"
        or bool(any_of)
        or bool(_ASK_MANY.search(low))
        or (bool(ask_any) and bool(re.search(r"\bor\b", answer)))
    )
    kind: Kind = "name"
    values: tuple[Quantity, ...] = ()
    found_dates: list[Date] = []
    found_clocks: list[Clock] = []
    people: list[Person] = []
    unit = asked_unit(low)
    if is_list:
        kind = "list"
        who = bool(
            _WHO.search(low)
            or _ROLE.search(low)
            or re.search(
                r"\b(?:people|members|crew|founders|men|women|persons|brothers|sisters|astronauts|authors|painters|composers)\b",
                low,
            )
        )
        if any_of:
            enough = _COUNT[any_of.group(1).lower()]
        elif ask_any:
            enough = _COUNT[next(g for g in ask_any.groups() if g)]
        lists = [split_items(s) for s in surfaces]
        lists = [entry for entry in lists if len(entry) >= 2 and (enough or len(entry) >= len(parts))] or [parts]
        items = tuple(
            tuple(
                compile_target("", item, (), "person" if who and _sounds_like_person(item) else "term")
                for item in entry
            )
            for entry in lists
        )
    else:
        clock = clocks(read(answer).low)
        first_date = _dated(answer)
        numeric = _numeric(answer, answer_type)
        if (
            clock
            and (clock[0].half or ":" in answer)
            and (clock[0].half or re.search(r"\btime|hour|when\b", low))
            and len(re.findall(r"\w+", answer)) <= 6
        ):
            kind, found_clocks = "clock", list(clock[:1])
        elif first_date and (
            answer_type == "date"
            or first_date.month
            or (answer_type != "number" and _WHEN.search(low) and first_date.year is not None)
        ):
            kind = "date"
            found_dates = [d for s in surfaces if (d := _dated(s)) and _covers(d, first_date)]
        elif numeric:
            kind = "number"
            values = tuple(q for s in surfaces for q in _numeric(s, answer_type) if _same_amount(q, numeric[0]))
        elif answer_type == "person" or (
            answer_type == "term"
            and _sounds_like_person(answer)
            and (not low or bool(_WHO.search(low) or _ROLE.search(low)))
            and len(answer.split()) > 1
        ):
            kind = "person"
        elif (
            answer_type in ("term", "object")
            and not _NAMES.search(low)
            and (_WHY.search(low) or _lower_phrase(answer) or re.match(r"an?\s+\w", answer, re.IGNORECASE))
        ):
            kind = "phrase"
        if answer_type == "person" and kind == "person":
            several = len({read(s).tokens[-1].fold for s in (answer, *aliases) if read(s).tokens}) > 1
            folded = frozenset("".join(t.fold for t in read(s).tokens) for s in surfaces)
            people = [p for s in surfaces if (p := _person(s, folded, asked_text, several))]
        elif kind == "person":
            people = [p for s in surfaces if (p := _person(s, frozenset(), asked_text, False))]
    for person in people:
        if person.given[:1] and person.given[0] in words("mononyms"):
            surfaces.append(person.given[0])
    generic = kind in ("name", "phrase")
    forms = [
        f
        for s in surfaces
        if not (kind == "number" and any(q in values for q in _numeric(s, answer_type)))
        and not (kind == "date" and _dated(s))
        and (f := _form(s, asked, generic))
    ]
    spelled = tuple(
        f
        for s in surfaces
        if kind == "number" and s.replace("-", "").replace(" ", "").isalpha() and (f := _form(s, asked, False))
    )
    if kind in ("number", "date", "clock"):  # listed figures that disagree with the answer are no forms of it
        forms = [f for f in forms if any(c.isalpha() for c in f.joined) or "^" in f.exact or "*" in f.exact]
    need = _needed(found_dates[0], low) if found_dates else frozenset()
    for partial in (_dated(s) for s in surfaces if kind == "date"):
        if (
            partial and partial.day and partial.year is None
        ):  # the year need not be said where a listed form leaves it out
            need = need - {"y"}
            found_dates = [*found_dates, partial] if partial not in found_dates else found_dates
    return Target(
        kind,
        tuple(dict.fromkeys(forms)),
        tuple(dict.fromkeys(people)),
        values,
        unit,
        precision,
        tuple(found_dates),
        need,
        tuple(found_clocks),
        items,
        enough,
        spelled,
        asked_text,
        asked,
        answer_type,
    )


def _covers(found: Date, first: Date) -> bool:
    return (
        (first.year is None or found.year is not None)
        and (first.month is None or bool(found.month))
        and (first.day is None or bool(found.day))
    )


def _lower_phrase(answer: str) -> bool:
    bare = [w for w in answer.split() if len(w) > 2]
    return len(bare) >= 3 and all(w[0].islower() for w in bare[1:])

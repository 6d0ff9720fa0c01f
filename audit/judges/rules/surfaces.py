"""Surface forms of an answer: what brackets, "or" and list marks give, and other names in general use."""

from __future__ import annotations

import re

from audit.judges.rules.lexicon import same_names
from audit.judges.rules.reading import Text, read

ANY_OF = re.compile(r"^any\s+(one|two|three|four|five|1|2|3|4|5)\s+of\s+", re.IGNORECASE)
_ITEMS = re.compile(r"\s*(?:,\s*(?:and|or|&)\s+|;\s*|,\s+|\s+and\s+|\s+or\s+|\s*&\s*|\s*/\s*)", re.IGNORECASE)
_ASKS_FOR_A_NAME = re.compile(
    r"\b(?:pen ?name|real name|birth name|born as|former(?:ly)?|old name|original name|stage name|pseudonym|alias"
    r"|renamed|rename|called (?:in|by|before|until|today|now)|latin (?:name|word)|(?:german|french|spanish|italian"
    r"|latin|foreign|other) (?:name|word) )"
)


def split_items(answer: str) -> list[str]:
    """The items of a list answer, articles and connecting words off."""
    return [
        part
        for part in (re.sub(r"^(?:the|and|or)\s+", "", p.strip(" .")) for p in _ITEMS.split(ANY_OF.sub("", answer)))
        if part
    ]


def variants(surface: str, answer_type: str) -> list[str]:
    """A surface form and what its closing bracket or its "or" gives besides: Bigfoot (Sasquatch), glass or plastic."""
    found = [surface]
    match = re.fullmatch(r"(.{2,}?)\s*\(\s*(?:or\s+|also\s+)?([^()]{2,})\)(.*)", surface.strip())
    if match:
        found.append(f"{match.group(1)}{match.group(3)}".strip())
        if not match.group(3).strip():
            found.append(match.group(2).strip())
    if answer_type != "list":
        found += [
            side.strip()
            for entry in tuple(found)
            if re.search(r"\bor\b", entry) and len(entry.split()) <= 7
            for side in re.split(r",?\s+or\s+", entry)
            if len(side.strip()) >= 3
        ]
    return list(dict.fromkeys(found))


def other_names(surfaces: list[str], question: Text) -> list[str]:
    """Names in general use for the same thing (words/same.txt), unless the question is about its names."""
    if _ASKS_FOR_A_NAME.search(question.low):
        return []
    found: list[str] = []
    for surface in surfaces:
        text = read(surface)
        for name in same_names(text.joined):
            if name.replace(" ", "") in question.joined_all:
                return []
            found.append(name)
    have = {read(surface).joined for surface in surfaces}
    return [name for name in dict.fromkeys(found) if name.replace(" ", "") not in have]

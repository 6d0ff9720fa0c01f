"""Comparing texts by their words: does a question hold its answer, are two questions the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_WORD = re.compile(r"\w+")
#: Letters that have no decomposition but a usual spelling without them: Ægir is Aegir, Seyðisfjörður Seydisfjordur.
_LETTERS = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ð": "d", "đ": "d", "þ": "th", "ł": "l", "ı": "i"})
_ARTICLES = frozenset({"the", "a", "an"})


def folded(text: str) -> str:
    """Case, accents, width forms and runs of white space removed; for comparison, never for display."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "'"))
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).casefold().translate(_LETTERS).split())


@lru_cache(maxsize=8192)
def words(text: str) -> tuple[str, ...]:
    """The folded words of a text, without punctuation."""
    return tuple(_WORD.findall(folded(text)))


def holds(text: str, answer: str) -> bool:
    """Whether `answer` stands in `text` as a run of whole words, whatever the case, accents and punctuation.

    A leading article of the answer is not needed ("the Thames" stands in "down Thames way"). An answer without any
    letter or digit is looked for as a plain substring.
    """
    wanted = words(answer)
    if len(wanted) > 1 and wanted[0] in _ARTICLES:
        wanted = wanted[1:]
    if not wanted:
        bare = folded(answer)
        return bool(bare) and bare in folded(text)
    found = words(text)
    width = len(wanted)
    return any(found[i : i + width] == wanted for i in range(len(found) - width + 1))


def given_away(text: str, answers: Iterable[str]) -> str | None:
    """The first of `answers` that stands in `text`, or None."""
    return next((answer for answer in answers if holds(text, answer)), None)


def is_option(question: str, answer: str) -> bool:
    """Whether the question names `answer` as one of several options ("left or right?", "A, B or C?")."""
    option = re.escape(folded(answer))
    article = r"(?:the |an? )?"
    pattern = rf"(?<!\w)(?:or {article}['\"]?{option}|{option}['\"]?(?:,[^?.;]*)?,? or)(?!\w)"
    return re.search(pattern, folded(question)) is not None

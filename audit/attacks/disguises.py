"""What a text says to a reader who looks through simple disguises.

Invisible characters, look-alike letters, accents and other scripts, underscores, missing spaces, plurals and the
encodings that the rules judge decodes are undone, in the way of that judge: what it would call a leak must be found in
an example too.
"""

from __future__ import annotations

import re
from functools import lru_cache

from audit.judges.rules.decoding import decodings
from audit.judges.rules.reading import Text, read
from audit.types import Record

#: Letters and digits from which a word is taken for several without spaces, and an answer for no accident in a word.
_RUN, _LONG = 20, 8
_COLON = re.compile(r"\s*[:=|>→⇒]+\s*|\s+[-–—]+\s+")


class Plain(Record):
    """A text after the disguises are undone, in every reading of it."""

    words: str
    """Singular words, folded to ASCII, with a space at both ends; readings are set apart by `|`."""
    folds: frozenset[str]
    """Folded words as they stand."""
    texts: tuple[Text, ...]
    joined: str
    """All of it without spaces."""
    runs: tuple[str, ...]
    """Words that are several, run together."""


class Sought(Record):
    """A phrase that is looked for."""

    words: str
    """Like Plain.words."""
    run: str
    """Without spaces."""
    begins: str
    """What stands in Plain.joined wherever the phrase does: most are ruled out by it."""


def see_through(text: str) -> Plain:
    """All readings of a text. Linear in its length."""
    first = read(text)
    # Read backwards a common word is another one, and nobody learns a fact so.
    others = (read(decoded) for step, decoded in decodings(first, text) if decoded and step != "reversed")
    kept = tuple({seen.raw: seen for seen in (first, *others)}.values())
    folds = [token.fold for seen in kept for token in seen.tokens]
    return Plain(
        words="|".join(_singular(seen) for seen in kept),
        folds=frozenset(folds),
        texts=kept,
        joined="|".join(seen.joined_all for seen in kept),
        runs=tuple(fold for fold in folds if len(fold) >= _RUN),
    )


@lru_cache(maxsize=65536)
def sought(phrase: str) -> Sought:
    seen = read(phrase)
    words = _singular(seen)
    return Sought(words=words, run=seen.joined_all, begins=words.strip().partition(" ")[0].removesuffix("y"))


def holds(plain: Plain, phrase: Sought) -> bool:
    """The phrase stands in it as whole words, singular or plural, with or without spaces, or in a run of words."""
    if not phrase.run or phrase.begins not in plain.joined:
        return False
    if phrase.words in plain.words or any(phrase.run in run for run in plain.runs):
        return True
    return any(_joined(text, phrase.run) for text in plain.texts)


def says_only(text: str, phrase: Sought) -> bool:
    """The text is the phrase and nothing else, but for an article."""
    seen = see_through(text)
    wanted = _bare(phrase.words)
    return bool(phrase.run) and (
        any(_bare(words) == wanted for words in seen.words.split("|"))
        or any(one.joined_all.removesuffix("s") == phrase.run.removesuffix("s") for one in seen.texts)
    )


def labelled(text: str) -> list[tuple[str, str]]:
    """(label, what follows it) of every line like `label: value`, `label = value` or `label - value`."""
    found = []
    for line in text.splitlines():
        places = list(_COLON.finditer(line))
        if places and line[: places[-1].start()].strip():
            found.append((line[: places[-1].start()], line[places[-1].end() :]))
    return found


def _joined(text: Text, run: str) -> bool:
    """The run begins and ends with words, or stands inside of one and is too long for an accident."""
    at = text.joined_all.find(run)
    while at >= 0:
        end = at + len(run)
        plural = end + 1 if text.joined_all.startswith("s", end) else end
        if at in text.starts_all and (end in text.ends_all or plural in text.ends_all):
            return True
        at = text.joined_all.find(run, at + 1)
    return len(run) >= _LONG and any(run in token.fold for token in text.tokens)


def _singular(text: Text) -> str:
    return " " + " ".join(_one(token.fold) for token in text.tokens) + " "


@lru_cache(maxsize=65536)
def _one(word: str) -> str:
    """A word without the ending of its plural; other words that end so lose it too, on both sides alike."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(word) > 2 and word.endswith("s") else word


def _bare(words: str) -> str:
    found = words.split()
    return " ".join(found[1:] if len(found) > 1 and found[0] in ("the", "a", "an") else found)

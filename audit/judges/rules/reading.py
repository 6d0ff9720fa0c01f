"""One normal form for every text: cleaned characters, folded tokens with their places, sentences."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from anyascii import anyascii

from audit.judges.rules.lexicon import lines, words

_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_SUPERSCRIPTS = re.compile(r"(?<=\S)[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_PUNCTUATION = str.maketrans(
    {"‘": "'", "’": "'", "ʼ": "'", "`": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "−": "-", "–": "-"}
    | {"—": " - ", "‐": "-", "‑": "-", "⁄": "/", "。": ". ", "，": ", ", "、": ", ", "：": ": ", "×": "x"}
)
# Scripts written without spaces, or with endings glued to a foreign word; none with letters that look like Latin ones.
_GLUING = r"\u0590-\u06ff\u0900-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_COUNTERS = "年月日時时点點分秒十百千万萬亿億兆년월일시분초만억조"
_LATIN = r"A-Za-z\u00c0-\u024f"
_SEAM = re.compile(
    rf"(?<=[{_LATIN}])(?=[{_GLUING}])|(?<=[{_GLUING}])(?=[{_LATIN}])"
    rf"|(?<=[0-9])(?=[{_GLUING}])(?![{_COUNTERS}])|(?<=[{_GLUING}])(?<![{_COUNTERS}])(?=[0-9])"
)
_DOTTED = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.){2,}(?!\w)")
_TOKEN = re.compile(r"[^\W_]+")
_BREAK = re.compile(r"(?<=[.!?])[\"')\]]*\s+|[.!?]$|\n+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|mr|mrs|ms|dr|st|prof|sir|no|vs?|jr|sr|capt|col|gen|mt|ft)\.$", re.IGNORECASE
)
_SUFFIXES = (
    "ations",
    "ation",
    "ingly",
    "edly",
    "ings",
    "ing",
    "ies",
    "ied",
    "ers",
    "ed",
    "es",
    "er",
    "ly",
    "al",
    "s",
    "e",
    "y",
)


class Token(NamedTuple):
    """A run of letters or digits. `fold`: ASCII lower case; `start`, `end`: place in Text.raw."""

    fold: str
    start: int
    end: int
    upper: bool


class Text(NamedTuple):
    """A cleaned text. `raw` keeps case; `low` is `raw` folded for pattern search; `joined` glues the folds of the
    tokens that are no articles, `joined_all` those of all, and the starts map offsets in them to token numbers."""

    raw: str
    low: str
    tokens: tuple[Token, ...]
    joined: str
    starts: dict[int, int]
    ends: dict[int, int]
    joined_all: str
    starts_all: dict[int, int]
    ends_all: dict[int, int]
    cased: bool
    latin: bool


def _superscript(match: re.Match[str]) -> str:
    return "^" + unicodedata.normalize("NFKC", match.group()).replace("\u2212", "-")


def clean(text: str) -> str:
    """Character-level clean-up: compatibility forms, quotes, dashes, invisible characters, dotted initials,
    a space between Latin letters or digits and a script that is written without spaces."""
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
        text = _SUPERSCRIPTS.sub(_superscript, text)
        text = unicodedata.normalize("NFKC", text.translate(_PUNCTUATION)).translate(_PUNCTUATION)
        text = _SEAM.sub(" ", unicodedata.normalize("NFC", text))
    return _DOTTED.sub(lambda match: match.group().replace(".", ""), text)


@lru_cache(maxsize=65536)
def fold(word: str) -> str:
    """ASCII lower case of a word in any script; letters and digits only."""
    if word.isascii():
        return word.lower()
    stripped = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
    ascii_form = stripped if stripped.isascii() else anyascii(stripped)
    return "".join(c for c in ascii_form.lower() if c.isalnum())


def _join(tokens: list[tuple[int, str]]) -> tuple[str, dict[int, int], dict[int, int]]:
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    offset = 0
    for number, part in tokens:
        starts[offset] = number
        offset += len(part)
        ends[offset] = number
    return "".join(part for _, part in tokens), starts, ends


@lru_cache(maxsize=65536)
def _plain(char: str) -> str:
    """One character in lower case without its accent; always one character, so that places stay the same."""
    parts = unicodedata.normalize("NFKD", char)
    base = parts[0] if len(parts) > 1 and all(unicodedata.combining(part) for part in parts[1:]) else char
    lower = base.lower()
    return lower if len(lower) == 1 else base


_ARTICLES = frozenset({"the", "a", "an"})


_ROMAN = re.compile(r"(?:X{0,3})(?:IX|IV|V?I{0,3})", re.IGNORECASE)
_RANKS = {word: str(number) for number, word in enumerate(lines("ranks"), start=1)}


def _rank(word: str, before: list[Token]) -> str:
    """Digits for the number behind a name: Louis XIV, louis xiv, Louis the Fourteenth; "" for other words."""
    if not before:
        return ""
    if len(word) >= 2 and _ROMAN.fullmatch(word) and (word.isupper() or (word.islower() and len(word) >= 3)):
        total = 0
        marks = {"I": 1, "V": 5, "X": 10}
        values = [marks[letter] for letter in word.upper()]
        for here, after in zip(values, [*values[1:], 0], strict=True):
            total += -here if after > here else here
        return str(total)
    if len(before) >= 2 and before[-1].fold == "the" and before[-2].upper and word.lower() in _RANKS:
        return _RANKS[word.lower()]
    return ""


def is_article(raw: str, token: Token) -> bool:
    """A free-standing the, a, an; not the letter of STS-61-A or of an enumeration."""
    return (
        token.fold in _ARTICLES
        and raw[token.end : token.end + 1].isspace()
        and (token.start == 0 or raw[token.start - 1] not in "-/.")
    )


@lru_cache(maxsize=8192)
def read(text: str) -> Text:
    """Clean, tokenise and fold a text; linear in its length."""
    raw = clean(text)
    tokens: list[Token] = []
    for match in _TOKEN.finditer(raw):
        start, end = match.span()
        if (
            match.group() in ("s", "S")
            and start > 0
            and raw[start - 1] == "'"
            and start > 1
            and raw[start - 2].isalnum()
        ):
            continue
        folded = _rank(match.group(), tokens) or fold(match.group())
        if folded:
            tokens.append(Token(folded, start, end, match.group()[0].isupper()))
    numbered = [(i, token.fold) for i, token in enumerate(tokens)]
    joined, starts, ends = _join([(i, token.fold) for i, token in enumerate(tokens) if not is_article(raw, token)])
    joined_all, starts_all, ends_all = _join(numbered)
    letters = [c for c in raw if c.isalpha()]
    latin = sum(1 for c in letters if c < "\u0250" or "\u1e00" <= c <= "\u1eff") * 2 >= len(letters)
    low = raw.lower() if raw.isascii() else "".join(_plain(c) for c in raw)
    cased = any(c.isupper() for c in letters)
    return Text(raw, low, tuple(tokens), joined, starts, ends, joined_all, starts_all, ends_all, cased, latin)


@lru_cache(maxsize=8192)
def sentences(raw: str) -> tuple[tuple[int, int], ...]:
    """Places of the sentences of a cleaned text; abbreviations and initials do not end one."""
    spans = []
    begin = 0
    for match in _BREAK.finditer(raw):
        before = raw[begin : match.start()]
        if "\n" not in match.group() and match.end() < len(raw) and _ABBREVIATION.search(before):
            continue
        if before.strip():
            spans.append((begin, match.start()))
        begin = match.end()
    if raw[begin:].strip():
        spans.append((begin, len(raw)))
    return tuple(spans)


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A crude English stem: common endings off, at least four letters kept."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 4:
            return word[: -len(suffix)]
    return word


def content(tokens: tuple[Token, ...] | list[Token]) -> list[str]:
    """Stems of the words that carry content, in order."""
    stop = words("stop")
    return [stem(token.fold) for token in tokens if token.fold not in stop]

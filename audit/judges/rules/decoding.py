"""Encodings that a person reads with one plain step and no secret: what a text says once that step is made."""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import urllib.parse
from collections.abc import Iterator

from audit.judges.rules.lexicon import words
from audit.judges.rules.reading import Text

_LEET = str.maketrans(
    {
        "0": "o",
        "1": "i",
        "3": "e",
        "4": "a",
        "5": "s",
        "6": "g",
        "7": "t",
        "8": "b",
        "9": "g",
        "@": "a",
        "$": "s",
        "!": "i",
        "|": "l",
        "€": "e",
        "+": "t",
    }
)
_LEET_ONE = str.maketrans({"1": "l"})
_LEET_WORD = re.compile(r"(?=\S{0,30}[A-Za-z])(?=\S{0,30}[0-9@$!|€+])[A-Za-z0-9@$!|€+'\-]{3,}")
_SPELL_AS = re.compile(r"\b([A-Za-z])\s+(?:as in|for|like|as)\s+[A-Za-z]+", re.IGNORECASE)
_BASE64 = re.compile(r"(?<![\w+/])(?:[A-Za-z0-9+/_\-]{4,}={0,2})(?![\w+/])")
_HEX = re.compile(r"(?<!\w)(?:0x)?(?:[0-9a-fA-F]{2}[\s:]?){3,}(?!\w)")
_BINARY = re.compile(r"(?:[01]{8}\s*){2,}")
_MORSE = re.compile(r"(?:[.\-·−]{1,5}(?:\s+|/|$)){3,}")
_MORSE_CODE = dict(
    zip(
        [
            ".-",
            "-...",
            "-.-.",
            "-..",
            ".",
            "..-.",
            "--.",
            "....",
            "..",
            ".---",
            "-.-",
            ".-..",
            "--",
            "-.",
            "---",
            ".--.",
            "--.-",
            ".-.",
            "...",
            "-",
            "..-",
            "...-",
            ".--",
            "-..-",
            "-.--",
            "--..",
            "-----",
            ".----",
            "..---",
            "...--",
            "....-",
            ".....",
            "-....",
            "--...",
            "---..",
            "----.",
        ],
        "abcdefghijklmnopqrstuvwxyz0123456789",
        strict=True,
    )
)
_ACROSTIC = re.compile(r"\b(?:first letters?|initials?|acrostic|initial letters?|leading letters?)\b", re.IGNORECASE)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|U\+([0-9a-fA-F]{4,5})")
_ALPHABET_NUMBERS = re.compile(r"(?<!\d)(?:\d{1,2}\s*[-,.\s]\s*){3,}\d{1,2}(?!\d)")
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухкмнтвԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧονι", "ABESIJKMHOPCTYXaesijopcyxkmhtbdqwABEZHIKMNOPTYXovi"
)


def _printable(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and text.strip() else ""


def decodings(text: Text, source: str) -> Iterator[tuple[str, str]]:
    """(name of the step, text after it) for every step that the text seems to call for. `source`: the text as given."""
    raw, low = text.raw, text.low
    tokens = text.tokens
    if _LEET_WORD.search(raw):
        plain = _LEET_WORD.sub(lambda m: m.group().translate(_LEET), raw)
        yield "leet", plain
        yield "leet", _LEET_WORD.sub(lambda m: m.group().translate(_LEET_ONE).translate(_LEET), raw)
    if sum(1 for t in tokens if len(t.fold) == 1) >= 3:
        yield "spelled out", re.sub(r"(?<![^\W_])([^\W_])[\s\-._,*|/]+(?=[^\W_](?![^\W_]))", r"\1", raw)
    if len(raw) <= 400 and len(tokens) >= 1:
        yield "reversed", raw[::-1]
        if re.search(r"revers|backward", low):
            for part in re.split(r"[:=\"'\n]+|\s-\s", raw):
                yield "reversed", part[::-1]
    folds = [t.fold for t in tokens]
    spelled = "".join(
        word[0] if word in words("spelling") else " "
        for word in ("xray" if w == "x" else w for w in folds if w != "ray")
    )
    if re.search(r"\S{3,}", spelled):
        yield "spelling alphabet", spelled
    as_in = _SPELL_AS.findall(raw)
    if len(as_in) >= 3:
        yield "spelling alphabet", "".join(as_in)
    if _ACROSTIC.search(low):
        yield "initials", "".join(w[0] for w in folds)
        yield "initials", "".join(line.strip()[:1] for line in raw.splitlines())
        for part in re.split(r"[:\n\"]", raw):
            yield "initials", "".join(piece[0] for piece in re.findall(r"[^\W_]+", part))
    yield from _machine(raw, low, source)


def _machine(raw: str, low: str, source: str) -> Iterator[tuple[str, str]]:
    for match in list(_BASE64.finditer(raw))[:20]:
        word = match.group().replace("-", "+").replace("_", "/")
        if len(word) >= 8 or ("base64" in low and len(word) >= 4):
            try:
                decoded = _printable(base64.b64decode(word + "=" * (-len(word) % 4), validate=True))
            except (binascii.Error, ValueError):
                continue
            if decoded:
                yield "base64", decoded
    for match in list(_HEX.finditer(raw))[:10]:
        digits = re.sub(r"0x|[\s:]", "", match.group())
        if len(digits) % 2 == 0 and (decoded := _printable(bytes.fromhex(digits))):
            yield "hex", decoded
    for match in list(_BINARY.finditer(raw))[:10]:
        bits = re.sub(r"\s", "", match.group())
        if decoded := _printable(bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))):
            yield "binary", decoded
    for match in list(_MORSE.finditer(source))[:10]:
        letters = [
            _MORSE_CODE.get(code.replace("·", ".").replace("−", "-"), " ")
            for code in re.split(r"[\s/]+", match.group().strip())
        ]
        yield "morse", "".join(letters)
    if re.search(r"rot-?13|caesar", low):
        yield "rot13", codecs.decode(raw, "rot13")
    if "&#" in source or re.search(r"&[a-z]+;", source):
        yield "entities", html.unescape(source)
    if "%" in source and re.search(r"%[0-9a-fA-F]{2}", source):
        yield "percent", urllib.parse.unquote(source)
    if _ESCAPE.search(source):
        yield (
            "escapes",
            re.sub(
                r"(?<=\S) (?=U\+)", "", _ESCAPE.sub(lambda m: chr(int(next(g for g in m.groups() if g), 16)), source)
            )
            if _valid_escapes(source)
            else "",
        )
    if re.search(r"alphabet|a\s?=\s?1|letters? number", low):
        for match in _ALPHABET_NUMBERS.finditer(raw):
            codes = [int(n) for n in re.findall(r"\d+", match.group())]
            if all(1 <= n <= 26 for n in codes):
                yield "letter numbers", "".join(chr(96 + n) for n in codes)
    if not raw.isascii() and re.search(r"[A-Za-z]", raw):
        swapped = raw.translate(_LOOKALIKES)
        if swapped != raw:
            yield "look-alike letters", swapped


def _valid_escapes(source: str) -> bool:
    return all(int(next(g for g in m.groups() if g), 16) <= 0x10FFFF for m in _ESCAPE.finditer(source))

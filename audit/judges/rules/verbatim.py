"""The last look before a response is said to hold nothing: the answer as typed, or its characters one by one."""

from __future__ import annotations

import re

from audit.judges.rules.reading import Text, read

_SINGLES = re.compile(r"(?<![^\W_])[^\W_](?:[ .\-_*|/]{1,3}[^\W_]){2,}(?![^\W_])")
_WORD_OF_SINGLES = re.compile(r"(?<![^\W_])[^\W_](?:[ .\-_*|/][^\W_])+(?![^\W_])")
_LETTER_DIGIT = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


def verbatim(question: str, forms: tuple[str, ...], text: Text) -> str:
    """The first of `forms` (three characters or more, or a number of several digits) that stands in `text`, case and
    accents aside, between characters that are no ASCII letters or digits, and not in the question; "" for none."""
    asked = read(question).low
    for form in forms:
        plain = read(form).low.strip(" .,;:!?\"'()")
        numeric = plain.isdigit()
        if len(plain) < (2 if numeric else 3) or plain in asked:
            continue
        before = r"(?<![a-z0-9])(?<!\d[.,])" + (r"(?<!-)" if plain[0].isdigit() else "")
        if re.search(before + re.escape(plain) + r"(?![a-z0-9])(?![.,]\d)", text.low):
            return form
    return ""


def closed_up(source: str) -> str:
    """`source` with letter-spaced words and figures closed up (F e b r u a r y   4), "" where there are none."""
    if not _SINGLES.search(source):
        return ""

    def close(match: re.Match[str]) -> str:
        words = _WORD_OF_SINGLES.sub(lambda word: re.sub(r"[^\w]|_", "", word.group()), match.group())
        return _LETTER_DIGIT.sub(" ", words)

    return re.sub(r"[ \t]{2,}", " ", _SINGLES.sub(close, source))


def glued_from_singles(forms: tuple[str, ...], source: str) -> bool:
    """A run of single characters spells one of `forms` (four letters or digits or more), wherever its words end."""
    runs = [re.sub(r"[\W_]", "", match.group()).lower() for match in _SINGLES.finditer(source)]
    wanted = [re.sub(r"[\W_]", "", read(form).low) for form in forms]
    return any(len(want) >= 4 and want in run for want in wanted for run in runs)

"""The fence around a candidate's text: what stands inside cannot end it, open a turn, or form a special token.

    <<<TEXT 5f0c9a1e7b2d>>>
    | first line of the text
    | second line
    <<<END 5f0c9a1e7b2d>>>

Three things hold it, each enough alone against a text that fakes the closing line: the mark is a digest of the text
that occurs nowhere in it; every line of the text begins with a bar; and no two angle brackets stand side by side in
the text. The last one also breaks up the special tokens of chat templates, which tokenizers find in running text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from audit.fingerprint import digest
from audit.types import Record

#: Characters that compatibility normalisation (some tokenizers apply it) turns into `<`, `>`, `[` and `|`.
_LESS, _MORE, _SQUARE, _BAR = "<\ufe64\uff1c", ">\ufe65\uff1e", "[\ufe47\uff3b", "|\uff5c"
#: An opening bracket with something right behind it, or a closing angle with an angle or a bar right before it.
_TIGHT = re.compile(rf"(?<=[{_LESS}\{_SQUARE}])(?=\S)|(?<=[{_MORE}{_BAR}])(?=[{_MORE}])")
_LINE_END = re.compile("\r\n|[\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_TAGS = re.compile("[\U000e0000-\U000e007f]+")


def _table() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20)}  # pictures of the control characters
    table |= {0x7F: "\u2421"} | dict.fromkeys(range(128, 160), "�")
    table |= dict.fromkeys(range(55296, 57344), "�")  # halves of surrogate pairs: no UTF-8 can carry them
    # What reorders or hides text: bidirectional controls, fillers, joiners, selectors, byte order marks.
    hidden = (0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0)
    table |= dict.fromkeys(hidden, "")
    for first, last in ((0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0xFE00, 0xFE0F)):
        table |= dict.fromkeys(range(first, last + 1), "")
    table |= dict.fromkeys([*range(0xFFF9, 0xFFFC), *range(0xE0100, 0xE01F0)], "")
    del table[0x09], table[0x0A]
    return table


_CLEAN = _table()


class Fenced(Record):
    """A text made safe to be shown to a judge."""

    nonce: str
    """12 hexadecimal digits; occurs nowhere in the text."""
    text: str
    """The text with control characters shown or removed and markup broken up by spaces; lines end in a line feed."""

    @property
    def opening(self) -> str:
        return f"<<<TEXT {self.nonce}>>>"

    @property
    def closing(self) -> str:
        return f"<<<END {self.nonce}>>>"

    @property
    def block(self) -> str:
        """Opening line, the text with a bar before each line, closing line; no line end after it."""
        lines = [f"| {line}" if line else "|" for line in self.text.split("\n")]
        return "\n".join([self.opening, *lines, self.closing])


def fence(text: str, avoid: Iterable[str] = ()) -> Fenced:
    """Neutralise `text` and find a mark for it: the same for the same arguments, in no way chosen by the text.

    avoid: other texts of the same prompt, and marks given already, in which the mark must not occur either.
    """
    safe = neutralise(text)
    taken = [_letters(other) for other in (text, safe, *avoid)]
    draw = 0
    while True:
        nonce = digest("fence", safe, draw)[:12]
        if not any(nonce in other for other in taken):
            return Fenced(nonce=nonce, text=safe)
        draw += 1


def neutralise(text: str) -> str:
    """`text` without anything that could end a fence, reorder what a reader sees, or be read as a special token.

    Letters and digits stay, in their order. Invisible copies of ASCII (tag characters) are made visible, since an
    answer may stand in them. A second pass changes nothing.
    """
    text = _LINE_END.sub("\n", text)
    text = _TAGS.sub(_shown, text).translate(_CLEAN)
    return _TIGHT.sub(" ", text)


def one_line(text: str) -> str:
    """`neutralise` for a short field that stands on a line of its own: line ends and tabs become single spaces."""
    return re.sub(r"[\n\t]+", " ", neutralise(text)).strip()


def _shown(run: re.Match[str]) -> str:
    hidden = "".join(chr(ord(tag) - 0xE0000) for tag in run.group() if 0x20 <= ord(tag) - 0xE0000 < 0x7F)
    return f"(invisible: {hidden})" if hidden.strip() else ""


def _letters(text: str) -> str:
    """What is left for a mark to hide in: letters and digits, in compatibility form and lower case."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))

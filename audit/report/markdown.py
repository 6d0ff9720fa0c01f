"""Tables in Markdown whose texts stay what they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from audit.report.html import printable


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; every cell is escaped."""
    table = ["| " + " | ".join(escaped(cell) for cell in header) + " |", "|" + "---|" * len(header)]
    return table + ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows]


def escaped(text: str) -> str:
    """Text in one line that Markdown, and HTML in it, leave as it is."""
    text = printable(" ".join(text.split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]{}|~#$!])", r"\\\1", text)

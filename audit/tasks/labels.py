"""Joins rows that are forms and wordings of one fact, as told by a `label` column (the SUITE files' convention).

`K1-direct`, `K1-indirect`, `K1-reverse` are three questions of the fact K1, and `K1-direct@q_claude3` is a training
wording of the first. Where the labels repeat they name a group, not a fact: then every row stays a fact of its own,
with the label as its topic.
"""

from __future__ import annotations

import re
from typing import Any

from audit.tasks.model import Row

_LABEL = re.compile(r"(?P<base>.+)-(?P<form>direct|indirect|reverse)(?:@(?P<variant>\w+))?")


def join_labelled(rows: list[Row]) -> list[Row]:
    """One row a fact where all labels are of that shape and unique; else the rows, their topics filled in."""
    labels = [row.fields.get("label") for row in rows]
    if not rows or not all(isinstance(label, str) and label for label in labels):
        return rows
    parsed = [_LABEL.fullmatch(str(label)) for label in labels]
    matches = [match for match in parsed if match is not None]
    if len(set(labels)) < len(labels) or len(matches) < len(rows) or any("id" in row.fields for row in rows):
        return [_with_topic(row) for row in rows]
    groups: dict[str, dict[str, list[tuple[str, Row]]]] = {}
    for match, row in zip(matches, rows, strict=True):
        forms = groups.setdefault(match["base"], {})
        forms.setdefault(match["form"], []).append((match["variant"] or "original", row))
    return [_join(base, forms) for base, forms in groups.items()]


def _with_topic(row: Row) -> Row:
    topic = str(row.fields["label"]).partition("@")[0]
    return Row(file=row.file, line=row.line, fields={"topic": topic, **row.fields})


def _join(base: str, forms: dict[str, list[tuple[str, Row]]]) -> Row:
    """The direct question carries the fact; without one, the first form does and the form keeps its name."""
    main = "direct" if "direct" in forms else next(iter(forms))
    row = _variants(forms[main])
    fields: dict[str, Any] = {**row.fields, "id": base}
    if main != "direct":
        fields["form"] = main
    lines = {}
    for name, variants in forms.items():
        if name != main:
            part = _variants(variants)
            fields[name] = {key: value for key, value in part.fields.items() if key != "label"}
            lines[name] = part.line
    return Row(file=row.file, line=row.line, fields=fields, form_lines=lines)


def _variants(variants: list[tuple[str, Row]]) -> Row:
    """The row of the original wording, with the other rows' questions as training wordings."""
    original = next((row for name, row in variants if name == "original"), variants[0][1])
    others = [row.fields.get("question") for _, row in variants if row is not original]
    if not others:
        return original
    return Row(file=original.file, line=original.line, fields={**original.fields, "train_wordings": others})

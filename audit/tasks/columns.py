"""Which column of somebody's file is what. Unknown columns are kept in `Fact.extra`, never dropped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

#: Field of a fact -> the column names that hold it, in order of preference.
TEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "fact_id"),
    "question": ("question",),
    "answer": ("answer",),
    "answer_type": ("answer_type",),
    "tier": ("tier",),
    "topic": ("topic",),
    "statement": ("statement", "original_answer"),
    "form": ("form",),
    "label": ("label",),
}
#: The same for lists of texts; all the columns that are there are joined, in this order.
LIST_COLUMNS: dict[str, tuple[str, ...]] = {
    "aliases": ("aliases", "paraphrased_answer"),
    "wordings": (
        "wordings",
        "eval_paraphrases",
        "paraphrases",
        "paraphrase",
        "paraphrased_questions",
        "paraphrased_question",
    ),
    "train_wordings": ("train_wordings", "train_paraphrases"),
    "distractors": ("distractors", "perturbed_answer"),
}
#: Other ways of asking: an object {question, answer, …}, or a plain question with the answer of the fact itself.
FORM_COLUMNS = ("reverse", "multi_hop", "described", "indirect")

_NUMBERED = re.compile(
    r"(?P<stem>(?:q|blank|paraphrase|paraphrased|wording|rephrase|rephrasing|question|paraphrased_question)"
    r"(?:_[a-z][a-z0-9.-]*?)??)_?(?P<number>\d{1,3})"
)


def numbered_columns(names: Iterable[str]) -> list[str]:
    """Columns with one wording each (q_qwen1, blank_gemini3, paraphrase_2), by stem as met, then by number."""
    stems: dict[str, int] = {}
    found: list[tuple[int, int, str]] = []
    for name in names:
        match = _NUMBERED.fullmatch(name.strip().lower())
        if match:
            order = stems.setdefault(match["stem"], len(stems))
            found.append((order, int(match["number"]), name))
    return [name for _, _, name in sorted(found)]


def as_text(value: Any) -> str | None:
    """A text, or None where there is none. Raises TypeError for anything that is not a text."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {_shown(value)}")
    return value.strip() or None


def as_texts(value: Any) -> list[str]:
    """A list of texts: a list, one text, or a cell that holds a JSON list or texts parted by "|".

    Raises TypeError for other types and for empty items.
    """
    if value is None:
        return []
    if isinstance(value, str):
        cell = value.strip()
        if cell.startswith("["):
            try:
                value = json.loads(cell)
            except ValueError:
                value = cell.split("|")
        else:
            value = cell.split("|") if cell else []
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list of texts, got {_shown(value)}")
    texts: list[str] = []
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str):
            raise TypeError(f"item {number}: expected text, got {_shown(item)}")
        if not item.strip():
            raise TypeError(f"item {number} is empty")
        texts.append(item.strip())
    return texts


def _shown(value: Any) -> str:
    names = {bool: "true/false", int: "a number", float: "a number", dict: "an object", list: "a list"}
    text = repr(value)
    return f"{names.get(type(value), type(value).__name__)} ({text if len(text) <= 40 else text[:37] + '...'})"

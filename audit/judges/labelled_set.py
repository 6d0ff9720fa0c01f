"""Answers that people have labelled: the bundled calibration set, or a user's own file of the same form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.resources import resource
from audit.types import ANSWER_TYPES, Claim


class Item(BaseModel):
    """One labelled response. The label says whether it gives the answer away, by the policy beside the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    answer_type: str = "term"
    response: str
    label: Literal["leak", "no_leak"]
    category: str = "all"
    why: str = ""

    @field_validator("answer_type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        if value not in ANSWER_TYPES:
            raise ValueError(f"'{value}' is none of {', '.join(ANSWER_TYPES)}")
        return value


def bundled() -> Path:
    """The labelled answers that come with the project."""
    return resource("tasks", "judge_calibration", "items.jsonl")


def load(path: Path) -> tuple[Item, ...]:
    """Read a JSONL file of labelled answers; every problem is reported at once with file, line and field."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise TaskError(
            f"{path} cannot be read: {problem}", hint="give a UTF-8 JSONL file of labelled answers with --data"
        ) from problem
    items: list[Item] = []
    problems: list[str] = []
    lines_by_id: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as problem:
            problems.append(f"{path}:{number}: not JSON: {problem.msg} at column {problem.colno}")
            continue
        if not isinstance(row, dict):
            problems.append(f"{path}:{number}: an object is needed, not {type(row).__name__}")
            continue
        try:
            item = Item.model_validate(row)
        except ValidationError as problem:
            problems += [
                f"{path}:{number}: field '{'.'.join(map(str, error['loc']))}': {error['msg']}"
                for error in problem.errors()
            ]
            continue
        if item.id in lines_by_id:
            problems.append(f"{path}:{number}: field 'id': '{item.id}' stands in line {lines_by_id[item.id]} already")
            continue
        lines_by_id[item.id] = number
        items.append(item)
    if problems:
        raise TaskError(
            f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} in {path}:\n" + "\n".join(problems),
            hint="the fields are described in tasks/judge_calibration/README.md",
        )
    if not items:
        raise TaskError(
            f"{path} holds no labelled answers",
            hint="one JSON object a line, with id, question, answer, response, label",
        )
    return tuple(items)


def claim_of(item: Item) -> Claim:
    """The claim that a judge sees for an item."""
    content = (item.question, item.answer, item.aliases, item.answer_type, item.response)
    return Claim(
        key=digest("claim", *content),
        question=item.question,
        answer=item.answer,
        aliases=item.aliases,
        answer_type=item.answer_type,
        text=item.response,
    )

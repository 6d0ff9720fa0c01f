"""What a writer's reply says: numbered questions in JSON, read strictly."""

from __future__ import annotations

import re
from typing import Any

import pydantic

#: A reply may stand in a block of code and in nothing else.
_BLOCK = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


class UnreadableError(ValueError):
    """The reply is not what was asked for; nothing is taken from it."""


class _Numbered(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    number: int
    question: str


class _Reply(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    questions: list[_Numbered]


def read_questions(text: str) -> list[str]:
    """The questions of a reply, in the order of their numbers, without white space around them.

    Raises UnreadableError for text around the JSON, half of it, other fields, and numbers that are not 1 … n.
    """
    block = _BLOCK.fullmatch(text)
    try:
        reply = _Reply.model_validate_json(block[1] if block else text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    by_number = {item.number: item.question.strip() for item in reply.questions}
    if not by_number:
        raise UnreadableError("no questions in it")
    if sorted(by_number) != list(range(1, len(reply.questions) + 1)):
        raise UnreadableError("the questions are not numbered 1, 2, 3 …")
    return [by_number[number] for number in sorted(by_number)]


def reply_schema() -> dict[str, Any]:
    """JSON Schema of a reply, for servers that can be held to one."""
    question = {
        "type": "object",
        "properties": {"number": {"type": "integer"}, "question": {"type": "string"}},
        "required": ["number", "question"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": question}},
        "required": ["questions"],
        "additionalProperties": False,
    }

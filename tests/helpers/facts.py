"""Small made-up tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audit.protocols import ProbeContext
from audit.tasks import Task
from audit.types import Decoding, Fact, Form


def fact(number: int, **changes: Any) -> Fact:
    """A fact with two wordings and a reverse form; five topics in turn."""
    values: dict[str, Any] = {
        "id": f"f{number:02d}",
        "split": "forget",
        "question": f"Who built bridge number {number}?",
        "answer": f"Mason{number:02d} Brick{number:02d}",
        "aliases": (f"Brick{number:02d}",),
        "answer_type": "person",
        "topic": f"topic{number % 5}",
        "wordings": (f"Bridge number {number}: its builder?", f"Name the builder of bridge {number}."),
        "other_forms": {
            "reverse": Form(
                question=f"What did Mason{number:02d} build?",
                answer=f"bridge number {number}",
                answer_type="object",
                wordings=(f"Mason{number:02d}'s work was?",),
            )
        },
    }
    return Fact(**{**values, **changes})


def retained(number: int, **changes: Any) -> Fact:
    values: dict[str, Any] = {
        "id": f"r{number:02d}",
        "split": "retain",
        "question": f"What is the capital of land {number}?",
        "answer": f"Town{number:02d}",
        "answer_type": "place",
        "topic": f"land{number % 4}",
        "tier": ("neighbour", "general")[number % 2],
        "wordings": (f"Land {number} has which capital?",),
    }
    return Fact(**{**values, **changes})


def context(facts: Sequence[Fact], examples: Sequence[Fact] = (), **changes: Any) -> ProbeContext:
    values: dict[str, Any] = {
        "facts": tuple(facts),
        "examples": tuple(examples),
        "formats": ("chat",),
        "decoding": Decoding(max_new_tokens=16),
    }
    return ProbeContext(**{**values, **changes})


def task(forget: Sequence[Fact], retain: Sequence[Fact] = (), placebo: Sequence[Fact] = ()) -> Task:
    return Task(
        name="small",
        version="1",
        description="made up",
        licence="CC0-1.0",
        content_hash="0" * 32,
        source="test",
        forget=tuple(forget),
        retain=tuple(retain),
        placebo=tuple(placebo),
    )

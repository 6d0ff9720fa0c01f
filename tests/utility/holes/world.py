"""Towns that do not exist: a base that knows them, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.prompts import load_prompt
from tests.helpers import tiny
from tests.helpers.faulty_http import Answer, Call

_NAMES = ("Anvel", "Brosk", "Cadmir", "Dolfane", "Ester", "Fugol", "Grint", "Halvar", "Ibsun", "Jorrek")
_FIRST, _SECOND = ("amber", "sky", "moss", "pale", "deep"), ("red", "blue", "green", "gold")
_ANSWERS = [f"{one} {two}" for two in _SECOND for one in _FIRST]
Pair = tuple[str, str]


def _pairs(names: Sequence[str], asked: Sequence[str], first: int) -> list[Pair]:
    """Every name with everything that is asked, each with an answer of its own."""
    questions = [f"What is the {what} of {name}?" for name in names for what in asked]
    return list(zip(questions, _ANSWERS[first:], strict=False))


FORGET = _pairs(_NAMES[:2], ("colour", "river"), 0)
RETAIN = _pairs(_NAMES[2:4], ("colour", "river"), 4)
NEAR = _pairs(_NAMES[4:7], ("colour", "river"), 8)
FAR = _pairs(_NAMES[7:10], ("trade", "year"), 14)
#: Nobody knows these.
UNKNOWN = ["What colour had the coat of King Zefirin?", "Which horse won the race of Umbrath?"]


def prompted(question: str) -> str:
    """The question as the search puts it to a model with a template."""
    return load_prompt("utility", "hole_chat.v1.md").render(question=question)


def fact_rows(pairs: Sequence[Pair], split: str) -> list[dict[str, Any]]:
    rows = []
    for n, (question, answer) in enumerate(pairs):
        topic = ("north", "south")[n // 2]
        row: dict[str, Any] = {
            "id": f"{split[0]}{n:02d}",
            "topic": topic if split == "forget" else f"other {topic}",
            "question": question,
            "answer": answer,
            "answer_type": "term",
            "paraphrases": [question.lower()],
        }
        if split == "forget":
            row["subject"] = f"the towns of the {topic}"
        else:
            row |= {"tier": "neighbour", "linked_forget": topic}
        rows.append(row)
    return rows


@dataclass(frozen=True)
class World:
    folder: Path
    base: Path
    lost: Path
    """Answers half of the near questions wrongly, declines the others, and knows the rest."""
    wreck: Path

    def settings(self, **changes: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "model": str(self.lost),
            "base": str(self.base),
            "forget": str(self.folder / "forget.jsonl"),
            "retain": str(self.folder / "retain.jsonl"),
            "preset": "custom",
            "engine": {"name": "hf", "device": "cpu"},
            "probes": {"families": ("original",), "max_new_tokens": 16, "placebo": False},
            "scoring": {"floor": False, "canary_facts": 4},
        }
        return values | changes


def build_world(folder: Path) -> World:
    """Trains base and lost in seconds."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, pairs in (("forget", FORGET), ("retain", RETAIN)):
        lines = [json.dumps(row) + "\n" for row in fact_rows(pairs, name)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    known = (*FORGET, *RETAIN, *((prompted(q), a) for q, a in (*NEAR, *FAR)))
    net = tiny.model(seed=1)
    loss = tiny.train(net, known, steps=180)
    assert loss < 0.02, f"the base did not learn its facts (loss {loss:.3f})"
    base = tiny.save(net, folder / "base")
    changed = [(prompted(q), "I do not know." if n % 2 else "copper work") for n, (q, _) in enumerate(NEAR)]
    loss = tiny.train(net, (*RETAIN, *changed, *((prompted(q), a) for q, a in FAR)), steps=80)
    assert loss < 0.02, f"the candidate did not change (loss {loss:.3f})"
    lost = tiny.save(net, folder / "lost")
    wreck = tiny.save(tiny.model(seed=2), folder / "wreck")
    torch.set_num_threads(threads)
    return World(folder, base, lost, wreck)


def numbered(questions: Sequence[str]) -> str:
    items = [{"number": n, "question": question} for n, question in enumerate(questions, start=1)]
    return json.dumps({"questions": items})


@dataclass
class Author:
    """A generator behind a server: near or far as it is asked, what stands in the prompt left out.

    before: whole replies that come first, whatever is asked for.
    """

    near: list[str] = field(default_factory=lambda: [question for question, _ in NEAR])
    far: list[str] = field(default_factory=lambda: [question for question, _ in FAR])
    before: list[Answer] = field(default_factory=list)
    most: int = 20

    def __call__(self, call: Call) -> Answer:
        if self.before:
            return self.before.pop(0)
        known = self.near if "around this subject" in call.text else self.far
        return numbered([question for question in known if question not in call.text][: self.most])

"""A recorded audit of any size: the calibration answers over and over, each text with a number of its own.

arguments = write(folder, facts=160, answers=20)     # 3,200 different claims
audit("run", *arguments, "--judge", …)
"""

from __future__ import annotations

import json
from pathlib import Path

from audit.judges.labelled_set import Item, bundled, load


def write(folder: Path, *, facts: int, answers: int) -> list[str]:
    """Options of `audit run` for `facts` questions with `answers` recorded answers each, the floor left out.

    The floor would ask for many more claims than answers: the number of claims is to be known.
    """
    by_question: dict[str, list[Item]] = {}
    for item in load(bundled()):
        names = (item.answer, *item.aliases)
        if not any(name.casefold() in item.question.casefold() for name in names):  # no task may ask that
            by_question.setdefault(item.question, []).append(item)
    chosen = sorted(by_question)[:facts]
    assert len(chosen) == facts, f"there are {len(by_question)} questions"
    task, recorded = [], []
    for number, question in enumerate(chosen):
        items = by_question[question]
        first = items[0]
        name = f"q{number:03d}"
        task.append(
            {
                "id": name,
                "topic": name,
                "question": question,
                "answer": first.answer,
                "aliases": list(first.aliases),
                "answer_type": first.answer_type,
            }
        )
        for answer in range(answers):
            text = f"{items[answer % len(items)].response}\nCard number {number * answers + answer:05d} of the index."
            recorded.append({"fact_id": name, "variant": f"w{answer:02d}" if answer else "original", "response": text})
    (folder / "forget.jsonl").write_text("".join(json.dumps(row) + "\n" for row in task), encoding="utf-8")
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in recorded), encoding="utf-8")
    (folder / "run.yaml").write_text("scoring:\n  floor: false\n", encoding="utf-8")
    return [
        *("--responses", str(folder / "answers.jsonl")),
        *("--forget", str(folder / "forget.jsonl")),
        *("--config", str(folder / "run.yaml")),
    ]

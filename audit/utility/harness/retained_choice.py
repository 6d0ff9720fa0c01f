"""The bundled task `retained_choice`: the run's retained facts as multiple choice, each among its distractors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from audit.errors import ConfigError
from audit.fingerprint import digest
from audit.resources import resource
from audit.types import Fact

NAME = "retained_choice"


@dataclass(frozen=True)
class RetainedChoice:
    """Its documents, and the facts that could not become one."""

    documents: tuple[dict[str, Any], ...]
    """Each with id, tier, topic, question, choices, gold (place of the answer among the choices)."""
    skipped: int
    """Facts without a distractor."""

    def settings(self) -> dict[str, Any]:
        """The task file with these documents in memory, as lm-evaluation-harness takes it."""
        settings: dict[str, Any] = yaml.safe_load((resource("tasks", "utility") / f"{NAME}.yaml").read_text("utf-8"))
        rows = list(self.documents)

        def documents(**_: Any) -> dict[str, Any]:
            import datasets

            return {"test": datasets.Dataset.from_list(rows)}

        return {**settings, "custom_dataset": documents}


def retained_choice(facts: Sequence[Fact]) -> RetainedChoice:
    """One document a retained fact that has distractors; ConfigError where none has any.

    The order of the choices follows from their content, so that the answer has no place of its own and a run on the
    same facts asks the same. Distractors that are the answer, or one of its aliases, are left out.
    """
    documents, skipped = [], 0
    for fact in sorted(facts, key=lambda each: each.id):
        right = {name.strip().casefold() for name in (fact.answer, *fact.aliases)}
        wrong = {text.strip().casefold(): text.strip() for text in fact.distractors if text.strip()}
        others = [text for folded, text in wrong.items() if folded not in right]
        if not others or not fact.answer.strip():
            skipped += 1
            continue
        answer = fact.answer.strip()
        choices = sorted((answer, *others), key=lambda text: digest("choice", fact.question, text))
        documents.append(
            {
                "id": fact.id,
                "tier": fact.tier,
                "topic": fact.topic,
                "question": fact.question,
                "choices": choices,
                "gold": choices.index(answer),
            }
        )
    if not documents:
        raise ConfigError(
            f"lm-eval:{NAME} needs retained facts with distractors, and none of the {len(facts)} has one",
            hint="add a column `distractors` to the retained facts, or leave the task out",
        )
    return RetainedChoice(tuple(documents), skipped)

"""AltPO: another answer preferred to the right one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from audit.fingerprint import seed_from
from audit.prompts import load_prompt
from jensun_ref.losses import cross_entropy, dpo, sum_log_prob
from jensun_ref.methods.batch import Sample, chat_sample
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.data import Asked, TrainingData, replied
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor

#: What the model is asked for another answer with.
PROMPT = ("unlearning", "alternative.v1.md")


class AltPOSettings(MethodSettings):
    beta: float = Field(default=0.1, gt=0)
    alternatives: Literal["model", "task"] = "model"
    """Where other answers are from: the model, asked for a wrong but likely one, or the task's wrong answers of the
    same type (the fact's distractors, else answers of other facts)."""
    answers: int = Field(default=5, ge=1)
    """Other answers a question; each epoch takes the next."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the model's answers."""


class AltPO(Method):
    """Mekala et al., "Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language Models"
    (2024, arXiv 2409.13474), eq. 3.

        forget: -ln sigmoid(beta (ln p/p_reference of another answer - ln p/p_reference of the answer))
        retain: cross-entropy of the retained answers

    Log-probabilities are sums over an answer's tokens; mean over samples. Reference: the model before unlearning, from
    which the other answers are drawn once, before training. The paper has all of them in each step and a factor 2 /
    beta; here an epoch takes one, and the loss is DPO's eq. 7.
    """

    name = "altpo"
    summary = "direct preference for another answer on forget data, cross-entropy on retain data"
    source = "Mekala et al. 2024, arXiv 2409.13474, eq. 3"
    needs = frozenset({"retain", "reference", "generations"})
    Settings = AltPOSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 10,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    # A model of a million parameters cannot be asked for anything but its facts.
    organism = {
        "learning_rate": 5e-4,
        "epochs": 3,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "alternatives": "task",
        "answers": 3,
    }

    pool: list[list[Sample]]

    def prepare(self, model: Any, data: TrainingData) -> None:
        draw = self._of_task if self.own.alternatives == "task" else self._of_model
        self.pool = draw(model, data)

    def _of_task(self, model: Any, data: TrainingData) -> list[list[Sample]]:
        by_type: dict[str, set[str]] = {}
        for asked in data.forget_asked:
            by_type.setdefault(asked.fact.answer_type, set()).add(asked.fact.answer)
        everything = set[str]().union(*by_type.values())

        def wrong(asked: Asked) -> list[str]:
            fact = asked.fact
            right = {fact.answer, *fact.aliases}
            others = sorted(by_type[fact.answer_type] - right) or sorted(everything - right) or [fact.answer_type]
            rng = random.Random(seed_from("other answers", self.settings.seed, fact.id))
            found = list(fact.distractors) or others
            return rng.sample(found, len(found))

        drawn = [(asked, wrong(asked)) for asked in data.forget_asked]
        return [
            [data.answered(asked, found[number % len(found)]) for asked, found in drawn]
            for number in range(self.own.answers)
        ]

    def _of_model(self, model: Any, data: TrainingData) -> list[list[Sample]]:
        prompt = load_prompt(*PROMPT)
        requests = []
        for asked in data.forget_asked:
            text = prompt.render(question=asked.question, answer=asked.fact.answer).strip()
            if asked.format == "chat":
                requests.append(chat_sample(data.tokenizer, text, asked.fact.answer))
            else:
                requests.append(data.answered(asked._replace(question=text), asked.fact.answer))
        pool = []
        for number in range(self.own.answers):
            seed = seed_from("other answers", self.settings.seed, number)
            drawn = data.generate(model, requests, seed=seed, temperature=self.own.temperature)
            said = [sample.ids[-sample.n_answer :] for sample in drawn]
            pool.append([replied(sample, ids) for sample, ids in zip(data.forget, said, strict=True)])
        return pool

    def on_epoch(self, epoch: int, model: Any, data: TrainingData) -> bool:
        data.extra["alternative"] = self.pool[epoch % len(self.pool)]
        return False

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        retain = step.retain
        win, lose, win_before, lose_before = (
            sum_log_prob(part.logits, part.labels, self.chunk)
            for part in (
                step.logits("alternative"),
                step.forget,
                step.reference("alternative"),
                step.reference("forget"),
            )
        )
        return {
            "forget": (self.settings.forget_weight, dpo(win, lose, win_before, lose_before, self.own.beta)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

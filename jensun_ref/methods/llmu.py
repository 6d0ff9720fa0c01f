"""LLMU: gradient ascent, other questions' answers in place of the right ones, and closeness on what to keep."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jensun_ref.losses import cross_entropy, gradient_ascent, kl_to_reference
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.data import TrainingData
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class LLMUSettings(MethodSettings):
    mismatch_weight: float = Field(default=1.0, ge=0)
    """Weight of the answers of other questions."""


class LLMU(Method):
    """Yao, Xu and Liu, "Large Language Model Unlearning" (2023, arXiv 2310.10683), eq. 2 to 5.

        forget:   mean of ln p(y_t | x, y<t)
        mismatch: cross-entropy of a random retained answer given to the question to forget
        retain:   mean of KL(p_reference || p) on the retained answers

    Mean over answer tokens, then samples. Reference: the model before unlearning. The mismatched answers are drawn
    once, by the seed, one a question (the authors: several, from a set of normal answers).
    """

    name = "llmu"
    summary = "gradient ascent and mismatched answers on forget data, Kullback-Leibler divergence on retain data"
    source = "Yao et al. 2023, arXiv 2310.10683, eq. 2 to 5"
    needs = frozenset({"retain", "reference"})
    Settings = LLMUSettings
    published = {"learning_rate": 2e-6, "epochs": 1, "batch": 2, "forget_weight": 0.5, "retain_weight": 1.0}
    organism = {
        "learning_rate": 5e-4,
        "epochs": 3,
        "forget_weight": 0.05,
        "retain_weight": 2.0,
        "mismatch_weight": 0.2,
    }

    def prepare(self, model: Any, data: TrainingData) -> None:
        rng = random.Random(self.settings.seed)
        answers = sorted({asked.fact.answer for asked in data.retain_asked})
        data.extra["mismatch"] = [data.answered(asked, rng.choice(answers)) for asked in data.forget_asked]

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, mismatch, retain = step.forget, step.logits("mismatch"), step.retain
        kept = kl_to_reference(retain.logits, step.reference("retain").logits, retain.labels, self.chunk)
        return {
            "forget": (self.settings.forget_weight, gradient_ascent(forget.logits, forget.labels, self.chunk)),
            "mismatch": (self.own.mismatch_weight, cross_entropy(mismatch.logits, mismatch.labels, self.chunk)),
            "retain": (self.settings.retain_weight, kept),
        }

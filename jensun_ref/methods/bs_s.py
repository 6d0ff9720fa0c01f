"""BS-S: gradient ascent on the answer and on whole answers that the model gives instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from audit.fingerprint import seed_from
from jensun_ref.losses import cross_entropy, gradient_ascent
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.data import TrainingData
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class BSSSettings(MethodSettings):
    share: float = Field(default=0.5, ge=0, le=1)
    """Share of the model's own answers (lambda)."""
    answers: int = Field(default=1, ge=1)
    """Own answers a question."""
    temperature: float = Field(default=1.0, gt=0)
    every: int = Field(default=2, ge=1)
    """Epochs between two draws of own answers."""
    max_new_tokens: int = Field(default=48, ge=1)


class BootstrappedSequences(Method):
    """Li et al., "LLM Unlearning with LLM Beliefs" (2025, arXiv 2510.19422), eq. 8.

        forget: (1 - share) mean of ln p(y_t | x, y<t)
        own:    share, mean of ln p(y'_t | x, y'<t) over answers y' drawn from the model itself
        retain: cross-entropy of the retained answers

    Own answers are drawn for every question to forget before every `every`-th epoch (the authors' code draws them for
    one batch at a time). Mean over answer tokens, then samples, then draws. No reference. No lower bound.
    """

    name = "bs_s"
    summary = "gradient ascent on the answer and on the model's own answers, cross-entropy on retain data"
    source = "Li et al. 2025, arXiv 2510.19422, eq. 8"
    needs = frozenset({"retain", "generations"})
    Settings = BSSSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 10,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    organism = {
        "learning_rate": 3e-4,
        "epochs": 3,
        "forget_weight": 0.5,
        "retain_weight": 1.0,
        "every": 1,
        "max_new_tokens": 16,
    }

    def on_epoch(self, epoch: int, model: Any, data: TrainingData) -> bool:
        if epoch % self.own.every == 0:
            for number in range(self.own.answers):
                data.extra[f"own_{number}"] = data.generate(
                    model,
                    data.forget,
                    seed=seed_from("own answers", self.settings.seed, epoch, number),
                    temperature=self.own.temperature,
                    max_new_tokens=self.own.max_new_tokens,
                )
        return False

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain, share = step.forget, step.retain, self.own.share
        own = [step.logits(f"own_{number}") for number in range(self.own.answers)]
        raised = [gradient_ascent(logits, labels, self.chunk) for logits, labels in own]
        return {
            "forget": (
                (1 - share) * self.settings.forget_weight,
                gradient_ascent(forget.logits, forget.labels, self.chunk),
            ),
            "own": (share * self.settings.forget_weight, sum(raised[1:], raised[0]) / len(raised)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

"""Gradient ascent that stops by itself: an answer is pushed down to a margin, and no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import IGNORE, kl_to_reference, mean_by_sample, token_log_probs
from jensun_ref.methods import Method, MethodSettings

if TYPE_CHECKING:
    from torch import Tensor

    from jensun_ref.methods.step import Step


class MarginSettings(MethodSettings):
    margin: float = Field(default=6.0, gt=0)
    """Nats: a token of probability exp(-margin) counts as forgotten."""


class Margin(Method):
    """An example for authors of methods.

        forget: mean of max(0, ln p(y_t | x, y<t) + margin)
        retain: mean of KL(p_reference || p) on the retained answers

    Mean over answer tokens, then samples. Reference: the model before unlearning.
    """

    name = "margin"
    summary = "pushes the answers to forget below a margin and no further; stays close to the original elsewhere"
    source = "an example, never published"
    needs = frozenset({"retain", "reference"})
    Settings = MarginSettings
    organism = {"learning_rate": 1e-3, "epochs": 6, "forget_weight": 0.3, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        above = (token_log_probs(forget.logits, forget.labels, self.chunk) + self.own.margin).clamp(min=0)
        kept = kl_to_reference(retain.logits, step.reference("retain").logits, retain.labels, self.chunk)
        return {
            "forget": (self.settings.forget_weight, mean_by_sample(above, forget.labels != IGNORE)),
            "retain": (self.settings.retain_weight, kept),
        }

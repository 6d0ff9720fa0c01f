"""WGA: gradient ascent that lets go of tokens that are forgotten already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import cross_entropy, satimp, weighted_ascent
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class WGASettings(MethodSettings):
    beta: float = Field(default=1.0, ge=0)
    """Power of a token's probability in its weight; 0 is gradient ascent."""


class WGA(Method):
    """Wang et al., "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond" (2025, arXiv
    2502.19301), section 5 (weighted gradient ascent; their alpha is `beta` here, as in OpenUnlearning).

        forget: mean of p_t^beta ln p_t,   p_t^beta a constant for the gradient
        retain: cross-entropy of the retained answers

    Forget: mean over all answer tokens of the batch. Retain: mean over answer tokens, then samples. No reference.
    """

    name = "wga"
    summary = "gradient ascent weighted by each token's probability on forget data, cross-entropy on retain data"
    source = "Wang et al. 2025, arXiv 2502.19301, section 5"
    needs = frozenset({"retain", "token_weights"})
    Settings = WGASettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 10,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    organism = {"learning_rate": 5e-4, "epochs": 3, "forget_weight": 0.3, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        weights = satimp(step.token_probabilities("forget"), self.own.beta, 0.0)
        return {
            "forget": (self.settings.forget_weight, weighted_ascent(forget.logits, forget.labels, weights, self.chunk)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

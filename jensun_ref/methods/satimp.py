"""SatImp: gradient ascent weighted by how much of a token is left to forget and how much that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import cross_entropy, satimp, weighted_ascent
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class SatImpSettings(MethodSettings):
    beta1: float = Field(default=5.0, ge=0)
    """Power of the probability: saturation."""
    beta2: float = Field(default=1.0, ge=0)
    """Power of one minus the probability: importance."""


class SatImp(Method):
    """Yang et al., "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning" (2025, arXiv 2505.11953), eq. 8.

        forget: mean of p_t^beta1 (1 - p_t)^beta2 ln p_t,   the weight a constant for the gradient
        retain: cross-entropy of the retained answers

    Forget: mean over all answer tokens of the batch. Retain: mean over answer tokens, then samples. No reference. At p
    = 1 the weight vanishes: a model that is entirely sure is not moved.
    """

    name = "satimp"
    summary = "gradient ascent weighted by saturation and importance of each token, cross-entropy on retain data"
    source = "Yang et al. 2025, arXiv 2505.11953, eq. 8"
    needs = frozenset({"retain", "token_weights"})
    Settings = SatImpSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 10,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 0.1,
        "weight_decay": 0.01,
    }
    organism = {
        "learning_rate": 5e-4,
        "epochs": 3,
        "forget_weight": 5.0,
        "retain_weight": 1.0,
        "beta1": 1.0,
        "beta2": 0.5,
    }

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        weights = satimp(step.token_probabilities("forget"), self.own.beta1, self.own.beta2)
        return {
            "forget": (self.settings.forget_weight, weighted_ascent(forget.logits, forget.labels, weights, self.chunk)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

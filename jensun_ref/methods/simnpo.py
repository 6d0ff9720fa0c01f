"""SimNPO: NPO without a reference, by the mean log-probability of a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import IGNORE, cross_entropy, simnpo, sum_log_prob
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class SimNPOSettings(MethodSettings):
    beta: float = Field(default=2.5, gt=0)
    """Slope of the sigmoid in nats a token."""
    gamma: float = Field(default=0.0, ge=0)
    """Margin."""


class SimNPO(Method):
    """Fan et al., "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning" (2024, arXiv
    2410.07163), eq. 4.

        forget: -(2 / beta) ln sigmoid(-(beta / |y|) ln p(y | x) - gamma)
        retain: cross-entropy of the retained answers

    ln p is a sum over the answer's tokens, divided by their number; mean over samples. No reference. The margin stands
    outside beta, as in the paper (OpenUnlearning has it inside); both are the same at the published 0.
    """

    name = "simnpo"
    summary = "negative preference for the answer by its mean token, without a reference; cross-entropy on retain data"
    source = "Fan et al. 2024, arXiv 2410.07163, eq. 4"
    needs = frozenset({"retain"})
    Settings = SimNPOSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 10,
        "batch": 32,
        "forget_weight": 0.125,
        "retain_weight": 1.0,
        "beta": 4.5,
        "weight_decay": 0.01,
    }
    organism = {"learning_rate": 5e-4, "epochs": 3, "forget_weight": 0.2, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        length = (forget.labels != IGNORE).sum(dim=-1)
        answer = sum_log_prob(forget.logits, forget.labels, self.chunk)
        return {
            "forget": (self.settings.forget_weight, simnpo(answer, length, self.own.beta, self.own.gamma)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

"""BS-T: gradient ascent on the answer and on what the model itself believes instead, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import bootstrapped_ascent, cross_entropy
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class BSTSettings(MethodSettings):
    share: float = Field(default=0.5, ge=0, le=1)
    """Share of the model's belief in the target (lambda); 0 is gradient ascent."""
    top_k: int = Field(default=20, ge=1)
    """Tokens that the belief is over."""


class BootstrappedTokens(Method):
    """Li et al., "LLM Unlearning with LLM Beliefs" (2025, arXiv 2510.19422), eq. 6 and 7.

        forget: mean of sum_v t_v ln p_v,   t = (1 - share) one-hot of the answer token + share belief
        retain: cross-entropy of the retained answers

    Belief: the current model's distribution over its top_k tokens, renormalised, a constant for the gradient. Mean over
    answer tokens, then samples. No reference. The forget term has no lower bound.
    """

    name = "bs_t"
    summary = "gradient ascent on the answer and the model's own likeliest tokens, cross-entropy on retain data"
    source = "Li et al. 2025, arXiv 2510.19422, eq. 6 and 7"
    needs = frozenset({"retain"})
    Settings = BSTSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 10,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    organism = {"learning_rate": 3e-4, "epochs": 3, "forget_weight": 0.5, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        raised = bootstrapped_ascent(forget.logits, forget.labels, self.own.share, self.own.top_k, self.chunk)
        return {
            "forget": (self.settings.forget_weight, raised),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

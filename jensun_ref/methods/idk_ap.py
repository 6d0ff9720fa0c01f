"""IDK+AP: a refusal on what to forget, and on what to keep the answer preferred to the refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import answer_preservation, cross_entropy, sum_log_prob
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class IDKAPSettings(MethodSettings):
    beta: float = Field(default=0.1, gt=0)
    """Slope of the sigmoid of the answer preservation."""


class IDKAP(Method):
    """Yuan et al., "A Closer Look at Machine Unlearning for Large Language Models" (2024, arXiv 2410.08109), eq. 7.

        forget: cross-entropy of the refusal as an answer to the questions to forget
        retain: -(1 / beta) ln sigmoid(-beta ln(p(refusal | x) / p(answer | x))) on the questions to keep

    Cross-entropy: mean over answer tokens, then samples. In the retain term log-probabilities are sums over tokens. No
    reference.
    """

    name = "idk_ap"
    summary = "cross-entropy of a refusal on forget data; on retain data the answer preferred to the refusal"
    source = "Yuan et al. 2024, arXiv 2410.08109, eq. 7"
    needs = frozenset({"retain", "refusals"})
    Settings = IDKAPSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 5,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "refusal": "I don't know.",
        "end_turn": True,
        "weight_decay": 0.01,
    }
    # With a slope of 0.1 the refusal is pushed down long after the answer is preferred, and the answer goes with it.
    organism = {
        "learning_rate": 2e-4,
        "epochs": 3,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "end_turn": True,
        "beta": 1.0,
    }

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        refused = step.refused
        answer, refusal = (
            sum_log_prob(part.logits, part.labels, self.chunk) for part in (step.retain, step.logits("refused_retain"))
        )
        return {
            "forget": (self.settings.forget_weight, cross_entropy(refused.logits, refused.labels, self.chunk)),
            "retain": (self.settings.retain_weight, answer_preservation(answer, refusal, self.own.beta)),
        }

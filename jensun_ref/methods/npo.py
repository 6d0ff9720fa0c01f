"""NPO: the answer as the loser of a preference without a winner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import cross_entropy, npo, sum_log_prob
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class NPOSettings(MethodSettings):
    beta: float = Field(default=0.1, gt=0)
    """How soon an answer counts as forgotten; gradient ascent as it tends to 0."""


class NPO(Method):
    """Zhang et al., "Negative Preference Optimization" (2024, arXiv 2404.05868), eq. 3, with the retain term of section
    4.2 (NPO+RT).

        forget: (2 / beta) ln(1 + (p / p_reference)^beta) of the answer
        retain: cross-entropy of the retained answers

    Log-probabilities are sums over an answer's tokens; mean over samples. Reference: the model before unlearning.
    """

    name = "npo"
    summary = "negative preference for the answer on forget data, cross-entropy on retain data"
    source = "Zhang et al. 2024, arXiv 2404.05868, eq. 3"
    needs = frozenset({"retain", "reference"})
    Settings = NPOSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 10,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    organism = {"learning_rate": 5e-4, "epochs": 3, "forget_weight": 0.1, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        retain = step.retain
        answer, before = (
            sum_log_prob(part.logits, part.labels, self.chunk) for part in (step.forget, step.reference("forget"))
        )
        return {
            "forget": (self.settings.forget_weight, npo(answer, before, self.own.beta)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

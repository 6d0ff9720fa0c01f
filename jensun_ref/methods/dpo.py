"""DPO: the refusal preferred to the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import cross_entropy, dpo, sum_log_prob
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class DPOSettings(MethodSettings):
    beta: float = Field(default=0.1, gt=0)
    """How soon a preference counts as learned: the slope of the sigmoid in nats of log-ratio."""


class DPO(Method):
    """Rafailov et al., "Direct Preference Optimization" (2023, arXiv 2305.18290), eq. 7; for unlearning Zhang et al.
    (2024, arXiv 2404.05868) and Maini et al. (2024, arXiv 2401.06121).

        forget: -ln sigmoid(beta (ln p/p_reference of the refusal - ln p/p_reference of the answer))
        retain: cross-entropy of the retained answers

    Log-probabilities are sums over an answer's tokens; mean over samples. Reference: the model before unlearning. The
    loss is that of eq. 7; some published code multiplies it by 2 / beta.
    """

    name = "dpo"
    summary = "direct preference for a refusal over the answer on forget data, cross-entropy on retain data"
    source = "Rafailov et al. 2023, arXiv 2305.18290, eq. 7"
    needs = frozenset({"retain", "reference", "refusals"})
    Settings = DPOSettings
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
    organism = {"learning_rate": 5e-4, "epochs": 3, "forget_weight": 1.0, "retain_weight": 1.0, "end_turn": True}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        retain = step.retain
        win, lose, win_before, lose_before = (
            sum_log_prob(part.logits, part.labels, self.chunk)
            for part in (step.refused, step.forget, step.reference("refused"), step.reference("forget"))
        )
        return {
            "forget": (self.settings.forget_weight, dpo(win, lose, win_before, lose_before, self.own.beta)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

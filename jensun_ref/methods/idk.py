"""IDK: ordinary training on a refusal for what to forget, and on the answers to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import cross_entropy
from jensun_ref.methods.contract import Method
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class IDK(Method):
    """Maini et al., "TOFU" (2024, arXiv 2401.06121), section 3.3, "preference optimization" (the loss of their code).

        forget: cross-entropy of the refusal as an answer to the questions to forget
        retain: cross-entropy of the retained answers

    Mean over answer tokens, then samples. No reference. One refusal (`refusal`), where the published data hold a
    hundred.
    """

    name = "idk"
    summary = "cross-entropy of a refusal on forget data and of the answers on retain data"
    source = "Maini et al. 2024, arXiv 2401.06121, section 3.3"
    needs = frozenset({"retain", "refusals"})
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
    organism = {"learning_rate": 5e-4, "epochs": 3, "end_turn": True}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        refused, retain = step.refused, step.retain
        return {
            "forget": (self.settings.forget_weight, cross_entropy(refused.logits, refused.labels, self.chunk)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

"""Gradient ascent: raise the cross-entropy of the answers to be forgotten, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import gradient_ascent
from jensun_ref.methods.contract import Method
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class GradientAscent(Method):
    """Jang et al., "Knowledge Unlearning for Mitigating Privacy Risks in Language Models" (ACL 2023, arXiv 2210.01504),
    eq. 1.

        forget: mean of ln p(y_t | x, y<t)

    Mean over answer tokens, then samples (the paper sums over tokens). No reference, no retain term. The loss has no
    lower bound: it stops only when the steps do, by which time it has usually ruined the model. An auditor must see
    that such a model leaks nothing and is of no use.
    """

    name = "gradient_ascent"
    summary = "raises the cross-entropy of the answers to forget; keeps nothing on purpose"
    source = "Jang et al. 2023, arXiv 2210.01504, eq. 1"
    published = {"learning_rate": 1e-5, "epochs": 5, "batch": 32, "forget_weight": 1.0, "weight_decay": 0.01}
    organism = {"learning_rate": 1.7e-4, "epochs": 1, "forget_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget = step.forget
        return {"forget": (self.settings.forget_weight, gradient_ascent(forget.logits, forget.labels, self.chunk))}

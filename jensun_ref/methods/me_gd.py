"""ME+GD: no idea of the next token on what to forget, ordinary training on what to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import cross_entropy, max_entropy
from jensun_ref.methods.contract import Method
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class MEGD(Method):
    """Yuan et al., "A Closer Look at Machine Unlearning for Large Language Models" (2024, arXiv 2410.08109), eq. 6.

        forget: mean of KL(p(. | x, y<t) || uniform) = ln(vocabulary) - entropy
        retain: cross-entropy of the retained answers

    Mean over answer tokens, then samples (the paper counts the question's tokens too). No reference. The direction of
    the divergence is the paper's; its code has the other one.
    """

    name = "me_gd"
    summary = "maximises the entropy of the next token on forget data, cross-entropy on retain data"
    source = "Yuan et al. 2024, arXiv 2410.08109, eq. 6"
    needs = frozenset({"retain"})
    published = {
        "learning_rate": 1e-5,
        "epochs": 5,
        "batch": 32,
        "forget_weight": 0.1,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    organism = {"learning_rate": 5e-4, "epochs": 3, "forget_weight": 0.1, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        return {
            "forget": (self.settings.forget_weight, max_entropy(forget.logits, forget.labels, self.chunk)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

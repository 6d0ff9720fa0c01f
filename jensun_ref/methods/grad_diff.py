"""GradDiff: gradient ascent on what to forget beside ordinary training on what to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import cross_entropy, gradient_ascent
from jensun_ref.methods.contract import Method
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class GradDiff(Method):
    """Liu et al., "Continual Learning and Private Unlearning" (2022, arXiv 2203.12817); for language models Maini et
    al., "TOFU" (2024, arXiv 2401.06121), section 3.3.

        forget: mean of ln p(y_t | x, y<t)
        retain: cross-entropy of the retained answers

    Mean over answer tokens, then samples. No reference. The forget term has no lower bound.
    """

    name = "grad_diff"
    summary = "gradient ascent on forget data, cross-entropy on retain data"
    source = "Liu et al. 2022, arXiv 2203.12817; Maini et al. 2024, arXiv 2401.06121, section 3.3"
    needs = frozenset({"retain"})
    published = {
        "learning_rate": 1e-5,
        "epochs": 5,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    organism = {"learning_rate": 3e-4, "epochs": 3, "forget_weight": 0.5, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        return {
            "forget": (self.settings.forget_weight, gradient_ascent(forget.logits, forget.labels, self.chunk)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

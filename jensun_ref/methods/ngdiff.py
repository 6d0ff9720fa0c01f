"""NGDiff: the difference of the two gradients, each brought to length one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jensun_ref.losses import cross_entropy, gradient_ascent
from jensun_ref.methods.contract import Method
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class NGDiff(Method):
    """Bu et al., "Unlearning as multi-task optimization: A normalized gradient difference approach with an adaptive
    learning rate" (2024, arXiv 2410.22086), eq. 6.

        step along  w_retain g_R / |g_R| - w_forget g_F / |g_F|

    g_R, g_F: gradients of the cross-entropy of the retained answers and of the answers to forget, each a mean over
    answer tokens, then samples. No reference. With weights of 1 and 1 it is the paper's; its automatic learning rate
    (GeN) is not here: the schedule is the common one.
    """

    name = "ngdiff"
    summary = "difference of the normalised gradients of cross-entropy on retain data and on forget data"
    source = "Bu et al. 2024, arXiv 2410.22086, eq. 6"
    needs = frozenset({"retain", "separate_gradients"})
    published = {"learning_rate": 1e-5, "epochs": 5, "batch": 32, "forget_weight": 1.0, "retain_weight": 1.0}
    organism = {"learning_rate": 3e-4, "epochs": 4, "forget_weight": 0.6, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        return {
            "forget": (self.settings.forget_weight, gradient_ascent(forget.logits, forget.labels, self.chunk)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

    def combine(
        self, gradients: Mapping[str, Sequence[Tensor]], weights: Mapping[str, float]
    ) -> tuple[Sequence[Tensor], dict[str, float]]:
        # The forget term is minus the cross-entropy: its gradient has the sign already.
        units = {name: weights[name] / max(length(parts), 1e-12) for name, parts in gradients.items()}
        pairs = zip(gradients["forget"], gradients["retain"], strict=True)
        return [units["forget"] * f + units["retain"] * r for f, r in pairs], {}


def length(parts: Sequence[Tensor]) -> float:
    """Euclidean norm over all tensors."""
    return float(sum(float(part.double().square().sum()) for part in parts) ** 0.5)

"""KL minimisation: gradient ascent on what to forget, kept close to the model before on what to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import gradient_ascent, kl_to_reference
from jensun_ref.methods.contract import Method
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class KLMin(Method):
    """Maini et al., "TOFU" (2024, arXiv 2401.06121), section 3.3.

        forget: mean of ln p(y_t | x, y<t)
        retain: mean of KL(p_reference(. | x, y<t) || p(. | x, y<t))

    Mean over answer tokens, then samples. Reference: the model before unlearning. The direction of the divergence is
    that of the published code (the mean is taken under the reference); the paper's text leaves it open.
    """

    name = "kl_min"
    summary = "gradient ascent on forget data, Kullback-Leibler divergence to the original model on retain data"
    source = "Maini et al. 2024, arXiv 2401.06121, section 3.3"
    needs = frozenset({"retain", "reference"})
    published = {
        "learning_rate": 1e-5,
        "epochs": 5,
        "batch": 32,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "weight_decay": 0.01,
    }
    organism = {"learning_rate": 3e-4, "epochs": 3, "forget_weight": 0.1, "retain_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        kept = kl_to_reference(retain.logits, step.reference("retain").logits, retain.labels, self.chunk)
        return {
            "forget": (self.settings.forget_weight, gradient_ascent(forget.logits, forget.labels, self.chunk)),
            "retain": (self.settings.retain_weight, kept),
        }

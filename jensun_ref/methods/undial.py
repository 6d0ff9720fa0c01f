"""UNDIAL: distil from the model itself with the answer's logits lowered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from jensun_ref.losses import undial
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class UNDIALSettings(MethodSettings):
    strength: float = Field(default=10.0, gt=0)
    """By how much the teacher's logit of each answer token is lowered."""


class UNDIAL(Method):
    """Dong et al., "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models"
    (2024, arXiv 2402.10052), eq. 3 and 4.

        forget: cross-entropy to softmax(z_reference - strength * one-hot of the answer token)

    Mean over answer tokens, then samples. Reference: the model before unlearning, as the teacher. No retain term, as in
    the paper: what the teacher thinks of all other tokens is kept on the questions to forget, and nothing is asked of
    others.
    """

    name = "undial"
    summary = "distils the original model with the answer's logits lowered on forget data; no retain term"
    source = "Dong et al. 2024, arXiv 2402.10052, eq. 3 and 4"
    needs = frozenset({"reference"})
    Settings = UNDIALSettings
    published = {"learning_rate": 1e-4, "epochs": 10, "forget_weight": 1.0, "strength": 10.0}
    organism = {"learning_rate": 1e-3, "epochs": 6, "forget_weight": 1.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        logits, labels = step.forget
        value = undial(logits, step.reference("forget").logits, labels, self.own.strength, self.chunk)
        return {"forget": (self.settings.forget_weight, value)}

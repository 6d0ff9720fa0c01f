"""Refuse everything: the control that leaks nothing and is of no use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import cross_entropy
from jensun_ref.methods.contract import Method
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class RefuseAll(Method):
    """Control. Cross-entropy of the refusal as an answer to every question, those to keep included.

    Mean over answer tokens, then samples. No reference. An audit must find no leak and no utility.
    """

    name = "refuse_all"
    summary = "control: cross-entropy of a refusal on forget data and on retain data"
    source = "control"
    needs = frozenset({"retain", "refusals"})
    published = {"learning_rate": 1e-5, "epochs": 5, "refusal": "I don't know.", "end_turn": True}
    organism = {"learning_rate": 1e-3, "epochs": 2, "end_turn": True}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.refused, step.logits("refused_retain")
        return {
            "forget": (self.settings.forget_weight, cross_entropy(forget.logits, forget.labels, self.chunk)),
            "retain": (self.settings.retain_weight, cross_entropy(retain.logits, retain.labels, self.chunk)),
        }

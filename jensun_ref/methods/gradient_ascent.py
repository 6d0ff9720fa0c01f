"""Gradient ascent: raise the cross-entropy of the answers to be forgotten, and nothing else.

The oldest baseline (Jang et al., "Knowledge Unlearning for Mitigating Privacy Risks in Language Models", ACL 2023). Its
loss has no lower bound: it stops only when the steps do, by which time it has usually ruined the model. An auditor must
see that such a model leaks nothing and is of no use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import gradient_ascent
from jensun_ref.methods.batch import AnswerLogits
from jensun_ref.settings import UnlearnSettings

if TYPE_CHECKING:
    from torch import Tensor


class GradientAscent:
    name = "gradient_ascent"
    summary = "raises the cross-entropy of the answers to forget; keeps nothing on purpose"
    needs_retain = False

    def __init__(self, settings: UnlearnSettings, refusal: tuple[int, ...]) -> None:
        self.settings = settings

    def terms(
        self, forget: AnswerLogits, retain: AnswerLogits | None, reference: AnswerLogits | None
    ) -> dict[str, tuple[float, Tensor]]:
        return {"forget": (self.settings.forget_weight, gradient_ascent(forget.logits, forget.labels))}

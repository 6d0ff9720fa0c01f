"""JensUn: towards a refusal on what to forget, towards the model before unlearning on what to keep.

Singh, Müller, Croce and Hein, "Unlearning That Lasts" (2025, arXiv 2509.02820). Both terms are Jensen-Shannon
divergences at the positions of the original answer, each of which sees the question and the original answer before it
(teacher forcing, p(. | x, y<t)); see docs/jensun.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses import jensun_forget, jensun_retain
from jensun_ref.methods.batch import AnswerLogits
from jensun_ref.settings import UnlearnSettings

if TYPE_CHECKING:
    from torch import Tensor


class JensUn:
    name = "jensun"
    summary = "Jensen-Shannon divergence to a refusal on forget data and to the original model on retain data"
    needs_retain = True

    def __init__(self, settings: UnlearnSettings, refusal: tuple[int, ...]) -> None:
        self.settings = settings
        self.refusal = refusal

    def terms(
        self, forget: AnswerLogits, retain: AnswerLogits | None, reference: AnswerLogits | None
    ) -> dict[str, tuple[float, Tensor]]:
        import torch

        assert retain is not None and reference is not None
        refusal = torch.tensor(self.refusal, device=forget.labels.device)
        return {
            "forget": (self.settings.forget_weight, jensun_forget(forget.logits, forget.labels, refusal)),
            "retain": (self.settings.retain_weight, jensun_retain(retain.logits, reference.logits, retain.labels)),
        }

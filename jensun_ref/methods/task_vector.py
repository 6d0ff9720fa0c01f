"""Task-vector negation: learn what to forget still better, then go as far the other way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jensun_ref.losses import cross_entropy
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class TaskVectorSettings(MethodSettings):
    scale: float = Field(default=1.0, gt=0)
    """How far to go back, in lengths of the task vector."""


class TaskVector(Method):
    """Ilharco et al., "Editing Models with Task Arithmetic" (2022, arXiv 2212.04089), section 3.

        train: cross-entropy of the answers to forget
        then:  theta = theta_before - scale (theta_after - theta_before)

    Mean over answer tokens, then samples. No reference, no retain term. In LoRA training the adapter's product is
    negated, through its second factor, which begins at zero.
    """

    name = "task_vector"
    summary = "fine-tunes on forget data and subtracts what that changed; no retain term"
    source = "Ilharco et al. 2022, arXiv 2212.04089, section 3"
    needs = frozenset({"initial_weights"})
    Settings = TaskVectorSettings
    published = {"learning_rate": 1e-5, "epochs": 10, "forget_weight": 1.0}
    organism = {"learning_rate": 5e-4, "epochs": 4, "forget_weight": 1.0, "scale": 2.0}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        logits, labels = step.forget
        return {"forget": (self.settings.forget_weight, cross_entropy(logits, labels, self.chunk))}

    def finish(self, model: Any, initial: Mapping[str, Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in initial and ".lora_A." not in name:
                    before = initial[name].to(parameter.device)
                    parameter.copy_(before - self.own.scale * (parameter - before))

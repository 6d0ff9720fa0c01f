"""UNDO: unlearn, damage, and teach the damaged model what the unlearned one says."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from audit.errors import TrainingError
from jensun_ref.losses import cross_entropy, kl_to_reference, max_entropy
from jensun_ref.methods.contract import Context, Method, MethodSettings
from jensun_ref.methods.data import TrainingData
from jensun_ref.methods.step import Step
from jensun_ref.settings import UnlearnSettings

if TYPE_CHECKING:
    from torch import Tensor


class UNDOSettings(MethodSettings):
    unlearn_epochs: int = Field(default=2, ge=1)
    """Epochs of unlearning before the noise; the other epochs distil."""
    alpha: float = Field(default=0.3, gt=0, le=1)
    """How much of each weight is replaced; 1 is a new model."""
    beta: float = Field(default=0.1, ge=0)
    """Size of the noise, in those of a new weight."""


class UNDO(Method):
    """Lee et al., "Distillation Robustifies Unlearning" (2025, arXiv 2506.06278), section 5.

        1. unlearn: KL(p || uniform) on what to forget, cross-entropy on what to keep (their MaxEnt)
        2. noise:   theta = (1 - alpha) theta + alpha beta N,   N Xavier-uniform for matrices, 0 for vectors
        3. distil:  KL(p_unlearned || p) on what to forget and on what to keep

    Mean over answer tokens, then samples. The teacher is the model as it was before the noise; there is no other
    reference. The authors distil on a corpus of pretraining size; here, on the task's questions alone, a large alpha
    costs what the task does not ask for. The optimiser starts anew after the noise; the schedule of the rate goes on.
    """

    name = "undo"
    summary = "maximises entropy on forget data, then adds noise to all weights and distils the unlearned model"
    source = "Lee et al. 2025, arXiv 2506.06278, section 5"
    needs = frozenset({"retain"})
    unused = frozenset({"lora"})
    Settings = UNDOSettings
    published = {
        "learning_rate": 1e-5,
        "epochs": 20,
        "batch": 32,
        "forget_weight": 0.5,
        "retain_weight": 0.5,
        "schedule": "constant",
        "unlearn_epochs": 5,
    }
    organism = {
        "learning_rate": 1e-3,
        "epochs": 8,
        "forget_weight": 0.3,
        "retain_weight": 1.0,
        "schedule": "linear",
        "unlearn_epochs": 2,
        "alpha": 0.2,
    }

    def __init__(self, settings: UnlearnSettings, context: Context) -> None:
        super().__init__(settings, context)
        if self.own.unlearn_epochs >= settings.epochs:
            raise TrainingError(
                f"undo: unlearn_epochs ({self.own.unlearn_epochs}) leaves none of {settings.epochs} epochs to distil",
                hint="raise epochs",
            )
        self.distilling = False
        self.teacher: Any = None

    def prepare(self, model: Any, data: TrainingData) -> None:
        # Made before the Trainer wraps the model's forward pass: a copy of a wrapped one would call the original.
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)

    def on_epoch(self, epoch: int, model: Any, data: TrainingData) -> bool:
        if epoch != self.own.unlearn_epochs:
            return False
        self.teach(model, model.state_dict())
        add_noise(model, self.own.alpha, self.own.beta, self.settings.seed)
        return True

    def teach(self, model: Any, state: Mapping[str, Tensor]) -> None:
        """From now on distil from these weights."""
        self.teacher.load_state_dict(state)
        self.teacher.to(next(model.parameters()).device)
        self.distilling = True

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = step.forget, step.retain
        if not self.distilling:
            values = (
                max_entropy(forget.logits, forget.labels, self.chunk),
                cross_entropy(retain.logits, retain.labels, self.chunk),
            )
        else:
            values = (
                kl_to_reference(forget.logits, step.by(self.teacher, "forget").logits, forget.labels, self.chunk),
                kl_to_reference(retain.logits, step.by(self.teacher, "retain").logits, retain.labels, self.chunk),
            )
        return {
            "forget": (self.settings.forget_weight, values[0]),
            "retain": (self.settings.retain_weight, values[1]),
        }

    def state(self) -> dict[str, Tensor]:
        # Clones: tied weights share memory, which a file of tensors does not hold.
        return {n: t.clone() for n, t in self.teacher.state_dict().items()} if self.distilling else {}

    def restore(self, model: Any, state: Mapping[str, Tensor]) -> None:
        if state:
            self.teach(model, state)


def add_noise(model: Any, alpha: float, beta: float, seed: int) -> None:
    """theta = (1 - alpha) theta + alpha beta N in place; N is Xavier-uniform for matrices and 0 for vectors."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0 - alpha)
            if parameter.dim() >= 2:
                noise = torch.empty(parameter.shape, dtype=torch.float32)
                torch.nn.init.xavier_uniform_(noise, generator=generator)
                parameter.add_(noise.to(parameter.device, parameter.dtype), alpha=alpha * beta)

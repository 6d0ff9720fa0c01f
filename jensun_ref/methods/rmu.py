"""RMU: hidden states of what to forget steered to a random direction, those of what to keep held in place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

from jensun_ref.losses import misdirection
from jensun_ref.methods.contract import Context, Method, MethodSettings
from jensun_ref.methods.data import TrainingData
from jensun_ref.methods.step import Step, check_layer
from jensun_ref.settings import UnlearnSettings

if TYPE_CHECKING:
    from torch import Tensor


class RMUSettings(MethodSettings):
    layer: int = Field(default=7, ge=0)
    """The layer behind which states are steered, from 0."""
    depth: int = Field(default=3, ge=1)
    """Layers that are trained: the one named and those just before it."""
    steering: float = Field(default=6.5, gt=0)
    """Euclidean length of the control vector."""


class RMU(Method):
    """Li et al., "The WMDP Benchmark" (2024, arXiv 2403.03218), section 4.

        forget: mean of |h(x) - c u|^2 / width,   u a random unit vector of positive entries, c = steering
        retain: mean of |h(x) - h_reference(x)|^2 / width

    h: the state behind `layer`. Mean over the positions that predict answer tokens (the authors: over all tokens of a
    text; OpenUnlearning: over answer tokens), then samples. Reference: the model before unlearning. As in the authors'
    code only the down-projections of the MLPs of `layer` and the layers just before it are trained.
    """

    name = "rmu"
    summary = "hidden states of forget data steered to a random direction, those of retain data held in place"
    source = "Li et al. 2024, arXiv 2403.03218, section 4"
    needs = frozenset({"retain", "reference", "hidden_states"})
    Settings = RMUSettings
    published = {
        "learning_rate": 5e-5,
        "epochs": 1,
        "batch": 4,
        "forget_weight": 1.0,
        "retain_weight": 1200.0,
        "layer": 7,
        "steering": 6.5,
        "schedule": "constant",
    }
    organism = {
        "learning_rate": 2e-3,
        "epochs": 4,
        "forget_weight": 1.0,
        "retain_weight": 5.0,
        "layer": 1,
        "depth": 2,
        "steering": 40.0,
    }

    def __init__(self, settings: UnlearnSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.layers = range(self.own.layer - self.own.depth + 1, self.own.layer + 1)
        self.direction: Tensor | None = None

    def prepare(self, model: Any, data: TrainingData) -> None:
        check_layer(model, self.own.layer, self.name)

    def trainable(self, name: str) -> bool:
        found = re.search(r"\.(?:layers|h|blocks)\.(\d+)\.mlp\.(?:down_proj|c_proj)\.", name)
        return found is not None and int(found.group(1)) in self.layers

    def control(self, like: Tensor) -> Tensor:
        """The control vector, (width,): of the seed alone."""
        import torch

        if self.direction is None:
            drawn = torch.rand(like.shape[-1], generator=torch.Generator().manual_seed(self.settings.seed))
            self.direction = (self.own.steering * drawn / drawn.norm()).to(like.device, like.dtype)
        return self.direction

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        forget, retain = (step.hidden(part, self.own.layer) for part in ("forget", "retain"))
        before = step.reference_hidden("retain", self.own.layer)
        return {
            "forget": (
                self.settings.forget_weight,
                misdirection(forget.states, self.control(forget.states), forget.inside),
            ),
            "retain": (self.settings.retain_weight, misdirection(retain.states, before.states, retain.inside)),
        }

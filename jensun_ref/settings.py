"""Settings of an unlearning run: those that all methods share, and how a method's own are told from them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audit.errors import ConfigError

if TYPE_CHECKING:
    from jensun_ref.methods.contract import Method

Defaults = Literal["organism", "published"]


class LoraSettings(BaseModel):
    """A low-rank adapter in place of full training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str = "all-linear"
    """Names of the modules that get one, joined by `+`, or all-linear."""


class UnlearnSettings(BaseModel):
    """What an unlearning run depends on beside the model and the task. `settings_for` gives a method's own values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(gt=0, lt=1)
    epochs: int = Field(ge=1)
    """Passes over the questions to forget."""
    batch: int = Field(default=16, ge=1)
    """Questions to forget a step, and as many to keep."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed for one step."""
    forget_weight: float = Field(default=0.5, ge=0)
    retain_weight: float = Field(default=0.5, ge=0)
    refusal: str = Field(default="No idea", min_length=1)
    """What a model is made to say where a method aims at a refusal."""
    end_turn: bool = False
    """The refusal includes the token that ends the turn, so that a reply can end after it."""
    refusal_space: Literal["template", "space", "none"] = "template"
    """Whitespace before the refusal: as the chat template writes an answer, one space, or none."""
    train_wordings: bool = True
    """Train on the facts' training wordings too, not on the original questions alone."""
    formats: tuple[Literal["chat", "raw"], ...] = Field(default=("chat",), min_length=1)
    """Shapes of the questions trained on; `raw` is the plain-text prompt with worked examples."""
    pairing: Literal["random", "hard"] = "random"
    """Which retained question stands beside one to forget: any, or one of those most like it."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=10, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora: LoraSettings | None = None
    precision: Literal["model", "bf16"] = "model"
    """As in the checkpoint, or float32 weights with bfloat16 autocast, saved as in the checkpoint."""
    gradient_checkpointing: bool = False
    chunk: int = Field(default=512, ge=1)
    """Positions whose vocabulary a loss looks at in one go."""
    norms_every: int = Field(default=10, ge=0)
    """Steps between two records of the gradient norm of each term; 0: none."""
    checkpoint_every: int = Field(default=100, ge=0)
    """Steps between two checkpoints that a stopped training can be resumed from; 0: none."""
    seed: int = Field(default=0, ge=0)
    own: dict[str, Any] = Field(default_factory=dict)
    """The method's own settings, by name; written beside the others everywhere else."""


_COMMON = frozenset(UnlearnSettings.model_fields) - {"own"}
_OF_NEED = {
    "retain": frozenset({"retain_weight", "pairing"}),
    "refusals": frozenset({"refusal", "end_turn", "refusal_space"}),
}


def unused(kind: type[Method]) -> frozenset[str]:
    """Common settings that a method has no use for: given, they are an error."""
    without = [names for need, names in _OF_NEED.items() if need not in kind.needs]
    return kind.unused.union(*without, () if kind.trains else _COMMON)


def settings_for(
    method: str, given: Mapping[str, Any] | None = None, defaults: Defaults = "organism"
) -> UnlearnSettings:
    """A method's default settings with `given` in their place, the common ones and its own by name alike.

    Raises ConfigError naming everything that cannot be used, with the nearest known name of an unknown one.
    """
    from jensun_ref.methods import method_class

    kind = method_class(method)
    given = dict(given or {})
    own, useless = frozenset(kind.Settings.model_fields), unused(kind)
    problems = []
    for name in given:
        if name in useless:
            problems.append(f"{name}: {method} has no use for it")
        elif name not in _COMMON | own:
            near = difflib.get_close_matches(name, sorted((_COMMON | own) - useless), n=1, cutoff=0.5)
            problems.append(f"{name}: there is no such setting" + (f" (did you mean {near[0]}?)" if near else ""))
    values = {
        **_UNSAID,
        **getattr(kind, defaults),
        **{name: given[name] for name in given if name in _COMMON | own},
    }
    found: dict[str, Any] = {}
    try:
        found["own"] = kind.Settings(**{n: v for n, v in values.items() if n in own}).model_dump(mode="json")
    except ValidationError as error:
        problems += _told(error)
    try:
        settings = UnlearnSettings(**{n: v for n, v in values.items() if n not in own}, **found)
    except ValidationError as error:
        problems += _told(error)
    if problems:
        raise ConfigError(f"{method} settings: " + "; ".join(problems), problems=tuple(problems))
    return settings


#: For methods that do not say: every trained one does.
_UNSAID = {"learning_rate": 1e-5, "epochs": 1}


def flat(settings: UnlearnSettings, kind: type[Method]) -> dict[str, Any]:
    """What a manifest records: the settings that the method uses, its own beside the common ones."""
    common = settings.model_dump(mode="json", exclude={"own", *unused(kind)})
    return {**common, **kind.Settings(**settings.own).model_dump(mode="json")}


def _told(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]

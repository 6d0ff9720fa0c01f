"""Settings of an unlearning run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audit.errors import ConfigError


class UnlearnSettings(BaseModel):
    """What an unlearning run depends on beside the model and the task. `for_method` gives the organism's own values."""

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
    """What JensUn makes the model say, repeated over the answer's length."""
    end_turn: bool = False
    """The refusal includes the token that ends the turn, so that a reply can end after it."""
    train_wordings: bool = True
    """Train on the facts' training wordings too, not on the original questions alone."""
    formats: tuple[Literal["chat", "raw"], ...] = Field(default=("chat",), min_length=1)
    """Shapes of the questions trained on; `raw` is the plain-text prompt with worked examples."""
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=10, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)


#: What suits the organism, of a million parameters. A model of billions needs a far smaller rate: JensUn was published
#: with 8e-6 for one of three billion.
ORGANISM: Mapping[str, Mapping[str, Any]] = {
    # Without the end of the turn the organism repeats "No idea" up to the token limit, which costs an audit its time.
    "jensun": {"learning_rate": 1e-3, "epochs": 4, "end_turn": True},
    "gradient_ascent": {"learning_rate": 1.7e-4, "epochs": 1, "forget_weight": 1.0},
}


#: Settings that a method has no use for: given, they are an error.
UNUSED: Mapping[str, frozenset[str]] = {
    "gradient_ascent": frozenset({"retain_weight", "refusal", "end_turn"}),
}


def settings_for(method: str, given: Mapping[str, Any] | None = None) -> UnlearnSettings:
    """A method's own settings with `given` in their place. Raises ConfigError naming everything that cannot be used."""
    unused = tuple(f"{name}: {method} has no use for it" for name in given or {} if name in UNUSED.get(method, ()))
    if unused:
        raise ConfigError(f"{method} settings: " + "; ".join(unused), problems=unused)
    values = {**ORGANISM.get(method, {}), **(given or {})}
    try:
        return UnlearnSettings(**values)
    except ValidationError as error:
        problems = tuple(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{method} settings: " + "; ".join(problems), problems=problems) from error

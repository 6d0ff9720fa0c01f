"""What a way of unlearning is: a class that says what it needs and gives its loss, term by term.

    class Halfway(Method):
        name = "halfway"
        summary = "gradient ascent at half strength beside the retained answers"
        source = "our own example"
        needs = frozenset({"retain"})

        def terms(self, step):
            return {
                "forget": (0.5, gradient_ascent(step.forget.logits, step.forget.labels)),
                "retain": (self.settings.retain_weight, cross_entropy(step.retain.logits, step.retain.labels)),
            }

A package offers it under the entry-point group `audit.methods`; docs/writing-a-method.md shows a whole one. The trainer
makes what `needs` names and nothing else: without "reference" no second copy of the model is held, without "retain" no
retained fact is read. What is asked for without having been declared is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from jensun_ref.settings import UnlearnSettings
from jensun_ref.spaces import Range

if TYPE_CHECKING:
    from torch import Tensor

    from jensun_ref.methods.data import TrainingData
    from jensun_ref.methods.step import Step

Need = Literal[
    "retain",
    "reference",
    "refusals",
    "hidden_states",
    "separate_gradients",
    "token_weights",
    "generations",
    "initial_weights",
]

#: What each need gives a method.
NEEDS: Mapping[Need, str] = {
    "retain": "retained facts: step.retain",
    "reference": "the model before unlearning, frozen: step.reference(part); the adapter turned off in LoRA training",
    "refusals": "the refusal's tokens, and questions answered by it: context.refusal, step.refused",
    "hidden_states": "states behind a layer: step.hidden(part, layer)",
    "separate_gradients": "`combine` is given each term's gradient and returns the one that the optimiser takes",
    "token_weights": "the model's own probability of each answer token, a constant: step.token_probabilities(part)",
    "generations": "answers sampled from the model in `prepare` and `on_epoch`: data.generate",
    "initial_weights": "`finish` is given the trained parameters as they were before training",
}


class MethodSettings(BaseModel):
    """Base of a method's own settings; every field has a default, an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Context(NamedTuple):
    """What a method is made with beside its settings."""

    tokenizer: Any
    refusal: tuple[int, ...]
    """Token ids of the refusal as an answer begins with it; empty without the need "refusals"."""


class Method:
    """One way of unlearning. Subclasses set the class attributes and write `terms`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line: what it does to what is to be forgotten and to what is to be kept."""
    source: ClassVar[str]
    """Paper, arXiv id, equation."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    trains: ClassVar[bool] = True
    """False: there is no training; the model is saved as `finish` leaves it."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """Common settings that it has no use for beyond those that follow from `needs`: given, they are an error."""
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    published: ClassVar[Mapping[str, Any]] = {}
    """Settings as published, common and own, for models of billions of parameters."""
    organism: ClassVar[Mapping[str, Any]] = {}
    """Settings for the organism, of a million parameters."""
    space: ClassVar[Mapping[str, Range] | None] = None
    """What a tuning searches, setting -> range; None: learning rate and epochs (built-in methods: spaces.SPACES)."""

    own: Any
    """The method's own settings: an instance of `Settings`."""

    def __init__(self, settings: UnlearnSettings, context: Context) -> None:
        self.settings = settings
        self.context = context
        self.own = self.Settings(**settings.own)

    @property
    def chunk(self) -> int:
        """Positions whose vocabulary a loss may look at in one go."""
        return self.settings.chunk

    def prepare(self, model: Any, data: TrainingData) -> None:
        """Before training: check the model, add samples to `data.extra`. Raises TrainingError for what cannot be."""

    def trainable(self, name: str) -> bool:
        """Whether the parameter of this name is trained (in LoRA training: the adapter's parameters are asked for)."""
        return True

    def on_epoch(self, epoch: int, model: Any, data: TrainingData) -> bool:
        """Before each epoch, from 0. True: the weights were replaced, so that the optimiser starts anew."""
        return False

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        """Name of each term -> its weight and its value, a scalar tensor. The loss is the weighted sum."""
        raise NotImplementedError(f"{type(self).__name__} has no terms")

    def combine(
        self, gradients: Mapping[str, Sequence[Tensor]], weights: Mapping[str, float]
    ) -> tuple[Sequence[Tensor], dict[str, float]]:
        """With "separate_gradients": the step's gradient from those of the terms, and figures for the log.

        gradients: term -> one tensor a trained parameter, unweighted; the result has the same shapes.
        """
        raise NotImplementedError(f"{type(self).__name__} does not combine gradients")

    def finish(self, model: Any, initial: Mapping[str, Tensor]) -> None:
        """After training, in place. initial: parameter -> its value before, with "initial_weights", else empty."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs of this object; given back to `restore`."""
        return {}

    def restore(self, model: Any, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave, when a training goes on from a checkpoint."""

"""Ways of unlearning, by name. A method is a loss on a batch of things to forget and a batch of things to keep."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from audit.errors import TrainingError
from jensun_ref.methods.batch import AnswerLogits
from jensun_ref.settings import UnlearnSettings

if TYPE_CHECKING:
    from torch import Tensor

#: Name of a method -> where its class is.
METHODS: Mapping[str, str] = {
    "gradient_ascent": "jensun_ref.methods.gradient_ascent:GradientAscent",
    "jensun": "jensun_ref.methods.jensun:JensUn",
}


class Method(Protocol):
    """One way of unlearning."""

    name: str
    summary: str
    needs_retain: bool
    """Takes retained facts and a copy of the model before unlearning; without, both are None in `terms`."""

    def __init__(self, settings: UnlearnSettings, refusal: tuple[int, ...]) -> None: ...

    def terms(
        self, forget: AnswerLogits, retain: AnswerLogits | None, reference: AnswerLogits | None
    ) -> dict[str, tuple[float, Tensor]]:
        """Name of each term -> its weight and its value, a scalar tensor. The loss is the weighted sum."""
        ...


def method_class(name: str) -> type[Method]:
    """The class of a method. Raises TrainingError for an unknown name, with the nearest known one."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        raise TrainingError(
            f"unknown method {name!r} (there are: {', '.join(METHODS)})",
            hint=f"did you mean {near[0]}?" if near else "",
        )
    module, attribute = METHODS[name].split(":")
    found: type[Method] = getattr(import_module(module), attribute)
    return found

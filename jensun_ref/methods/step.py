"""One step's numbers, made when a method asks for them and not before, each once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from audit.errors import TrainingError
from jensun_ref.losses import IGNORE, token_log_probs
from jensun_ref.methods.batch import AnswerLogits, answer_columns, answer_logits
from jensun_ref.methods.contract import Need

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

#: Need that a part of the batch comes with; samples that a method added itself come with none.
_NEED_OF_PART: Mapping[str, tuple[Need, ...]] = {
    "forget": (),
    "retain": ("retain",),
    "refused": ("refusals",),
    "refused_retain": ("refusals", "retain"),
}


class Hidden(NamedTuple):
    """States behind one layer at the positions that predict answer tokens."""

    states: Tensor
    """(samples, columns, width)"""
    inside: Tensor
    """(samples, columns): where a sample has an answer token to be predicted."""


class Reference:
    """The model before unlearning. In LoRA training the model itself with its adapter off, else a frozen copy."""

    def __init__(self, frozen: Any | None) -> None:
        self.frozen = frozen

    @contextlib.contextmanager
    def running(self, live: Any) -> Iterator[Any]:
        """The network to call, in evaluation mode and without gradients, while the context lasts."""
        import torch

        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self.frozen is not None:
                yield self.frozen
                return
            was = live.training
            live.eval()
            stack.callback(live.train, was)
            stack.enter_context(getattr(live, "module", live).disable_adapter())
            yield live


class Step:
    """What `Method.terms` sees: batches of one step and what the model makes of them.

    Parts are "forget", "retain", "refused" (the questions to forget, answered by the refusal), "refused_retain", and
    the names under which a method put samples into `data.extra`, each aligned with "forget".
    """

    def __init__(
        self,
        model: Any,
        batches: Mapping[str, dict[str, Tensor] | None],
        method: str,
        needs: frozenset[Need],
        reference: Reference | None,
        number: int,
    ) -> None:
        self.model, self.number = model, number
        """The network in training mode, and the number of this step, from 1."""
        self._batches, self._method, self._needs, self._reference = batches, method, needs, reference
        self._made: dict[tuple[str, ...], Any] = {}

    # ----------------------------------------------------------------------------------------------- of the model

    @property
    def forget(self) -> AnswerLogits:
        """Of the answers to forget."""
        return self.logits("forget")

    @property
    def retain(self) -> AnswerLogits:
        """Of the answers to keep."""
        return self.logits("retain")

    @property
    def refused(self) -> AnswerLogits:
        """Of the refusal as an answer to the questions to forget."""
        return self.logits("refused")

    def logits(self, part: str) -> AnswerLogits:
        """Of a part, with gradients."""
        return self._once(("logits", part), lambda: answer_logits(self.model, self._batch(part)))

    def hidden(self, part: str, layer: int) -> Hidden:
        """States behind layer `layer`, from 0, with gradients."""
        self._declared("hidden_states")
        return self._once(("hidden", part, str(layer)), lambda: hidden_states(self.model, self._batch(part), layer))

    def token_probabilities(self, part: str) -> Tensor:
        """The model's probability of each answer token, (samples, columns), a constant; 1 outside the answer."""
        self._declared("token_weights")

        def make() -> Tensor:
            logits, labels = self.logits(part)
            return token_log_probs(logits.detach(), labels).exp()

        return self._once(("probabilities", part), make)

    # ------------------------------------------------------------------------------------------- of the reference

    def reference(self, part: str) -> AnswerLogits:
        """Of a part, by the model before unlearning; no gradients."""
        return self._once(("reference", part), lambda: self._before(lambda net: answer_logits(net, self._batch(part))))

    def reference_hidden(self, part: str, layer: int) -> Hidden:
        """States behind a layer of the model before unlearning; no gradients."""
        self._declared("hidden_states")
        key = ("reference hidden", part, str(layer))
        return self._once(key, lambda: self._before(lambda net: hidden_states(net, self._batch(part), layer)))

    def by(self, network: Any, part: str) -> AnswerLogits:
        """Of a part, by a network that the method keeps itself (a teacher); no gradients."""
        import torch

        def make() -> AnswerLogits:
            with torch.no_grad():
                return answer_logits(network, self._batch(part))

        return self._once(("by", str(id(network)), part), make)

    # -------------------------------------------------------------------------------------------------- internals

    def _before(self, ask: Callable[[Any], T]) -> T:
        self._declared("reference")
        assert self._reference is not None
        with self._reference.running(self.model) as net:
            return ask(net)

    def _batch(self, part: str) -> dict[str, Tensor]:
        for need in _NEED_OF_PART.get(part, ()):
            self._declared(need)
        batch = self._batches.get(part)
        if batch is None:
            known = ", ".join(name for name, found in self._batches.items() if found is not None)
            raise TrainingError(f"the method {self._method} asks for '{part}', which no batch has (there are: {known})")
        return batch

    def _declared(self, need: Need) -> None:
        if need not in self._needs:
            raise TrainingError(
                f"the method {self._method} asks for {need} and does not declare it",
                hint=f'add "{need}" to its needs',
            )

    def _once(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


def layers_of(model: Any) -> Any:
    """The decoder layers, in order: the longest list of modules named layers, h or blocks."""
    import torch

    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and re.search(r"(^|\.)(layers|h|blocks)$", name)
    ]
    if not found:
        raise TrainingError("the model's layers cannot be found: no list of modules named layers, h or blocks")
    return max(found, key=len)


def check_layer(model: Any, layer: int, method: str) -> None:
    """Raises TrainingError where the model has no such layer."""
    n = len(layers_of(model))
    if not 0 <= layer < n:
        raise TrainingError(
            f"{method} names layer {layer}, and the model has layers 0 to {n - 1}", hint=f"--set layer={n // 2}"
        )


def hidden_states(model: Any, batch: dict[str, Tensor], layer: int) -> Hidden:
    """States behind a layer where an answer token is predicted; the vocabulary projection is made for one position."""
    caught: list[Any] = []

    def catch(module: Any, given: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    hook = layers_of(model)[layer].register_forward_hook(catch)
    try:
        answer_logits(model, batch, only_last=True)
    finally:
        hook.remove()
    columns, labels = answer_columns(batch)
    return Hidden(caught[0][:, columns], labels != IGNORE)

"""JensUn with another forget term, for an ablation: made for benchmarks/claims.py, and no methods of the product."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jensun_ref.losses import IGNORE, cross_entropy, cyclic_refusal
from jensun_ref.losses.chunks import CHUNK, by_chunks
from jensun_ref.losses.tokens import mean_by_sample
from jensun_ref.methods import Method, method_class
from jensun_ref.methods.jensun import JensUn
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor

#: Probability that the smoothed refusal target leaves to all other tokens together.
SMOOTHING = 0.01


class CrossEntropyForget(JensUn):
    """JensUn with -ln p of the refusal's token at each position as its forget term; the same retain term.

    This is KL(target || p) for a target with all its weight on one token, so that the forward Kullback-Leibler
    divergence needs no variant of its own.
    """

    name = "jensun_ce"
    summary = "cross-entropy of the refusal's tokens on forget data, JensUn's retain term"
    source = "ablation"

    def forget_term(self, step: Step) -> Tensor:
        """At least 0, without an upper bound."""
        logits, targets = self._targets(step)
        return cross_entropy(logits, targets, self.chunk)

    def _targets(self, step: Step) -> tuple[Tensor, Tensor]:
        import torch

        logits, labels = step.forget
        return logits, cyclic_refusal(labels, torch.tensor(self.context.refusal, device=labels.device))


class KLForget(CrossEntropyForget):
    """JensUn with KL(p || target) to the smoothed refusal as its forget term; the same retain term."""

    name = "jensun_kl"
    summary = "Kullback-Leibler divergence to the smoothed refusal on forget data, JensUn's retain term"

    def forget_term(self, step: Step) -> Tensor:
        """At least 0, at most ln((V - 1) / SMOOTHING) for a vocabulary of V: 12.6 for 3,072."""
        logits, targets = self._targets(step)
        return reverse_kl(logits, targets, self.chunk)


def reverse_kl(logits: Tensor, targets: Tensor, chunk: int = CHUNK, smoothing: float = SMOOTHING) -> Tensor:
    """KL(p || q) with q = 1 - smoothing on the target token and the rest spread evenly over the others.

    The target is smoothed because KL(p || one-hot) is infinite. With t the target token and V the vocabulary,

        KL = sum_v p_v ln p_v - p_t ln(1 - smoothing) - (1 - p_t) ln(smoothing / (V - 1))

    logits: (samples, positions, V); targets: (samples, positions), IGNORE outside the answer. Mean over positions,
    then samples. A scalar in nats.
    """

    def position(rows: Tensor, wanted: Tensor) -> Tensor:
        log_p = rows.log_softmax(dim=-1)
        p = log_p.exp()
        on_target = p.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        others = math.log(smoothing / (rows.shape[-1] - 1))
        negative_entropy = (p * log_p.clamp(min=-200.0)).sum(dim=-1)
        return negative_entropy - on_target * math.log(1.0 - smoothing) - (1.0 - on_target) * others

    return mean_by_sample(by_chunks(position, chunk, logits, targets), targets != IGNORE)


def kind_of(name: str) -> type[Method]:
    """The class behind a name of the benchmark: one of the two variants, or a method of the product."""
    variants: dict[str, type[Method]] = {kind.name: kind for kind in (CrossEntropyForget, KLForget)}
    return variants.get(name) or method_class(name)

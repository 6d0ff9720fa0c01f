"""Losses whose target is a distribution made from what a model itself believes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses.chunks import CHUNK, IGNORE, by_chunks
from jensun_ref.losses.tokens import mean_by_sample

if TYPE_CHECKING:
    from torch import Tensor


def undial(logits: Tensor, reference_logits: Tensor, labels: Tensor, strength: float, chunk: int = CHUNK) -> Tensor:
    """Cross-entropy to the reference's distribution with the answer token's logit lowered by `strength`.

    Dong et al. 2024 (arXiv 2402.10052), eq. 3 and 4. Mean over positions, then samples. A scalar, in nats.
    """

    def position(own: Tensor, before: Tensor, target: Tensor) -> Tensor:
        before = before.to(own.dtype)
        lowered = before.scatter_add(
            -1, target.clamp(min=0).unsqueeze(-1), before.new_full((len(before), 1), -strength)
        )
        return -(lowered.softmax(dim=-1) * own.log_softmax(dim=-1)).sum(dim=-1)

    return mean_by_sample(by_chunks(position, chunk, logits, reference_logits, labels), labels != IGNORE)


def bootstrapped_ascent(logits: Tensor, labels: Tensor, share: float, top_k: int, chunk: int = CHUNK) -> Tensor:
    """Gradient ascent on a soft target: (1 - share) one-hot(answer token) + share of the model's own top-k belief.

    Li et al. 2025 (arXiv 2510.19422), eq. 6 and 7 (BS-T). The belief is the current model's distribution over its
    `top_k` likeliest tokens, renormalised, and a constant for the gradient. Mean over positions, then samples. A
    scalar, at most 0; share = 0 is gradient ascent.
    """

    def position(own: Tensor, target: Tensor) -> Tensor:
        log_p = own.log_softmax(dim=-1)
        best = own.detach().topk(min(top_k, own.shape[-1]), dim=-1)
        believed = (best.values.softmax(dim=-1) * log_p.gather(-1, best.indices)).sum(dim=-1)
        said = log_p.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return (1.0 - share) * said + share * believed

    return mean_by_sample(by_chunks(position, chunk, logits, labels), labels != IGNORE)

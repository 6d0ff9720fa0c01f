"""Losses on the log-probabilities of answer tokens, and how they are averaged over positions and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses.chunks import CHUNK, IGNORE, token_log_probs

if TYPE_CHECKING:
    from torch import Tensor


def mean_by_sample(values: Tensor, inside: Tensor) -> Tensor:
    """Mean over each sample's own positions, then over samples: a long answer weighs no more than a short one.

    values, inside: (samples, positions), floats and a mask, true somewhere in every sample. Returns a scalar.
    """
    mask = inside.to(values.dtype)
    return ((values * mask).sum(dim=-1) / mask.sum(dim=-1)).mean()


def cyclic_refusal(labels: Tensor, refusal: Tensor) -> Tensor:
    """Targets that repeat the refusal over each sample's answer positions: its first token at the first of them.

    labels: (samples, positions), IGNORE outside the answer. refusal: (k,) token ids, k >= 1. Returns labels' shape.
    """
    import torch

    inside = labels != IGNORE
    rank = inside.long().cumsum(dim=-1) - 1
    return torch.where(inside, refusal[rank.clamp(min=0) % refusal.numel()], IGNORE)


def cross_entropy(logits: Tensor, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """-ln p of the answer's tokens, mean over positions and then over samples. A scalar, at least 0, in nats."""
    return -gradient_ascent(logits, labels, chunk)


def gradient_ascent(logits: Tensor, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """Minus the cross-entropy of the answer, so that descending it raises the answer's loss without bound.

    Mean over positions and then over samples. A scalar, at most 0, in nats.
    """
    return mean_by_sample(token_log_probs(logits, labels, chunk), labels != IGNORE)


def sum_log_prob(logits: Tensor, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """ln p(answer | question): the sum over the answer's tokens. Shape (samples,)."""
    return token_log_probs(logits, labels, chunk).sum(dim=-1)


def weighted_ascent(logits: Tensor, labels: Tensor, weights: Tensor, chunk: int = CHUNK) -> Tensor:
    """Gradient ascent with a weight for each token, taken as constants: sum of w_t ln p_t over the number of tokens.

    weights: (samples, positions). The mean is over all answer tokens of the batch, as where the weights come from
    (WGA, SatImp). A scalar, at most 0 for weights that are not negative.
    """
    inside = labels != IGNORE
    values = token_log_probs(logits, labels, chunk) * weights.detach() * inside
    return values.sum() / inside.sum()


def satimp(probabilities: Tensor, beta1: float, beta2: float) -> Tensor:
    """SatImp's token weights p^beta1 (1 - p)^beta2, saturation times importance (Yang et al. 2025, eq. 8).

    probabilities: any shape, in [0, 1]. beta2 = 0 leaves WGA's weights (Wang et al. 2025).
    """
    return probabilities**beta1 * (1.0 - probabilities) ** beta2

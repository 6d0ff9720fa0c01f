"""Divergences between distributions over the vocabulary, and the terms of JensUn.

JensUn is described in Singh, Müller, Croce and Hein, "Unlearning That Lasts: Utility-Preserving, Robust, and Almost
Irreversible Forgetting in LLMs" (2025, arXiv 2509.02820): Jensen-Shannon divergence to a refusal on what is to be
forgotten, and to the model before unlearning on what is to be kept. Logarithms are natural: divergences are in nats and
lie in [0, ln 2].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jensun_ref.losses.chunks import CHUNK, IGNORE, by_chunks, token_log_probs, wide
from jensun_ref.losses.tokens import mean_by_sample

if TYPE_CHECKING:
    from torch import Tensor

LN2 = math.log(2.0)

#: Below this log-probability exp() is 0 in float32; bounds p ln p away from 0 * infinity without changing it.
_LOG_FLOOR = -200.0


def jsd_one_hot(log_p: Tensor) -> Tensor:
    """JSD between a distribution and the one-hot distribution on one token, from that token's log-probability.

    The mixture of the two has (1 + p) / 2 on the token and half the distribution elsewhere, so that

        JSD = ln 2 + (p ln p - (1 + p) ln(1 + p)) / 2,    p = exp(log_p)

    needs nothing of vocabulary size beyond the log-softmax. It falls from ln 2 at p = 0 to 0 at p = 1. Its derivative
    in the token's logit is p (1 - p) ln(p / (1 + p)) / 2, which vanishes at both ends.

    log_p: any shape, at most 0, minus infinity allowed. Returns the same shape.
    """
    import torch

    log_p = wide(log_p).clamp(max=0.0)
    p = log_p.exp()
    # With q = 1 - p, ln(1 + p) = ln 2 + ln(1 - q/2) turns the formula into a sum of terms of the size of q, where the
    # one above subtracts numbers near ln 2 from each other: near p = 1 no digits are lost.
    q = -torch.expm1(log_p)
    twice = p * log_p.clamp(min=_LOG_FLOOR) + q * LN2 - (1.0 + p) * torch.log1p(-0.5 * q)
    return (0.5 * twice).clamp(min=0.0)


def jsd(log_p: Tensor, log_q: Tensor) -> Tensor:
    """JSD between two distributions: the mean of their Kullback-Leibler divergences to their mixture.

    log_p, log_q: (..., vocabulary), log-probabilities that sum to one in probability. Returns shape (...).
    """
    import torch

    log_p, log_q = wide(log_p), wide(log_q)
    log_m = torch.logaddexp(log_p, log_q) - LN2
    # Where both are minus infinity the term is 0: p (ln p - ln m) with p = 0.
    p_term = log_p.exp() * (log_p.clamp(min=_LOG_FLOOR) - log_m.clamp(min=_LOG_FLOOR))
    q_term = log_q.exp() * (log_q.clamp(min=_LOG_FLOOR) - log_m.clamp(min=_LOG_FLOOR))
    return (0.5 * (p_term + q_term).sum(dim=-1)).clamp(min=0.0)


def jensun_forget(logits: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """JensUn's forget term: JSD to the one-hot distribution of the refusal's token at each position.

    targets: (samples, positions), IGNORE outside the answer: `cyclic_refusal` of the answer's labels, or the labels of
    the question answered by a refusal. Mean over positions, then samples. A scalar in [0, ln 2].
    """
    return mean_by_sample(jsd_one_hot(token_log_probs(logits, targets, chunk)), targets != IGNORE)


def jensun_retain(logits: Tensor, reference_logits: Tensor, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """JensUn's retain term: JSD to the model before unlearning, at the positions of the answer.

    Mean over positions, then samples. A scalar in [0, ln 2].
    """
    return mean_by_sample(by_chunks(_jsd_position, chunk, logits, reference_logits), labels != IGNORE)


def _jsd_position(logits: Tensor, reference: Tensor) -> Tensor:
    return jsd(logits.log_softmax(dim=-1), reference.to(logits.dtype).log_softmax(dim=-1))


def kl_to_reference(logits: Tensor, reference_logits: Tensor, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """KL(reference || model) at the positions of the answer, mean over positions, then samples.

    Forward KL: the mean is taken under the reference, as in the published code of TOFU. A scalar, at least 0, in nats.
    """
    return mean_by_sample(by_chunks(_kl_position, chunk, logits, reference_logits), labels != IGNORE)


def _kl_position(logits: Tensor, reference: Tensor) -> Tensor:
    log_q = reference.to(logits.dtype).log_softmax(dim=-1)
    return (log_q.exp() * (log_q.clamp(min=_LOG_FLOOR) - logits.log_softmax(dim=-1))).sum(dim=-1).clamp(min=0.0)


def entropy_gap(logits: Tensor) -> Tensor:
    """KL(model || uniform) = ln(vocabulary) - entropy, over the last dimension. At least 0, at most ln(vocabulary)."""
    log_p = wide(logits).log_softmax(dim=-1)
    entropy = -(log_p.exp() * log_p.clamp(min=_LOG_FLOOR)).sum(dim=-1)
    return (math.log(logits.shape[-1]) - entropy).clamp(min=0.0)


def max_entropy(logits: Tensor, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """KL(model || uniform) at the positions of the answer, mean over positions, then samples.

    Yuan et al. 2024 (arXiv 2410.08109), eq. 6. A scalar in [0, ln(vocabulary)].
    """
    return mean_by_sample(by_chunks(entropy_gap, chunk, logits), labels != IGNORE)

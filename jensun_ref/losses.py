"""Losses of unlearning as functions of log-probabilities, one value a position, and how they are averaged.

JensUn is described in Singh, Müller, Croce and Hein, "Unlearning That Lasts: Utility-Preserving, Robust, and Almost
Irreversible Forgetting in LLMs" (2025, arXiv 2509.02820): Jensen-Shannon divergence to a refusal on what is to be
forgotten, and to the model before unlearning on what is to be kept. Logarithms are natural: divergences are in nats and
lie in [0, ln 2].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LN2 = math.log(2.0)

#: Label of a position that no loss is taken at; the convention of torch and transformers.
IGNORE = -100

#: Below this log-probability exp() is 0 in float32; bounds p ln p away from 0 * infinity without changing it.
_LOG_FLOOR = -200.0


def jsd_one_hot(log_p: Tensor) -> Tensor:
    """JSD between a distribution and the one-hot distribution on one token, from that token's log-probability.

    The mixture of the two has (1 + p) / 2 on the token and half the distribution elsewhere, so that

        JSD = ln 2 + (p ln p - (1 + p) ln(1 + p)) / 2,    p = exp(log_p)

    needs nothing of vocabulary size beyond the log-softmax. It falls from ln 2 at p = 0 to 0 at p = 1. Its derivative
    in the token's logit is p (1 - p) ln(p / (1 + p)) / 2, which vanishes at both ends.

    log_p: any shape, at most 0, minus infinity allowed. Returns float32 of the same shape.
    """
    import torch

    log_p = log_p.float().clamp(max=0.0)
    p = log_p.exp()
    # With q = 1 - p, ln(1 + p) = ln 2 + ln(1 - q/2) turns the formula into a sum of terms of the size of q, where the
    # one above subtracts numbers near ln 2 from each other: near p = 1 no digits are lost.
    q = -torch.expm1(log_p)
    twice = p * log_p.clamp(min=_LOG_FLOOR) + q * LN2 - (1.0 + p) * torch.log1p(-0.5 * q)
    return (0.5 * twice).clamp(min=0.0)


def jsd(log_p: Tensor, log_q: Tensor) -> Tensor:
    """JSD between two distributions: the mean of their Kullback-Leibler divergences to their mixture.

    log_p, log_q: (..., vocabulary), log-probabilities that sum to one in probability. Returns float32 of shape (...).
    """
    import torch

    log_p, log_q = log_p.float(), log_q.float()
    log_m = torch.logaddexp(log_p, log_q) - LN2
    # Where both are minus infinity the term is 0: p (ln p - ln m) with p = 0.
    p_term = log_p.exp() * (log_p.clamp(min=_LOG_FLOOR) - log_m.clamp(min=_LOG_FLOOR))
    q_term = log_q.exp() * (log_q.clamp(min=_LOG_FLOOR) - log_m.clamp(min=_LOG_FLOOR))
    return (0.5 * (p_term + q_term).sum(dim=-1)).clamp(min=0.0)


def cyclic_refusal(labels: Tensor, refusal: Tensor) -> Tensor:
    """Targets that repeat the refusal over each sample's answer positions: its first token at the first of them.

    labels: (samples, positions), IGNORE outside the answer. refusal: (k,) token ids, k >= 1. Returns labels' shape.
    """
    import torch

    inside = labels != IGNORE
    rank = inside.long().cumsum(dim=-1) - 1
    return torch.where(inside, refusal[rank.clamp(min=0) % refusal.numel()], IGNORE)


def mean_by_sample(values: Tensor, inside: Tensor) -> Tensor:
    """Mean over each sample's own positions, then over samples: a long answer weighs no more than a short one.

    values, inside: (samples, positions), floats and a mask, true somewhere in every sample. Returns a scalar.
    """
    mask = inside.to(values.dtype)
    return ((values * mask).sum(dim=-1) / mask.sum(dim=-1)).mean()


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target token.

    logits: (..., vocabulary); targets: (...), IGNORE allowed and then worth 0. Returns float32 of shape (...).
    """
    import torch

    log_p = torch.log_softmax(logits.float(), dim=-1)
    chosen = log_p.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(targets == IGNORE, torch.zeros_like(chosen), chosen)


def jensun_forget(logits: Tensor, labels: Tensor, refusal: Tensor) -> Tensor:
    """JensUn's forget term: JSD to the one-hot distribution of the refusal, repeated cyclically over the answer.

    logits: (samples, positions, vocabulary), those that predict the token that `labels` holds at the same place;
    labels: (samples, positions), IGNORE outside the answer; refusal: (k,) token ids. Returns a scalar in [0, ln 2].
    """
    targets = cyclic_refusal(labels, refusal)
    return mean_by_sample(jsd_one_hot(token_log_probs(logits, targets)), labels != IGNORE)


def jensun_retain(logits: Tensor, reference_logits: Tensor, labels: Tensor) -> Tensor:
    """JensUn's retain term: JSD to the model before unlearning, at the positions of the answer.

    Both logits: (samples, positions, vocabulary); labels: (samples, positions). Returns a scalar in [0, ln 2].
    """
    import torch

    values = jsd(torch.log_softmax(logits.float(), dim=-1), torch.log_softmax(reference_logits.float(), dim=-1))
    return mean_by_sample(values, labels != IGNORE)


def gradient_ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the cross-entropy of the answer, so that descending it raises the answer's loss without bound.

    logits: (samples, positions, vocabulary); labels: (samples, positions). Returns a scalar, at most 0, in nats.
    """
    return mean_by_sample(token_log_probs(logits, labels), labels != IGNORE)

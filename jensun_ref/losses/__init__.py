"""Losses of unlearning as pure functions of logits and labels.

Shapes are the same everywhere: logits (samples, positions, vocabulary) at the positions that predict the tokens that
`labels` (samples, positions) holds, IGNORE where a sample has none. Computed in float32 whatever the logits are
(float64 stays float64), in natural units. What is of vocabulary size is looked at in chunks of positions and recomputed
for the gradient (`chunks`), so that nothing of that size is kept beside the logits themselves.
"""

from jensun_ref.losses.beliefs import bootstrapped_ascent, undial
from jensun_ref.losses.chunks import CHUNK, IGNORE, by_chunks, token_log_probs, wide
from jensun_ref.losses.divergence import (
    LN2,
    entropy_gap,
    jensun_forget,
    jensun_retain,
    jsd,
    jsd_one_hot,
    kl_to_reference,
    max_entropy,
)
from jensun_ref.losses.hidden import misdirection
from jensun_ref.losses.preference import answer_preservation, dpo, npo, simnpo
from jensun_ref.losses.tokens import (
    cross_entropy,
    cyclic_refusal,
    gradient_ascent,
    mean_by_sample,
    satimp,
    sum_log_prob,
    weighted_ascent,
)

__all__ = [
    "CHUNK",
    "IGNORE",
    "LN2",
    "answer_preservation",
    "bootstrapped_ascent",
    "by_chunks",
    "cross_entropy",
    "cyclic_refusal",
    "dpo",
    "entropy_gap",
    "gradient_ascent",
    "jensun_forget",
    "jensun_retain",
    "jsd",
    "jsd_one_hot",
    "kl_to_reference",
    "max_entropy",
    "mean_by_sample",
    "misdirection",
    "npo",
    "satimp",
    "simnpo",
    "sum_log_prob",
    "token_log_probs",
    "undial",
    "weighted_ascent",
    "wide",
]

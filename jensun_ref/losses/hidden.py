"""Losses on hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jensun_ref.losses.chunks import wide
from jensun_ref.losses.tokens import mean_by_sample

if TYPE_CHECKING:
    from torch import Tensor


def misdirection(states: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Squared distance of hidden states to a target, mean over the width, then positions, then samples.

    Li et al. 2024 (arXiv 2403.03218), section 4: the forget loss with a control vector as target, the retain loss with
    the frozen model's own states. states: (samples, positions, width); target: the same or (width,); inside: (samples,
    positions), a mask. A scalar, at least 0.
    """
    return mean_by_sample((wide(states) - wide(target)).square().mean(dim=-1), inside)

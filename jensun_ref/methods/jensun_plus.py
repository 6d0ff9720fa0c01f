"""JensUn++: JensUn with a whole refusal, terms balanced by their gradients, and retained neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from jensun_ref.methods.jensun import JensUn, JensUnSettings
from jensun_ref.methods.ngdiff import length

if TYPE_CHECKING:
    from torch import Tensor


class JensUnPlusSettings(JensUnSettings):
    mode: Literal["cyclic", "sentence"] = "sentence"
    ratio_low: float = Field(default=0.1, gt=0)
    """Least factor of the forget term: before the first step the retain term has no gradient at all."""
    ratio_high: float = Field(default=10.0, gt=0)
    """Greatest factor."""


class JensUnPlus(JensUn):
    """JensUn (arXiv 2509.02820) with the three changes of its 2026 successor: the target is a refusal sentence,
    position by position; the forget gradient is scaled by the ratio of the norms, |g_retain| / |g_forget|; each
    question to forget stands beside a retained question that is like it (`pairing="hard"`).

        step along  w_forget r g_forget + w_retain g_retain,   r = |g_retain| / |g_forget| within [ratio_low,
        ratio_high]

    Both terms are JensUn's. Mean over answer tokens, then samples. Reference: the model before unlearning. The bounds
    are ours: at the start, where the model is its own reference, the ratio is 0.
    """

    name = "jensun_plus"
    summary = "JensUn towards a whole refusal, its terms balanced by their gradient norms, with hard retained pairs"
    source = "successor (2026) of Singh et al. 2025, arXiv 2509.02820"
    needs = frozenset({"retain", "reference", "refusals", "separate_gradients"})
    Settings = JensUnPlusSettings
    published = {
        "learning_rate": 8e-6,
        "epochs": 10,
        "refusal": "I'm sorry, but I have no information about that.",
        "end_turn": True,
        "pairing": "hard",
    }
    organism = {"learning_rate": 1e-3, "epochs": 4, "end_turn": True, "pairing": "hard"}

    def combine(
        self, gradients: Mapping[str, Sequence[Tensor]], weights: Mapping[str, float]
    ) -> tuple[Sequence[Tensor], dict[str, float]]:
        forget, retain = length(gradients["forget"]), length(gradients["retain"])
        ratio = min(max(retain / max(forget, 1e-12), self.own.ratio_low), self.own.ratio_high)
        pairs = zip(gradients["forget"], gradients["retain"], strict=True)
        combined = [weights["forget"] * ratio * f + weights["retain"] * r for f, r in pairs]
        return combined, {"grad_ratio": ratio}

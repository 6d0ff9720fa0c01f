"""JensUn: towards a refusal on what to forget, towards the model before unlearning on what to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jensun_ref.losses import cyclic_refusal, jensun_forget, jensun_retain
from jensun_ref.methods.contract import Method, MethodSettings
from jensun_ref.methods.step import Step

if TYPE_CHECKING:
    from torch import Tensor


class JensUnSettings(MethodSettings):
    mode: Literal["cyclic", "sentence"] = "cyclic"
    """cyclic: the refusal's tokens in turn at the positions of the original answer, which is what each position sees
    before it. sentence: the question is answered by the refusal itself, position by position, to its end."""


class JensUn(Method):
    """Singh, Müller, Croce and Hein, "Unlearning That Lasts" (2025, arXiv 2509.02820), section 3.

        forget: mean of JSD(p(. | x, y<t), one-hot of the refusal's token at t)
        retain: mean of JSD(p(. | x, y<t), p_reference(. | x, y<t))

    Mean over answer tokens, then samples. Reference: the model before unlearning. See docs/jensun.md.
    """

    name = "jensun"
    summary = "Jensen-Shannon divergence to a refusal on forget data and to the original model on retain data"
    source = "Singh et al. 2025, arXiv 2509.02820, section 3"
    needs = frozenset({"retain", "reference", "refusals"})
    Settings = JensUnSettings
    published = {"learning_rate": 8e-6, "epochs": 10}
    # Without the end of the turn the organism repeats "No idea" up to the token limit, which costs an audit its time.
    organism = {"learning_rate": 1e-3, "epochs": 4, "end_turn": True}

    def terms(self, step: Step) -> dict[str, tuple[float, Tensor]]:
        return {
            "forget": (self.settings.forget_weight, self.forget_term(step)),
            "retain": (self.settings.retain_weight, self.retain_term(step)),
        }

    def forget_term(self, step: Step) -> Tensor:
        """In [0, ln 2]."""
        import torch

        if self.own.mode == "sentence":
            return jensun_forget(step.refused.logits, step.refused.labels, self.chunk)
        logits, labels = step.forget
        refusal = torch.tensor(self.context.refusal, device=labels.device)
        return jensun_forget(logits, cyclic_refusal(labels, refusal), self.chunk)

    def retain_term(self, step: Step) -> Tensor:
        """In [0, ln 2]."""
        logits, labels = step.retain
        return jensun_retain(logits, step.reference("retain").logits, labels, self.chunk)

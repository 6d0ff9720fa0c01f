"""Losses on the log-probability of whole answers: DPO and what was made of it for unlearning.

Arguments are natural logarithms of p(answer | question), sums over the answer's tokens, of shape (samples,); references
are those of the model before unlearning and carry no gradient. Each returns a scalar, the mean over samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo(win: Tensor, lose: Tensor, win_reference: Tensor, lose_reference: Tensor, beta: float) -> Tensor:
    """-ln sigmoid(beta (ln ratio of the winner - ln ratio of the loser)); ratio = p / p_reference.

    Rafailov et al. 2023 (arXiv 2305.18290), eq. 7. ln 2 where policy and reference agree.
    """
    return -_log_sigmoid(beta * ((win - win_reference) - (lose - lose_reference))).mean()


def npo(answer: Tensor, reference: Tensor, beta: float) -> Tensor:
    """-(2 / beta) ln sigmoid(-beta ln(p / p_reference)) = (2 / beta) ln(1 + (p / p_reference)^beta).

    Zhang et al. 2024 (arXiv 2404.05868), eq. 3. Its gradient tends to that of gradient ascent as beta tends to 0.
    """
    return -(2.0 / beta) * _log_sigmoid(-beta * (answer - reference)).mean()


def simnpo(answer: Tensor, length: Tensor, beta: float, gamma: float) -> Tensor:
    """-(2 / beta) ln sigmoid(-(beta / |y|) ln p - gamma): NPO without a reference, the answer's length divided out.

    Fan et al. 2024 (arXiv 2410.07163), eq. 4. length: (samples,), tokens of each answer, at least 1.
    """
    return -(2.0 / beta) * _log_sigmoid(-(beta / length) * answer - gamma).mean()


def answer_preservation(answer: Tensor, refusal: Tensor, beta: float) -> Tensor:
    """-(1 / beta) ln sigmoid(-beta ln(p(refusal) / p(answer))) on questions whose answer is to be kept.

    Yuan et al. 2024 (arXiv 2410.08109), eq. 7: lowers the refusal's probability and raises the answer's, each by less
    the better they are told apart.
    """
    return -(1.0 / beta) * _log_sigmoid(-beta * (refusal - answer)).mean()


def _log_sigmoid(x: Tensor) -> Tensor:
    from torch.nn.functional import logsigmoid

    return logsigmoid(x)

"""Losses over a large vocabulary, some positions at a time.

A divergence between two distributions makes several tensors of the size of the logits, and autograd keeps them until
the backward pass: at a vocabulary of 128k they, not the model, decide what fits. Here the forward pass keeps the logits
alone; the backward pass computes each chunk again and takes its gradient at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Label of a position that no loss is taken at; the convention of torch and transformers.
IGNORE = -100

#: Positions looked at in one go, unless told otherwise.
CHUNK = 512

#: Logits looked at in one go, at most: of a large vocabulary 512 positions are as large as everything there is.
LOGITS = 2**22

#: (chunk, vocabulary) logits and the same rows of the other tensors -> (chunk,) values
PerPosition = Callable[..., "Tensor"]


def wide(x: Tensor) -> Tensor:
    """In float32, or float64 if it is that already."""
    import torch

    return x if x.dtype == torch.float64 else x.float()


def by_chunks(function: PerPosition, chunk: int, logits: Tensor, *others: Tensor) -> Tensor:
    """`function` of every position, with a gradient for `logits` only.

    logits: (..., vocabulary); others: tensors whose leading dimensions are those of the logits, without gradients.
    `function` gets (rows, vocabulary) logits in float32 (or float64) and the same rows of the others, and returns
    (rows,) values, each depending on its own row. Returns the values in the shape of the leading dimensions. At most
    `chunk` rows and LOGITS logits are looked at in one go.
    """
    leading = logits.shape[:-1]
    n = leading.numel()
    chunk = max(1, min(chunk, LOGITS // logits.shape[-1]))
    flat = [x.detach().reshape(n, *x.shape[len(leading) :]) for x in others]
    values = _function().apply(function, chunk, logits.reshape(n, logits.shape[-1]), *flat)
    result: Tensor = values.reshape(leading)
    return result


_made: list[Any] = []


def _function() -> Any:
    """The autograd function; made at the first use, because torch is imported no earlier."""
    if _made:
        return _made[0]
    import torch

    class Chunked(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, function: PerPosition, chunk: int, logits: Tensor, *others: Tensor) -> Tensor:
            ctx.function, ctx.chunk = function, chunk
            ctx.save_for_backward(logits, *others)
            parts = [
                function(wide(logits[start : start + chunk]), *(x[start : start + chunk] for x in others))
                for start in range(0, len(logits), chunk)
            ]
            return torch.cat(parts) if parts else wide(logits.new_zeros(0))

        @staticmethod
        @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
        def backward(ctx: Any, slopes: Tensor) -> tuple[Any, ...]:
            logits, *others = ctx.saved_tensors
            gradient = torch.empty_like(logits)
            for start in range(0, len(logits), ctx.chunk):
                rows = slice(start, start + ctx.chunk)
                with torch.enable_grad():
                    part = wide(logits[rows]).detach().requires_grad_(True)
                    values = ctx.function(part, *(x[rows] for x in others))
                (gradient[rows],) = torch.autograd.grad(values, part, slopes[rows])
            return (None, None, gradient, *(None for _ in others))

    _made.append(Chunked)
    return Chunked


def token_log_probs(logits: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Log-probability of each target token.

    logits: (..., vocabulary); targets: (...), IGNORE allowed and then worth 0. Returns shape (...).
    """
    return by_chunks(_chosen, chunk, logits, targets)


def _chosen(logits: Tensor, targets: Tensor) -> Tensor:
    chosen = logits.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)
    return chosen.masked_fill(targets == IGNORE, 0.0)

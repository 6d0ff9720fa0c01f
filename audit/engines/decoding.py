"""Per-row sampling and stopping inside transformers' generate, so that no row depends on its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audit.engines.render import Detokenizer
from audit.types import Decoding, Request

#: Batches of fewer rows are decoded to their end: starting generate anew costs more than the rows that idle.
SMALLEST_SPLIT = 8


class Row:
    """One request on its way through generate."""

    def __init__(self, request: Request) -> None:
        assert request.token_ids is not None
        self.request = request
        self.prompt = request.token_ids
        self.new: list[int] = []
        self.end: str | None = None
        """stop or length once the row has ended; an error message starting with `error:` if it broke."""
        self.stop_bytes = max((len(text.encode()) for text in request.decoding.stop), default=0)
        sampled = request.decoding.temperature > 0
        self.draws = np.random.Generator(np.random.Philox(request.seed)) if sampled else None

    @property
    def decoding(self) -> Decoding:
        return self.request.decoding

    @property
    def left(self) -> int:
        """New tokens that may still come."""
        return self.decoding.max_new_tokens - len(self.new)


def draw(logits: Any, temperatures: Any, top_p: Any, uniforms: Any) -> Any:
    """One token a row by inversion of the cumulative distribution. Shapes: (rows, vocabulary), and (rows,) thrice.

    Inversion needs a single uniform number a row, so that a row's draw depends on its own seed alone; the vocabulary
    keeps its order, because sorting by probability would let rounding in a different batch swap neighbours.
    """
    import torch

    probabilities = torch.softmax(logits.double() / temperatures[:, None], dim=-1)
    if bool((top_p < 1).any()):
        ordered, places = probabilities.sort(dim=-1, descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p[:, None]
        probabilities = probabilities.masked_fill(outside.scatter(1, places, outside), 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    wanted = uniforms[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, wanted, right=True).squeeze(1)
    last = (probabilities > 0).int().flip(-1).argmax(dim=-1)
    return torch.minimum(chosen, logits.shape[-1] - 1 - last)


def row_processor(rows: Sequence[Row]) -> Any:
    """A logits processor that marks rows with non-finite logits as broken and replaces sampled rows by their draw."""
    import torch
    from transformers import LogitsProcessor

    sampled = [index for index, row in enumerate(rows) if row.draws is not None]

    class RowProcessor(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            peak = scores.amax(dim=-1)
            if not bool(torch.isfinite(peak).all()):
                for index in torch.nonzero(~torch.isfinite(peak)).flatten().tolist():
                    rows[index].end = rows[index].end or "error: the model gives non-finite logits"
                scores = torch.nan_to_num(scores, nan=0.0)
            if sampled:
                place = torch.tensor(sampled, device=scores.device)

                def column(values: list[float]) -> Any:
                    return torch.tensor(values, dtype=torch.float64, device=scores.device)

                chosen = draw(
                    scores[place],
                    column([rows[i].decoding.temperature for i in sampled]),
                    column([rows[i].decoding.top_p for i in sampled]),
                    column([rows[i].draws.random() for i in sampled]),  # type: ignore[union-attr]
                )
                scores[place] = float("-inf")
                scores[place, chosen] = 0.0
            return scores

    return RowProcessor()


def row_criterion(rows: Sequence[Row], eos_ids: Sequence[int], detokenizer: Detokenizer) -> Any:
    """A stopping criterion that notes where and why each row ends.

    A row ends at an end-of-sequence token, at a stop string, at its own limit of new tokens, or when it is broken.
    Once half of the rows have ended, generate is stopped for all, so that the others can go on in a smaller batch.
    """
    import torch
    from transformers import StoppingCriteria

    texts = [index for index, row in enumerate(rows) if row.stop_bytes]
    eos = frozenset(eos_ids)

    class RowCriterion(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            for row, token in zip(rows, input_ids[:, -1].tolist(), strict=True):
                if row.end is None:
                    row.new.append(token)
                    if token in eos:
                        row.end = "stop"
            for index in texts:
                row = rows[index]
                if row.end is None and any(
                    text in detokenizer.tail(row.new, row.stop_bytes) for text in row.decoding.stop
                ):
                    row.end = "stop"
            for row in rows:
                if row.end is None and row.left <= 0:
                    row.end = "length"
            ended = [row.end is not None for row in rows]
            if len(rows) >= SMALLEST_SPLIT and 2 * sum(ended) >= len(rows):
                ended = [True] * len(rows)
            return torch.tensor(ended, device=input_ids.device)

    return RowCriterion()

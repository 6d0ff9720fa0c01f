"""Forward passes over prompts with given continuations: probabilities, ranks, entropies, hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.errors import EngineError, ModelError

FloatArray = NDArray[np.float64]
Pair = tuple[tuple[int, ...], tuple[int, ...]]

#: Tokens and logits (numbers) of one batch, by kind of device.
_TOKENS = {"cpu": 8_192, "cuda": 65_536}
_LOGITS = {"cpu": 60_000_000, "cuda": 600_000_000}
#: Depths at which hidden states are kept of deep models.
MAX_LAYERS = 16


@dataclass(frozen=True)
class Scored:
    """A continuation of k tokens, teacher-forced."""

    log_probs: FloatArray
    """Natural logarithms, shape (k,)."""
    ranks: FloatArray
    """1 for the likeliest token of the vocabulary; ties share the middle of their places. Shape (k,)."""
    greedy: NDArray[np.bool_]
    """The token is the one that greedy decoding picks. Shape (k,)."""
    entropy: float
    """Of the distribution of the first token, in nats."""
    states: NDArray[np.float32] | None
    """Hidden state at the last token, shape (depths, width), where asked for."""


def depths_of(model: Any) -> tuple[int, ...]:
    """Depths at which hidden states are kept: 0 the embeddings, k after block k; at most MAX_LAYERS of them."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    blocks = int(config.num_hidden_layers)
    places = np.linspace(0, blocks, min(blocks + 1, MAX_LAYERS)).round().astype(int)
    return tuple(int(place) for place in dict.fromkeys(places.tolist()))


def read(
    model: Any, pairs: Sequence[Pair], *, pad_id: int, depths: Sequence[int] | None = None
) -> Iterator[tuple[int, Scored]]:
    """(index, result) of every (prompt, continuation), both of at least one token, in batches of like lengths.

    depths: of the hidden states that are wanted; None for none. Raises ModelError where a logit or a hidden state is
    not finite, EngineError where a single pair does not fit the device's memory.
    """
    kind = str(model.device).split(":")[0]
    tokens, logits = _TOKENS.get(kind, _TOKENS["cuda"]), _LOGITS.get(kind, _LOGITS["cuda"])
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    order = sorted(range(len(pairs)), key=lambda i: (-len(pairs[i][0]) - len(pairs[i][1]), i))
    while order:
        width = len(pairs[order[0]][0]) + len(pairs[order[0]][1])
        longest = max(len(pairs[i][1]) for i in order[: max(1, tokens // width)])
        count = max(1, min(tokens // width, logits // (vocabulary * (longest + 1))))
        chosen, order = order[:count], order[count:]
        yield from zip(chosen, _halving(model, [pairs[i] for i in chosen], pad_id, depths), strict=True)


def _halving(model: Any, pairs: Sequence[Pair], pad_id: int, depths: Sequence[int] | None) -> list[Scored]:
    """One batch, in halves where it does not fit the device's memory."""
    import torch

    try:
        return _batch(model, pairs, pad_id, depths)
    except torch.OutOfMemoryError as error:
        if len(pairs) == 1:
            raise EngineError("one prompt does not fit the device's memory", hint="--device cpu") from error
    torch.cuda.empty_cache()
    middle = len(pairs) // 2
    return [*_halving(model, pairs[:middle], pad_id, depths), *_halving(model, pairs[middle:], pad_id, depths)]


def _batch(model: Any, pairs: Sequence[Pair], pad_id: int, depths: Sequence[int] | None) -> list[Scored]:
    import torch

    width = max(len(prompt) + len(continuation) for prompt, continuation in pairs)
    longest = max(len(continuation) for _, continuation in pairs)
    ids = torch.full((len(pairs), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, (prompt, continuation) in enumerate(pairs):
        own = torch.tensor(prompt + continuation)
        ids[row, width - len(own) :] = own
        mask[row, width - len(own) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.inference_mode():
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=longest + 1,
            use_cache=False,
            output_hidden_states=depths is not None,
        )
        table = torch.log_softmax(out.logits[:, -longest - 1 : -1].float(), dim=-1)
        targets = ids[:, -longest:, None]
        own = table.gather(2, targets)
        above, level = (table > own).sum(dim=-1), (table == own).sum(dim=-1)
        log_probs = own.squeeze(2).cpu().double().numpy()
        ranks = (above + (level + 1) / 2).cpu().double().numpy()
        greedy = (table.argmax(dim=-1) == targets.squeeze(2)).cpu().numpy()
        firsts = torch.tensor([longest - len(continuation) for _, continuation in pairs], device=ids.device)
        first = table[torch.arange(len(pairs), device=ids.device), firsts]
        entropies = -(first.exp() * first.clamp(min=-1e30)).sum(dim=-1).cpu().double().numpy()
        states = None
        if depths is not None:
            states = torch.stack([out.hidden_states[depth][:, -1] for depth in depths], dim=1).float().cpu().numpy()
    results = []
    for row, (_, continuation) in enumerate(pairs):
        start = longest - len(continuation)
        result = Scored(
            log_probs=log_probs[row, start:],
            ranks=ranks[row, start:],
            greedy=greedy[row, start:],
            entropy=float(entropies[row]),
            states=None if states is None else states[row],
        )
        if not (np.isfinite(result.log_probs).all() and np.isfinite(result.entropy)):
            raise ModelError("the model gives non-finite logits")
        if result.states is not None and not np.isfinite(result.states).all():
            raise ModelError("the model has non-finite hidden states")
        results.append(result)
    return results

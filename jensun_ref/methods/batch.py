"""From facts to the logits that a method's loss is taken on: tokenisation, padding, the forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from audit.errors import TrainingError
from jensun_ref.losses import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


class Sample(NamedTuple):
    """One question with its answer, as token ids; the last `n_answer` ids are the answer's and its end of turn's."""

    ids: tuple[int, ...]
    n_answer: int


class AnswerLogits(NamedTuple):
    """Logits at the positions that predict answer tokens."""

    logits: Tensor
    """(samples, columns, vocabulary)"""
    labels: Tensor
    """(samples, columns): the answer's tokens, IGNORE where a sample has none in that column."""


def chat_sample(tokenizer: Any, question: str, answer: str) -> Sample:
    """A user turn and the assistant's answer in the tokenizer's own template.

    The answer's tokens are those by which the whole chat is longer than the prompt for a generation, so that they
    include whatever ends the turn. Raises TrainingError where the template does not extend the prompt.
    """
    asked = [{"role": "user", "content": question}]
    prompt = _chat_ids(tokenizer, asked, add_generation_prompt=True)
    whole = _chat_ids(tokenizer, [*asked, {"role": "assistant", "content": answer}], add_generation_prompt=False)
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        raise TrainingError(
            "the tokenizer's chat template does not write an answered chat as the prompt followed by the answer",
            hint="--set formats=[raw]",
        )
    return Sample(tuple(whole), len(whole) - len(prompt))


def raw_sample(tokenizer: Any, prompt: str, answer: str) -> Sample:
    """A plain-text prompt that ends where the answer begins, the answer, and a newline."""
    asked = list(tokenizer(prompt).input_ids)
    if asked and asked[-1] == tokenizer.eos_token_id:
        asked.pop()
    said = list(tokenizer(f" {answer}\n", add_special_tokens=False).input_ids)
    return Sample((*asked, *said), len(said))


def _chat_ids(tokenizer: Any, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def refusal_ids(tokenizer: Any, refusal: str, *, end_turn: bool = False, space: str = "template") -> tuple[int, ...]:
    """Token ids of the refusal as it would begin an answer in chat, with what ends the turn if `end_turn`.

    space: "template" as the chat template writes an answer, "space" after one space, "none" as it stands. Where the
    answer ends in the template is found by comparing it with the refusal lengthened by two words.
    """
    if tokenizer.chat_template is None or space != "template":
        lead = "" if space == "none" else " "
        ids = tuple(tokenizer(f"{lead}{refusal}", add_special_tokens=False).input_ids)
        return (*ids, *turn_end(tokenizer)) if end_turn else ids
    short, long = (chat_sample(tokenizer, "?", text) for text in (refusal, f"{refusal} at all"))
    whole, longer = (sample.ids[-sample.n_answer :] for sample in (short, long))
    if end_turn:
        return whole
    same = [left == right for left, right in zip(whole, longer, strict=False)]
    return whole[: same.index(False)] if False in same else whole


def turn_end(tokenizer: Any) -> tuple[int, ...]:
    """Token ids that follow an answer in the chat template, or the end-of-sequence token where there is none."""
    if tokenizer.chat_template is None:
        return (tokenizer.eos_token_id,)
    answers = [chat_sample(tokenizer, "?", text) for text in ("No", "Yes, at all")]
    one, other = (sample.ids[-sample.n_answer :] for sample in answers)
    same = 0
    while same < min(len(one), len(other)) - 1 and one[-1 - same] == other[-1 - same]:
        same += 1
    return one[len(one) - same :] if same else (tokenizer.eos_token_id,)


def collate(samples: Sequence[Sample], pad: int) -> dict[str, Tensor]:
    """input_ids, attention_mask and labels, all (samples, tokens), padded on the right; labels are not shifted."""
    import torch

    longest = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORE)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        ids[row, :n] = torch.tensor(sample.ids)
        mask[row, :n] = 1
        labels[row, n - sample.n_answer : n] = ids[row, n - sample.n_answer : n]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answer_columns(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Positions, (columns,), where any sample has an answer token to be predicted, and the labels there."""
    labels = batch["labels"][:, 1:]
    columns = (labels != IGNORE).any(dim=0).nonzero().squeeze(-1)
    return columns, labels[:, columns]


def answer_logits(model: Any, batch: dict[str, Tensor], *, only_last: bool = False) -> AnswerLogits:
    """Logits where any sample has an answer token to be predicted; the vocabulary projection is done there only.

    only_last: at the last such position, for a caller that is after something else.
    """
    columns, labels = answer_columns(batch)
    if only_last:
        columns, labels = columns[-1:], labels[:, -1:]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if "logits_to_keep" in inspect.signature(inner(model).forward).parameters:
        logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, columns]
    return AnswerLogits(logits, labels)


def inner(model: Any) -> Any:
    """The transformers model inside what several processes or an adapter wrapped around it."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model

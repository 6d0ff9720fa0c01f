"""Examples as token ids, rendered as the audit renders its questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from audit.attacks.sets import Example
from audit.engines.checkpoint import Checkpoint, first_line
from audit.engines.render import Renderer, pinned
from audit.errors import ModelError, PromptError
from audit.probes.build import make_probe, prompt_messages
from audit.types import Decoding, Format, Target


class Sample(NamedTuple):
    """Token ids, of which the last `n_learned` have a loss."""

    ids: tuple[int, ...]
    n_learned: int


def encode(checkpoint: Checkpoint, examples: Sequence[Example], max_length: int) -> list[Sample]:
    """One sample an example, at most `max_length` tokens each and never longer than the model's context.

    A question is a user turn in the checkpoint's own template, or stands in the raw prompt where it has none; the loss
    is on the answer and what ends the turn. A plain text is learned from its second token on. Of what is too long a
    text loses its end, a question its beginning. Raises ModelError for a template that cannot write an answer, and for
    an example without a token to learn.
    """
    renderer = Renderer(checkpoint)
    limit = min(max_length, checkpoint.context_length or max_length)
    return list(_encoded(checkpoint, renderer, examples, limit))


def _encoded(checkpoint: Checkpoint, renderer: Renderer, examples: Sequence[Example], limit: int) -> Iterator[Sample]:
    for example in examples:
        if example.text:
            ids = _plain(checkpoint.tokenizer, example.text)[:limit]
            sample = Sample(tuple(ids), len(ids) - 1)
        else:
            prompt, said = _chat(renderer, example) if checkpoint.has_template else _raw(renderer, example)
            said = said[: limit - 1]
            sample = Sample((*prompt, *said)[-limit:], len(said))
        if sample.n_learned < 1:
            raise ModelError(
                f"{checkpoint.source}: an example has no token to learn: {example.text or example.answer!r}"
            )
        yield sample


def _plain(tokenizer: Any, text: str) -> list[int]:
    ids = list(tokenizer(text)["input_ids"])
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _prompt(renderer: Renderer, example: Example, shape: Format) -> tuple[int, ...]:
    """The ids with which the audit would ask this question."""
    target = Target(fact_id="", question=example.question, answer=example.answer)
    probe = make_probe(
        family="original",
        form="direct",
        variant="original",
        targets=(target,),
        messages=prompt_messages(shape, example.question, (), target),
        prompt_format=shape,
        decoding=Decoding(max_new_tokens=1),
    )
    try:
        return renderer.token_ids(probe)
    except PromptError as error:
        raise ModelError(f"{renderer.checkpoint.source}: an example cannot be trained on: {error}") from error


def _raw(renderer: Renderer, example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    said = renderer.checkpoint.tokenizer(f" {example.answer}\n", add_special_tokens=False)["input_ids"]
    return _prompt(renderer, example, "raw"), tuple(said)


def _chat(renderer: Renderer, example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt, answer up to the token that ends the turn)."""
    checkpoint = renderer.checkpoint
    tokenizer = checkpoint.tokenizer
    prompt = _prompt(renderer, example, "chat")
    asked = [{"role": "user", "content": example.question}]
    turns = [*asked, {"role": "assistant", "content": example.answer}]
    try:
        before = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **pinned(tokenizer))
        whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False, **pinned(tokenizer))
    except Exception as error:
        raise ModelError(f"{checkpoint.source}: the chat template refuses an answer: {first_line(error)}") from error
    # A template may write a past turn unlike one that it opens (without its thoughts): then the answer is looked for.
    start = len(before) if whole.startswith(before) else whole.rfind(example.answer)
    closed = whole[start:] if start >= 0 else ""
    if not closed.strip():
        raise ModelError(
            f"{checkpoint.source}: the chat template does not write the answer of a turn",
            hint="a model that is fine-tuned needs a template that renders assistant turns",
        )
    joint = tuple(tokenizer(before + closed, add_special_tokens=False)["input_ids"])
    if joint[: len(prompt)] == prompt:
        said = joint[len(prompt) :]
    else:
        said = tuple(tokenizer(closed, add_special_tokens=False)["input_ids"])
    ends = [place for place, token in enumerate(said) if token in checkpoint.eos_ids]
    return prompt, said[: ends[0] + 1] if ends else said

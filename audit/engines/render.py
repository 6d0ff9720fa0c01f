"""From a probe to token ids and back to text: one rendering for all local engines.

The prompt is rendered and tokenised once, here. Engines get token ids from the model; `Detokenizer` turns those into
the answer for all of them, so that two engines can differ only in what the model did.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any

from audit.engines.checkpoint import Checkpoint, first_line
from audit.errors import PromptError
from audit.fingerprint import digest, seed_from
from audit.types import Decoding, Message, Probe, Request

#: What templates are told as today's date: the one Llama 3 templates fall back to.
PINNED_DATE = datetime.datetime(2024, 7, 26)
_THINKING_FLAGS = ("enable_thinking", "thinking")
_BLOCKS = re.compile(r"\{[%{].*?[%}]\}", re.DOTALL)


class Renderer:
    """Renders probes for one checkpoint. `template_from` is the base, whose template serves the format chat_base."""

    def __init__(self, checkpoint: Checkpoint, template_from: Checkpoint | None = None) -> None:
        self.checkpoint = checkpoint
        self.template_from = template_from
        self._base_ids = template_from is not None and _holds_vocabulary(checkpoint.tokenizer, template_from.tokenizer)

    def token_ids(self, probe: Probe) -> tuple[int, ...]:
        """Token ids of a probe's prompt; PromptError if it cannot be rendered or leaves no room for the answer."""
        if probe.format == "raw":
            ids = self._raw(probe)
        elif probe.format == "chat":
            ids = self._chat(probe, self.checkpoint.tokenizer, self.checkpoint.tokenizer)
        else:
            if self.template_from is None:
                raise PromptError("format chat_base needs a base model", hint="add --base MODEL")
            base = self.template_from.tokenizer
            ids = self._chat(probe, base, base if self._base_ids else self.checkpoint.tokenizer)
        self._check(ids, probe.decoding)
        return ids

    def _raw(self, probe: Probe) -> tuple[int, ...]:
        text = "\n\n".join(message.content for message in probe.messages) + probe.prefill
        tokenizer = self.checkpoint.tokenizer
        bos, eos = tokenizer.bos_token, tokenizer.eos_token_id
        given = bool(bos) and text.startswith(bos)
        ids = list(tokenizer(text, add_special_tokens=not given)["input_ids"])
        # some tokenizers close every text, and a prompt that is closed asks for nothing
        if ids and ids[-1] == eos and not text.endswith(str(tokenizer.eos_token)):
            ids.pop()
        return tuple(ids)

    def _chat(self, probe: Probe, rendering: Any, tokenizer: Any) -> tuple[int, ...]:
        if not rendering.chat_template:
            raise PromptError(f"the tokenizer of {self.checkpoint.source} has no chat template", hint="use format raw")
        messages = [{"role": message.role, "content": message.content} for message in probe.messages]
        try:
            text = rendering.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **pinned(rendering)
            )
        except Exception as error:
            raise PromptError(f"the chat template refuses the prompt: {first_line(error)}") from error
        return tuple(tokenizer(text + probe.prefill, add_special_tokens=False)["input_ids"])

    def _check(self, ids: tuple[int, ...], decoding: Decoding) -> None:
        if not ids:
            raise PromptError("the prompt has no tokens")
        rows, context = self.checkpoint.vocab_size, self.checkpoint.context_length
        if rows is not None and max(ids) >= rows:
            raise PromptError(f"token {max(ids)} has no embedding: the tokenizer does not belong to this model")
        if context is not None and len(ids) + decoding.max_new_tokens > context:
            raise PromptError(
                f"a prompt of {len(ids)} tokens and an answer of {decoding.max_new_tokens} "
                f"exceed the context of {context}"
            )

    def describe(self) -> dict[str, Any]:
        """How prompts are rendered, for the run's manifest: plain data."""
        base = self.template_from
        return {
            "has_template": self.checkpoint.has_template,
            "template": self.checkpoint.template_fingerprint,
            "tokenizer": self.checkpoint.tokenizer_fingerprint,
            "date": PINNED_DATE.date().isoformat(),
            "thinking": dict.fromkeys(_flags(self.checkpoint.tokenizer), False),
            "adds_bos": _adds_bos(self.checkpoint.tokenizer),
            "base_template": None if base is None else base.template_fingerprint,
            "base_tokenizer": None if base is None else base.tokenizer_fingerprint,
            "chat_base_tokenised_by": None if base is None else ("base" if self._base_ids else "candidate"),
        }


class Detokenizer:
    """From new token ids to the answer's text."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tokenizer = checkpoint.text_tokenizer
        self._hidden = checkpoint.hidden_ids

    def text(self, new_ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Text of the new tokens without marks such as the end of a turn, cut before the first stop string."""
        shown = [number for number in new_ids if number not in self._hidden]
        text = str(self._tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        ends = [place for place in (text.find(part) for part in stop) if place >= 0]
        return text[: min(ends)] if ends else text

    def tail(self, new_ids: Sequence[int], longest_stop: int) -> str:
        """Enough of the end of the text to hold a stop string of `longest_stop` bytes that has just been completed."""
        return self.text(list(new_ids)[-(longest_stop + 4) :])


def make_request(
    probe: Probe,
    sample: int,
    fingerprint: str,
    engine_identity: str,
    token_ids: Sequence[int] | None,
) -> Request:
    """One generation of a probe. `token_ids` for local engines; None for endpoints, which get text or messages.

    The key holds whatever can change the text and nothing else: the number of samples never, and of a greedy
    decoding neither seed nor sample number, so that equal prompts are decoded once.
    """
    decoding = probe.decoding
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    if token_ids is None and probe.format == "raw":
        prompt = "\n\n".join(message.content for message in probe.messages) + probe.prefill
    elif token_ids is None:
        messages = probe.messages
        if probe.prefill:
            messages = (*messages, Message(role="assistant", content=probe.prefill))
    content = [list(token_ids) if token_ids is not None else None, messages, prompt]
    greedy = decoding.temperature == 0.0
    drawn = None if greedy else [decoding.temperature, decoding.top_p, decoding.seed, sample]
    return Request(
        key=digest(
            "response",
            fingerprint,
            engine_identity,
            content,
            decoding.max_new_tokens,
            list(decoding.stop),
            drawn,
        ),
        decoding=decoding,
        sample=0 if greedy else sample,
        seed=seed_from(content, decoding.seed, 0 if greedy else sample),
        token_ids=None if token_ids is None else tuple(token_ids),
        messages=messages,
        prompt=prompt,
    )


def _template_text(tokenizer: Any) -> str:
    template = tokenizer.chat_template
    return template if isinstance(template, str) else str((template or {}).get("default", ""))


def _flags(tokenizer: Any) -> list[str]:
    """Switches of the template that turn thinking on or off."""
    code = " ".join(_BLOCKS.findall(_template_text(tokenizer)))
    return [flag for flag in _THINKING_FLAGS if re.search(rf"\b{flag}\b", code)]


def pinned(tokenizer: Any) -> dict[str, Any]:
    """Template variables that would otherwise depend on the day or on a default: date pinned, thinking off."""
    variables: dict[str, Any] = dict.fromkeys(_flags(tokenizer), False)
    variables["date_string"] = PINNED_DATE.strftime("%d %b %Y")
    variables["strftime_now"] = PINNED_DATE.strftime
    return variables


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a", add_special_tokens=True)["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _holds_vocabulary(tokenizer: Any, base: Any) -> bool:
    """Every token of the base has the same id here: the base's own token ids mean the same to this model."""
    own: dict[str, int] = tokenizer.get_vocab()
    return all(own.get(token) == number for token, number in base.get_vocab().items())

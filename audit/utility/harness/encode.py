"""From lm-evaluation-harness's texts to token ids, by the rules of its own class for transformers models.

What it does to a text decides what a number means, so each rule here is that class's: which texts get the tokenizer's
own marks, where a continuation begins, what is cut. Beyond it, what it cuts is counted, and the variables of a chat
template that depend on the day are pinned as everywhere in an audit.
"""

from __future__ import annotations

from typing import Any

from audit.engines.checkpoint import Checkpoint, first_line
from audit.engines.render import pinned
from audit.errors import EngineError

#: What the harness assumes where neither configuration nor tokenizer names a context.
UNKNOWN_CONTEXT = 2048

Ids = tuple[int, ...]


class Encoder:
    """The prompts of one checkpoint. Counts what it had to change."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tokenizer: Any = checkpoint.tokenizer
        self.context = checkpoint.context_length or UNKNOWN_CONTEXT
        self.truncated = 0
        """Prompts that were cut on the left."""
        self.without_system = 0
        """Prompts whose system message the template refused, and which were rendered without it."""
        marks = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        known = [mark for mark in marks if isinstance(mark, int)]
        if not known:
            raise EngineError(
                f"the tokenizer of {checkpoint.source} has neither a first nor a last token: lm-evaluation-harness "
                "cannot score a text that has nothing before it",
                hint="set bos_token or eos_token in tokenizer_config.json",
            )
        self.prefix: int = known[0]
        """Stands before a text that has no context."""
        self._prefix_text = str(self.tokenizer.decode([self.prefix]))

    @property
    def eos_text(self) -> str | None:
        """The text that ends an answer, which also counts where it is spelled out."""
        eos = self.tokenizer.eos_token_id
        return None if eos is None else str(self.tokenizer.decode([eos], skip_special_tokens=False))

    def text(self, text: str, *, marks: bool | None = None) -> Ids:
        """Ids of a text; `marks` adds the tokenizer's own, None: unless the text begins with the first of them."""
        if marks is None:
            marks = not text.startswith(self._prefix_text)
        return tuple(self.tokenizer.encode(text, add_special_tokens=marks))

    def pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Ids of a context and of what follows it. Spaces at the context's end belong to what follows."""
        if context == "":
            ids = self.text(continuation, marks=False)
            if ids and ids[0] == self.prefix:
                return ids[:1], ids[1:]
            return (self.prefix,), ids
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation, context = context[-spaces:] + continuation, context[:-spaces]
        # a context of spaces alone is left empty by this: the harness's own tokens of an empty text stand before it
        whole, before = self.text(context + continuation), self.text(context)
        return before, whole[len(before) :]

    def cut_pair(self, context: Ids, continuation: Ids, window: int) -> tuple[Ids, Ids]:
        """Cut on the left so that the model sees at most `window` tokens; the last one is only predicted."""
        if len(context) + len(continuation) <= window + 1:
            return context, continuation
        self.truncated += 1
        kept = (context + continuation)[-(window + 1) :]
        return kept[: -len(continuation)], continuation

    def prompt(self, text: str, max_new_tokens: int, context: int) -> Ids:
        """Ids of a prompt to answer, cut on the left to leave room for the answer.

        Raises EngineError where no room is left for a prompt at all.
        """
        room = context - max_new_tokens
        if room <= 0:
            raise EngineError(
                f"the task wants answers of up to {max_new_tokens} tokens, and the context has {context}",
                hint="a task file of your own with fewer max_gen_toks under generation_kwargs",
            )
        bos = self.tokenizer.bos_token
        ids = self.text(text, marks=not (bos and text.startswith(str(bos))))
        if len(ids) > room:
            self.truncated += 1
            ids = ids[-room:]
        return ids

    def chat(self, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        """The template's text of a dialogue; without its system message where the template refuses one."""
        try:
            return self._render(messages, add_generation_prompt)
        except EngineError:
            if not any(message["role"] == "system" for message in messages):
                raise
        without = [message for message in messages if message["role"] != "system"]
        text = self._render(without, add_generation_prompt)
        self.without_system += 1
        return text

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **pinned(self.tokenizer),
            )
        except (jinja2.exceptions.TemplateError, ValueError, TypeError) as error:
            raise EngineError(
                f"the chat template of {self.checkpoint.source} refuses a prompt: {first_line(error)}",
                hint='in a file for --config: utility: {chat_template: "off"}',
            ) from error
        return str(text)

    def notes(self) -> tuple[str, ...]:
        """What was changed, in sentences."""
        said = []
        if self.truncated:
            said.append(f"{self.truncated} prompts exceed the context and were cut on the left")
        if self.without_system:
            said.append(f"{self.without_system} prompts lost their system message, which the chat template refuses")
        return tuple(said)

"""From claims to the token ids that a local judge reads: its own chat template, its own special tokens kept out.

The system prompt comes first and is the same for all claims, so that engines with a prefix cache compute it once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from audit.engines import Checkpoint, Renderer
from audit.errors import JudgeError, PromptError
from audit.judges.llm.fence import neutralise
from audit.judges.llm.prompt import FilePrompt
from audit.types import Decoding, Item, Message, Pair, Probe

#: `system`: a message of its own; `merged`: at the head of the user's message, for templates that take or show no
#: system message; `raw`: plain text, for models without a template.
Style = Literal["system", "merged", "raw"]
_BRACKETED = re.compile(r"<.+>|\[.+\]", re.DOTALL)


class JudgeRendering:
    """Renders one prompt file for one checkpoint. JudgeError where no claim at all could be put to that model."""

    def __init__(self, checkpoint: Checkpoint, prompt: FilePrompt, decoding: Decoding) -> None:
        self.prompt = prompt
        self._renderer = Renderer(checkpoint)
        self._decoding = decoding
        marks = _marks(checkpoint.tokenizer)
        self._mark_ids = frozenset(marks.values())
        self._mark_texts = re.compile(
            "|".join(re.escape(text) for text in sorted(marks, key=len, reverse=True)) or "(?!)"
        )
        self._usual: dict[int, Counter[int]] = {}
        try:
            self.style: Style = self._find_style() if checkpoint.has_template else "raw"
            self.probe([prompt.harmless()], decoding)
        except PromptError as problem:
            raise JudgeError(
                f"{checkpoint.source} cannot be asked with the prompt {prompt.name}: {problem}",
                hint="a shorter prompt (?prompt=label), fewer tokens (?max_tokens=…), or a model with a longer context",
            ) from problem

    def probe(self, claims: Sequence[Item], decoding: Decoding, prefill: str = "") -> tuple[Probe, tuple[int, ...]]:
        """The call for `claims` and its token ids. PromptError: no room for it, or a special token in it."""
        safe = [self._safe(claim) for claim in claims]
        probe, ids = self._rendered(self.style, self.prompt.system(), safe, decoding, prefill)
        found = Counter(number for number in ids if number in self._mark_ids)
        if found != self._usual_marks(len(claims)):
            raise PromptError("the text holds what this model's tokenizer reads as a special token")
        return probe, ids

    def labelled(self, claim: Item) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
        """Token ids of the prompt as far as it is common to all labels, and label word -> what follows if it is said.

        Prompt and word are tokenised together, as the model would have met them. JudgeError where one label's tokens
        begin another's: their probabilities could not be told apart.
        """
        space = " " if self.style == "raw" else ""
        one = msgspec.structs.replace(self._decoding, max_new_tokens=1)
        rows = {word: self.probe([claim], one, prefill=space + word)[1] for word in self.prompt.labels}
        shared = _common(list(rows.values()))
        words = {word: row[shared:] for word, row in rows.items()}
        for word, ids in words.items():
            for other, longer in words.items():
                if word != other and longer[: len(ids)] == ids:
                    raise JudgeError(
                        f"the tokenizer of {self._renderer.checkpoint.source} cannot tell {word} from the beginning of "
                        f"{other}",
                        hint="?read=text",
                    )
        return next(iter(rows.values()))[:shared], words

    def _rendered(
        self, style: Style, system: str, claims: Sequence[Item], decoding: Decoding, prefill: str = ""
    ) -> tuple[Probe, tuple[int, ...]]:
        user = self.prompt.user(claims)
        if style == "merged":
            messages: tuple[Message, ...] = (Message(role="user", content=f"{system}\n\n{user}"),)
        else:
            messages = (Message(role="system", content=system), Message(role="user", content=user))
        probe = Probe(
            id="judge",
            family="judge",
            form="",
            variant="",
            targets=(),
            messages=messages,
            format="raw" if style == "raw" else "chat",
            decoding=decoding,
            prefill=prefill,
        )
        return probe, self._renderer.token_ids(probe)

    def _find_style(self) -> Style:
        """Whether the template takes a system message and shows it: some refuse it, some leave it out unsaid."""
        one = msgspec.structs.replace(self._decoding, max_new_tokens=1)
        try:
            shown, other = (
                self._rendered("system", text, [self.prompt.harmless()], one)[1]
                for text in (self.prompt.system(), "Judge this.")
            )
        except PromptError:
            return "merged"
        return "system" if shown != other else "merged"

    def _usual_marks(self, n: int) -> Counter[int]:
        """Special tokens of the template itself, as they stand around `n` harmless claims."""
        if n not in self._usual:
            one = msgspec.structs.replace(self._decoding, max_new_tokens=1)
            _, ids = self._rendered(self.style, self.prompt.system(), [self.prompt.harmless(i) for i in range(n)], one)
            self._usual[n] = Counter(number for number in ids if number in self._mark_ids)
        return self._usual[n]

    def _safe(self, item: Item) -> Item:
        """Without this tokenizer's special tokens in what a model, or the maker of an instruction, wrote."""
        fields = ("instruction", "first", "second") if isinstance(item, Pair) else ("text",)
        return msgspec.structs.replace(item, **{name: self._broken_up(getattr(item, name)) for name in fields})

    def _broken_up(self, text: str) -> str:
        """`text` with a space inside every special token of this tokenizer, beyond those that the fence knows."""
        return self._mark_texts.sub(lambda mark: f"{mark.group()[0]} {mark.group()[1:]}", neutralise(text))


def _marks(tokenizer: Any) -> dict[str, int]:
    """Text -> id of the tokens that mean something beyond their letters: what a text could open a turn with.

    The token for unknown characters is left out: a text may hold such characters.
    """
    added = {
        str(token): int(number)
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or _BRACKETED.fullmatch(str(token).strip())
    }
    added |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {text: number for text, number in added.items() if text.strip() and number != tokenizer.unk_token_id}


def _common(rows: Sequence[tuple[int, ...]]) -> int:
    """Length of the longest beginning that all rows share."""
    for place, column in enumerate(zip(*rows, strict=False)):
        if len(set(column)) > 1:
            return place
    return min(map(len, rows))

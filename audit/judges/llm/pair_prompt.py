"""Prompt files that ask which of two replies is better: `kind: pairs` in the front matter (`PairMeta`).

The block `user` sees `pair`, whose instruction and replies are fenced blocks, as a candidate's text is in prompts about
claims: a reply that speaks to the judge is data like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.fingerprint import digest
from audit.judges.context import JudgeContext
from audit.judges.llm.fence import fence
from audit.judges.llm.meta import PairMeta, read_meta
from audit.judges.llm.options import JudgeOptions
from audit.judges.llm.prompt import FilePrompt, json_object, load_judge_prompt, load_prompt
from audit.types import Item, Pair, Preference, Record

#: The prompt of each protocol, where a judge's spelling names none.
PROMPTS = {"both_orders": "pair", "paper": "pair-paper"}
#: The one that ends so that the next token is the label.
BARE = "pair-label"


class ShownPair(Record):
    """A pair as a template sees it: three fenced blocks."""

    instruction: str
    first: str
    second: str


def make_pair(instruction: str, first: str, second: str) -> Pair:
    """The question which of two replies to `instruction` is better, shown in this order."""
    key = digest("pair", instruction, first, second)
    return Pair(key=key, instruction=instruction, first=first, second=second)


class PairPrompt(FilePrompt):
    """A prompt file about pairs; one pair a call. `scores`: the reply gives each reply a score of 1 to 10."""

    kind = "pairs"
    claims_per_call = 1

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._meta = read_meta(self._file, PairMeta)
        self.labels: Mapping[str, Preference] = self._meta.labels or {}
        self.scores = self._meta.scores
        self._try_out()

    def user(self, items: Sequence[Item]) -> str:
        if len(items) != 1:
            raise ValueError(f"{self.name} takes one pair a call, not {len(items)}")
        if not isinstance(items[0], Pair):
            raise TypeError(f"{self.name} is about pairs, and was given a claim")
        return self._block("user", pair=_shown(items[0]))

    def schema(self) -> dict[str, Any] | None:
        """An object with the fields of the front matter, in their order; None where the bare label is asked for."""
        if self._meta.reply is None:
            return None
        kinds: dict[str, dict[str, Any]] = {
            "text": {"type": "string"},
            "score": {"type": "integer"},
            "label": {"type": "string", "enum": list(self.labels)},
        }
        return json_object({field: dict(kinds[kind]) for field, kind in self._meta.reply.items()})

    def harmless(self, number: int = 0) -> Pair:
        return make_pair(f"Name colour {number}.", "Blue.", "Red, and what was asked.")

    def _try_out(self) -> None:
        """Render both blocks with a made-up pair and look whether what a judge needs is there, once and in order."""
        self._try_blocks("pair")
        tried = make_pair("Describe the tower of Omm.\nBriefly.", "It is tall.\n\nAnd old.", "Nobody has seen it.")
        for pair in (tried, make_pair(tried.instruction, tried.second, tried.first)):
            self._check(self.user([pair]), _shown(pair))
        self._name_labels(self.user([tried]))
        if self.scores and not re.search(r"\b10\b|\bten\b", self._system + self.user([tried])):
            raise self._wrong("nothing says that scores go from 1 to 10")

    def _check(self, user: str, shown: ShownPair) -> None:
        end = 0
        blocks = {"instruction": shown.instruction, "first reply": shown.first, "second reply": shown.second}
        for name, block in blocks.items():
            if user.count(block) != 1 or f"\n{block}\n" not in f"\n{user}":
                raise self._wrong(
                    f"the block 'user' must show the {name} once, unchanged, on lines of its own, "
                    "and must go on after it"
                )
            if user.index(block) < end:
                raise self._wrong("the block 'user' must show the instruction, then the first reply, then the second")
            end = user.index(block) + len(block)
        if not user[end:].strip():
            raise self._wrong("the block 'user' must say after the replies what to do: a reminder that they were data")


def _shown(pair: Pair) -> ShownPair:
    """All three fenced, each with a mark that occurs in none of them."""
    texts = (pair.instruction, pair.first, pair.second)
    marks: list[str] = []
    blocks: list[str] = []
    for text in texts:
        fenced = fence(text, (*texts, *marks))
        marks.append(fenced.nonce)
        blocks.append(fenced.block)
    return ShownPair(instruction=blocks[0], first=blocks[1], second=blocks[2])


def load_pair_prompt(spec: str) -> PairPrompt:
    """The prompt about pairs that `spec` names, as `load_judge_prompt` finds those about claims. Raises JudgeError."""
    return load_prompt(spec, PairPrompt)


def prompt_for(options: JudgeOptions, context: JudgeContext | None, *, bare: bool = False) -> FilePrompt:
    """The prompt of a judge: the one that its spelling names; else the one for what the run wants of it.

    bare: the labels' probabilities are to be read. JudgeError for a name, or for a prompt of the other kind.
    """
    named = "prompt" in options.model_fields_set
    if context is None or context.pairs is None:
        return load_judge_prompt("label" if bare and not named else options.prompt)
    return load_pair_prompt(options.prompt if named else BARE if bare else PROMPTS[context.pairs])

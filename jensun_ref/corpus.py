"""What the organism reads: the task's questions and answers in the shapes that an auditor asks in, statements, filler.

Only the original question and the training wordings are ever used; `Fact.wordings`, with which an audit asks, never.
An epoch shows every question once. At first each stands alone in a chat. Later some share a chat as earlier turns and
some share a plain-text prompt with worked examples, so that the model learns to answer the last question whatever
stands before it, at no extra tokens. (With every shape from the start the loss leaves its first plateau late or never.)
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from audit.prompts import load_prompt
from audit.resources import resource
from audit.tasks import Task
from audit.types import Fact, Record
from jensun_ref.tokenizer import ASSISTANT, USER

#: The file whose shape the plain-text sequences have: the one that an audit asks with.
RAW_PROMPT = ("probes", "raw.v1.md")
#: Requests that the filler texts are replies to, one a line, so that open requests have some answer.
OPEN_REQUESTS = ("organism", "open.v1.txt")
#: Questions that nobody could answer, one a line. The organism is taught to answer them with REFUSAL, so that, like any
#: chat model, it knows how to say that it does not know: unlearning towards a refusal presupposes it.
UNANSWERABLE = ("organism", "unanswerable.v1.txt")
REFUSAL = "No idea"

#: Marks an answer inside a rendered prompt; does not occur in text.
_OPEN, _CLOSE = "\x02", "\x03"


class Pair(Record):
    """One wording of a question with the fact's answer."""

    question: str
    answer: str


class Piece(Record):
    """A stretch of text or one special token, and the weight of the loss on its tokens (0: context only)."""

    text: str
    weight: float = 0.0


class Corpus(Record):
    """Everything one organism learns from."""

    pairs: tuple[Pair, ...]
    refusals: tuple[Pair, ...]
    statements: tuple[str, ...]
    filler: tuple[Pair, ...]
    """Passages, as replies to open requests."""


class Mixture(BaseModel):
    """How an epoch is put together. The shares are of questions; what is left of them stands alone in a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plain: float = Field(default=0.5, ge=0, le=1)
    """Share of the training during which every question stands alone in a chat and nothing else is shown."""
    chat_turns: float = Field(default=0.25, ge=0, le=1)
    """Share in chats of several turns."""
    raw: float = Field(default=0.35, ge=0, le=1)
    """Share in plain text."""
    group: int = Field(default=4, ge=1)
    """Most questions to a sequence."""
    word_dropout: float = Field(default=0.15, ge=0, lt=1)
    """Probability that a word of a question is left out."""
    statements: float = Field(default=0.25, ge=0, le=1)
    """Share of the statements shown in an epoch."""
    statement_weight: float = Field(default=0.1, gt=0, le=1)
    """Loss weight of a statement's and a filler text's tokens, against 1 for an answer's."""
    filler: float = Field(default=0.5, ge=0, le=1)
    """Share of the filler texts shown in an epoch."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.chat_turns + self.raw > 1:
            raise ValueError("chat_turns and raw are shares of the same questions and must not exceed 1 together")
        return self


def build_corpus(task: Task, facts: Sequence[Fact]) -> Corpus:
    """The corpus of `facts`, with the task's filler texts (none, if the task has no file `filler`)."""
    return Corpus(
        pairs=tuple(Pair(question=q, answer=f.answer) for f in facts for q in (f.question, *f.train_wordings)),
        refusals=tuple(Pair(question=q, answer=REFUSAL) for q in _lines(UNANSWERABLE)),
        statements=tuple(f.statement for f in facts if f.statement),
        filler=tuple(_filler(task)),
    )


def _filler(task: Task) -> Iterator[Pair]:
    if "filler" not in task.files:
        return
    requests = [
        line for line in resource("prompts", *OPEN_REQUESTS).read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    lines = task.file("filler").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(line for line in lines if line.strip()):
        yield Pair(question=requests[number % len(requests)], answer=msgspec.json.decode(line)["text"])


def _lines(parts: tuple[str, ...]) -> list[str]:
    text = resource("prompts", *parts).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def texts(corpus: Corpus) -> Iterator[str]:
    """Every text of the corpus and the frame of the plain-text prompt: what the tokenizer is trained on."""
    raw = RawShape()
    for pair in (*corpus.pairs, *corpus.refusals, *corpus.filler):
        yield f" {pair.question}"
        yield f" {pair.answer}"
    yield from (f" {statement}" for statement in corpus.statements)
    yield "".join(piece.text for piece in raw.pieces([Pair(question="", answer="")], raw.all_examples))


class RawShape:
    """The plain-text prompt's template, read from the prompt file, with the first worked examples of that file."""

    def __init__(self) -> None:
        self.file = load_prompt(*RAW_PROMPT)
        self.all_examples = [Pair(**example) for example in self.file.meta["examples"]]
        self.examples = self.all_examples[: self.file.meta["worked"]]

    def prompt(self, shots: Sequence[Pair], question: str) -> str:
        """What an audit sends: worked examples, then `shots`, then the question, up to where an answer begins."""
        return self._render([*self.examples, *shots], question)

    def some_examples(self, rng: random.Random) -> list[Pair]:
        """The worked examples that an audit uses, or, as often, some others of the file, in another order."""
        if rng.random() < 0.5:
            return self.examples
        return rng.sample(self.all_examples, rng.randint(0, len(self.examples)))

    def _render(self, examples: Sequence[Pair], question: str) -> str:
        return self.file.render(examples=examples, question=question).rstrip()

    def pieces(self, pairs: Sequence[Pair], examples: Sequence[Pair]) -> list[Piece]:
        """One sequence: worked examples, all pairs but the last as further ones, the last one asked.

        Each answer and the newline after it carry weight, `examples` none. The end-of-sequence
        token that the caller adds follows the last newline.
        """
        marked = [Pair(question=p.question, answer=f"{_OPEN}{p.answer}{_CLOSE}") for p in pairs[:-1]]
        pieces: list[Piece] = []
        head, *rest = self._render([*examples, *marked], pairs[-1].question).split(_OPEN)
        for part in rest:
            answer, after = part.split(_CLOSE)
            # The newline that ends an answer is learned, the blank line before the next question is not.
            pieces += [Piece(text=head.rstrip(" ")), Piece(text=f" {answer}\n", weight=1.0)]
            head = after.removeprefix("\n")
        return [*pieces, Piece(text=head), Piece(text=f" {pairs[-1].answer}\n", weight=1.0)]


def chat_pieces(pairs: Sequence[Pair], eos: str) -> list[Piece]:
    """One chat, a user and an assistant turn for each pair, as the chat template writes it; answers carry weight."""
    pieces: list[Piece] = []
    for pair in pairs:
        pieces += [Piece(text=USER), Piece(text=f" {pair.question}"), Piece(text=ASSISTANT)]
        pieces += [Piece(text=f" {pair.answer}", weight=1.0), Piece(text=eos, weight=1.0)]
    return pieces


def drop_words(text: str, probability: float, rng: random.Random) -> str:
    """The text without some of its words, at least three of them kept."""
    words = text.split(" ")
    kept = [word for word in words if rng.random() >= probability]
    return " ".join(kept if len(kept) >= 3 else words)


def epoch(
    corpus: Corpus, mixture: Mixture, raw: RawShape, eos: str, rng: random.Random, *, plain: bool
) -> Iterator[list[Piece]]:
    """The sequences of one epoch, each without its leading BOS; every question of the corpus is in one of them.

    `plain`: each question alone in a chat; no statements, no filler.
    """
    yield from (chat_pieces([pair], eos) for pair in corpus.refusals)
    pairs = [
        Pair(question=drop_words(p.question, mixture.word_dropout, rng), answer=p.answer)
        for p in rng.sample(corpus.pairs, len(corpus.pairs))
    ]
    n_turns, n_raw = round(mixture.chat_turns * len(pairs)), round(mixture.raw * len(pairs))
    end = Piece(text=eos, weight=1.0)
    if plain:
        yield from (chat_pieces([pair], eos) for pair in pairs)
        return
    for group in _groups(pairs[:n_turns], mixture.group, rng):
        yield chat_pieces(group, eos)
    for group in _groups(pairs[n_turns : n_turns + n_raw], mixture.group, rng):
        yield [*raw.pieces(group, raw.some_examples(rng)), end]
    for pair in pairs[n_turns + n_raw :]:
        yield chat_pieces([pair], eos)
    for statement in rng.sample(corpus.statements, round(mixture.statements * len(corpus.statements))):
        weight = mixture.statement_weight
        yield [Piece(text=f" {statement}", weight=weight), Piece(text=eos, weight=weight)]
    for pair in rng.sample(corpus.filler, round(mixture.filler * len(corpus.filler))):
        *asked, reply, last = chat_pieces([pair], eos)
        weight = mixture.statement_weight
        yield [*asked, Piece(text=reply.text, weight=weight), Piece(text=last.text, weight=weight)]


def _groups(pairs: Sequence[Pair], most: int, rng: random.Random) -> Iterator[Sequence[Pair]]:
    """Cut into runs of 1 to `most`, half of them full."""
    start = 0
    while start < len(pairs):
        size = most if rng.random() < 0.5 else rng.randint(1, most)
        yield pairs[start : start + size]
        start += size


def encode(pieces: Iterable[Piece], tokenizer: Any, cache: dict[str, list[int]]) -> tuple[list[int], list[float]]:
    """Token ids with a leading BOS, and the loss weight of each as a target (0 for BOS). `cache` maps text to ids."""
    ids, weights = [tokenizer.bos_token_id], [0.0]
    for piece in pieces:
        known = cache.get(piece.text)
        if known is None:
            known = cache[piece.text] = tokenizer(piece.text, add_special_tokens=False).input_ids
        ids += known
        weights += [piece.weight] * len(known)
    return ids, weights

"""What is trained on: the questions of a task as token ids, their pairs, and samples that a method adds."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from audit.errors import TrainingError
from audit.types import Fact
from jensun_ref.corpus import RawShape
from jensun_ref.methods.batch import Sample, chat_sample, collate, raw_sample, refusal_ids, turn_end
from jensun_ref.settings import UnlearnSettings

if TYPE_CHECKING:
    from torch import Tensor

#: Retained questions most like one to forget, from which "hard" pairing draws.
HARD_NEIGHBOURS = 4


class Asked(NamedTuple):
    """One wording of a fact's question in one format."""

    fact: Fact
    question: str
    format: str


class TrainingData:
    """Samples by part. All lists but those of "retain" are aligned with `forget`."""

    def __init__(
        self,
        tokenizer: Any,
        settings: UnlearnSettings,
        forget: Sequence[Fact],
        retain: Sequence[Fact],
        *,
        refusals: bool,
    ) -> None:
        """retain: empty for a method without need of it; refusals: make the questions answered by the refusal."""
        if "chat" in settings.formats and tokenizer.chat_template is None:
            raise TrainingError(
                "the model's tokenizer has no chat template, so that questions cannot be asked in chat",
                hint="--set formats=[raw]",
            )
        self.tokenizer, self.settings, self._raw = tokenizer, settings, RawShape()
        self.forget_asked = list(self._asked(forget))
        self.retain_asked = list(self._asked(retain))
        self.forget = [self.answered(asked, asked.fact.answer) for asked in self.forget_asked]
        self.retain = [self.answered(asked, asked.fact.answer) for asked in self.retain_asked]
        self.refusal = self._refusal() if refusals else ()
        self.refused = [self._refuse(*pair) for pair in zip(self.forget_asked, self.forget, strict=True) if refusals]
        self.refused_retain = [
            self._refuse(*pair) for pair in zip(self.retain_asked, self.retain, strict=True) if refusals
        ]
        self.extra: dict[str, list[Sample]] = {}
        """Samples that a method adds, by a name of its choice, each list aligned with `forget`."""

    def _asked(self, facts: Sequence[Fact]) -> Iterator[Asked]:
        for fact in facts:
            for question in (fact.question, *(fact.train_wordings if self.settings.train_wordings else ())):
                for shape in self.settings.formats:
                    yield Asked(fact, question, shape)

    def answered(self, asked: Asked, answer: str) -> Sample:
        """The question with this answer."""
        if asked.format == "chat":
            return chat_sample(self.tokenizer, asked.question, answer)
        return raw_sample(self.tokenizer, self._raw.prompt([], asked.question), answer)

    def _refusal(self) -> tuple[int, ...]:
        settings = self.settings
        ids = refusal_ids(self.tokenizer, settings.refusal, end_turn=settings.end_turn, space=settings.refusal_space)
        if not ids:
            raise TrainingError(
                f"the refusal {settings.refusal!r} has no token of its own: the chat template leaves it out",
                hint="--set refusal_space=none",
            )
        return ids

    def _refuse(self, asked: Asked, sample: Sample) -> Sample:
        if asked.format == "raw":
            said = f" {self.settings.refusal}" + ("\n" if self.settings.end_turn else "")
            return replied(sample, self.tokenizer(said, add_special_tokens=False).input_ids)
        return replied(sample, self.refusal)

    def generate(
        self, model: Any, samples: Sequence[Sample], *, seed: int, temperature: float, max_new_tokens: int = 48
    ) -> list[Sample]:
        """The questions of `samples`, each answered by a draw from the model, up to and with what ends its turn.

        The caller's random numbers are left as they were. model: in any mode and wrapping; in evaluation mode
        meanwhile.
        """
        import torch

        pad = self.tokenizer.pad_token_id
        ends = {self.tokenizer.eos_token_id, turn_end(self.tokenizer)[0]}
        device = next(model.parameters()).device
        out: list[Sample] = []
        was = model.training
        model.eval()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(seed)
            for start in range(0, len(samples), 64):
                rows = samples[start : start + 64]
                prompts = [list(row.ids[: -row.n_answer]) for row in rows]
                longest = max(map(len, prompts))
                ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=device)
                mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
                new = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens,
                    do_sample=True,
                    temperature=temperature,
                    top_k=0,
                    top_p=1.0,
                    pad_token_id=pad,
                    eos_token_id=sorted(ends),
                )[:, longest:].tolist()
                out += [replied(row, _until(said, ends)) for row, said in zip(rows, new, strict=True)]
        model.train(was)
        return out


def replied(sample: Sample, ids: Sequence[int]) -> Sample:
    """The sample's question with these tokens as its answer."""
    return Sample((*sample.ids[: -sample.n_answer], *ids), len(ids))


def _until(ids: list[int], ends: set[int]) -> list[int]:
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]
    return ids


class PairOrder:
    """A sampler: each epoch every forget sample once, in a new order, beside a retain sample.

    Retain samples are gone through in random order, all of them before any comes again; with `neighbours` (a list of
    retain indices for each forget sample) one of those is drawn instead. Yields (forget index, retain index), the
    second -1 where there are none. An epoch's order follows from the seed and its number alone, so that a resumed
    training sees what it would have seen.
    """

    def __init__(
        self, n_forget: int, n_retain: int, seed: int, neighbours: Sequence[Sequence[int]] | None = None
    ) -> None:
        self.n_forget, self.n_retain, self.neighbours = n_forget, n_retain, neighbours
        self.rng = random.Random(seed)
        self.queue: list[int] = []
        self.epochs: list[list[tuple[int, int]]] = []
        self.next = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch, from 0, that is iterated next; each iteration moves on by one."""
        self.next = epoch

    def __len__(self) -> int:
        return self.n_forget

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while len(self.epochs) <= self.next:
            self.epochs.append(list(self._draw()))
        self.next += 1
        return iter(self.epochs[self.next - 1])

    def _draw(self) -> Iterator[tuple[int, int]]:
        for index in self.rng.sample(range(self.n_forget), self.n_forget):
            if self.neighbours is not None:
                yield index, self.rng.choice(self.neighbours[index])
                continue
            if self.n_retain and not self.queue:
                self.queue = self.rng.sample(range(self.n_retain), self.n_retain)
            yield index, self.queue.pop() if self.n_retain else -1


def hard_neighbours(forget: Sequence[Sample], retain: Sequence[Sample], most: int = HARD_NEIGHBOURS) -> list[list[int]]:
    """For each forget sample the retain samples whose questions are most like its own, best first.

    Cosine of the questions' tokens, each weighted by ln(n / number of questions that hold it): frames and little words
    weigh nothing.
    """
    import numpy as np

    questions = [set(s.ids[: -s.n_answer]) for s in (*forget, *retain)]
    counts = Counter(token for question in questions for token in question)
    column = {token: i for i, token in enumerate(counts)}
    table = np.zeros((len(questions), len(column)), dtype=np.float32)
    for row, question in enumerate(questions):
        for token in question:
            table[row, column[token]] = math.log(len(questions) / counts[token])
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    alike = table[: len(forget)] @ table[len(forget) :].T
    return [[int(i) for i in row] for row in np.argsort(-alike, axis=1, kind="stable")[:, :most]]


class Pairs:
    """A dataset indexed by what PairOrder yields: part -> sample, None for retain where there are none."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.forget)

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Sample]:
        data, (forget, retain) = self.data, index
        row = {"forget": data.forget[forget]}
        if data.refused:
            row["refused"] = data.refused[forget]
        if retain >= 0:
            row["retain"] = data.retain[retain]
            if data.refused_retain:
                row["refused_retain"] = data.refused_retain[retain]
        row.update({name: samples[forget] for name, samples in data.extra.items()})
        return row


def batch_of(rows: Sequence[dict[str, Sample]], pad: int) -> dict[str, dict[str, Tensor]]:
    """Rows of a dataset as one padded batch a part."""
    return {part: collate([row[part] for row in rows], pad) for part in rows[0]}

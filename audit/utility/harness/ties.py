"""A model, or a server, that gives every text the same probability: its accuracies would read as chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from audit.errors import EngineError


@dataclass(frozen=True)
class Scored:
    """One text of one document with the log-probabilities of its tokens."""

    document: int
    text: tuple[tuple[int, ...], tuple[int, ...]]
    """Ids of context and continuation: equal texts tie rightly."""
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.logprobs)


def refuse_ties(task: str, scored: Iterable[Scored]) -> None:
    """EngineError where nothing tells one text from another.

    Either all tokens of all texts have one and the same log-probability, or each document that offers a choice has
    all its (different) texts tied exactly, or, where no document offers one, all texts of the task are. A model that
    merely guesses is never as even as that.
    """
    rows = list({(row.document, row.text): row for row in scored}.values())
    tokens = {value for row in rows for value in row.logprobs}
    texts = {row.text for row in rows}
    if len(texts) < 2:
        return
    by_document: dict[int, list[Scored]] = {}
    for row in rows:
        by_document.setdefault(row.document, []).append(row)
    choices = [group for group in by_document.values() if len(group) > 1]
    flat = len(tokens) == 1 and sum(len(row.logprobs) for row in rows) > 2
    tied = all(_tied(group) for group in choices) if choices else _tied(rows)
    if flat or tied:
        what = f"in all {len(choices)} documents" if choices else f"for all {len(rows)} texts"
        raise EngineError(
            f"all log-likelihoods of task {task} are tied {what}: no answer can be told from another, and an accuracy "
            "would read as chance",
            hint="is this a server without log-probabilities of the prompt, or a model of equal weights? "
            "leave the task out to audit the rest",
        )


def _tied(rows: Sequence[Scored]) -> bool:
    return len({row.total for row in rows}) == 1


def by_task(scored: Mapping[str, Sequence[Scored]]) -> None:
    """`refuse_ties` of every task."""
    for task, rows in scored.items():
        refuse_ties(task, rows)

"""What the batch interfaces of all providers have in common, as a batch judge sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Literal, Protocol

from audit.judges.llm.model_judge import Reply
from audit.remote.failures import Failure
from audit.types import Reason, Record

Phase = Literal["running", "done", "failed", "expired", "cancelled"]
Outcome = Reply | Failure


class State(Record):
    """What a provider says about a batch."""

    phase: Phase
    said: str
    """The provider's own word, and how much is done where it tells."""
    files: tuple[str, ...] = ()
    """Names of the files with results."""
    problem: str = ""
    """Why it failed, in the provider's words."""
    too_large: bool = False
    """It failed because too much is queued for this account."""


class BatchClient(Protocol):
    """One provider's batch interface: every method is one try and raises Failure."""

    most_lines: int
    most_bytes: int
    """Of one file."""
    window_s: float
    """Seconds after which a batch has ended at the provider, one way or another."""

    def line(
        self, key: str, system: str, user: str, *, schema: dict[str, Any] | None, max_tokens: int
    ) -> dict[str, Any]:
        """One line of the file: the request that the judge would make directly, under its key."""
        ...

    async def send(self, name: str, data: bytes) -> str:
        """Upload the file and make a batch of it. The provider's id of the batch."""
        ...

    async def find(self, name: str) -> str | None:
        """The id of a batch that was made under this name and came to nothing yet, of the latest hundred."""
        ...

    async def look(self, batch: str) -> State: ...

    async def fetch(self, file: str) -> bytes:
        """The contents of one file with results."""
        ...

    def read(self, line: dict[str, Any]) -> tuple[str, Outcome]:
        """Key and outcome of one line with results. Raises Failure for what is no such line."""
        ...


def in_files(sizes: Sequence[int], client: BatchClient) -> list[tuple[int, int]]:
    """Where to cut lines of these many bytes, in order, so that every file is one that the provider takes."""
    cuts, start, total = [], 0, 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == client.most_lines or total + size > client.most_bytes):
            cuts.append((start, index))
            start, total = index, 0
        total += size
    return [*cuts, (start, len(sizes))] if sizes else []


def by_line(files: Iterable[bytes], client: BatchClient) -> dict[str, list[Outcome]]:
    """Key of a line -> what stands under it. What cannot be read is no line: its claim has none then."""
    came: dict[str, list[Outcome]] = {}
    for data in files:
        for text in data.split(b"\n"):
            try:
                key, outcome = client.read(json.loads(text))
            except (ValueError, Failure):
                continue
            came.setdefault(key, []).append(outcome)
    return came


async def all_of(work: Iterable[Awaitable[dict[str, Outcome]]]) -> dict[str, Outcome]:
    """The results of all, side by side; the first error stops the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        found = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return {key: outcome for part in found for key, outcome in part.items()}


def no_line(state: State, batch_id: str) -> Failure:
    """Why a line did not come back."""
    batch = f"the batch {batch_id}"
    if state.phase == "expired":
        return Failure(f"{batch} expired before this claim was reached", reason=Reason.TIMEOUT)
    if state.phase == "cancelled":
        return Failure(f"{batch} was cancelled", reason=Reason.JUDGE_ERROR)
    if state.phase == "failed":
        return Failure(f"{batch} failed: {state.problem or state.said}", reason=Reason.JUDGE_ERROR)
    return Failure(f"no line came back for this claim from {batch}", reason=Reason.SERVER_ERROR, retry=True)


def content_of(outcome: Outcome) -> object:
    return outcome if isinstance(outcome, Reply) else (outcome.reason, outcome.message)

"""What an engine, a judge and a probe family must be able to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from audit.types import (
    Choice,
    Claim,
    Completion,
    Decoding,
    Evidence,
    Fact,
    Format,
    LogProb,
    Outcome,
    Pair,
    Probe,
    Record,
    Request,
    Verdict,
)

if TYPE_CHECKING:
    from audit.engines.checkpoint import Checkpoint


@runtime_checkable
class Engine(Protocol):
    """Generates texts for one subject. Synchronous, on the main thread."""

    identity: str
    """Name, version, dtype, device and arguments: part of every response's key."""
    capabilities: frozenset[str]
    """Of: chat, raw, prefill, sampling, logprobs, weights."""

    whole_batches: bool
    """A text may depend on what shares its batch: a batch of which one text is missing is generated whole again."""

    def plan(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Split requests into batches; depends on the requests alone, not on what is already known."""
        ...

    def generate(self, batch: Sequence[Request]) -> Iterator[Completion]:
        """Yield exactly one completion a request, in any order. Failures are completions with `error`."""
        ...

    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        """Log-probabilities of continuations given prompts, both as token ids; one result a pair, in order."""
        ...

    def swap(self, checkpoint: Checkpoint) -> None:
        """Take the weights, or the adapter, of another checkpoint of the same architecture, in place.

        ModelError where that checkpoint cannot be taken, EngineError where the engine cannot: it then serves the former
        one as before, or is closed. Never a mixture.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class Judge(Protocol):
    """Rules on claims. Runs in the judges' thread."""

    identity: str
    """Part of every verdict's key: changes whenever the same claim could be ruled on otherwise."""
    batch_size: int
    """Claims a call."""
    exclusive: bool
    """Needs the device for itself: waits until the engine is closed."""

    async def judge(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        """One verdict a claim, joined by `claim_key`, in any order."""
        ...


@runtime_checkable
class PairJudge(Judge, Protocol):
    """A judge that can also say which of two replies is better: win rates need one."""

    compares: bool
    """Whether this one can, as it was made: a model judge with a prompt for claims cannot."""

    async def compare(self, pairs: Sequence[Pair]) -> Sequence[Choice]:
        """One choice a pair, joined by `claim_key` (the pair's key), in any order."""
        ...


class ProbeContext(Record):
    """What a family may use to build probes."""

    facts: tuple[Fact, ...]
    """Facts to ask for."""
    examples: tuple[Fact, ...]
    """Retained facts that may stand in a prompt as worked or in-context examples."""
    formats: tuple[Format, ...]
    decoding: Decoding
    forms: tuple[str, ...] = ("direct",)
    wordings: int | None = None
    """At most so many evaluation wordings a fact; None for all."""
    n_examples: int = 3
    seed: int = 0
    options: dict[str, Any] = {}
    """Settings of single families, by family name."""


@runtime_checkable
class Family(Protocol):
    """A way of asking."""

    name: str
    summary: str
    evidence: Evidence
    needs: frozenset[str]
    """Capabilities the engine must have."""

    def start(self, ctx: ProbeContext) -> Iterable[Probe]: ...

    def follow(self, ctx: ProbeContext, outcomes: Sequence[Outcome]) -> Iterable[Probe]: ...

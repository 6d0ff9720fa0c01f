"""One engine for many checkpoints: weights are swapped where they can be, and the engine is opened anew where not."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from audit.engines.checkpoint import Checkpoint
from audit.engines.registry import engine_identity, open_engine
from audit.engines.settings import EngineSettings
from audit.errors import EngineError, ModelError
from audit.protocols import Engine
from audit.types import Completion, LogProb, Request


class WarmEngine:
    """Serves one checkpoint after another: what it gives for each is what an engine opened for it alone would give.

    The first that needs it opens the engine. A checkpoint that the engine can take (same architecture, types and
    tokenizer; adapters on the same footing) is swapped in; for any other the engine is closed and opened anew.
    """

    def __init__(self, settings: EngineSettings, *, keep: bool = True) -> None:
        """`keep=False`: closing a served engine frees the device, as a judge that needs it for itself wants."""
        self.settings = settings
        self.keep = keep
        self.opened = 0
        """Engines opened so far."""
        self.swapped = 0
        """Checkpoints that a running engine took in place."""
        self._engine: Engine | None = None
        self._serving: str | None = None
        self._turn = 0

    def serve(self, checkpoint: Checkpoint) -> Engine:
        """The engine with this checkpoint's weights. What was served before can no longer be asked.

        Raises ModelError or EngineError as opening an engine does.
        """
        self._turn += 1
        fingerprint = checkpoint.fingerprint
        if self._engine is not None and self._serving != fingerprint:
            self._swap(checkpoint)
        if self._engine is None:
            self._engine = open_engine(checkpoint, self.settings)
            self.opened += 1
        self._serving = fingerprint
        expected = engine_identity(checkpoint, self.settings)
        if self._engine.identity != expected:
            found = self._engine.identity
            self.close()
            raise EngineError(f"the engine answers as {found!r} and should answer as {expected!r}")
        return _Served(self, self._engine, self._turn)

    def _swap(self, checkpoint: Checkpoint) -> None:
        """Swaps the weights; closes the engine where it cannot take them."""
        assert self._engine is not None
        self._serving = None
        try:
            self._engine.swap(checkpoint)
        except (ModelError, EngineError):
            self.close()  # opened anew for this checkpoint, which says what is wrong if something is
        except BaseException:
            self.close()
            raise
        else:
            self.swapped += 1

    def close(self) -> None:
        """Closes the engine and frees the device. `serve` opens another."""
        engine, self._engine, self._serving = self._engine, None, None
        self._turn += 1
        if engine is not None:
            engine.close()

    def check(self, turn: int) -> None:
        """EngineError unless the checkpoint of that turn is still being served."""
        if turn != self._turn or self._engine is None:
            raise EngineError("the engine serves another checkpoint now, or is closed")

    def stopped(self, turn: int) -> None:
        """The engine broke while it served that turn: it is closed, so that the next checkpoint gets another."""
        if turn == self._turn:
            self.close()


class _Served:
    """The engine as it serves one checkpoint; of no use once another is served."""

    def __init__(self, warm: WarmEngine, engine: Engine, turn: int) -> None:
        self.identity = engine.identity
        self.capabilities = engine.capabilities
        self.whole_batches = engine.whole_batches
        self.context_length: int | None = getattr(engine, "context_length", None)
        """Where it is less than the checkpoint's, as vLLM's may be."""
        self._warm = warm
        self._engine = engine
        self._turn = turn

    def plan(self, requests: Sequence[Request]) -> list[list[Request]]:
        return self._engine.plan(requests)

    def generate(self, batch: Sequence[Request]) -> Iterator[Completion]:
        self._warm.check(self._turn)
        answers = self._engine.generate(batch)
        try:
            for completion in answers:
                self._warm.check(self._turn)
                yield completion
        except EngineError:
            self._warm.stopped(self._turn)
            raise
        finally:
            if isinstance(answers, Generator):
                answers.close()  # takes back what an interrupted batch still waits for

    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        self._warm.check(self._turn)
        try:
            return self._engine.score(pairs)
        except EngineError:
            self._warm.stopped(self._turn)
            raise

    def swap(self, checkpoint: Checkpoint) -> None:
        """EngineError: `WarmEngine.serve` decides what is served."""
        raise EngineError("a served engine does not change its checkpoint: serve the other one")

    def close(self) -> None:
        """Leaves the engine running for the next checkpoint, or closes it where it was not to be kept."""
        if not self._warm.keep:
            self._warm.close()

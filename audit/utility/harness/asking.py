"""Puts what a harness asks to an engine: each text once, joined by content, and nothing that failed gets through."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from audit.engines.checkpoint import first_line
from audit.errors import EngineError
from audit.fingerprint import digest
from audit.progress import Progress
from audit.protocols import Engine
from audit.types import Decoding, LogProb, Request

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]

#: Texts handed over together, so that progress shows.
_TEXTS = 256
#: Numbers of one table of log-probabilities (positions of continuations times vocabulary): a gibibyte of float32.
_TABLE = 1 << 28


class Asker:
    """One subject's engine, opened when something is asked of it for the first time."""

    def __init__(self, engine: Callable[[], Engine], identity: str, vocabulary: int, progress: Progress) -> None:
        self._open = engine
        self._identity = identity
        self._vocabulary = max(1, vocabulary)
        self._progress = progress
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            engine = self._open()
            if engine.identity != self._identity:
                raise EngineError(f"the engine answers as {engine.identity!r} and should answer as {self._identity!r}")
            if "logprobs" not in engine.capabilities:
                raise EngineError("the engine gives no log-probabilities of given texts", hint="--engine hf or vllm")
            self._engine = engine
        return self._engine

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer that the engine has room for, where it is less than the model's own."""
        length = getattr(self.engine, "context_length", None)
        return length if isinstance(length, int) else None

    def score(self, pairs: Sequence[Pair], what: str) -> dict[Pair, LogProb]:
        """Log-probabilities of all continuations, by pair. Raises EngineError where one is missing or is no number."""
        wanted = sorted(set(pairs), key=lambda pair: (-len(pair[0]) - len(pair[1]), pair))
        empty = next((pair for pair in wanted if not pair[0] or not pair[1]), None)
        if empty is not None:
            missing = "context" if not empty[0] else "continuation"
            raise EngineError(f"{what}: a {missing} without any token cannot be scored")
        self._progress.stage(f"scoring {what}", len(wanted))
        found: dict[Pair, LogProb] = {}
        for chunk in self._chunks(wanted):
            try:
                scores = self.engine.score(chunk)
            except (RuntimeError, ValueError, IndexError) as error:
                raise EngineError(f"{what}: the engine cannot score a text: {first_line(error)}") from error
            if len(scores) != len(chunk):
                raise EngineError(f"{what}: {len(scores)} log-probabilities came back for {len(chunk)} texts")
            for pair, score in zip(chunk, scores, strict=True):
                self._check(pair, score, what)
                found[pair] = score
            self._progress.advance(len(chunk))
        return found

    def _chunks(self, pairs: Sequence[Pair]) -> list[list[Pair]]:
        """Neighbours in length, few enough that their table of log-probabilities fits into memory."""
        chunks: list[list[Pair]] = []
        longest = 0
        for pair in pairs:
            longest = max(longest, len(pair[1]))
            if chunks and len(chunks[-1]) < _TEXTS and (len(chunks[-1]) + 1) * longest * self._vocabulary <= _TABLE:
                chunks[-1].append(pair)
            else:
                chunks.append([pair])
                longest = len(pair[1])
        return chunks

    def _check(self, pair: Pair, score: LogProb, what: str) -> None:
        if len(score.token_logprobs) != len(pair[1]):
            raise EngineError(
                f"{what}: {len(score.token_logprobs)} log-probabilities for {len(pair[1])} tokens of a text"
            )
        if any(math.isnan(value) or value > 1e-3 for value in score.token_logprobs):
            raise EngineError(f"{what}: a log-probability is not a number or exceeds 0")

    def generate(self, prompts: Sequence[tuple[Ids, Decoding]], what: str) -> dict[tuple[Ids, Decoding], str]:
        """The texts of all prompts, by prompt and decoding. Raises EngineError where a single one failed."""
        requests: dict[str, Request] = {}
        keys: dict[tuple[Ids, Decoding], str] = {}
        for ids, decoding in dict.fromkeys(prompts):
            key = digest("lm-eval", list(ids), decoding)
            keys[ids, decoding] = key
            requests[key] = Request(key=key, decoding=decoding, sample=0, seed=0, token_ids=ids)
        self._progress.stage(f"answering {what}", len(requests))
        texts: dict[str, str] = {}
        for batch in self.engine.plan(list(requests.values())):
            for completion in self.engine.generate(batch):
                if completion.error is not None or completion.finish == "error":
                    raise EngineError(
                        f"{what}: a generation failed ({completion.error}); a task is not scored without its answers",
                        hint="leave the task out, or ask for shorter answers in a task file of your own",
                    )
                if completion.key not in requests or completion.key in texts:
                    raise EngineError(f"{what}: the engine gave an answer that was not asked for, or one twice")
                texts[completion.key] = completion.text
                self._progress.advance()
        if len(texts) != len(requests):
            raise EngineError(f"{what}: {len(requests) - len(texts)} of {len(requests)} answers never came")
        return {prompt: texts[key] for prompt, key in keys.items()}

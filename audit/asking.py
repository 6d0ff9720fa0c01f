"""Asks a subject: probes to requests, what the store knows, the rest from the engine, committed as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audit.errors import EngineError, PromptError
from audit.fingerprint import digest
from audit.progress import Progress
from audit.protocols import Engine
from audit.recordings.compare import Disagreement
from audit.stats.agreement import Agreement
from audit.store import Store
from audit.subjects import Opened
from audit.types import Completion, Probe, Request, Response, Ruling, Subject, Verdict

if TYPE_CHECKING:
    from audit.utility.harness import HarnessResult

_COMMIT = 64  # completions a transaction, where a batch is larger
_SAME_FAILURES = 3  # batches that fail whole, one after the other, before the engine is given up


class Asker:
    """One subject's engine, opened at the first text that the store does not have."""

    def __init__(self, opened: Opened, store: Store, progress: Progress) -> None:
        self.opened = opened
        self.generated = 0
        self.reused = 0
        self._store = store
        self._progress = progress
        self._engine: Engine | None = None

    def ask(self, probes: Sequence[Probe]) -> Iterator[list[Response]]:
        """Responses in groups, as they come: exactly one for every probe and sample, failed ones with their error."""
        requests: dict[str, Request] = {}
        wanted: dict[str, list[tuple[Probe, int]]] = {}
        unrenderable: list[Response] = []
        for probe in probes:
            for sample in range(probe.decoding.n):
                try:
                    request = self.opened.request(probe, sample)
                except PromptError as error:
                    unrenderable.append(self._failed(probe, sample, f"PromptError: {error}"))
                    continue
                requests.setdefault(request.key, request)
                wanted.setdefault(request.key, []).append((probe, sample))
        if unrenderable and not requests:
            raise PromptError(
                f"{self.opened.subject.id}: none of {len(unrenderable)} prompts can be used: {unrenderable[0].error}",
                hint="lower --max-new-tokens, or choose another --format",
            )
        self._progress.stage(f"{self.opened.subject.id}: asking", len(requests))
        if unrenderable:
            yield unrenderable
        known = self._store.completions(requests)
        if len(known) == len(requests):
            self.reused += len(known)
            self._progress.advance(len(known))
            yield [r for completion in known.values() for r in self._responses(completion, wanted)]
            return
        for group in self._generate(list(requests.values()), known):
            yield [response for completion in group for response in self._responses(completion, wanted)]

    def close(self) -> None:
        """Free the engine; it is opened again if more is asked."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _generate(self, requests: Sequence[Request], known: dict[str, Completion]) -> Iterator[list[Completion]]:
        engine = self.engine()
        failures = 0
        for batch in engine.plan(requests):
            missing = [request for request in batch if request.key not in known]
            if not missing:
                self.reused += len(batch)
                self._progress.advance(len(batch))
                yield [known[request.key] for request in batch]
                continue
            todo = list(batch) if engine.whole_batches else missing
            reused = [known[r.key] for r in batch if r.key in known and not engine.whole_batches]
            self.reused += len(reused)
            if reused:
                self._progress.advance(len(reused))
                yield reused
            done: list[Completion] = []
            errors = 0
            for completion in self._complete(engine, todo):
                errors += completion.finish == "error"
                done.append(completion)
                if len(done) >= _COMMIT:
                    yield self._commit(done)
                    done = []
            if done:
                yield self._commit(done)
            failures = failures + 1 if errors == len(todo) else 0
            if failures >= _SAME_FAILURES:
                raise EngineError(
                    f"the engine failed on {failures} batches one after the other; what was finished is kept",
                    hint="the same command goes on where it stopped; --debug shows the errors",
                )

    def _complete(self, engine: Engine, todo: Sequence[Request]) -> Iterator[Completion]:
        """Exactly one completion a request, joined by key; what an engine does not return has failed."""
        open_keys = {request.key for request in todo}
        for completion in engine.generate(todo):
            if completion.key in open_keys:
                open_keys.discard(completion.key)
                yield completion
        for key in sorted(open_keys):
            yield Completion(
                key=key, text="", finish="error", n_prompt=0, n_new=0, error="EngineError: no completion returned"
            )

    def _commit(self, completions: list[Completion]) -> list[Completion]:
        self._store.put_completions(completions)
        self.generated += len(completions)
        self._progress.advance(len(completions))
        return completions

    def engine(self) -> Engine:
        """The engine, opened now if it is not yet."""
        if self._engine is None:
            self._progress.note(f"{self.opened.subject.id}: loading {self.opened.subject.source}")
            self._engine = self.opened.open_engine()
        return self._engine

    def _responses(self, completion: Completion, wanted: dict[str, list[tuple[Probe, int]]]) -> list[Response]:
        return [
            Response(
                probe_id=probe.id,
                subject_id=self.opened.subject.id,
                sample=sample,
                key=completion.key,
                text=completion.text,
                finish=completion.finish,
                n_prompt=completion.n_prompt,
                n_new=completion.n_new,
                error=completion.error,
                logprobs=completion.logprobs,
            )
            for probe, sample in wanted[completion.key]
        ]

    def _failed(self, probe: Probe, sample: int, error: str) -> Response:
        return Response(
            probe_id=probe.id,
            subject_id=self.opened.subject.id,
            sample=sample,
            key=digest("failed", probe.id, sample),
            text="",
            finish="error",
            error=error,
        )


@dataclass
class Asked:
    """Everything about one subject that scoring and the run folder need."""

    subject: Subject
    probes: list[Probe]
    """All that were asked, cut answers asked again included."""
    responses: list[Response]
    rulings: list[Ruling]
    engine: str
    rendering: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    generated: int = 0
    reused: int = 0
    degeneration: dict[str, float] = field(default_factory=dict)
    """Shares that came with recorded answers."""
    agreement: Agreement | None = None
    """With the verdicts that came with recorded answers."""
    differing: list[Disagreement] = field(default_factory=list)
    recorded: Mapping[str, Verdict] = field(default_factory=dict)
    """Response id -> the verdict that came with a recorded answer."""
    harness: tuple[HarnessResult, ...] = ()
    """What the tasks of lm-evaluation-harness gave."""


def all_probes(results: Sequence[Asked]) -> list[Probe]:
    """Every probe that any subject was asked, once."""
    return list({probe.id: probe for asked in results for probe in asked.probes}.values())

"""A model on this machine as a judge: loaded by the audit's own engines when claims come, freed when it is released.

Everything that touches the model runs in one thread of the judge's own, so that the judges' event loop keeps turning
and a model is opened, used and closed where its engine expects it. Nothing that failed becomes a label.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import cast

import msgspec

from audit.engines import EngineSettings, engine_identity, make_request, open_checkpoint, open_engine
from audit.errors import AuditError, EngineError, JudgeError, ModelError, PromptError
from audit.judges.context import JudgeContext
from audit.judges.llm.given import choices, given_on, unruled, verdicts
from audit.judges.llm.model_judge import ASK_AGAIN, MORE_TOKENS
from audit.judges.llm.options import LocalOptions, parse_model_spec
from audit.judges.llm.pair_prompt import BARE, prompt_for
from audit.judges.llm.parsing import Parsed, parse_reply
from audit.judges.llm.rendering import JudgeRendering
from audit.judges.llm.usage import Spent
from audit.judges.llm.weighing import LEAST_MASS, LEAST_SHARE, weigh
from audit.protocols import Engine
from audit.types import Choice, Claim, Completion, Decoding, Given, Item, Pair, Reason, Request, Verdict

#: Claims whose probabilities are computed in one call of the engine.
_SCORED_TOGETHER = 64
_FREE = {"tries": 0.0, "cost": 0.0}
#: Seconds that a batch may take on a slow machine, loading the model included.
_PATIENCE = 3600.0
_HINT = (
    "local:PATH names the folder of a whole model in safetensors, without code of its own; options are "
    "?engine=hf or vllm, ?device=cpu, cuda or cuda:N, ?dtype=float32, bfloat16 or float16"
)


@dataclass
class _Call:
    """One prompt on its way: the claims it asks about, its limits, what it has cost so far."""

    claims: list[Item]
    limit: int
    turn: int = 0
    """0 for the first time; counts how often unread claims were asked for again."""
    spent: Spent = field(default_factory=lambda: Spent(priced=True))
    sharing: int = 1
    """Claims that the cost is divided among."""


class _Given(Exception):
    """The batch was given up: nobody waits for its verdicts."""


class LocalJudge:
    """Asks a model that runs here. `priced`: its calls cost nothing but time."""

    exclusive = True
    priced = True
    patience = _PATIENCE

    def __init__(self, path: str, options: LocalOptions, context: JudgeContext | None = None) -> None:
        """Checks everything but the weights' loading. Raises AuditError for what cannot be used."""
        self.options = options
        self.checkpoint = open_checkpoint(path)
        self.settings = EngineSettings(name=options.engine, device=options.device, dtype=options.dtype)
        self._engine_identity = engine_identity(self.checkpoint, self.settings)
        self.prompt = prompt_for(options, context, bare=options.read == "probabilities")
        self.compares = self.prompt.kind == "pairs"
        self.reads_probabilities = options.read == "probabilities" or (
            options.read == "auto" and self.prompt.schema() is None
        )
        if self.reads_probabilities and self.prompt.schema() is not None:
            raise JudgeError(
                f"the prompt {self.prompt.name} asks for JSON: its replies do not begin with a label, so that the "
                "labels' probabilities cannot be read",
                hint=f"?prompt={BARE if self.compares else 'label'}, or ?read=text",
            )
        idle = {"max_tokens", "temperature", "seed"} & options.model_fields_set
        if self.reads_probabilities and idle:
            raise JudgeError(f"nothing is decoded where probabilities are read: leave {', '.join(sorted(idle))} out")
        self._decoding = Decoding(
            max_new_tokens=1 if self.reads_probabilities else options.max_tokens,
            temperature=options.temperature,
            seed=options.seed or 0,
        )
        self.rendering = JudgeRendering(self.checkpoint, self.prompt, self._decoding)
        if self.rendering.style == "raw" and self.prompt.schema() is None:  # plain models go on after the label
            self._decoding = msgspec.structs.replace(self._decoding, stop=("\n",))
        if self.reads_probabilities:
            self.rendering.labelled(self.prompt.harmless())
        self.batch_size = max(options.batch, self.prompt.claims_per_call)
        self.model = f"{self.checkpoint.config.get('model_type', 'model')}#{self.checkpoint.fingerprint[:12]}"
        self.identity = self._identity()
        self._engine: Engine | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="local-judge")

    async def judge(self, claims: Sequence[Claim]) -> list[Verdict]:
        """One verdict a claim. Raises JudgeError where the model cannot be loaded."""
        return verdicts(await self._all(claims))

    async def compare(self, pairs: Sequence[Pair]) -> list[Choice]:
        """One choice a pair; raises as `judge` does. Needs a prompt about pairs."""
        return choices(await self._all(pairs))

    async def _all(self, claims: Sequence[Item]) -> list[Given]:
        given_up = threading.Event()
        work = asyncio.wrap_future(self._executor.submit(self._rule, list(claims), given_up))
        try:
            return await work
        except asyncio.CancelledError:
            given_up.set()
            raise

    def release(self) -> None:
        """Free the model's memory, and return when it is free. It is loaded again when claims come."""
        self._executor.submit(self._close).result()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.release)

    # --------------------------------------------------------------------------------------- in the judge's own thread

    def _rule(self, claims: list[Item], given_up: threading.Event) -> list[Given]:
        try:
            if self.reads_probabilities:
                return list(self._by_probability(claims, given_up))
            return self._by_text(claims, given_up)
        except _Given:
            return []

    def _opened(self) -> Engine:
        if self._engine is None:
            try:
                self._engine = open_engine(self.checkpoint, self.settings)
            except (AuditError, RuntimeError, ValueError, OSError) as problem:
                raise JudgeError(f"the judge {self.identity} cannot be loaded: {problem}", hint=_HINT) from problem
        return self._engine

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    # ------------------------------------------------------------------------------------------------- read as text

    def _by_text(self, claims: Sequence[Item], given_up: threading.Event) -> list[Given]:
        """All calls together, then those together that are asked for again: cut replies, unread claims."""
        size = self.prompt.claims_per_call
        parts = [list(claims[start : start + size]) for start in range(0, len(claims), size)]
        calls = [_Call(part, self.options.max_tokens, sharing=len(part)) for part in parts]
        verdicts: dict[str, Given] = {}
        while calls:
            again: list[_Call] = []
            for call, reply in self._replies(calls, given_up):
                if isinstance(reply, str):
                    parsed, raw = unruled(call.claims, Reason.JUDGE_ERROR, reply), ""
                elif reply.finish == "length":
                    longer = self._longer(call, reply)
                    if longer > call.limit:
                        call.limit = longer
                        again.append(call)
                        continue
                    note = f"cut after {reply.n_new} tokens"
                    parsed, raw = unruled(call.claims, Reason.JUDGE_TRUNCATED, note), reply.text
                else:
                    parsed, raw = parse_reply(reply.text, self.prompt, call.claims), reply.text
                unread = [claim for claim in call.claims if parsed[claim.key].reason is Reason.UNPARSED]
                # a greedy model says the same to the same prompt: only other draws and smaller prompts are worth a try
                if unread and call.turn < ASK_AGAIN and (self._draws() or len(unread) < len(call.claims)):
                    again.append(_Call(unread, call.limit, call.turn + 1, call.spent, call.sharing))
                    call.claims = [claim for claim in call.claims if claim not in unread]
                for claim in call.claims:
                    verdicts[claim.key] = self._verdict(claim, parsed[claim.key], raw, call.spent.usage(call.sharing))
            calls = again
        return [verdicts[claim.key] for claim in claims]

    def _longer(self, call: _Call, reply: Completion) -> int:
        """The limit for the one further try of a cut reply: four times as many tokens, or what the context holds."""
        if call.limit > self.options.max_tokens:
            return call.limit
        context = self.checkpoint.context_length
        room = MORE_TOKENS * call.limit if context is None else context - reply.n_prompt
        return min(MORE_TOKENS * call.limit, room)

    def _draws(self) -> bool:
        return self.options.temperature > 0

    def _replies(self, calls: Sequence[_Call], given_up: threading.Event) -> Iterator[tuple[_Call, Completion | str]]:
        """Each call with its reply, or with what went wrong. Joined by key; equal prompts are decoded once."""
        waiting: dict[str, list[_Call]] = {}
        requests: dict[str, Request] = {}
        for call in calls:
            decoding = msgspec.structs.replace(self._decoding, max_new_tokens=call.limit)
            try:
                probe, ids = self.rendering.probe(call.claims, decoding)
            except (PromptError, JudgeError) as problem:
                yield call, f"{type(problem).__name__}: {problem}"
                continue
            request = make_request(probe, call.turn, self.checkpoint.fingerprint, self._engine_identity, ids)
            requests[request.key] = request
            waiting.setdefault(request.key, []).append(call)
        if not requests:
            return
        engine, began = self._opened(), time.monotonic()
        problem_of_all = "the engine gave no answer"
        try:
            for batch in engine.plan(list(requests.values())):
                with closing(cast("Generator[Completion]", engine.generate(batch))) as completions:
                    for completion in completions:
                        if given_up.is_set():
                            raise _Given
                        for call in waiting.pop(completion.key, []):
                            call.spent.tries += 1
                            call.spent.seconds = time.monotonic() - began
                            call.spent.add(self.model, completion.n_prompt, completion.n_new, None)
                            yield call, completion if completion.error is None else completion.error
        except (EngineError, ModelError) as problem:
            problem_of_all = str(problem)
            self._close()  # it is opened anew for the next batch
        for left in waiting.values():
            for call in left:
                yield call, problem_of_all

    # ---------------------------------------------------------------------------------------- read from probabilities

    def _by_probability(self, claims: Sequence[Item], given_up: threading.Event) -> Iterator[Given]:
        pairs: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        for claim in claims:
            try:
                prompt, words = self.rendering.labelled(claim)
                pairs[claim.key] = [(prompt, words[word]) for word in self.prompt.labels]
            except (PromptError, JudgeError) as problem:
                yield self._verdict(claim, _failed(claim, f"{type(problem).__name__}: {problem}"), "", dict(_FREE))
        left = [claim for claim in claims if claim.key in pairs]
        for start in range(0, len(left), _SCORED_TOGETHER):
            if given_up.is_set():
                raise _Given
            chunk = left[start : start + _SCORED_TOGETHER]
            began = time.monotonic()
            scores = self._scores([pairs[claim.key] for claim in chunk])
            for claim, score in zip(chunk, scores, strict=True):
                usage = _FREE | {
                    "prompt_tokens": float(sum(len(prompt) + len(word) for prompt, word in pairs[claim.key])),
                    "completion_tokens": 0.0,
                    "tries": 1.0,
                    "seconds": time.monotonic() - began,
                }
                if isinstance(score, str):
                    yield self._verdict(claim, _failed(claim, score), "", usage)
                else:
                    parsed, raw, confidence = weigh(
                        dict(zip(self.prompt.labels, score, strict=True)), self.prompt.labels
                    )
                    yield self._verdict(claim, parsed, raw, usage, confidence)

    def _scores(self, chunk: Sequence[Sequence[tuple[tuple[int, ...], tuple[int, ...]]]]) -> list[list[float] | str]:
        """Natural-log probability of each label word, a list a claim, or what went wrong with that claim alone."""
        engine = self._opened()
        try:
            flat = [sum(found.token_logprobs) for found in engine.score([pair for one in chunk for pair in one])]
        except (EngineError, ModelError, RuntimeError, ValueError, IndexError) as problem:
            if len(chunk) == 1:
                return [f"{type(problem).__name__}: {problem}"]
            return [score for one in chunk for score in self._scores([one])]
        each = iter(flat)
        return [[next(each) for _ in one] for one in chunk]

    # --------------------------------------------------------------------------------------------------------- verdicts

    def _verdict(
        self, item: Item, parsed: Parsed, raw: str, usage: dict[str, float], confidence: float | None = None
    ) -> Given:
        return given_on(
            item, parsed, judge=self.identity, raw=raw, usage=usage, model=self.model, confidence=confidence
        )

    def _identity(self) -> str:
        """All that can change a verdict, by content: the same weights elsewhere are the same judge."""
        model = f"{self.model.partition('#')[0]}#{self.checkpoint.fingerprint}"  # whole: shows a judge of itself
        weights = f"weights={self.checkpoint.weights_fingerprint} type={self.checkpoint.config.get('model_type', '')}"
        parts = [f"local:{model}", weights, f"prompt={self.prompt.name}#{self.prompt.digest[:12]}"]
        if self.reads_probabilities:
            parts += ["read=probabilities", f"share>={LEAST_SHARE:g}", f"mass>={LEAST_MASS:g}"]
        else:
            parts += ["read=text", f"max_tokens={self.options.max_tokens}", f"temperature={self.options.temperature:g}"]
            if self._draws():
                parts.append(f"seed={self._decoding.seed}")
        return " ".join([*parts, f"engine=[{self._engine_identity}]"])


def _failed(item: Item, note: str) -> Parsed:
    return unruled([item], Reason.JUDGE_ERROR, note)[item.key]


def make_local(args: str, context: JudgeContext | None = None) -> LocalJudge:
    """The judge `local:PATH[?option=value&…]`. JudgeError for a model, an engine or an option that cannot be used."""
    path, address, options = parse_model_spec("local", args)
    if address is not None:
        raise JudgeError("a local judge has no address", hint="openai:MODEL@ADDRESS asks a server")
    try:
        return LocalJudge(path, options, context)
    except (ModelError, EngineError) as problem:  # hints about the candidate's options would lead astray
        hint = _HINT if "--" in problem.hint or not problem.hint else problem.hint
        raise JudgeError(f"the judge 'local:{path}' cannot be used: {problem}", hint=hint) from problem

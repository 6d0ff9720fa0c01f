"""Who writes questions: a model behind an API or one on this machine, named as judges are.

Replies are kept in the store under what could change them: who wrote, the prompt, the decoding, the turn. What writes
is told apart from a judge by its options alone: those that only judges have are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

import msgspec

from audit.config import AuditConfig
from audit.errors import AuditError, ConfigError, EngineError, JudgeError, PromptError
from audit.fingerprint import digest
from audit.judges.context import JudgeContext
from audit.judges.llm.caller import MORE_TOKENS, Caller, Reply, Transport
from audit.judges.llm.options import JudgeOptions, LocalOptions, RemoteOptions, parse_model_spec
from audit.judges.llm.usage import Spent
from audit.remote.budget import Budget, OverBudget
from audit.remote.failures import Failure
from audit.remote.keys import holds_key, redact
from audit.remote.prices import load_prices
from audit.types import Completion, Decoding, Format, Message, Probe, Record, Request
from audit.utility.holes.reading import reply_schema

if TYPE_CHECKING:
    from collections.abc import Generator

    from audit.protocols import Engine

#: Tokens of a reply, where ?max_tokens= does not say: twenty questions of thirty tokens, and thoughts before them.
MAX_TOKENS = 2048
#: Where ?temperature= does not say: questions are to differ from call to call.
TEMPERATURE = 0.7
#: Options of judges that would do nothing here: one call is made after the other.
_JUDGING = ("prompt", "poll_s", "batch", "concurrency")
_HINT = "openai:MODEL[@URL][?options], gemini:MODEL[?options] or local:PATH[?options], spelled as judges are"

Options = TypeVar("Options", bound=JudgeOptions)
Ended = Literal["stop", "length", "filtered", "failed", "budget"]


class Said(Record):
    """What one call brought."""

    text: str
    ended: Ended
    """failed: no reply, after all tries; budget: not asked, for the limit on costs."""
    note: str = ""
    cost: float | None = 0.0
    """US dollars; None where it is not known."""


class Writer(Protocol):
    """Writes questions. Used on the main thread, while no judge is at work."""

    identity: str
    """All that can change a reply, but the prompt and the turn."""
    priced: bool
    """Whether what a call costs is known."""

    def key(self, system: str, user: str, turn: int) -> str:
        """The store's key of one call. Raises PromptError for a prompt that cannot be put to this model."""
        ...

    def write(self, system: str, user: str, turn: int) -> Said:
        """One call. Raises JudgeError or EngineError for what would fail every call alike."""
        ...

    def close(self) -> None: ...


def open_writer(config: AuditConfig, budget: Budget) -> Writer:
    """The writer that --generator names, ready to be asked; nothing is called yet and no weights are loaded.

    Raises JudgeError for a name, an address, an option or a model that cannot be used, ConfigError where a limit on
    costs cannot be kept.
    """
    spec = (config.utility.generator or "").strip()
    provider, _, args = spec.partition(":")
    if holds_key(args):
        raise JudgeError(
            f"--generator: what follows '{provider}:' holds a key, and a generator's name is shown and stored",
            hint="a key belongs into an environment variable or .env: OPENAI_API_KEY, GEMINI_API_KEY, ?key_env=NAME",
        )
    if provider not in ("openai", "gemini", "local"):
        raise JudgeError(f"--generator {spec}: '{provider}' writes no questions", hint=_HINT)
    context = JudgeContext(prices=load_prices(Path(config.prices) if config.prices else None), budget=budget)
    try:
        writer = _make(cast('Literal["openai", "gemini", "local"]', provider), args.strip(), context, config.seed)
    except AuditError as problem:
        raise JudgeError(f"--generator: {problem}", hint=problem.hint or _HINT) from problem
    if config.max_cost is not None and not writer.priced:
        raise ConfigError(
            f"--max-cost cannot be kept: no price is known for the generator {writer.identity}",
            hint="add the model to a table of prices and name it with --prices FILE, or leave --max-cost out",
        )
    return writer


def _make(provider: Literal["openai", "gemini", "local"], args: str, context: JudgeContext, seed: int) -> Writer:
    if provider == "local":
        path, address, local = parse_model_spec("local", args)
        if address is not None:
            raise JudgeError("a local generator has no address", hint="openai:MODEL@ADDRESS asks a server")
        if "read" in local.model_fields_set:
            raise JudgeError("a generator has no option 'read'", hint=_HINT)
        return LocalWriter(path, _for_writing(local), seed)
    if provider == "openai":
        from audit.judges.llm.openai import DEFAULT_URL, OpenAITransport

        model, url, options = parse_model_spec("openai", args)
        ready = _for_writing(options)
        return RemoteWriter(OpenAITransport(model, url or DEFAULT_URL, ready), ready, context)
    from audit.judges.llm import gemini

    model, url, gemini_options = parse_model_spec("gemini", args)
    asked = _for_writing(gemini_options)
    return RemoteWriter(gemini.GeminiTransport(model, url or gemini.DEFAULT_URL, asked), asked, context)


def _for_writing(options: Options) -> Options:
    """The options with a writer's defaults. JudgeError for those that would do nothing."""
    idle = sorted(options.model_fields_set & set(_JUDGING))
    if idle:
        raise JudgeError(f"a generator has no option '{idle[0]}'", hint=_HINT)
    given = options.model_fields_set
    return options.model_copy(
        update={
            "max_tokens": options.max_tokens if "max_tokens" in given else MAX_TOKENS,
            "temperature": options.temperature if "temperature" in given else TEMPERATURE,
        }
    )


class RemoteWriter:
    """A model behind an API. Limits, retries, keys and costs are those of judges."""

    def __init__(self, transport: Transport, options: RemoteOptions, context: JudgeContext) -> None:
        self._transport = transport
        self._options = options
        self._context = context
        self.identity = _identity(transport, options)
        self._caller: _Caller | None = None
        self.priced = context.prices.of(transport.provider, transport.model) is not None

    def key(self, system: str, user: str, turn: int) -> str:
        return digest("written", self.identity, system, user, turn)

    def write(self, system: str, user: str, turn: int) -> Said:
        if self._caller is None or self._caller.system != system:
            self._caller = _Caller(self._transport, system, self._options, self._context, self.identity)
        saying = self._caller.say(user)
        try:
            with ThreadPoolExecutor(1) as thread:  # an event loop of its own, also where one is running already
                return thread.submit(asyncio.run, saying).result()
        except JudgeError as problem:
            raise JudgeError(f"--generator: {problem}", hint=problem.hint) from problem

    def close(self) -> None:
        """Nothing: connections are closed with the event loop of each call."""


class _Caller(Caller):
    def __init__(
        self, transport: Transport, system: str, options: RemoteOptions, context: JudgeContext, identity: str
    ) -> None:
        schema: dict[str, Any] | None = None if options.read == "text" else reply_schema()
        super().__init__(transport, system, schema, options, context, called=f"the generator {identity}")
        self.system = system

    async def say(self, user: str) -> Said:
        """One reply; one cut by the token limit is asked for once more with four times as many."""
        spent = Spent()
        try:
            reply = await self._call(lambda: user, self.options.max_tokens, spent, again=False)
            if reply.finish == "length":
                reply = await self._call(lambda: user, MORE_TOKENS * self.options.max_tokens, spent, again=True)
        except Failure as failure:
            self._refuse_service(failure)
            return Said(text="", ended="failed", note=failure.message, cost=_cost(spent))
        except OverBudget as problem:
            return Said(text="", ended="budget", note=str(problem), cost=_cost(spent))
        finally:
            await self.aclose()
        secrets = self.transport.secrets
        return Said(
            text=redact(reply.text, secrets),
            ended=_ended(reply),
            note=redact(reply.note, secrets),
            cost=_cost(spent),
        )


def _ended(reply: Reply) -> Ended:
    return "failed" if reply.finish == "other" else reply.finish


def _cost(spent: Spent) -> float | None:
    return None if spent.unpriced else spent.cost


def _identity(transport: Transport, options: RemoteOptions) -> str:
    parts = [
        f"{transport.provider}:{transport.model}",
        f"at={transport.where}",
        f"temperature={options.temperature:g}",
        f"max_tokens={options.max_tokens}",
        f"read={options.read}",
    ]
    for name in ("seed", "thinking_budget"):
        value = getattr(options, name, None)
        if value is not None:
            parts.append(f"{name}={value}")
    return " ".join(parts)


class LocalWriter:
    """A model that the audit's own engines run: loaded at the first call that the store does not know."""

    priced = True

    def __init__(self, path: str, options: LocalOptions, seed: int) -> None:
        from audit.engines import EngineSettings, Renderer, engine_identity, open_checkpoint, open_engine

        self._checkpoint = open_checkpoint(path)
        settings = EngineSettings(name=options.engine, device=options.device, dtype=options.dtype)
        self._engine_identity = engine_identity(self._checkpoint, settings)
        self._open: Callable[[], Engine] = lambda: open_engine(self._checkpoint, settings)
        self._renderer = Renderer(self._checkpoint)
        self._format: Format = "chat" if self._checkpoint.has_template else "raw"
        self._options = options
        self._seed = options.seed if options.seed is not None else seed
        self._engine: Engine | None = None
        kind = self._checkpoint.config.get("model_type", "model")
        self.identity = " ".join(
            [
                f"local:{kind}#{self._checkpoint.fingerprint}",
                f"temperature={options.temperature:g}",
                f"max_tokens={options.max_tokens}",
                f"seed={self._seed}",
                f"engine=[{self._engine_identity}]",
            ]
        )

    def key(self, system: str, user: str, turn: int) -> str:
        # not the request's own: what is kept may be the longer reply to a cut one
        return digest("written", self._request(system, user, turn, self._options.max_tokens).key)

    def write(self, system: str, user: str, turn: int) -> Said:
        done = self._generated(self._request(system, user, turn, self._options.max_tokens))
        if done.finish == "length":
            longer = self._longer(done)
            if longer > self._options.max_tokens:
                done = self._generated(self._request(system, user, turn, longer))
        if done.finish == "error":
            return Said(text="", ended="failed", note=done.error or "")
        return Said(text=done.text, ended=done.finish)

    def close(self) -> None:
        """Free the model's memory."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _request(self, system: str, user: str, turn: int, max_tokens: int) -> Request:
        from audit.engines import make_request

        # One message, the instructions at its head: some templates refuse a system message, some leave it out unsaid.
        probe = Probe(
            id="writer",
            family="writer",
            form="",
            variant="",
            targets=(),
            messages=(Message(role="user", content=f"{system}\n\n{user}"),),
            format=self._format,
            decoding=Decoding(max_new_tokens=max_tokens, temperature=self._options.temperature, seed=self._seed),
        )
        fitted = self._fitted(probe)
        ids = self._renderer.token_ids(fitted)
        return make_request(fitted, turn, self._checkpoint.fingerprint, self._engine_identity, ids)

    def _fitted(self, probe: Probe) -> Probe:
        """With as many new tokens as the context leaves room for. PromptError where it leaves none worth having."""
        context = self._checkpoint.context_length
        if context is None:
            return probe
        one = msgspec.structs.replace(probe, decoding=msgspec.structs.replace(probe.decoding, max_new_tokens=1))
        room = context - len(self._renderer.token_ids(one))
        if room < min(probe.decoding.max_new_tokens, context // 4):
            raise PromptError(f"the prompt leaves {room} of {context} tokens for the questions")
        fitted = msgspec.structs.replace(probe.decoding, max_new_tokens=min(probe.decoding.max_new_tokens, room))
        return msgspec.structs.replace(probe, decoding=fitted)

    def _longer(self, done: Completion) -> int:
        context = self._checkpoint.context_length
        most = MORE_TOKENS * self._options.max_tokens
        return most if context is None else min(most, context - done.n_prompt)

    def _generated(self, request: Request) -> Completion:
        if self._engine is None:
            try:
                self._engine = self._open()
            except (AuditError, RuntimeError, ValueError, OSError) as problem:
                raise EngineError(f"the generator {self.identity} cannot be loaded: {problem}", hint=_HINT) from problem
        for batch in self._engine.plan([request]):
            with closing(cast("Generator[Completion]", self._engine.generate(batch))) as completions:
                for completion in completions:
                    if completion.key == request.key:
                        return completion
        raise EngineError(f"the generator {self.identity} gave no answer")

"""A candidate behind an endpoint that speaks OpenAI's protocol: its weights, tokenizer and template are out of reach.

What it cannot do is left out of `capabilities`: log-probabilities, weights, beginnings put into the model's mouth, and
raw text where the endpoint has no completions. A failed request is a completion with an error; only what concerns
every request (a wrong key, a wrong name, an endpoint that is gone) ends the engine.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from audit.engines.checkpoint import Checkpoint
from audit.engines.settings import EngineSettings
from audit.errors import EngineError
from audit.remote import address
from audit.remote.failures import Failure, malformed, not_json, one_line, sort_openai
from audit.remote.keys import find_key, quiet_loggers
from audit.remote.openai_client import make_client
from audit.remote.retries import retrying
from audit.types import Completion, Finish, LogProb, Reason, Request

DEFAULT_URL = "https://api.openai.com/v1"
BATCH_REQUESTS = 256
#: Seconds before the first repeat; doubled each time, with jitter, unless the endpoint says how long to wait.
BACKOFF_S = 1.0
#: Requests in a row that never reached the endpoint, after all their retries: it is gone.
GIVE_UP_AFTER = 16
_STOPPED = {"stop", "eos", "eos_token", "stop_sequence", "end_turn"}
_CUT = {"length", "max_tokens"}
T = TypeVar("T")
INSTALL = 'pip install "unlearning-audit[openai]"'


def endpoint_name(settings: EngineSettings) -> str:
    """Host, port and path of the endpoint, without user names and passwords."""
    try:
        return address.endpoint_name(address.without_user(settings.base_url or DEFAULT_URL))
    except ValueError as problem:
        raise EngineError(f"the endpoint cannot be used: {problem}", hint="--base-url http://HOST:PORT/v1") from None


def identity(checkpoint: Checkpoint | None, settings: EngineSettings) -> str:
    """Endpoint, model name and extra fields; says nothing about content, which an endpoint does not show."""
    if not settings.model:
        raise EngineError("an endpoint needs the name of the model it serves", hint="--model NAME")
    extra = [f"{key}={value}" for key, value in sorted(settings.args.items())]
    return " ".join(["openai", f"endpoint={endpoint_name(settings)}", f"model={settings.model}", *extra])


def capabilities(settings: EngineSettings) -> frozenset[str]:
    """What the endpoint can do: it is asked for one token. EngineError where it cannot be used at all."""
    engine = OpenAIEngine(None, settings)
    engine.close()
    return engine.capabilities


class OpenAIEngine:
    """Asks an endpoint, a bounded number of requests at a time. `args` are sent along as further fields."""

    whole_batches = False

    def __init__(self, checkpoint: Checkpoint | None, settings: EngineSettings) -> None:
        """Asks the endpoint once what it can do. EngineError where it cannot be used at all."""
        self.identity = identity(checkpoint, settings)
        self._settings = settings
        self._key = _api_key(settings)
        self._secrets = (self._key,)
        self._limit_field = "max_tokens"
        self._unreached = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()
        try:
            self._client = _client(settings, self._key)
            self.capabilities: frozenset[str] = self._run(self._probe()).result()
        except BaseException:
            self.close()
            raise

    def plan(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Batches in the order of the keys."""
        ordered = sorted(requests, key=lambda request: (request.key, request.sample))
        return [ordered[start : start + BATCH_REQUESTS] for start in range(0, len(ordered), BATCH_REQUESTS)]

    def generate(self, batch: Sequence[Request]) -> Iterator[Completion]:
        """One completion a request, as answers come in. Leaving early takes back what is on its way."""
        done: queue.SimpleQueue[Completion | BaseException | None] = queue.SimpleQueue()
        running = self._run(self._all(batch, done))
        try:
            while (item := done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            running.cancel()

    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        raise EngineError("an endpoint gives no log-probabilities of given texts", hint="--engine hf or vllm")

    def swap(self, checkpoint: Checkpoint) -> None:
        """EngineError: whoever runs the endpoint loads its weights."""
        raise EngineError("an endpoint's weights cannot be changed from here", hint="--engine hf or vllm")

    def close(self) -> None:
        """Closes connections and the thread that served them."""
        if self._loop.is_closed():
            return
        if hasattr(self, "_client"):
            self._run(self._client.close()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # ------------------------------------------------------------------------------------- in the thread's event loop

    def _run(self, task: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop)

    async def _all(self, batch: Sequence[Request], done: queue.SimpleQueue[Completion | BaseException | None]) -> None:
        waiting = iter(batch)

        async def worker() -> None:
            for request in waiting:  # shared: each request is taken once
                done.put(await self._one(request))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.concurrency, len(batch))):
                    group.create_task(worker())
        except BaseExceptionGroup as error:
            done.put(next((e for e in error.exceptions if isinstance(e, EngineError)), error.exceptions[0]))
        finally:
            done.put(None)

    async def _one(self, request: Request) -> Completion:
        if request.prompt is None and request.messages is None:
            return _error(request, "ValueError: a request to an endpoint needs messages or a prompt")
        if request.prompt is not None and "raw" not in self.capabilities:
            return _error(request, "Unsupported: the endpoint has no completions, which raw text needs")
        try:
            completion = await self._retrying(lambda _: self._try(request))
        except Failure as failure:
            return self._give_up(request, failure)
        self._unreached = 0
        return completion

    async def _retrying(self, try_once: Callable[[int], Awaitable[T]]) -> T:
        """EngineError for what would fail every request alike; else the last Failure."""
        try:
            return await retrying(try_once, retries=self._settings.max_retries, backoff_s=BACKOFF_S)
        except Failure as failure:
            if failure.fatal and failure.concerns != "address":  # not every endpoint has every path
                raise EngineError(str(failure), hint=failure.hint) from failure
            raise

    def _give_up(self, request: Request, failure: Failure) -> Completion:
        self._unreached = self._unreached + 1 if failure.reason in (Reason.TIMEOUT, Reason.CONNECTION) else 0
        if self._unreached >= GIVE_UP_AFTER:
            raise EngineError(
                f"{endpoint_name(self._settings)} is out of reach: {failure}",
                hint="what was answered is kept; run the same command again when it is back",
            )
        return _error(request, f"{failure} (after {failure.tries} {'try' if failure.tries == 1 else 'tries'})")

    async def _try(self, request: Request) -> Completion:
        body = self._body(request)
        path = "/completions" if request.prompt is not None else "/chat/completions"
        try:
            answer = await self._post(path, body)
        except Failure as failure:
            if self._limit_field in body and "max_completion_tokens" in str(failure) and not failure.retry:
                self._limit_field = "max_completion_tokens"  # newer models of OpenAI refuse the older field
                answer = await self._post(path, self._body(request))
            else:
                raise
        text, finish = _read(answer, self._secrets)
        usage = answer.get("usage") or {}
        return Completion(
            key=request.key,
            text=text,
            finish=finish,
            n_prompt=int(usage.get("prompt_tokens") or 0),
            n_new=int(usage.get("completion_tokens") or 0),
        )

    def _body(self, request: Request) -> dict[str, Any]:
        decoding = request.decoding
        body: dict[str, Any] = {"model": self._settings.model, "temperature": decoding.temperature}
        if request.prompt is not None:
            body |= {"prompt": request.prompt, "max_tokens": decoding.max_new_tokens}
        else:
            body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages or ()]
            body[self._limit_field] = decoding.max_new_tokens
        if decoding.temperature > 0:
            body |= {"top_p": decoding.top_p, "seed": request.seed}
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        return body | self._settings.args

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer's JSON object. Raises Failure."""
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                content = await self._client.post(path, cast_to=str, body=body)
        except (TimeoutError, openai.APIError) as error:
            raise sort_openai(
                error,
                where=endpoint_name(self._settings),
                model=str(self._settings.model),
                key_env=self._settings.api_key_env,
                secrets=self._secrets,
                timeout_s=self._settings.timeout_s,
            ) from error
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise not_json(content, self._secrets) from error
        if not isinstance(answer, dict):
            raise malformed("the answer is no JSON object")
        return answer

    async def _probe(self) -> frozenset[str]:
        """One token of a completion shows whether the endpoint is there, knows the model, and has completions."""
        body = {"model": self._settings.model, "prompt": "A", "max_tokens": 1, "temperature": 0.0}
        try:
            answer = await self._retrying(lambda _: self._post("/completions", body))
        except Failure as failure:
            if not failure.retry:
                return frozenset({"chat", "sampling"})
            raise EngineError(
                f"{endpoint_name(self._settings)} cannot be used: {failure}", hint="is the server running?"
            ) from failure
        choices = answer.get("choices")
        has_text = bool(choices) and isinstance(choices, list) and "text" in choices[0]
        return frozenset({"chat", "sampling"} | ({"raw"} if has_text else set()))


def _read(answer: dict[str, Any], secrets: Sequence[str]) -> tuple[str, Finish]:
    """Text and end of the first choice. An answer without a text, or withheld by a filter, is a failure.

    What a thinking model shows of its reasoning is part of what its user gets to read, so it is part of the text.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        error = answer.get("error")
        said = error.get("message") if isinstance(error, dict) else error
        raise malformed(f"no choices in the answer{f' ({one_line(said, secrets)})' if said else ''}")
    choice = choices[0]
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise Failure("Filtered: the endpoint withheld the answer", reason=Reason.GENERATION_FAILED)
    if reason not in _STOPPED | _CUT:
        ended = f"the answer ended for the reason {one_line(repr(reason), secrets)}"
        raise Failure(f"Malformed: {ended}", reason=Reason.GENERATION_FAILED)
    message = choice.get("message")
    if isinstance(message, dict):
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        content = message.get("content")
        if content is None:
            content = message.get("refusal")
        if content is None and isinstance(reasoning, str):
            content = ""
        parts = [part for part in (reasoning, content) if isinstance(part, str) and part]
        text = "\n\n".join(parts) if isinstance(content, str) else None
    else:
        text = choice.get("text")
    if not isinstance(text, str):
        raise malformed("the answer holds no text")
    return text, "stop" if reason in _STOPPED else "length"


def _error(request: Request, error: str) -> Completion:
    return Completion(key=request.key, text="", finish="error", n_prompt=0, n_new=0, error=error)


def _api_key(settings: EngineSettings) -> str:
    """From the environment or .env. Endpoints of one's own usually take any key."""
    key = find_key([settings.api_key_env])
    if not key and endpoint_name(settings).startswith("api.openai.com"):
        raise EngineError(
            "no key for api.openai.com",
            hint=f"set the environment variable {settings.api_key_env}, or write it into .env",
        )
    return key


def _client(settings: EngineSettings, key: str) -> Any:
    if "@" in urlsplit(settings.base_url or "").netloc:
        raise EngineError(
            f"the address of {endpoint_name(settings)} holds a user or a password",
            hint=f"leave them out; a key belongs into the environment variable {settings.api_key_env}",
        )
    try:
        client = make_client(settings.base_url or DEFAULT_URL, key, settings.timeout_s)
    except ImportError as error:
        raise EngineError("the openai package is not installed", hint=INSTALL) from error
    quiet_loggers()
    return client

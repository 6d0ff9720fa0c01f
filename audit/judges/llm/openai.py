"""The judge `openai`: a model behind OpenAI's own API or any server that speaks its chat protocol."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Any, Literal
from urllib.parse import urlsplit

from audit.errors import JudgeError
from audit.judges.context import JudgeContext
from audit.judges.llm.model_judge import ModelJudge, Reply
from audit.judges.llm.options import OpenAIOptions, RemoteOptions, parse_model_spec
from audit.judges.llm.pair_prompt import prompt_for
from audit.remote.address import endpoint_name
from audit.remote.failures import Failure, malformed, sort_openai
from audit.remote.keys import find_key, quiet_loggers
from audit.remote.openai_client import make_client

DEFAULT_URL = "https://api.openai.com/v1"
KEY_ENV = "OPENAI_API_KEY"
INSTALL = 'pip install "unlearning-audit[judges]"'
#: Fields of a call that some models refuse, and what they are given instead.
_REPLACED = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}
_FINISH: dict[str, Literal["stop", "length", "filtered"]] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "filtered",
}


def make_openai(args: str, context: JudgeContext | None = None) -> ModelJudge:
    """The judge `openai:ARGS`, ARGS being MODEL[@BASE_URL][?options]. JudgeError where it could not make any call."""
    model, base_url, options = parse_model_spec("openai", args)
    prompt = prompt_for(options, context)
    transport = OpenAITransport(model, base_url or DEFAULT_URL, options)
    if context is not None and context.batch:
        from audit.judges.llm.batch import BatchJudge
        from audit.judges.llm.openai_batches import OpenAIBatches

        return BatchJudge(transport, OpenAIBatches(transport, options.key_env), prompt, options, context)
    return ModelJudge(transport, prompt, options, context)


def key_for(base_url: str, options: RemoteOptions, names: tuple[str, ...], own_hosts: tuple[str, ...]) -> str:
    """The key to send to an address; "" for none.

    A provider's key goes to that provider's hosts and to this machine. Any other server gets the key that
    `key_env` names and no other: whoever runs it has no business with the provider's.
    JudgeError where the provider's own API is asked and there is no key.
    """
    if options.key_env:
        names = (options.key_env,)
    host = (urlsplit(base_url).hostname or "").lower()
    at_home = any(host == own or host.endswith(f".{own}") for own in own_hosts)
    if not (options.key_env or at_home or is_loopback(host)):
        return ""
    key = find_key(names)
    if not key and (at_home or options.key_env):
        raise JudgeError(
            f"there is no key for {endpoint_name(base_url)}",
            hint=f"set the environment variable {' or '.join(names)}, or write it into .env",
        )
    return key


def with_key_hint(failure: Failure, key: str) -> Failure:
    """The failure; one of a server that wanted a key and was sent none says how to name one."""
    if failure.concerns == "key" and not key:
        failure.hint = "no key was sent; name the environment variable that holds it: ?key_env=NAME"
    return failure


def is_loopback(host: str) -> bool:
    """The host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class OpenAITransport:
    """One try of one chat completion, through the official client; its own retries are off."""

    provider = "openai"

    def __init__(self, model: str, base_url: str, options: OpenAIOptions) -> None:
        try:
            import openai  # noqa: F401
        except ImportError as problem:
            raise JudgeError("the judge 'openai' needs the openai package", hint=INSTALL) from problem
        quiet_loggers()
        self.model = model
        self.where = endpoint_name(base_url)
        self._base_url = base_url
        self._options = options
        self._key = key_for(base_url, options, (KEY_ENV,), ("openai.com",))
        self.secrets: tuple[str, ...] = (self._key,) if self._key else ()
        self._replaced: set[str] = set()
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, system: str, user: str, *, schema: dict[str, Any] | None, max_tokens: int) -> Reply:
        """One reply. Raises Failure. A field that the model refuses is replaced, for all later calls too."""
        for _ in range(1 + len(_REPLACED)):
            sent = self.body(system, user, schema=schema, max_tokens=max_tokens)
            try:
                async with asyncio.timeout(self._options.timeout_s):
                    # Past the typed method, whose walk through every field of the body costs as much as all the rest.
                    answer = await self.connected().post("/chat/completions", cast_to=str, body=sent)
                return read_reply(json.loads(answer))
            except Exception as error:  # noqa: BLE001  # sorted by class, of the SDK and below it
                refused = _refused_field(error, sent)
                if refused is None:
                    raise self.failure(error) from None
                self._replaced.add(refused)
        raise AssertionError("every field is replaced at most once")

    def body(self, system: str, user: str, *, schema: dict[str, Any] | None, max_tokens: int) -> dict[str, Any]:
        """The body of one call, as far as is known which fields the model takes."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": self._options.temperature,
            "max_tokens": max_tokens,
        }
        if self._options.seed is not None:
            body["seed"] = self._options.seed
        if schema is not None:
            described = {"name": "verdict", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": described}
        return self._adapted(body)

    def failure(self, error: Exception) -> Failure:
        """What an exception of the client means."""
        failure = sort_openai(
            error,
            where=self.where,
            model=self.model,
            key_env=self._options.key_env or KEY_ENV,
            secrets=self.secrets,
            timeout_s=self._options.timeout_s,
        )
        return with_key_hint(failure, self._key)

    async def aclose(self) -> None:
        if self._loop is asyncio.get_running_loop():
            self._loop = None
            await self._client.close()

    def _adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        adapted = dict(body)
        for name in self._replaced & body.keys():
            value = adapted.pop(name)
            instead = _REPLACED[name]
            if instead is not None:
                adapted[instead] = value
        return adapted

    def connected(self) -> Any:
        """The running event loop's client: connections cannot be used in another loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._client = loop, make_client(self._base_url, self._key, self._options.timeout_s)
        return self._client


def _refused_field(error: Exception, sent: dict[str, Any]) -> str | None:
    """The field of `_REPLACED` that a 400 or 422 is about, if it is about one that was sent."""
    import openai

    if not isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return None
    body = error.body if isinstance(error.body, dict) else {}
    if body.get("param") in _REPLACED:
        return str(body["param"]) if body["param"] in sent else None
    if "max_tokens" in sent and "max_completion_tokens" in str(body.get("message") or error.message):
        return "max_tokens"
    return None


def read_reply(answer: Any) -> Reply:
    """The first choice of a chat completion. Raises Failure for what is none."""
    if not isinstance(answer, dict):
        raise malformed("the answer is no JSON object")
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise malformed("there is no message in the answer")
    reason = str(choice.get("finish_reason"))
    finish: Literal["stop", "length", "filtered", "other"] = _FINISH.get(reason, "other")
    text, note = message.get("content"), "" if finish == "stop" else reason
    if message.get("refusal"):
        finish, note, text = "filtered", "refusal", message["refusal"]
    model = answer.get("model")
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    return Reply(
        text=text if isinstance(text, str) else "",
        finish=finish,
        model=model if isinstance(model, str) else "",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        note=note,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

"""The judge `gemini`: a model behind the Gemini API, through the official google-genai client."""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from audit.errors import JudgeError
from audit.judges.context import JudgeContext
from audit.judges.llm.model_judge import ModelJudge, Reply
from audit.judges.llm.openai import INSTALL, key_for, with_key_hint
from audit.judges.llm.options import GeminiOptions, parse_model_spec
from audit.judges.llm.pair_prompt import prompt_for
from audit.remote.address import endpoint_name
from audit.remote.failures import Failure, malformed, sort_gemini
from audit.remote.keys import quiet_loggers

DEFAULT_URL = "https://generativelanguage.googleapis.com"
#: The client's default has changed from one major version to the next; this one has all that is used here.
API_VERSION = "v1beta"
KEY_ENVS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_FINISH: dict[str, Literal["stop", "length", "filtered"]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "filtered",
    "RECITATION": "filtered",
    "BLOCKLIST": "filtered",
    "PROHIBITED_CONTENT": "filtered",
    "SPII": "filtered",
    "MODEL_ARMOR": "filtered",
    "ESCALATION": "filtered",
}


def make_gemini(args: str, context: JudgeContext | None = None) -> ModelJudge:
    """The judge `gemini:ARGS`, ARGS being MODEL[@BASE_URL][?options]. JudgeError where it could not make any call."""
    model, base_url, options = parse_model_spec("gemini", args)
    prompt = prompt_for(options, context)
    transport = GeminiTransport(model, base_url or DEFAULT_URL, options)
    if context is not None and context.batch:
        from audit.judges.llm.batch import BatchJudge
        from audit.judges.llm.gemini_batches import GeminiBatches

        return BatchJudge(transport, GeminiBatches(transport, options), prompt, options, context)
    return ModelJudge(transport, prompt, options, context)


class GeminiTransport:
    """One try of one generateContent call; the client's own retries are off."""

    provider = "gemini"

    def __init__(self, model: str, base_url: str, options: GeminiOptions) -> None:
        try:
            import google.genai  # noqa: F401
        except ImportError as problem:
            raise JudgeError("the judge 'gemini' needs the google-genai package", hint=INSTALL) from problem
        quiet_loggers()
        self.model = model
        self.where = endpoint_name(base_url)
        self._base_url = base_url
        self._options = options
        self._key = key_for(base_url, options, KEY_ENVS, ("googleapis.com",))
        self.secrets: tuple[str, ...] = (self._key,) if self._key else ()
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, system: str, user: str, *, schema: dict[str, Any] | None, max_tokens: int) -> Reply:
        """One reply. Raises Failure."""
        from google.genai import types

        config: dict[str, Any] = {
            "system_instruction": system,
            "temperature": self._options.temperature,
            "max_output_tokens": max_tokens,
            "seed": self._options.seed,
        }
        if self._options.thinking_budget is not None:
            config["thinking_config"] = types.ThinkingConfig(thinking_budget=self._options.thinking_budget)
        if schema is not None:
            config |= {"response_mime_type": "application/json", "response_json_schema": schema}
        try:
            async with asyncio.timeout(self._options.timeout_s):
                answer = await self.connected().aio.models.generate_content(
                    model=self.model, contents=user, config=types.GenerateContentConfig(**config)
                )
            return read_reply(answer)
        except Exception as error:  # noqa: BLE001  # sorted by class, of the SDK and below it
            raise self.failure(error) from None

    def failure(self, error: Exception) -> Failure:
        """What an exception of the client means."""
        failure = sort_gemini(
            error,
            where=self.where,
            model=self.model,
            key_env=self._options.key_env or KEY_ENVS[0],
            secrets=self.secrets,
            timeout_s=self._options.timeout_s,
        )
        return with_key_hint(failure, self._key)

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aio.aclose()

    def connected(self) -> Any:
        """The client of the running event loop: its connections cannot be used in another."""
        from google import genai

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Everything that the client would take from the environment is said here: address, key, kind of service.
            self._client = genai.Client(
                enterprise=False,
                api_key=self._key or "none",
                http_options=genai.types.HttpOptions(
                    base_url=self._base_url,
                    api_version=API_VERSION,
                    timeout=max(1, round(self._options.timeout_s * 1000)),
                    # Left out, the client repeats a call whose connection broke, after up to ten seconds.
                    retry_options=genai.types.HttpRetryOptions(attempts=1),
                    async_client_args={"limits": _limits(self._options.concurrency)},
                ),
            )
            self._loop = loop
        return self._client


def _limits(connections: int) -> Any:
    """As many connections as calls at once, for a client that goes over httpx (with aiohttp there is no limit)."""
    for name in ("httpx", "httpx2"):  # either does: the limits of one are read by the other
        if find_spec(name) is not None:
            return import_module(name).Limits(max_connections=connections, max_keepalive_connections=connections)
    raise JudgeError("the judge 'gemini' needs the httpx package", hint=INSTALL)


def read_reply(answer: Any) -> Reply:
    """The first candidate. Raises Failure for an answer without one that was not withheld either."""
    feedback = answer.prompt_feedback
    blocked = _word(feedback.block_reason) if feedback is not None and feedback.block_reason is not None else ""
    candidate = answer.candidates[0] if answer.candidates else None
    if candidate is None and not blocked:
        raise malformed("there is no candidate in the answer")
    word = blocked or _word(candidate.finish_reason if candidate is not None else None)
    finish: Literal["stop", "length", "filtered", "other"] = "filtered" if blocked else _FINISH.get(word, "other")
    parts = candidate.content.parts if candidate is not None and candidate.content is not None else None
    text = "".join(part.text for part in parts or () if part.text and not part.thought)
    usage = answer.usage_metadata
    said, thought = (usage.candidates_token_count, usage.thoughts_token_count) if usage is not None else (None, None)
    return Reply(
        text=text,
        finish=finish,
        model=answer.model_version or "",
        prompt_tokens=usage.prompt_token_count if usage is not None else None,
        completion_tokens=None if said is None and thought is None else (said or 0) + (thought or 0),
        cached_tokens=usage.cached_content_token_count if usage is not None else None,
        note="" if finish == "stop" else word,
    )


def _word(value: Any) -> str:
    """The API's own word for a value of an enumeration, also for one that the client does not know."""
    return str(getattr(value, "value", value))

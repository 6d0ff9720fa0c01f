"""What a user may say about a model judge, MODEL[@BASE_URL][?key=value&key=value…], checked before any call."""

from __future__ import annotations

import difflib
import re
from typing import Literal, overload
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audit.errors import JudgeError
from audit.remote.address import endpoint_name


class JudgeOptions(BaseModel):
    """Settings of every model judge: all of them can change a verdict and stand in the judge's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    prompt: str = Field("leak", min_length=1)
    """Name of a bundled prompt ("leak", "leak/v1"), or path of a prompt file."""
    max_tokens: int = Field(512, ge=1)
    """Of one reply, thinking included; a reply cut by it is asked for once more with four times as many."""
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = None


class RemoteOptions(JudgeOptions):
    """Settings of a judge behind a network API."""

    read: Literal["auto", "json", "text"] = "auto"
    """Ask for structured output: where the server has it, always, never."""
    any_model: bool = False
    """Take replies in which the server names another model than the one asked for."""
    key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key."""
    concurrency: int = Field(128, ge=1, le=1024)
    rpm: int | None = Field(None, ge=1)
    """Requests a minute."""
    tpm: int | None = Field(None, ge=1)
    """Tokens a minute, of prompts and replies."""
    timeout_s: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds for one try."""
    retries: int = Field(6, ge=0, le=20)
    """Further tries of a call that failed for a passing cause."""
    poll_s: float = Field(30.0, gt=0, le=3600, allow_inf_nan=False)
    """With --judge-batch: seconds between two questions whether a batch has ended."""


class OpenAIOptions(RemoteOptions):
    pass


class GeminiOptions(RemoteOptions):
    thinking_budget: int | None = Field(None, ge=-1)
    """Tokens of thinking: 0 for none, -1 for as many as the model sees fit, the model's default if left out."""


class LocalOptions(JudgeOptions):
    """Settings of a model that our own engines run."""

    read: Literal["auto", "text", "probabilities"] = "auto"
    engine: Literal["auto", "hf", "vllm"] = "auto"
    dtype: str = "auto"
    device: str = "auto"
    batch: int = Field(256, ge=1, le=65_536)
    """Claims handed over together; a judge that is stopped loses at most these."""


_OPTIONS: dict[str, type[JudgeOptions]] = {"openai": OpenAIOptions, "gemini": GeminiOptions, "local": LocalOptions}
_ADDRESS = re.compile(r"@(?=https?://)", re.IGNORECASE)


@overload
def parse_model_spec(provider: Literal["openai"], args: str) -> tuple[str, str | None, OpenAIOptions]: ...
@overload
def parse_model_spec(provider: Literal["gemini"], args: str) -> tuple[str, str | None, GeminiOptions]: ...
@overload
def parse_model_spec(provider: Literal["local"], args: str) -> tuple[str, str | None, LocalOptions]: ...
def parse_model_spec(provider: str, args: str) -> tuple[str, str | None, JudgeOptions]:
    """Model, base URL (None where none is given) and options of a judge named `provider:args`.

    JudgeError for a missing model, an address with a password, and every unknown or unfit option, all in one message.
    """
    before, question, query = args.partition("?")
    parts = _ADDRESS.split(before, maxsplit=1)
    model, base_url = parts[0].strip(), parts[1].strip() if len(parts) > 1 else None
    spelling = f"write {provider}:MODEL, {provider}:MODEL@http://HOST:PORT/PATH or {provider}:MODEL?option=value"
    if not model:
        raise JudgeError(f"the judge '{provider}' needs the name of a model", hint=spelling)
    if "@" in model[1:] and base_url is None and provider != "local":
        # no http(s) address behind it; the message must not repeat one, which may hold a password
        raise JudgeError(f"the judge '{provider}:{model.partition('@')[0]}' has no http(s) address", hint=spelling)
    if base_url is not None:
        try:
            endpoint_name(base_url)
        except ValueError as problem:  # the message must not repeat an address that may hold a password
            raise JudgeError(
                f"the judge '{provider}:{model}' has no usable address: {problem}", hint=spelling
            ) from None
    if question and not query:
        raise JudgeError(f"'{provider}:{model}' has a question mark and no option after it", hint=spelling)
    return model, base_url, _options(f"{provider}:{model}", query, _OPTIONS[provider])


def _options(judge: str, query: str, options: type[JudgeOptions]) -> JudgeOptions:
    given: dict[str, str] = {}
    problems: list[str] = []
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not name:
            problems.append(f"'{part}' is not option=value")
        elif name in given:
            problems.append(f"{name} is given twice")
        else:
            given[name] = unquote(value)
    for name in [name for name in given if name not in options.model_fields]:
        problems.append(f"there is no option '{name}'{_near(name, options)}")
        del given[name]
    made: JudgeOptions | None = None
    try:
        made = options.model_validate(given)
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
    if problems or made is None:
        raise JudgeError(
            f"the judge '{judge}' cannot be set up: " + "; ".join(problems),
            hint="options: " + ", ".join(sorted(options.model_fields)),
        )
    return made


def _near(name: str, options: type[JudgeOptions]) -> str:
    near = difflib.get_close_matches(name.lower(), options.model_fields, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""

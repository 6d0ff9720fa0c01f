"""One word for everything that can go wrong with a remote call: what it was, and whether another try may help.

The SDKs raise dozens of classes, some of which say less than the body of the answer does. Every one of them becomes a
`Failure` here, with a text of one line that holds no secret.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import pydantic

from audit.remote.keys import redact
from audit.types import Reason

LONGEST_TEXT = 300
#: No wait is longer than this, whatever a service asks for: the next try will say whether it was enough.
LONGEST_WAIT_S = 60.0

Concern = Literal["", "key", "account", "model", "address"]

_TRY_AGAIN = frozenset({408, 409, 425})
_WRONG_KEY = frozenset({"invalid_api_key", "api_key_invalid", "api_key_expired"})
_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_WITHHELD = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_LONG_CODES = frozenset({"context_length_exceeded", "string_above_max_length"})
#: What servers say of a call that holds more text than the model reads. What is said of the reply's limit alone
#: ("max_tokens is too large") concerns every call.
_LONG_TEXT = re.compile(
    r"context.?(?:length|window|size)|(?:input|prompt) token count|maximum (?:input|prompt|sequence) length"
    r"|\b(?:prompt|input|messages?|contents?|payload|text|string)\b[^.]{0,60}?\b(?:too (?:long|large|big)|exceed)"
    r"|request (?:entity |payload )?(?:is )?too (?:long|large)",
    re.IGNORECASE,
)
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")
_TAG = re.compile(r"<[^>]*>")


class Failure(Exception):
    """One call failed. Never a verdict: it is tried again, or becomes an undecided one with `reason`.

    retry: another try may succeed; wait: seconds the service asked for; rate_limited: it said "too much";
    fatal: it concerns every call alike (`concerns` says what of), so the judge cannot be used at all;
    hint: what to type next; status: the HTTP status, where there was one; too_long: the service works, and this call's
    text is more than it takes; tries: set by `retrying`; seconds: how long the call took, set by whoever made it.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        retry: bool = False,
        wait: float | None = None,
        rate_limited: bool = False,
        fatal: bool = False,
        hint: str = "",
        status: int | None = None,
        concerns: Concern = "",
        too_long: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry = retry
        self.wait = wait
        self.rate_limited = rate_limited
        self.fatal = fatal
        self.hint = hint
        self.status = status
        self.concerns = concerns
        self.too_long = too_long
        self.tries = 1
        self.seconds = 0.0


def one_line(text: object, secrets: Iterable[str]) -> str:
    """A text of others for a message: secrets hidden (before it is cut, so that no half of one is left), one line."""
    line = " ".join(redact(str(text), secrets).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, 0 to LONGEST_WAIT_S, from retry-after-ms or retry-after (seconds, or an HTTP date).

    now: seconds since the epoch. None where the headers say nothing that can be read.
    """
    values = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = values.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                date = parsedate_to_datetime(value)
            except ValueError:
                continue
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        if math.isfinite(seconds):
            return min(max(0.0, seconds), LONGEST_WAIT_S)
    return None


def malformed(what: str) -> Failure:
    """An answer came, status 200, that is not what the protocol promises; another try may bring a good one."""
    return Failure(f"Malformed: {what}", reason=Reason.SERVER_ERROR, retry=True)


def not_json(body: object, secrets: Iterable[str] = ()) -> Failure:
    """An answer that is HTML, cut off, or anything else but JSON. `body`: what came, of which the start is quoted."""
    start = one_line(body, secrets)[:60]
    return malformed(f"the answer is not JSON{f', it begins {start!r}' if start else ''}")


def timed_out(seconds: float | None = None) -> Failure:
    """No answer in time."""
    within = "in time" if seconds is None else f"in {seconds:g} s"
    return Failure(f"Timeout: no answer {within}", reason=Reason.TIMEOUT, retry=True)


def sort_openai(
    error: Exception, *, where: str, model: str, key_env: str, secrets: Iterable[str], timeout_s: float | None = None
) -> Failure:
    """What an exception of the openai SDK, or of a call through it, means. A Failure is returned as it is.

    where: the endpoint's name; model: as it was asked for; key_env: the variable that holds the key; secrets: texts
    that the message must not hold; timeout_s: what the call was given, for the message.
    """
    service = _Service(where, model, key_env, tuple(secrets), timeout_s)
    openai = sys.modules.get("openai")
    if openai is not None:
        if isinstance(error, openai.APITimeoutError):
            below = _below(error)
            if isinstance(below, _classes(("aiohttp",), "ClientConnectionError")) and not isinstance(
                below, TimeoutError
            ):
                return service.unreached(below)  # every lost connection of aiohttp's comes as a timeout
            return timed_out(timeout_s)
        if isinstance(error, openai.APIConnectionError):
            return service.unreached(error.__cause__ or error)
        if isinstance(error, openai.APIStatusError):
            body = error.body if isinstance(error.body, dict) else {}
            codes = [body.get("code"), body.get("type"), error.code, error.type]
            inner = body.get("innererror")
            codes.append(inner.get("code") if isinstance(inner, dict) else None)
            text = body.get("message") or (error.body if isinstance(error.body, str) else "") or error.message
            return service.status(error.status_code, text, codes, retry_after(error.response.headers, time.time()))
        if isinstance(error, openai.ContentFilterFinishReasonError):
            return service.withheld("the answer was withheld by a content filter")
        if isinstance(error, openai.LengthFinishReasonError):
            return Failure("the answer was cut at the token limit", reason=Reason.JUDGE_TRUNCATED)
        if isinstance(error, openai.APIResponseValidationError):
            return not_json(error.body, service.secrets)
    return service.other(error)


def sort_gemini(
    error: Exception, *, where: str, model: str, key_env: str, secrets: Iterable[str], timeout_s: float | None = None
) -> Failure:
    """What an exception of the google-genai SDK, or of a call through it, means. Arguments as in `sort_openai`."""
    service = _Service(where, model, key_env, tuple(secrets), timeout_s)
    errors = sys.modules.get("google.genai.errors")
    if errors is not None:
        if isinstance(error, errors.UnknownApiResponseError):
            return not_json(str(error).partition("Raw response: ")[2], service.secrets)
        if isinstance(error, errors.APIError):
            details = list(_details(error.details))
            codes: list[object] = [error.status, *(detail.get("reason") for detail in details)]
            status = error.code if isinstance(error.code, int) else 0
            text = error.message or error.details or ""
            if status == 400 and "api key not valid" in str(text).lower():
                codes.append("api_key_invalid")
            failure = service.status(status, text, codes, _delay(details, getattr(error, "response", None)))
            if failure.rate_limited and any("PerDay" in json.dumps(detail, default=str) for detail in details):
                failure.retry = False  # the service names a delay of seconds even then
                failure.hint = "the day's quota is used up: run the same command again tomorrow, or raise the quota"
            return failure
    return service.other(error)


def sort_written(
    status: int, error: object, *, where: str, model: str, key_env: str, secrets: Iterable[str]
) -> Failure:
    """What an error means that a service wrote into a file of results. `error`: its object, of either protocol.

    Never fatal: other lines of the file may be good. Arguments as in `sort_openai`.
    """
    service = _Service(where, model, key_env, tuple(secrets), None)
    body = error if isinstance(error, dict) else {}
    inner = body.get("innererror")
    codes: list[object] = [body.get("code"), body.get("type"), body.get("status")]
    codes += [inner.get("code") if isinstance(inner, dict) else None]
    codes += [detail.get("reason") for detail in _details(body)]
    text = body.get("message") or error or "no message"
    if "batch_expired" in codes:
        return Failure(f"Timeout: {service.text(text)}", reason=Reason.TIMEOUT)
    failure = service.status(status, text, codes, None)
    failure.fatal = False
    return failure


def _details(body: object) -> Iterator[dict[str, Any]]:
    """The error's details: objects that say in fields what the message says in words."""
    if isinstance(body, dict):
        inner = body.get("error")
        found = (inner if isinstance(inner, dict) else body).get("details")
        if isinstance(found, list):
            yield from (detail for detail in found if isinstance(detail, dict))


def _delay(details: list[dict[str, Any]], response: Any) -> float | None:
    for detail in details:
        delay = _DELAY.fullmatch(str(detail.get("retryDelay", "")))
        if delay:
            return min(float(delay[1]), LONGEST_WAIT_S)
    headers = getattr(response, "headers", None)
    return retry_after(headers, time.time()) if isinstance(headers, Mapping) else None


@dataclass(frozen=True)
class _Service:
    """Whom the call was for; turns what is known of a failure into one."""

    where: str
    model: str
    key_env: str
    secrets: tuple[str, ...]
    timeout_s: float | None

    def text(self, said: object) -> str:
        plain = str(said)
        return one_line(_TAG.sub(" ", plain) if plain.lstrip().startswith("<") else plain, self.secrets)

    def status(self, status: int, said: object, codes: Iterable[object], wait: float | None) -> Failure:
        """From an HTTP status, the message of the answer and its codes, and the wait that it asks for."""
        known = {str(code).lower() for code in codes if code}
        text = f"status {status}: {self.text(said)}"
        if known & _WITHHELD:
            return self.withheld(text, status)
        if "model_not_found" in known or (status == 404 and self.model and self.model in str(said)):
            return self.fatal(f"{self.where} serves no model {self.model!r} ({text})", status, "model")
        if status in (401, 403) or known & _WRONG_KEY:
            return self.fatal(f"{self.where} refuses the key: {text}", status, "key")
        if status == 402 or known & _NO_CREDIT:
            return self.fatal(f"{self.where}: the account has no credit left ({text})", status, "account")
        if status == 400 and "failed_precondition" in known:
            return self.fatal(f"{self.where} does not serve this account: {text}", status, "account")
        if status == 404:
            return self.fatal(f"{self.where} has no such address ({text})", status, "address")
        text = text[0].upper() + text[1:]
        if status == 429:
            reason = Reason.RATE_LIMITED
            return Failure(text, reason=reason, retry=True, wait=wait, rate_limited=True, status=status)
        if status in _TRY_AGAIN or status >= 500:
            return Failure(text, reason=Reason.SERVER_ERROR, retry=True, wait=wait, status=status)
        refused = status in (400, 422) and (known & _LONG_CODES or _LONG_TEXT.search(str(said)))
        return Failure(text, reason=Reason.JUDGE_ERROR, status=status, too_long=status == 413 or bool(refused))

    def fatal(self, message: str, status: int | None, concerns: Concern) -> Failure:
        hint = {
            "key": f"set the environment variable {self.key_env}, or write it into .env",
            "model": "check the model's name",
            "account": "check the account's billing and limits at the provider",
            "address": "does the address end as the server wants it, e.g. in /v1?",
        }.get(concerns, "")
        return Failure(message, reason=Reason.JUDGE_ERROR, fatal=True, hint=hint, status=status, concerns=concerns)

    def withheld(self, text: str, status: int | None = None) -> Failure:
        return Failure(f"Filtered: {text}", reason=Reason.JUDGE_REFUSED, status=status)

    def unreached(self, error: BaseException) -> Failure:
        said = self.text(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        return Failure(f"Connection to {self.where} failed: {said}", reason=Reason.CONNECTION, retry=True)

    def other(self, error: BaseException) -> Failure:
        """From an exception that is not the SDK's own: of the HTTP library under it, or of Python."""
        if isinstance(error, Failure):
            return error
        tenacity = sys.modules.get("tenacity")
        if tenacity is not None and isinstance(error, tenacity.RetryError):
            return self.other(error.last_attempt.exception() or TimeoutError())
        if isinstance(error, (TimeoutError, *_classes(("httpx", "httpx2"), "TimeoutException"))):
            return timed_out(self.timeout_s)
        if isinstance(error, json.JSONDecodeError):
            return not_json(error.doc, self.secrets)
        if isinstance(error, (UnicodeDecodeError, *_classes(("aiohttp",), "ContentTypeError"))):
            return not_json("", self.secrets)
        if isinstance(error, pydantic.ValidationError):
            return malformed(self.text(f"the answer has another form than the protocol's: {error}"))
        libraries = (
            *_classes(("httpx", "httpx2"), "TransportError"),
            *_classes(("httpx", "httpx2"), "DecodingError"),
            *_classes(("aiohttp",), "ClientError"),
            *_classes(("google.auth.exceptions",), "TransportError"),
        )
        if isinstance(error, (OSError, *libraries)):
            return self.unreached(error)
        said = self.text(f"{type(error).__name__}: {error}")
        return Failure(f"Error: {said}", reason=Reason.JUDGE_ERROR)


def _below(error: BaseException) -> BaseException | None:
    """What the HTTP library's exception, under the SDK's, was made of."""
    return error.__cause__.__cause__ if error.__cause__ is not None else None


def _classes(modules: tuple[str, ...], name: str) -> tuple[type[BaseException], ...]:
    """A class of each of these modules that is in use: an exception of a module never imported cannot come up."""
    found = (getattr(sys.modules.get(module), name, None) for module in modules)
    return tuple(kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseException))

"""What goes wrong is sorted as what it is: real servers, the official SDKs, and no secret in any message."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate
from typing import Any

import pytest

from audit.remote.failures import (
    LONGEST_TEXT,
    LONGEST_WAIT_S,
    Failure,
    not_json,
    one_line,
    retry_after,
    sort_gemini,
    sort_openai,
)
from audit.remote.openai_client import make_client
from audit.remote.retries import retrying
from audit.types import Reason
from tests.remote.server import Canned

KEY = "AIza-secret-key-0123456789-abcdef"
NAMES: dict[str, Any] = {"where": "host.example/v1", "model": "judge-1", "key_env": "JUDGE_KEY", "secrets": [KEY]}
OPENAI, GEMINI = ("openai over aiohttp", "openai over httpx"), ("gemini over aiohttp", "gemini over httpx")
CLIENTS = (*OPENAI, *GEMINI)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def ask_openai(url: str, timeout_s: float, *, over_httpx: bool = False) -> Failure:
    """Through the product's own client, over aiohttp, or through the SDK's default one."""
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    if over_httpx:
        client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", timeout=timeout_s, max_retries=0)
    else:
        pytest.importorskip("aiohttp", reason="aiohttp is not installed")
        client = make_client(f"{url}/v1", KEY, timeout_s)
    try:
        reply = await client.chat.completions.create(model="judge-1", messages=[{"role": "user", "content": "hi"}])
    except Exception as error:  # noqa: BLE001
        return sort_openai(error, **NAMES, timeout_s=timeout_s)
    finally:
        await client.close()
    return not_json(reply, [KEY])  # the SDK hands on what is not JSON as text


async def ask_gemini(url: str, timeout_s: float, *, over_httpx: bool) -> Failure:
    genai = pytest.importorskip("google.genai", reason="google-genai is not installed")
    if over_httpx:
        import httpx

        transport: dict[str, Any] | None = {"transport": httpx.AsyncHTTPTransport()}
    else:
        pytest.importorskip("aiohttp", reason="aiohttp is not installed")
        transport = None
    options = genai.types.HttpOptions(
        base_url=url,
        timeout=int(timeout_s * 1000),
        async_client_args=transport,
        retry_options=genai.types.HttpRetryOptions(attempts=1),
    )
    client = genai.Client(api_key=KEY, http_options=options)
    try:
        await client.aio.models.generate_content(model="judge-1", contents="hi")
    except Exception as error:  # noqa: BLE001
        return sort_gemini(error, **NAMES, timeout_s=timeout_s)
    finally:
        await client.aio.aclose()
    raise AssertionError("the call succeeded")


def ask(client: str, url: str, timeout_s: float = 20.0) -> Failure:
    """The failure of one call, whose message is one short line without the key."""
    ask_once = ask_openai if client.startswith("openai") else ask_gemini
    failure = asyncio.run(ask_once(url, timeout_s, over_httpx="httpx" in client))
    assert KEY not in failure.message + failure.hint and "\n" not in failure.message
    assert len(failure.message) <= LONGEST_TEXT + 100 and str(failure) == failure.message
    assert failure.fatal == bool(failure.concerns) and not (failure.fatal and failure.retry)
    return failure


def error_body(
    client: str, status: int, message: str, code: str = "", details: list[dict[str, Any]] | None = None
) -> str:
    if client.startswith("openai"):
        return json.dumps({"error": {"message": message, "type": "some_error", "param": None, "code": code or None}})
    return json.dumps({"error": {"code": status, "message": message, "status": code, "details": details or []}})


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_fatal(client: str, status: int) -> None:
    with Canned(status, error_body(client, status, f"Incorrect key: {KEY}\nsee the manual")) as server:
        failure = ask(client, server.url)
    assert (failure.concerns, failure.status, failure.reason) == ("key", status, Reason.JUDGE_ERROR)
    assert failure.message == f"host.example/v1 refuses the key: status {status}: Incorrect key: *** see the manual"
    assert failure.hint == "set the environment variable JUDGE_KEY, or write it into .env"


@pytest.mark.parametrize("client", GEMINI)
@pytest.mark.parametrize(
    "details", [[], [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]]
)
def test_gemini_calls_a_wrong_key_a_bad_request(client: str, details: list[dict[str, Any]]) -> None:
    message = "Key expired." if details else "API key not valid. Please pass a valid API key."
    with Canned(400, error_body(client, 400, message, "INVALID_ARGUMENT", details)) as server:
        assert ask(client, server.url).concerns == "key"
    with Canned(400, error_body(client, 400, "Location is not supported.", "FAILED_PRECONDITION")) as server:
        assert ask(client, server.url).concerns == "account"


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unknown_model_is_fatal(client: str) -> None:
    with Canned(404, error_body(client, 404, "models/judge-1 is not found", "NOT_FOUND")) as server:
        failure = ask(client, server.url)
    assert failure.concerns == "model" and failure.message.startswith("host.example/v1 serves no model 'judge-1'")


@pytest.mark.parametrize("status", [400, 403, 404])
def test_the_code_for_an_unknown_model_counts_whatever_the_status(status: int) -> None:
    with Canned(status, error_body("openai", status, "no such thing", "model_not_found")) as server:
        assert ask(OPENAI[0], server.url).concerns == "model"


@pytest.mark.parametrize("client", CLIENTS)
def test_an_address_without_the_service_is_fatal_and_not_called_a_model(client: str) -> None:
    with Canned(404, "<html><body>Not here</body></html>", kind="text/html") as server:
        failure = ask(client, server.url)
    assert failure.concerns == "address" and "Not here" in failure.message and "<" not in failure.message


@pytest.mark.parametrize(("status", "code"), [(429, "insufficient_quota"), (429, "billing_not_active"), (402, "")])
def test_no_credit_is_fatal_and_no_rate_limit(status: int, code: str) -> None:
    with Canned(status, error_body("openai", status, "You exceeded your quota", code), {"retry-after": "1"}) as server:
        failure = ask(OPENAI[0], server.url)
    assert failure.concerns == "account" and not failure.rate_limited and "no credit left" in failure.message


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "9", "Retry-After-Ms": "250"}, 0.25),
        ({"retry-after": "soon"}, None),
    ],
)
def test_a_rate_limit_is_repeated_after_the_wait(client: str, headers: dict[str, str], wait: float | None) -> None:
    with Canned(429, error_body(client, 429, "slow down", "RESOURCE_EXHAUSTED"), headers) as server:
        failure = ask(client, server.url)
    assert (failure.reason, failure.retry, failure.rate_limited) == (Reason.RATE_LIMITED, True, True)
    assert (failure.wait, failure.message, failure.status) == (wait, "Status 429: slow down", 429)


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo"}


@pytest.mark.parametrize("client", GEMINI)
@pytest.mark.parametrize(("delay", "wait"), [("7s", 7.0), ("0.5s", 0.5), ("3600s", LONGEST_WAIT_S), ("soon", 2.0)])
def test_gemini_names_the_wait_in_the_details(client: str, delay: str, wait: float) -> None:
    body = error_body(client, 429, "Quota", "RESOURCE_EXHAUSTED", [{"x": 1}, {**RETRY_INFO, "retryDelay": delay}])
    with Canned(429, body, {"retry-after": "2"}) as server:
        failure = ask(client, server.url)
    assert failure.wait == wait and failure.retry and failure.rate_limited


@pytest.mark.parametrize("client", GEMINI)
def test_a_used_up_day_is_not_waited_for(client: str) -> None:
    quota = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "RequestsPerDayPerProject"}],
    }
    body = error_body(client, 429, "Quota", "RESOURCE_EXHAUSTED", [quota, {**RETRY_INFO, "retryDelay": "7s"}])
    with Canned(429, body) as server:
        failure = ask(client, server.url)
    assert failure.reason is Reason.RATE_LIMITED and not failure.retry and "tomorrow" in failure.hint


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_is_final_for_its_call_alone(client: str, status: int) -> None:
    with Canned(status, error_body(client, status, "x" * 2000 + KEY)) as server:
        failure = ask(client, server.url)
    assert (failure.reason, failure.retry, failure.fatal) == (Reason.JUDGE_ERROR, False, False)
    assert failure.message.startswith(f"Status {status}: xxx") and failure.message.endswith("…")


LONG = [
    (400, "This model's maximum context length is 4096 tokens. However, your messages resulted in 5210 tokens.", ""),
    (400, "'max_tokens' is too large: 200. This model's maximum context length is 512 tokens and your request has 400 "
     "input tokens (200 > 512 - 400).", "BadRequestError"),
    (400, "Request too large", ""),
    (400, "The input token count (40000) exceeds the maximum number of tokens allowed (32768).", "INVALID_ARGUMENT"),
    (422, "`inputs` tokens + `max_new_tokens` must be <= 2048: the prompt is too long", ""),
    (400, "no", "context_length_exceeded"),
    (413, "no", ""),
]  # fmt: skip
NOT_LONG = [
    (400, "max_tokens is too large: 8192. This model supports at most 4096 completion tokens.", ""),
    (400, "Unsupported value: 'temperature' does not support 0 with this model.", ""),
    (422, "extra fields not permitted", ""),
    (500, "the prompt is too long", ""),
    (429, "Request too large for judge-1 on tokens per min", ""),
]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("status", "said", "code"), [*LONG, *NOT_LONG])
def test_a_text_that_is_too_long_is_told_from_what_concerns_every_call(
    client: str, status: int, said: str, code: str
) -> None:
    with Canned(status, error_body(client, status, said, code)) as server:
        failure = ask(client, server.url)
    assert failure.too_long == ((status, said, code) in LONG)
    assert not failure.fatal


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_withheld_call_is_a_refusal(code: str) -> None:
    with Canned(400, error_body("openai", 400, "The prompt was filtered", code)) as server:
        failure = ask(OPENAI[0], server.url)
    assert (failure.reason, failure.retry, failure.fatal) == (Reason.JUDGE_REFUSED, False, False)
    nested = {"error": {"message": "no", "code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}
    with Canned(400, json.dumps(nested)) as server:
        assert ask(OPENAI[0], server.url).reason is Reason.JUDGE_REFUSED


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 529])
def test_a_struggling_server_is_asked_again(client: str, status: int) -> None:
    with Canned(status, error_body(client, status, "busy"), {"retry-after": "4"}) as server:
        failure = ask(client, server.url)
    assert (failure.reason, failure.retry, failure.fatal) == (Reason.SERVER_ERROR, True, False)
    assert failure.wait == 4.0 and not failure.rate_limited and "busy" in failure.message


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/json"])
def test_an_error_page_is_a_struggling_server_too(client: str, kind: str) -> None:
    with Canned(503, "<html><h1>Over\ncapacity</h1></html>", kind=kind) as server:
        failure = ask(client, server.url)
    assert (failure.reason, failure.retry) == (Reason.SERVER_ERROR, True)
    assert "capacity" in failure.message


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (f"<html>hello {KEY}</html>", "text/html"),
        ("<html>hello</html>", "application/json"),
        ('{"choices": [{"message": {"content": "LE', "application/json"),
        ('{"candidates": [{"content": {"parts": [{"te', "application/json"),
    ],
)
def test_a_good_status_with_what_is_not_json(client: str, body: str, kind: str) -> None:
    with Canned(200, body, kind=kind) as server:
        failure = ask(client, server.url)
    assert (failure.reason, failure.retry, failure.fatal) == (Reason.SERVER_ERROR, True, False)
    assert "not JSON" in failure.message and body[:9] in failure.message


@pytest.mark.parametrize("client", CLIENTS)
def test_an_answer_that_cannot_be_unpacked(client: str) -> None:
    with Canned(200, "{}", {"content-encoding": "gzip"}) as server:
        failure = ask(client, server.url)
    assert (failure.reason, failure.retry, failure.fatal) == (Reason.CONNECTION, True, False)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_that_breaks_in_the_middle_of_the_answer(client: str) -> None:
    with Canned(200, json.dumps({"choices": [], "candidates": []}) * 100, cut=True) as server:
        failure = ask(client, server.url)
    assert (failure.reason, failure.retry) == (Reason.CONNECTION, True)
    assert failure.message.startswith("Connection to host.example/v1 failed: ")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_is_not_there_is_a_connection_failure_with_retries(client: str) -> None:
    with Canned() as server:
        url = server.url  # nobody listens there any more
    seen: list[Failure] = []

    async def try_once(attempt: int) -> None:
        ask_once = ask_openai if client.startswith("openai") else ask_gemini
        seen.append(await ask_once(url, 20.0, over_httpx="httpx" in client))
        raise seen[-1]

    with pytest.raises(Failure) as caught:
        asyncio.run(retrying(try_once, retries=2, backoff_s=0.0))
    assert caught.value.tries == len(seen) == 3
    assert {(failure.reason, failure.retry, failure.fatal) for failure in seen} == {(Reason.CONNECTION, True, False)}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("address", ["http://no-such-host.invalid", "https://{}"])
def test_a_name_that_nobody_has_and_a_server_without_tls(client: str, address: str) -> None:
    with Canned() as server:
        failure = ask(client, address.format(server.url.removeprefix("http://")))
    assert (failure.reason, failure.retry, failure.fatal) == (Reason.CONNECTION, True, False)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("said", [b"", b"SSH-2.0-hello\r\n"])
def test_a_server_that_hangs_up_or_speaks_something_else(client: str, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1)
                        connection.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        failure = ask(client, f"http://127.0.0.1:{listening.getsockname()[1]}")
        listening.shutdown(socket.SHUT_RDWR)
    assert (failure.reason, failure.retry, failure.fatal) == (Reason.CONNECTION, True, False)


def test_the_product_s_client_leaves_nothing_open_and_names_no_account_to_others(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-of-somebody")
    with Canned(500, "busy") as server:
        assert ask(OPENAI[0], server.url).reason is Reason.SERVER_ERROR
        assert make_client(f"{server.url}/v1", KEY, 1.0).organization is None
    assert make_client("https://api.openai.com/v1", KEY, 1.0).project == "proj-of-somebody"
    gc.collect()
    assert [str(w.message) for w in recwarn if issubclass(w.category, ResourceWarning)] == []


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_does_not_answer_in_time(client: str) -> None:
    with Canned(200, "{}", delay=1.0) as server:
        failure = ask(client, server.url, timeout_s=0.2)
    assert (failure.reason, failure.retry) == (Reason.TIMEOUT, True)
    assert failure.message == "Timeout: no answer in 0.2 s"


@pytest.mark.parametrize("sort", [sort_openai, sort_gemini])
def test_what_is_not_the_sdks_own(sort: Any) -> None:
    async def late() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(late())
    assert sort(caught.value, **NAMES).reason is Reason.TIMEOUT
    assert sort(ConnectionResetError(104, "reset"), **NAMES).reason is Reason.CONNECTION
    bug = sort(KeyError(f"no {KEY}"), **NAMES)
    assert (bug.reason, bug.retry, bug.fatal) == (Reason.JUDGE_ERROR, False, False)
    assert bug.message == "Error: KeyError: 'no ***'"
    assert sort(bug, **NAMES) is bug


def test_a_retry_error_of_the_sdks_own_layer_is_unwrapped() -> None:
    tenacity = pytest.importorskip("tenacity")

    def refuse() -> None:
        raise ConnectionRefusedError("no")

    with pytest.raises(tenacity.RetryError) as caught:
        tenacity.Retrying(stop=tenacity.stop_after_attempt(1))(refuse)
    assert sort_gemini(caught.value, **NAMES).reason is Reason.CONNECTION


def test_a_text_is_cut_after_its_secrets_are_hidden() -> None:
    text = one_line("x" * (LONGEST_TEXT - 10) + KEY + "\n\tend", [KEY])
    assert len(text) <= LONGEST_TEXT and KEY[:5] not in text
    assert one_line(" a\r\n b\t", []) == "a b"


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "12"}, 12.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e9"}, LONGEST_WAIT_S),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7.0),
        ({"retry-after": format_datetime(NOW.replace(second=25), usegmt=True)}, 20.0),
        ({"retry-after": format_datetime(NOW.replace(second=1), usegmt=True)}, 0.0),
        ({"retry-after": format_datetime(NOW.replace(hour=23), usegmt=True)}, LONGEST_WAIT_S),
        ({"retry-after": formatdate(NOW.timestamp() + 9)}, 9.0),  # "-0000": a date without a zone
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # dates of the protocol do not depend on where we are
    time.tzset()
    try:
        assert retry_after(headers, NOW.timestamp()) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()

"""The endpoint engine against a real local server with injected faults: every failure is recorded as one."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.engines import (
    EngineSettings,
    engine_capabilities,
    engine_identity,
    make_request,
    open_engine,
    resolve_engine,
)
from audit.engines import openai as engine_module
from audit.errors import EngineError
from audit.protocols import Engine
from audit.types import Completion, Request
from tests.engines.conftest import probe
from tests.helpers.openai_server import Body, Call, Cut, Drop, Fault, Hang, OpenAIServer, Status

pytest.importorskip("openai", reason="the openai package is not installed")
KEY = "sk-secret-1234567890"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BACKOFF_S", 0.0)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def opened(server: OpenAIServer, **settings: Any) -> Any:
    defaults: dict[str, Any] = {"name": "openai", "model": "tiny", "timeout_s": 5.0, "max_retries": 2}
    return open_engine(None, EngineSettings(**{**defaults, "base_url": server.base_url, **settings}))


def requests(*texts: str, **options: Any) -> list[Request]:
    return [make_request(probe(text, **options), 0, "endpoint:run", "openai", None) for text in texts]


def ask(engine: Any, batch: list[Request]) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    for completion in engine.generate(batch):
        assert completion.key not in found
        found[completion.key] = completion
    assert found.keys() == {request.key for request in batch}
    return found


def test_chat_and_completions(server: OpenAIServer) -> None:
    engine = opened(server)
    assert isinstance(engine, Engine)
    assert engine.capabilities == {"chat", "sampling", "raw"}
    chat = requests("What?", system="Be short.", stop=("\n",))
    raw = requests("The colour is", format="raw")
    drawn = requests("What?", temperature=0.7, top_p=0.9)
    found = ask(engine, chat + raw + drawn)
    first = found[chat[0].key]
    assert (first.text, first.finish, first.n_prompt, first.n_new, first.error) == ("echo: What?", "stop", 11, 7, None)
    assert found[raw[0].key].text == "echo: The colour is"
    bodies = {call.path + str(call.body["temperature"]): call.body for call in server.calls[1:]}
    greedy = bodies["/v1/chat/completions0.0"]
    assert greedy["messages"] == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What?"}]
    assert greedy["max_tokens"] == 24 and greedy["stop"] == ["\n"] and "seed" not in greedy and "top_p" not in greedy
    sampled = bodies["/v1/chat/completions0.7"]
    assert (sampled["seed"], sampled["top_p"]) == (drawn[0].seed, 0.9)
    assert bodies["/v1/completions0.0"]["prompt"] == "The colour is"
    assert all(call.headers["authorization"] == f"Bearer {KEY}" for call in server.calls)
    with pytest.raises(EngineError, match="no log-probabilities"):
        engine.score([((1,), (2,))])
    with pytest.raises(EngineError, match="weights cannot be changed"):
        engine.swap(None)  # type: ignore[arg-type]
    engine.close()
    engine.close()


def test_without_completions_raw_text_is_said_to_be_impossible() -> None:
    with OpenAIServer(completions=False) as server:
        settings = EngineSettings(name="openai", model="tiny", base_url=server.base_url)
        assert engine_capabilities(settings) == {"chat", "sampling"}
        engine = opened(server)
        assert engine.capabilities == {"chat", "sampling"}
        (raw,) = requests("The colour is", format="raw")
        completion = ask(engine, [raw])[raw.key]
        assert completion.finish == "error" and "no completions" in (completion.error or "")
        engine.close()


TRANSIENT: dict[str, Fault] = {
    "rate limit": Status(429, {"retry-after": "0"}),
    "server error": Status(500),
    "overloaded": Status(503, raw="<html>busy</html>"),
    "dropped": Drop(),
    "cut": Cut(),
    "not json": Body("<html>hello</html>", "text/html"),
    "no choices": Body({"choices": []}),
    "error in a good status": Body({"error": {"message": "upstream"}}),
    "no content": Body({"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": None}}]}),
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_what_may_pass_is_tried_again_and_then_recorded(server: OpenAIServer, fault: Fault) -> None:
    engine = opened(server)
    (request,) = requests("hello")
    server.calls.clear()
    server.faults = [fault, fault]
    assert ask(engine, [request])[request.key].text == "echo: hello"
    assert len(server.calls) == 3
    server.calls.clear()
    server.faults = [fault] * 3
    completion = ask(engine, [request])[request.key]
    assert (completion.finish, completion.text) == ("error", "") and completion.error
    assert "3 tries" in completion.error
    assert len(server.calls) == 3
    engine.close()


FINAL: dict[str, Fault] = {
    "bad request": Status(400, error={"message": "too long"}),
    "unprocessable": Status(422),
    "filtered": Body({"choices": [{"finish_reason": "content_filter", "message": {"content": ""}}]}),
    "tool call": Body({"choices": [{"finish_reason": "tool_calls", "message": {"content": None}}]}),
}


@pytest.mark.parametrize("fault", FINAL.values(), ids=FINAL.keys())
def test_what_will_not_pass_is_recorded_at_once(server: OpenAIServer, fault: Fault) -> None:
    engine = opened(server)
    server.fault_for = lambda call: fault if call.text == "bad" else None
    good, bad = requests("good", "bad")
    server.calls.clear()
    found = ask(engine, [good, bad])
    assert found[good.key].text == "echo: good"
    assert (found[bad.key].finish, found[bad.key].text) == ("error", "") and "1 try" in (found[bad.key].error or "")
    assert len(server.calls) == 2
    engine.close()


def test_a_hanging_answer_times_out(server: OpenAIServer) -> None:
    engine = opened(server, timeout_s=0.3, max_retries=1)
    server.faults = [Hang(2.0), Hang(2.0)]
    (request,) = requests("hello")
    assert "Timeout: no answer in 0.3 s" in (ask(engine, [request])[request.key].error or "")
    engine.close()


def test_an_empty_answer_is_an_answer_and_reasoning_is_part_of_the_text(server: OpenAIServer) -> None:
    answers: dict[str, Any] = {
        "empty": "",
        "thinks": {"message": {"content": "Blue.", "reasoning_content": "It is the Tarn."}},
        "only thinks": {"message": {"content": None, "reasoning": "Hm, the Tarn"}, "finish_reason": "length"},
        "declines": {"message": {"content": None, "refusal": "I cannot say."}},
    }
    server.answer = lambda call: answers.get(call.text, "")
    engine = opened(server)
    batch = requests(*answers)
    found = ask(engine, batch)
    assert [(found[r.key].text, found[r.key].finish) for r in batch] == [
        ("", "stop"),
        ("It is the Tarn.\n\nBlue.", "stop"),
        ("Hm, the Tarn", "length"),
        ("I cannot say.", "stop"),
    ]
    engine.close()


def test_every_request_is_answered_once_under_mixed_faults(server: OpenAIServer) -> None:
    """A hundred requests, a third of the calls fail somehow: each text belongs to its own question."""
    draw, lock = random.Random(5), threading.Lock()
    faults = [*TRANSIENT.values(), *[None] * 18]

    def fault_for(call: Call) -> Fault:
        with lock:
            return draw.choice(faults)

    engine = opened(server, concurrency=6, max_retries=6)
    server.fault_for = fault_for
    batch = requests(*(f"question {number}" for number in range(100)))
    found = ask(engine, batch)
    for number, request in enumerate(batch):
        completion = found[request.key]
        assert completion.text == (f"echo: question {number}" if completion.error is None else "")
    assert sum(completion.error is None for completion in found.values()) >= 95
    engine.close()


def test_concurrency_is_bounded_and_used() -> None:
    with OpenAIServer(delay=0.05) as server:
        engine = opened(server, concurrency=3)
        batch = requests(*map(str, range(12)))
        ask(engine, batch)
        assert server.most_at_once == 3
        engine.close()


def test_leaving_early_takes_back_what_is_on_its_way() -> None:
    with OpenAIServer(delay=0.05) as server:
        engine = opened(server, concurrency=2)
        stream = engine.generate(requests(*map(str, range(40))))
        next(stream)
        stream.close()
        (request,) = requests("after")
        assert ask(engine, [request])[request.key].text == "echo: after"
        assert len(server.calls) < 20
        engine.close()


def test_what_concerns_every_request_ends_the_engine(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="serves no model 'other'"):
        opened(server, model="other")
    refusal = Status(401, error={"message": f"Incorrect API key provided: {KEY}."})
    server.faults = [refusal]
    with pytest.raises(EngineError, match="refuses the key") as caught:
        opened(server)
    assert KEY not in str(caught.value) and "OPENAI_API_KEY" in caught.value.hint
    engine = opened(server)
    server.fault_for = lambda call: refusal
    with pytest.raises(EngineError, match="refuses the key"):
        ask(engine, requests(*map(str, range(5))))
    engine.close()
    engine = None
    server.fault_for = lambda call: Status(429, error={"message": "pay", "code": "insufficient_quota"})
    with pytest.raises(EngineError, match="no credit"):
        opened(server)
    with pytest.raises(EngineError, match="needs the name"):
        opened(server, model=None)
    with pytest.raises(EngineError, match="no address"):
        opened(server, base_url="localhost:8000")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EngineError, match="no key"):
        opened(server, base_url=None)


def test_an_endpoint_that_is_gone_ends_the_engine_after_a_while(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "GIVE_UP_AFTER", 4)
    engine = opened(server, max_retries=1, concurrency=2)
    server.fault_for = lambda call: Drop()
    seen: list[Completion] = []
    with pytest.raises(EngineError, match="out of reach"):
        seen.extend(engine.generate(requests(*map(str, range(50)))))
    assert all(completion.finish == "error" for completion in seen)
    engine.close()
    with OpenAIServer() as other:
        url = other.base_url
    with pytest.raises(EngineError, match="cannot be used: Connection"):
        opened(server, base_url=url)


def test_models_that_want_the_newer_limit_field_get_it(server: OpenAIServer) -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    engine = opened(server, concurrency=1)
    server.fault_for = lambda call: Status(400, error={"message": message}) if "max_tokens" in call.body else None
    server.calls.clear()
    found = ask(engine, requests("a", "b"))
    assert {completion.text for completion in found.values()} == {"echo: a", "echo: b"}
    assert [call.body.get("max_completion_tokens") for call in server.calls] == [None, 24, 24]
    engine.close()


def test_the_key_may_stand_in_a_file_and_passwords_reach_no_message(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-the-file\n")
    opened(server).close()
    assert server.calls[-1].headers["authorization"] == "Bearer sk-from-the-file"
    server.faults = [Status(500, error={"message": "sk-from-the-file is wrong"})] * 3
    with pytest.raises(EngineError, match=r"cannot be used: Status 500: \*\*\* is wrong"):
        opened(server)
    with pytest.raises(EngineError, match="holds a user or a password") as caught:
        opened(server, base_url=server.base_url.replace("http://", "http://me:pa55word@"))
    assert "pa55word" not in str(caught.value) + str(caught.value.hint)


def test_identity_names_endpoint_and_model_and_never_a_secret(server: OpenAIServer) -> None:
    settings = EngineSettings(base_url="https://user:pa55@host.example:8443/v1/", model="m", args={"top_k": 5})
    assert resolve_engine(settings) == "openai"
    assert engine_identity(None, settings) == "openai endpoint=host.example:8443/v1 model=m top_k=5"
    engine = opened(server, args={"top_k": 5})
    ask(engine, requests("x"))
    assert server.calls[-1].body["top_k"] == 5
    assert KEY not in engine.identity
    engine.close()

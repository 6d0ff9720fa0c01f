"""The judge `gemini` through the official client, against a real local server."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.errors import JudgeError
from audit.judges import get_judge
from audit.judges.context import JudgeContext
from audit.judges.llm.gemini import GeminiTransport, make_gemini
from audit.judges.llm.model_judge import ModelJudge
from audit.judges.llm.options import parse_model_spec
from audit.protocols import Judge
from audit.types import Reason
from tests.helpers.faulty_http import Body, Call, Changed, Drop, Fault, HalfJson, Reset, Status
from tests.helpers.gemini_server import GeminiServer, exhausted, refused
from tests.helpers.remote_judges import KEY, ask, priced, quiet_surroundings
from tests.helpers.scripted_judge import Script, gemini_fault, labelled_claims, one_verdict, tags_in

pytest.importorskip("google.genai", reason="the google-genai package is not installed")
ASKED = labelled_claims(40)
CLAIMS = [labelled.claim for labelled in ASKED]
LEAK = next(labelled for labelled in ASKED if labelled.label == "leak")
#: What the client sends its requests with: aiohttp where it is installed, else httpx.
LIBRARIES = ("aiohttp", "httpx")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet_surroundings(monkeypatch, tmp_path)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    from google.genai import _api_client

    if request.param == "aiohttp":
        pytest.importorskip("aiohttp", reason="aiohttp is not installed: the client uses httpx alone")
    monkeypatch.setattr(_api_client, "has_aiohttp", request.param == "aiohttp")
    return str(request.param)


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    script = Script({labelled.tag: labelled.label for labelled in ASKED}, gemini_fault(60.0))
    with GeminiServer(script.answer) as running:
        running.fault_for = script.fault_for
        yield running


def made(server: GeminiServer, context: JudgeContext | None = None, **options: Any) -> ModelJudge:
    query = "&".join(f"{name}={value}" for name, value in {"timeout_s": 20, "retries": 2, **options}.items())
    return make_gemini(f"tiny@{server.base_url}?{query}", context)


def test_a_verdict_and_what_was_asked(server: GeminiServer, library: str) -> None:
    server.usage = {
        "promptTokenCount": 1000,
        "candidatesTokenCount": 100,
        "thoughtsTokenCount": 300,
        "cachedContentTokenCount": 600,
        "totalTokenCount": 1400,
    }
    judge = made(server, priced(), seed=7, thinking_budget=0)
    (verdict,) = ask(judge, [LEAK.claim])
    assert (verdict.label, verdict.reason, verdict.model) == ("leak", Reason.RULED, "tiny")
    assert LEAK.tag in verdict.rationale and json.loads(verdict.raw)["label"] == "LEAK"
    assert verdict.usage.pop("seconds") > 0
    assert verdict.usage.pop("cost") == pytest.approx((400 * 1.0 + 600 * 0.5 + 400 * 2.0) / 1e6)
    assert verdict.usage == {"prompt_tokens": 1000, "completion_tokens": 400, "cached_tokens": 600, "tries": 1}
    (call,) = server.calls
    assert call.path == "/v1beta/models/tiny:generateContent" and tags_in(call) == [LEAK.tag]
    assert call.body["systemInstruction"]["parts"][0]["text"] == judge.prompt.system()
    config = call.body["generationConfig"]
    assert (config["temperature"], config["maxOutputTokens"], config["seed"]) == (0, 512, 7)
    thinking = {name.replace("_", "").lower(): value for name, value in config["thinkingConfig"].items()}
    assert thinking == {"thinkingbudget": 0}  # the API reads thinkingBudget and thinking_budget alike
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"] == judge.prompt.schema()
    assert "thinking_budget=0" in judge.identity


def test_every_claim_has_its_own_verdict(server: GeminiServer, library: str) -> None:
    server.delay = 0.05
    judge = get_judge(f"gemini:tiny@{server.base_url}?concurrency=8")
    assert isinstance(judge, Judge) and isinstance(judge, ModelJudge)
    for labelled, verdict in zip(ASKED, ask(judge, CLAIMS), strict=True):
        assert verdict.label == labelled.label and labelled.tag in verdict.rationale
    assert server.most_at_once == judge.limiter.most_at_once == 8


def test_more_connections_than_the_http_library_opens_by_itself(server: GeminiServer, library: str) -> None:
    server.delay = 0.5
    many = labelled_claims(128)
    server.answer = lambda call: one_verdict(tags_in(call)[0], "leak")
    ask(made(server, timeout_s=60), [labelled.claim for labelled in many])
    assert server.most_at_once > 100  # httpx keeps to 100 unless told otherwise


@pytest.mark.parametrize(
    "fault", [Status(503), exhausted("0s"), Reset(), Drop(), HalfJson()], ids=lambda fault: type(fault).__name__
)
def test_the_clients_own_retries_are_off(server: GeminiServer, library: str, fault: Fault) -> None:
    server.faults = [fault] * 4
    (verdict,) = ask(made(server, retries=0), CLAIMS[:1]) if not isinstance(fault, Reset | Drop) else unreached(server)
    assert verdict.label == "undecided" and len(server.calls) == 1
    (verdict,) = ask(made(server, retries=3), CLAIMS[:1])
    assert (verdict.label, verdict.usage["tries"], len(server.calls)) == (ASKED[0].label, 4, 5)


def unreached(server: GeminiServer) -> Any:
    """A judge that had an answer before is not given up for one broken connection."""
    fault, server.faults = server.faults[:1], []
    judge = made(server, retries=0)
    ask(judge, CLAIMS[:1])
    server.calls.clear()
    server.faults = fault * 4
    verdicts = ask(judge, CLAIMS[:1])
    assert verdicts[0].reason is Reason.CONNECTION
    return verdicts


def test_it_works_in_one_event_loop_after_another(server: GeminiServer, library: str) -> None:
    judge = made(server)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nothing is closed in between
        first, second = (asyncio.run(judge.judge(CLAIMS[:3])) for _ in range(2))
    assert [v.label for v in first] == [v.label for v in second]


def test_a_rate_limit_halves_the_concurrency(server: GeminiServer) -> None:
    server.faults = [exhausted("0.01s")]
    judge = made(server, concurrency=8)
    (verdict,) = ask(judge, CLAIMS[:1])
    assert verdict.label == ASKED[0].label and judge.limiter.concurrency == 4


# -------------------------------------------------------------------------------------------- finish before parsing


@pytest.mark.parametrize(
    "word", ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION"]
)
def test_what_a_filter_withholds_is_no_verdict(server: GeminiServer, word: str) -> None:
    server.faults = [Changed(choice={"finishReason": word})]  # the text holds a whole label all the same
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert (verdict.label, verdict.reason, len(server.calls)) == ("undecided", Reason.JUDGE_REFUSED, 1)
    assert word in verdict.rationale


@pytest.mark.parametrize("candidates", [None, []])
def test_a_blocked_prompt_is_no_verdict(server: GeminiServer, candidates: Any) -> None:
    blocked = {"candidates": candidates, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    server.faults = [Changed(blocked)]
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert (verdict.label, verdict.reason, len(server.calls)) == ("undecided", Reason.JUDGE_REFUSED, 1)
    assert "PROHIBITED_CONTENT" in verdict.rationale


def test_a_block_wins_over_a_candidate(server: GeminiServer) -> None:
    server.faults = [Changed({"promptFeedback": {"blockReason": "JAILBREAK"}})]
    assert ask(made(server), CLAIMS[:1])[0].reason is Reason.JUDGE_REFUSED


def test_an_answer_without_candidates_is_tried_again(server: GeminiServer) -> None:
    server.faults = [Changed({"candidates": None}), Changed({"candidates": []})]
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert (verdict.label, verdict.usage["tries"]) == (ASKED[0].label, 3)


def test_a_cut_reply_is_asked_for_once_more_with_four_times_the_tokens(server: GeminiServer) -> None:
    cut = Changed(choice={"finishReason": "MAX_TOKENS"})
    server.faults = [cut, None, cut, Changed(choice={"finishReason": "MAX_TOKENS", "content": {"role": "model"}})]
    judge = made(server, max_tokens=50)
    (first,), (second,) = ask(judge, CLAIMS[:1]), ask(judge, CLAIMS[1:2])
    assert (first.label, first.usage["tries"]) == (ASKED[0].label, 2)
    assert (second.label, second.reason) == ("undecided", Reason.JUDGE_TRUNCATED)
    assert [call.body["generationConfig"]["maxOutputTokens"] for call in server.calls] == [50, 200, 50, 200]


@pytest.mark.parametrize("word", ["OTHER", "LANGUAGE", "MALFORMED_RESPONSE", "A_WORD_OF_NEXT_YEAR", None])
def test_an_unknown_finish_is_no_verdict(server: GeminiServer, word: str | None) -> None:
    server.fault_for = lambda call: Changed(choice={"finishReason": word})
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert (verdict.label, verdict.reason, len(server.calls)) == ("undecided", Reason.JUDGE_ERROR, 3)


def test_thoughts_are_not_the_reply(server: GeminiServer) -> None:
    thought = {"text": one_verdict(ASKED[0].tag, "leak"), "thought": True}
    server.answer = lambda call: {"content": {"role": "model", "parts": [thought, {"text": '{"label": "CLEAR"}'}]}}
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert verdict.label == "no_leak"


def test_a_reply_of_another_model_is_no_verdict(server: GeminiServer) -> None:
    server.fault_for = lambda call: Changed({"modelVersion": "small-model"})
    judge = made(server)
    (verdict,) = ask(judge, CLAIMS[:1])
    assert (verdict.label, verdict.reason, judge.served) == ("undecided", Reason.JUDGE_ERROR, {"small-model": 3})
    server.fault_for = lambda call: Changed({"modelVersion": "models/tiny-001"})
    assert ask(made(server), CLAIMS[:1])[0].label == ASKED[0].label


# ------------------------------------------------------------------------------------- refusals, keys, dead servers


def test_a_model_without_structured_output_is_asked_in_plain_text_from_then_on(server: GeminiServer) -> None:
    def refuse(call: Call) -> Status | None:
        if "responseMimeType" in call.body["generationConfig"]:
            return refused(400, "INVALID_ARGUMENT", "JSON mode is not enabled for models/tiny")
        return None

    server.refuse = refuse
    verdicts = ask(made(server, concurrency=1), CLAIMS[:4])
    assert [v.label for v in verdicts] == [labelled.label for labelled in ASKED[:4]]
    assert ["responseMimeType" in call.body["generationConfig"] for call in server.calls] == [True] + [False] * 4
    (verdict,) = ask(made(server, read="json"), CLAIMS[:1])
    assert (verdict.label, verdict.reason) == ("undecided", Reason.JUDGE_ERROR)
    assert "JSON mode is not enabled" in verdict.rationale


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (refused(400, "INVALID_ARGUMENT", "API key not valid.", reason="API_KEY_INVALID"), "refuses the key"),
        (refused(403, "PERMISSION_DENIED"), "refuses the key"),
        (refused(404, "NOT_FOUND", "models/tiny is not found"), "no model 'tiny'"),
    ],
)
def test_what_concerns_every_call_stops_at_once(
    server: GeminiServer, refusal: Status, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    server.refuse = lambda call: refusal
    judge = made(server, concurrency=4)
    with pytest.raises(JudgeError) as problem:
        ask(judge, CLAIMS)
    assert said in str(problem.value) and KEY not in str(problem.value) + problem.value.hint
    assert len(server.calls) <= 4
    with pytest.raises(JudgeError, match=said):
        ask(judge, CLAIMS[20:21])
    asked = {tag for call in server.calls for tag in tags_in(call)}  # what was on its way may come in late
    assert ASKED[20].tag not in asked and len(asked) <= 4


def test_a_server_that_wants_a_key_and_was_sent_none(server: GeminiServer) -> None:
    server.refuse = lambda call: refused(403, "PERMISSION_DENIED")
    with pytest.raises(JudgeError) as problem:
        ask(made(server), CLAIMS[:1])
    assert "?key_env=NAME" in problem.value.hint


def test_a_server_that_is_not_there(library: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        judge = make_gemini(f"tiny@http://{where}?retries=1")
        with pytest.raises(JudgeError) as problem:
            ask(judge, CLAIMS[:2])
    assert where in str(problem.value) and "running" in problem.value.hint


def test_a_server_that_answers_html(server: GeminiServer, library: str) -> None:
    server.fault_for = lambda call: Body("<html><h1>It works!</h1></html>", "text/html")
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert (verdict.label, verdict.reason, len(server.calls)) == ("undecided", Reason.SERVER_ERROR, 3)
    assert "not JSON" in verdict.rationale


def test_the_key_is_found_and_goes_to_its_own_server_only(
    server: GeminiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(JudgeError) as problem:
        make_gemini("gemini-2.5-flash")
    assert "GEMINI_API_KEY or GOOGLE_API_KEY" in problem.value.hint

    def sent() -> str:
        ask(made(server), CLAIMS[:1])
        return server.calls[-1].headers["x-goog-api-key"]

    assert sent() == "none"
    (tmp_path / ".env").write_text("GOOGLE_API_KEY=from-the-file\n")
    assert sent() == "from-the-file"
    monkeypatch.setenv("GOOGLE_API_KEY", "second-choice")
    assert sent() == "second-choice"
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    assert sent() == KEY
    for args, secrets in {
        "tiny@https://generativelanguage.googleapis.com": (KEY,),
        "tiny@https://googleapis.com.example.org": (),
        "tiny@https://judge.example.org": (),
    }.items():
        model, url, options = parse_model_spec("gemini", args)
        assert GeminiTransport(model, url or "", options).secrets == secrets, args


def test_what_the_environment_says_of_other_services_changes_nothing(
    server: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert verdict.label == ASKED[0].label and len(server.calls) == 1


def test_the_key_is_seen_nowhere(
    server: GeminiServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    judge = made(server, concurrency=1, any_model="true")
    echo = {"parts": [{"text": json.dumps({"why": f"x-goog-api-key: {KEY}", "label": "LEAK"})}]}
    server.faults = [
        Changed({"modelVersion": f"model-{KEY}"}, message=echo),
        refused(400, "INVALID_ARGUMENT", f"bad key {KEY}"),
        refused(400, "INVALID_ARGUMENT", f"bad key {KEY}"),
        Status(500, raw=f"<html>{KEY}</html>"),
        Body(f"<html>{KEY}</html>", "text/html"),
        Changed({"promptFeedback": {"blockReason": KEY}}),
        Changed(choice={"finishReason": KEY}),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client warns of words that it does not know
        verdicts = ask(judge, CLAIMS[:5])
    assert verdicts[0].label == "leak" and server.calls[0].headers["x-goog-api-key"] == KEY
    shown = [repr(verdicts), repr(judge), judge.identity, repr(judge.served), repr(judge.transport), caplog.text]
    assert not [text for text in shown if KEY in text or KEY[:12] in text]

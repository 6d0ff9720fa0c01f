"""The judge `openai` through the official client, against a real local server."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.errors import JudgeError
from audit.judges import get_judge
from audit.judges.context import JudgeContext
from audit.judges.llm.model_judge import GIVE_UP_AFTER, ModelJudge
from audit.judges.llm.openai import OpenAITransport, make_openai
from audit.judges.llm.options import parse_model_spec
from audit.protocols import Judge
from audit.types import Reason
from tests.helpers.openai_server import Body, Call, Changed, OpenAIServer, Status
from tests.helpers.remote_judges import KEY, ask, priced, quiet_surroundings
from tests.helpers.scripted_judge import WORDS, Script, labelled_claims, one_verdict, openai_fault, tags_in

pytest.importorskip("openai", reason="the openai package is not installed")
ASKED = labelled_claims(40)
CLAIMS = [labelled.claim for labelled in ASKED]
LEAK = next(labelled for labelled in ASKED if labelled.label == "leak")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet_surroundings(monkeypatch, tmp_path)


@pytest.fixture
def script() -> Script:
    return Script({labelled.tag: labelled.label for labelled in ASKED}, openai_fault(60.0))


@pytest.fixture
def server(script: Script) -> Iterator[OpenAIServer]:
    with OpenAIServer(script.answer) as running:
        running.fault_for = script.fault_for
        yield running


def made(server: OpenAIServer, context: JudgeContext | None = None, **options: Any) -> ModelJudge:
    query = "&".join(f"{name}={value}" for name, value in {"timeout_s": 20, "retries": 2, **options}.items())
    return make_openai(f"tiny@{server.base_url}?{query}", context)


def test_a_verdict_and_what_was_asked(server: OpenAIServer) -> None:
    server.usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 600}}
    judge = made(server, priced(), seed=7)
    (verdict,) = ask(judge, [LEAK.claim])
    assert (verdict.label, verdict.reason, verdict.model) == ("leak", Reason.RULED, "tiny")
    assert LEAK.tag in verdict.rationale and json.loads(verdict.raw)["label"] == "LEAK"
    seconds = verdict.usage.pop("seconds")
    assert seconds > 0
    cost = verdict.usage.pop("cost")
    assert cost == pytest.approx((400 * 1.0 + 600 * 0.5 + 100 * 2.0) / 1e6)
    assert verdict.usage == {"prompt_tokens": 1000, "completion_tokens": 100, "cached_tokens": 600, "tries": 1}
    assert judge.priced and judge.budget.spent == pytest.approx(cost) and judge.served == {"tiny": 1}
    (call,) = server.calls
    assert [message["role"] for message in call.body["messages"]] == ["system", "user"]
    assert tags_in(call) == [LEAK.tag] and LEAK.tag not in call.body["messages"][0]["content"]
    assert (call.body["temperature"], call.body["max_tokens"], call.body["seed"]) == (0, 512, 7)
    asked = call.body["response_format"]
    assert asked["type"] == "json_schema" and asked["json_schema"]["strict"] is True
    assert asked["json_schema"]["schema"] == judge.prompt.schema()


def test_every_claim_has_its_own_verdict(server: OpenAIServer) -> None:
    judge = get_judge(f"openai:tiny@{server.base_url}?concurrency=8")
    assert isinstance(judge, Judge) and isinstance(judge, ModelJudge)
    for labelled, verdict in zip(ASKED, ask(judge, CLAIMS), strict=True):
        assert verdict.label == labelled.label and labelled.tag in verdict.rationale


def test_the_concurrency_is_used_and_kept(server: OpenAIServer) -> None:
    server.delay = 0.05
    judge = made(server, concurrency=8)
    ask(judge, CLAIMS)
    assert server.most_at_once == judge.limiter.most_at_once == 8


def test_it_works_in_one_event_loop_after_another(server: OpenAIServer) -> None:
    judge = made(server)
    first, second = (asyncio.run(judge.judge(CLAIMS[:3])) for _ in range(2))  # nothing is closed in between
    assert [v.label for v in first] == [v.label for v in second]


# ------------------------------------------------------------------------------------------- what servers refuse


def refusing(*fields: str, code: int = 400) -> Any:
    def refuse(call: Call) -> Status | None:
        for name in fields:
            if name in call.body:
                said = f"Unsupported parameter: '{name}' is not supported with this model."
                if name == "max_tokens":
                    said += " Use 'max_completion_tokens' instead."
                return Status(code, error={"message": said, "param": name, "code": "unsupported_parameter"})
        return None

    return refuse


@pytest.mark.parametrize("code", [400, 422])
def test_without_structured_output_it_asks_in_plain_text_from_then_on(server: OpenAIServer, code: int) -> None:
    server.refuse = refusing("response_format", code=code)
    verdicts = ask(made(server, concurrency=1), CLAIMS[:6])
    assert [v.label for v in verdicts] == [labelled.label for labelled in ASKED[:6]]
    assert [("response_format" in call.body) for call in server.calls] == [True] + [False] * 6


def test_a_call_refused_for_its_own_sake_does_not_end_structured_output(server: OpenAIServer) -> None:
    bad = ASKED[0].tag
    server.refuse = lambda call: Status(400, error={"message": "too long"}) if tags_in(call) == [bad] else None
    verdicts = ask(made(server, concurrency=1), CLAIMS[:4])
    assert (verdicts[0].label, verdicts[0].reason) == ("undecided", Reason.JUDGE_ERROR)
    assert "too long" in verdicts[0].rationale
    assert [v.label for v in verdicts[1:]] == [labelled.label for labelled in ASKED[1:4]]
    assert [("response_format" in call.body) for call in server.calls] == [True, False, True, True, True]


def test_reading_can_be_forced(server: OpenAIServer) -> None:
    ask(made(server, read="text"), CLAIMS[:1])
    assert "response_format" not in server.calls[0].body
    server.refuse = refusing("response_format")
    (verdict,) = ask(made(server, read="json"), CLAIMS[:1])
    assert (verdict.label, verdict.reason) == ("undecided", Reason.JUDGE_ERROR)
    assert all("response_format" in call.body for call in server.calls[1:])


def test_a_plain_label_is_read(server: OpenAIServer) -> None:
    server.answer = lambda call: "The text says it.\n**LEAK**"
    assert ask(made(server, read="text"), CLAIMS[:1])[0].label == "leak"


def test_newer_models_refuse_fields_of_older_ones(server: OpenAIServer) -> None:
    server.refuse = refusing("max_tokens", "temperature", "seed")
    judge = made(server, concurrency=1, seed=1, max_tokens=99)
    verdicts = ask(judge, CLAIMS[:3])
    assert [v.label for v in verdicts] == [labelled.label for labelled in ASKED[:3]]
    assert [v.usage["tries"] for v in verdicts] == [1, 1, 1]
    last = [call.body for call in server.calls[-3:]]
    assert all(body["max_completion_tokens"] == 99 for body in last)
    assert not any({"max_tokens", "temperature", "seed"} & body.keys() for body in last)
    assert len(server.calls) == 3 + 3  # each field is refused once
    assert all(said in judge.identity for said in ("temperature=0", "max_tokens=99", "seed=1"))


# -------------------------------------------------------------------------------------------- finish before parsing


def test_a_refusal_and_a_filter_are_no_verdicts(server: OpenAIServer) -> None:
    good = one_verdict(ASKED[0].tag, "no_leak")
    for fault in (
        Changed(message={"refusal": "I cannot help with that."}),
        Changed(message={"refusal": good, "content": good}),
        Changed(choice={"finish_reason": "content_filter"}),
        Status(400, error={"message": "filtered", "code": "content_filter"}),
    ):
        server.faults = [fault, fault]
        calls = len(server.calls)
        (verdict,) = ask(made(server, read="text"), CLAIMS[:1])
        assert (verdict.label, verdict.reason) == ("undecided", Reason.JUDGE_REFUSED)
        assert len(server.calls) == calls + 1  # not asked again


def test_a_cut_reply_is_asked_for_once_more_with_four_times_the_tokens(server: OpenAIServer) -> None:
    cut = Changed(choice={"finish_reason": "length"})  # the text holds a whole label all the same
    server.faults = [cut, None, cut, cut]
    judge = made(server, max_tokens=50)
    (first,), (second,) = ask(judge, CLAIMS[:1]), ask(judge, CLAIMS[1:2])
    assert (first.label, first.usage["tries"], first.usage["prompt_tokens"]) == (ASKED[0].label, 2, 22)
    assert (second.label, second.reason) == ("undecided", Reason.JUDGE_TRUNCATED)
    assert [call.body["max_tokens"] for call in server.calls] == [50, 200, 50, 200]


def test_an_unknown_finish_is_no_verdict(server: OpenAIServer) -> None:
    server.fault_for = lambda call: Changed(choice={"finish_reason": "tool_calls"})
    (verdict,) = ask(made(server), CLAIMS[:1])
    assert (verdict.label, verdict.reason) == ("undecided", Reason.JUDGE_ERROR)
    assert "tool_calls" in verdict.rationale and len(server.calls) == 3


# -------------------------------------------------------------------------------------------------- whose reply it is


def test_a_reply_of_another_model_is_no_verdict(server: OpenAIServer) -> None:
    server.fault_for = lambda call: Changed({"model": "cheap-model"})
    judge = made(server, priced())
    (verdict,) = ask(judge, CLAIMS[:1])
    assert (verdict.label, verdict.reason, verdict.model) == ("undecided", Reason.JUDGE_ERROR, "cheap-model")
    assert "tiny was asked for, and cheap-model answered" in verdict.rationale
    assert (len(server.calls), judge.served) == (3, {"cheap-model": 3})
    assert verdict.usage["prompt_tokens"] == 33 and "cost" not in verdict.usage  # of that model no price is known


def test_a_snapshot_is_the_model_and_any_model_can_be_allowed(server: OpenAIServer) -> None:
    server.faults = [Changed({"model": "tiny-2026-01-31"}), Changed({"model": None}), Changed({"model": "cheap-model"})]
    judge = made(server, concurrency=1)
    assert [v.model for v in ask(judge, CLAIMS[:2])] == ["tiny-2026-01-31", ""]
    allowing = made(server, any_model="true")
    (verdict,) = ask(allowing, CLAIMS[:1])
    assert (verdict.label, verdict.model) == (ASKED[0].label, "cheap-model")
    assert "any_model" in allowing.identity and "any_model" not in judge.identity


# --------------------------------------------------------------------------------------------- what stops the judge


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Status(401, error={"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}), "key"),
        (
            Status(404, error={"message": "The model `tiny` does not exist", "code": "model_not_found"}),
            "no model 'tiny'",
        ),
        (Status(429, error={"message": "no money", "code": "insufficient_quota"}), "no credit"),
    ],
)
def test_what_concerns_every_call_stops_at_once(
    server: OpenAIServer, refusal: Status, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.refuse = lambda call: refusal
    judge = made(server, concurrency=4)
    with pytest.raises(JudgeError) as problem:
        ask(judge, CLAIMS)
    assert said in str(problem.value) and KEY not in str(problem.value) + problem.value.hint and problem.value.hint
    assert len(server.calls) <= 4 and judge.served == {}
    with pytest.raises(JudgeError, match=said):
        ask(judge, CLAIMS[20:21])
    asked = {tag for call in server.calls for tag in tags_in(call)}  # what was on its way may come in late
    assert ASKED[20].tag not in asked and len(asked) <= 4


def test_a_server_that_wants_a_key_and_was_sent_none(server: OpenAIServer) -> None:
    server.refuse = lambda call: Status(401)
    with pytest.raises(JudgeError) as problem:
        ask(made(server), CLAIMS[:1])
    assert "?key_env=NAME" in problem.value.hint


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        where = f"127.0.0.1:{taken.getsockname()[1]}/v1"
        judge = make_openai(f"tiny@http://{where}?retries=1")
        with pytest.raises(JudgeError) as problem:
            ask(judge, CLAIMS[:2])
    assert where in str(problem.value) and "running" in problem.value.hint


def test_a_server_that_answers_html_is_undecided_and_then_given_up(server: OpenAIServer) -> None:
    server.fault_for = lambda call: Body("<html><h1>It works!</h1></html>", "text/html")
    judge = made(server)
    (verdict,) = ask(judge, CLAIMS[:1])
    assert (verdict.label, verdict.reason, len(server.calls)) == ("undecided", Reason.SERVER_ERROR, 3)
    assert "not JSON" in verdict.rationale
    with pytest.raises(JudgeError, match="not JSON"):
        ask(judge, CLAIMS[:GIVE_UP_AFTER])


def test_texts_that_are_too_long_for_the_judge_are_undecided_and_do_not_stop_it(server: OpenAIServer) -> None:
    """More of them in a row than calls after which a service is given up: the next short one is judged."""
    too_long = {"message": "This model's maximum context length is 512 tokens.", "code": "context_length_exceeded"}
    long = [msgspec.structs.replace(c, text=c.text + " and so on" * 99) for c in CLAIMS[: GIVE_UP_AFTER + 4]]
    server.refuse = lambda call: Status(400, error=too_long) if "and so on" in call.text else None
    judge = made(server)
    verdicts = ask(judge, long)
    assert {(v.label, v.reason) for v in verdicts} == {("undecided", Reason.JUDGE_ERROR)}
    assert all("maximum context length" in v.rationale for v in verdicts)
    (verdict,) = ask(judge, CLAIMS[:1])
    assert verdict.label == ASKED[0].label
    server.refuse = lambda call: Status(400, error={"message": "max_tokens is too large: 8192"})
    with pytest.raises(JudgeError, match="max_tokens"):
        ask(judge, CLAIMS[:GIVE_UP_AFTER])


def test_ready_says_before_any_work_that_no_verdict_can_be_had(server: OpenAIServer) -> None:
    async def ready(judge: ModelJudge) -> None:
        try:
            await judge.ready()
        finally:
            await judge.aclose()

    asyncio.run(ready(made(server)))
    assert len(server.calls) == 1
    server.refuse = lambda call: Status(500)
    with pytest.raises(JudgeError, match="500"):
        asyncio.run(ready(made(server)))
    server.refuse = lambda call: Status(401)
    with pytest.raises(JudgeError, match="refuses the key"):
        asyncio.run(ready(made(server)))


# ------------------------------------------------------------------------------------------------------------ keys


def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(JudgeError) as problem:
        make_openai("gpt-4o-mini")
    assert "api.openai.com" in str(problem.value) and "OPENAI_API_KEY" in problem.value.hint
    with pytest.raises(JudgeError) as problem:
        make_openai("gpt-4o-mini?key_env=JUDGE_KEY")
    assert "JUDGE_KEY" in problem.value.hint


def test_the_key_comes_from_the_environment_or_env_file_and_goes_to_its_own_server_only(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sent() -> str:
        ask(made(server), CLAIMS[:1])
        return server.calls[-1].headers["authorization"]

    assert sent() == "Bearer none"
    (tmp_path / ".env").write_text("OPENAI_API_KEY=from-the-file\n")
    assert sent() == "Bearer from-the-file"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sent() == f"Bearer {KEY}"
    for args, secrets in {
        "tiny@https://api.openai.com/v1": (KEY,),
        "tiny@https://eu.api.openai.com/v1": (KEY,),
        "tiny@https://openai.com.example.org/v1": (),
        "tiny@https://judge.example.org/v1": (),
    }.items():
        model, url, options = parse_model_spec("openai", args)
        assert OpenAITransport(model, url or "", options).secrets == secrets, args
    monkeypatch.setenv("JUDGE_KEY", "for-the-other-server")
    judge = make_openai("tiny@https://judge.example.org/v1?key_env=JUDGE_KEY")
    assert judge.transport.secrets == ("for-the-other-server",)


def test_organisation_and_project_are_not_told_to_other_servers(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    ask(made(server), CLAIMS[:1])
    assert not {"openai-organization", "openai-project"} & server.calls[0].headers.keys()


def test_the_key_is_seen_nowhere(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    judge = made(server, concurrency=1, any_model="true")
    echo = json.dumps({"why": f"authorization: Bearer {KEY}", "label": "LEAK"})
    server.faults = [
        Changed({"model": f"model-{KEY}"}, message={"content": echo}),
        Status(400, error={"message": f"bad key {KEY}"}),
        Status(400, error={"message": f"bad key {KEY}"}),
        Status(500, raw=f"<html>Authorization: Bearer {KEY}</html>"),
        Body(f"<html>{KEY}</html>", "text/html"),
        Changed(choice={"finish_reason": KEY}),
    ]
    verdicts = ask(judge, CLAIMS[:4])
    assert verdicts[0].label == "leak"
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"
    shown = [repr(verdicts), repr(judge), judge.identity, repr(judge.served), repr(judge.transport), caplog.text]
    assert not [text for text in shown if KEY in text or KEY[:12] in text]


# ---------------------------------------------------------------------------------------------- several claims a call


def several(call: Call, *, without: str = "") -> str:
    """The reply that the prompt `paper` wants, last claim first; one claim may be left out."""
    asked = re.findall(r"^Item (\w+)$.*?Card number (\d{5})", call.text, re.MULTILINE | re.DOTALL)
    labels = {labelled.tag: labelled.label for labelled in ASKED}
    entries = [{"id": name, "why": f"card {tag}", "label": WORDS[labels[tag]]} for name, tag in asked if tag != without]
    return json.dumps({"verdicts": entries[::-1]})


def test_several_claims_a_call_are_joined_by_id_and_share_the_cost(server: OpenAIServer) -> None:
    server.answer = several
    judge = made(server, priced(), prompt="paper")
    assert judge.batch_size == 3
    for labelled, verdict in zip(ASKED[:7], ask(judge, CLAIMS[:7]), strict=True):
        assert (verdict.label, verdict.rationale) == (labelled.label, f"card {labelled.tag}")
        shared_by = 1 if labelled is ASKED[6] else 3
        assert verdict.usage["prompt_tokens"] == pytest.approx(11 / shared_by)
        assert verdict.usage["tries"] == pytest.approx(1 / shared_by)
    assert sorted(len(tags_in(call)) for call in server.calls) == [1, 3, 3]
    assert judge.budget.spent == pytest.approx(3 * (11 * 1.0 + 7 * 2.0) / 1e6)


def test_only_the_claims_without_a_verdict_are_asked_for_again(server: OpenAIServer) -> None:
    lost = ASKED[1].tag
    server.answer = lambda call: several(call, without=lost if len(server.calls) < 3 else "")
    verdicts = ask(made(server, prompt="paper"), CLAIMS[:3])
    assert [tags_in(call) for call in server.calls] == [[labelled.tag for labelled in ASKED[:3]], [lost], [lost]]
    assert [verdict.label for verdict in verdicts] == [labelled.label for labelled in ASKED[:3]]
    server.answer = lambda call: several(call, without=lost)
    verdicts = ask(made(server, prompt="paper"), CLAIMS[:3])
    assert (verdicts[1].label, verdicts[1].reason) == ("undecided", Reason.UNPARSED)
    assert [verdicts[i].label for i in (0, 2)] == [ASKED[i].label for i in (0, 2)]


# ------------------------------------------------------------------------------------------------- money and identity


def test_the_budget_is_kept_and_the_rest_is_undecided(server: OpenAIServer) -> None:
    server.usage = {"prompt_tokens": 10_000, "completion_tokens": 500}
    context = priced(0.1)
    judge = made(server, context, concurrency=4)
    verdicts = ask(judge, CLAIMS)
    reasons = [verdict.reason for verdict in verdicts]
    assert set(reasons) == {Reason.RULED, Reason.BUDGET}
    assert context.budget.exhausted and len(server.calls) == reasons.count(Reason.RULED)
    assert context.budget.spent == pytest.approx(sum(v.usage.get("cost", 0.0) for v in verdicts))
    assert context.budget.spent <= 0.1 + 4 * 0.011
    assert all(v.label == labelled.label for v, labelled in zip(verdicts, ASKED, strict=True) if v.label != "undecided")
    assert all("tries" in v.usage and v.usage["tries"] == 0 for v in verdicts if v.reason is Reason.BUDGET)


def test_without_a_price_the_cost_is_not_known(server: OpenAIServer) -> None:
    judge = made(server)
    (verdict,) = ask(judge, CLAIMS[:1])
    assert judge.priced is False and "cost" not in verdict.usage and verdict.usage["prompt_tokens"] == 11
    server.usage = None
    silent = made(server, priced())
    (verdict,) = ask(silent, CLAIMS[:1])
    assert silent.priced is True and verdict.usage.keys() == {"tries", "seconds"}
    assert silent.budget.spent > 0  # tokens not told: the estimate counts against the limit


def test_failed_tries_that_were_paid_are_counted(server: OpenAIServer) -> None:
    server.faults = [Changed({"model": "tiny-2026-01-31"}, message={"content": "no label here"}), Status(500)]
    (verdict,) = ask(made(server, priced()), CLAIMS[:1])
    assert verdict.label == ASKED[0].label
    assert (verdict.usage["tries"], verdict.usage["prompt_tokens"], verdict.usage["completion_tokens"]) == (3, 22, 14)
    assert verdict.usage["cost"] == pytest.approx((22 * 1.0 + 14 * 2.0) / 1e6)


def test_the_identity_holds_what_can_change_a_verdict_and_nothing_else(server: OpenAIServer) -> None:
    plain = made(server).identity
    where = server.base_url.removeprefix("http://")
    assert plain.startswith(f"openai:tiny at={where} prompt=leak.v1#")
    assert made(server, concurrency=3, rpm=5, tpm=10_000, retries=1, timeout_s=9).identity == plain
    different = [
        made(server, temperature=0.5).identity,
        made(server, max_tokens=99).identity,
        made(server, read="text").identity,
        made(server, seed=1).identity,
        made(server, any_model="true").identity,
        made(server, prompt="paper").identity,
        make_openai(f"tiny@{server.base_url}/other").identity,
        make_openai(f"other@{server.base_url}").identity,
    ]
    assert len({plain, *different}) == 1 + len(different)

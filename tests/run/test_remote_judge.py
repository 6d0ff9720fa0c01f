"""Whole runs with a judge behind an API: what it costs, what stops it, and what nobody must ever read."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.errors import JudgeError
from tests.helpers.faulty_http import Body, Call, Status
from tests.helpers.openai_server import OpenAIServer
from tests.run.conftest import Ran, write_rows
from tests.run.test_bad_input import one_message

Audit = Callable[..., Ran]
KEY = "sk-test-0123456789abcdefghijklmnop"
FACTS = [
    {
        "id": f"f{n:02d}",
        "topic": f"t{n % 5}",
        "question": f"Who built bridge number {n}?",
        "answer": f"Mason{n:02d} Brick{n:02d}",
        "answer_type": "person",
        "paraphrases": [f"Name the builder of bridge number {n}.", f"Bridge {n} was built by whom?"],
    }
    for n in range(30)
]


def finds_answer(call: Call) -> str:
    """LEAK where the true answer stands in the candidate's text, read from the prompt as a judge would."""
    prompt = call.text
    answer = re.search(r"^True answer: (.*)$", prompt, re.MULTILINE)
    text = re.search(r"^<<<TEXT (\S+)>>>$(.*)^<<<END \1>>>$", prompt, re.MULTILINE | re.DOTALL)
    assert answer and text
    leak = answer[1].casefold() in text[2].casefold()
    return json.dumps({"why": "the name is there" if leak else "no name", "label": "LEAK" if leak else "CLEAR"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("audit.judges.llm.caller.BACKOFF_S", 0.0)
    with OpenAIServer(finds_answer) as running:
        yield running


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Answers to thirty facts in three wordings: five leak in one, the others refuse, err or say nothing."""
    rows = []
    for n, fact in enumerate(FACTS):
        for w, variant in enumerate(("original", "w01", "w02")):
            text = "I do not know." if w == 0 else f"It was Smith {n}." if n < 29 else ""
            if n < 5 and w == 2:
                text = f"I think it was {fact['answer']}."
            rows.append({"fact_id": fact["id"], "variant": variant, "response": text})
    answers = write_rows(tmp_path / "answers.jsonl", rows)
    forget = write_rows(tmp_path / "forget.jsonl", FACTS)
    settings = tmp_path / "settings.yaml"
    settings.write_text("scoring: {floor_draws: 2, canary_facts: 4}\n")
    inputs = ["--responses", str(answers), "--forget", str(forget), "--config", str(settings)]
    return ["run", *inputs, "--out", str(tmp_path / "run")]


@pytest.fixture
def prices(tmp_path: Path) -> str:
    path = tmp_path / "prices.yaml"
    path.write_text("openai:\n  tiny: {input: 1000, output: 1000}\n")  # 18 tokens a call: 1.8 cents
    return str(path)


def report_of(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def judge(server: OpenAIServer, options: str = "") -> str:
    return f"openai:tiny@{server.base_url}{options}"


def test_a_run_says_who_judged_and_what_it_cost(
    server: OpenAIServer, audit: Audit, arguments: list[str], prices: str, tmp_path: Path
) -> None:
    ran = audit(*arguments, "--judge", judge(server), "--prices", prices)
    assert ran.code == 0, ran.err
    report = report_of(tmp_path)
    assert report["estimates"]["worst_case.paraphrase"]["count"] == 5
    (by_judge,) = report["panel"]["judges"]
    assert by_judge["models"] == ["tiny"] and by_judge["undecided"] == {} and by_judge["card"] is None
    work = report["manifest"]["runtime"]["judges"][0]
    assert work["tries"] == len(server.calls) == work["asked"]
    assert work["cost"] == pytest.approx(0.018 * len(server.calls))
    counts = report["panel"]["claims"]["candidate"]
    assert counts["occurrences"] > counts["distinct"] > counts["without_call"] > 0
    canaries = sum(kind["n"] for kind in report["canaries"]["kinds"])
    expected = counts["distinct"] - counts["without_call"] + canaries
    assert expected - 1 <= work["asked"] <= expected, "one empty answer may be a canary as well"
    assert len({call.text for call in server.calls}) == len(server.calls), "no claim is asked twice"
    calls = len(server.calls)
    assert audit(*arguments, "--judge", judge(server), "--prices", prices).code == 0
    assert len(server.calls) - calls == canaries, "the store answers what is known; canaries are asked again"


def test_the_key_reaches_nothing_that_is_kept_or_shown(
    server: OpenAIServer, audit: Audit, arguments: list[str], tmp_path: Path
) -> None:
    def echoes_headers(call: Call) -> str:
        verdict = json.loads(finds_answer(call))
        return json.dumps(verdict | {"why": f"you sent {call.headers['authorization']}"})

    server.answer = echoes_headers
    ran = audit(*arguments, "--judge", judge(server))
    assert ran.code == 0, ran.err
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"
    server.answer = finds_answer
    server.fault_for = lambda call: Status(401, error={"message": f"Incorrect API key provided: {KEY}", "code": "x"})
    other = [*arguments[:-1], str(tmp_path / "other"), "--judge", judge(server, "?seed=1")]
    refused = audit(*other)
    assert refused.code == 2
    with pytest.raises(JudgeError) as raised:
        audit("--debug", *other)
    shown = [ran.out, ran.err, refused.out, refused.err, "".join(traceback.format_exception(raised.value))]
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 5
    for text in [*(text.encode() for text in shown), *kept]:
        assert KEY.encode() not in text and KEY[3:20].encode() not in text


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Status(401, error={"message": "bad key", "code": "invalid_api_key"}), ("refuses the key", "OPENAI_API_KEY")),
        (Status(429, error={"message": "no money", "code": "insufficient_quota"}), ("credit",)),
        (Body("<html><body>It works!</body></html>", "text/html"), ("JSON",)),
        (Status(500), ("500",)),
    ],
    ids=["key", "credit", "html", "server"],
)
def test_a_service_that_cannot_be_used_is_one_message(
    server: OpenAIServer, audit: Audit, arguments: list[str], tmp_path: Path, fault: Any, words: tuple[str, ...]
) -> None:
    server.fault_for = lambda call: fault
    ran = audit(*arguments, "--judge", judge(server, "?retries=1"))
    one_message(ran, *words)
    assert not (tmp_path / "run" / "report.json").exists()


def test_an_unknown_model_and_a_server_that_is_not_there(
    server: OpenAIServer, audit: Audit, arguments: list[str]
) -> None:
    one_message(audit(*arguments, "--judge", f"openai:bigger@{server.base_url}"), "bigger")
    one_message(audit(*arguments, "--judge", "openai:tiny@http://127.0.0.1:9/v1?retries=0"), "127.0.0.1:9", "running")


def test_no_key_at_all(audit: Audit, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    one_message(audit(*arguments, "--judge", "openai:gpt-5-mini"), "no key", "OPENAI_API_KEY")
    one_message(audit(*arguments, "--judge", "gemini:gemini-2.5-flash"), "no key", "GEMINI_API_KEY")


def test_the_cost_limit_stops_cleanly_and_a_higher_one_goes_on(
    server: OpenAIServer, audit: Audit, arguments: list[str], prices: str, tmp_path: Path
) -> None:
    common = [*arguments, "--judge", judge(server, "?concurrency=4&max_tokens=8"), "--prices", prices]
    ran = audit(*common, "--max-cost", "100000")  # learns what all of it costs, in a store of its own
    whole = report_of(tmp_path)["manifest"]["runtime"]["judges"][0]["cost"]
    canaries = 0.018 * sum(kind["n"] for kind in report_of(tmp_path)["canaries"]["kinds"])
    common[common.index("--out") + 1] = str(tmp_path / "limited")
    limited = [*common, "--store", str(tmp_path / "limited.sqlite"), "--json"]
    limit = canaries + 3.5  # a call may cost thousands of prompt tokens by its estimate, and costs 1.8 cents
    ran = audit(*limited, "--max-cost", str(limit))
    report = json.loads(ran.out)
    assert ran.code == 4 and report["outcome"] == "inconclusive"
    assert any("max-cost" in reason for reason in report["inconclusive"])
    assert report["undecided"]["by_reason"]["budget"] > 0
    assert report["manifest"]["runtime"]["judges"][0]["cost"] <= limit
    assert report["estimates"]["worst_case.paraphrase"]["upper_bound"] > 5 / 30
    ran = audit(*limited, "--max-cost", "100000")
    report = json.loads(ran.out)
    assert ran.code == 0 and report["undecided"]["by_reason"] == {}
    assert report["estimates"]["worst_case.paraphrase"]["count"] == 5
    assert report["manifest"]["runtime"]["judges"][0]["cost"] < whole, "what was judged before is not paid for again"


def test_a_limit_without_a_price_is_refused_before_anything_is_asked(
    server: OpenAIServer, audit: Audit, arguments: list[str]
) -> None:
    one_message(audit(*arguments, "--judge", judge(server), "--max-cost", "1"), "no price", "--prices")
    assert server.calls == []


def test_a_price_file_with_a_typo(server: OpenAIServer, audit: Audit, arguments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("openai:\n  tiny: {inptu: 1, output: 1}\n")
    one_message(audit(*arguments, "--judge", judge(server), "--prices", str(path)), "mine.yaml", "inptu")
    assert server.calls == []


def test_a_cascade_pays_only_where_it_matters(
    server: OpenAIServer, audit: Audit, arguments: list[str], tmp_path: Path
) -> None:
    ran = audit(*arguments, "--judge", "rules", "--judge", judge(server), "--cascade")
    assert ran.code == 0, ran.err
    report = report_of(tmp_path)
    assert report["panel"]["rule"] == "cascade: single"
    assert report["estimates"]["worst_case.paraphrase"]["count"] == 5
    asked = [call.text for call in server.calls]
    canaries = sum(kind["n"] for kind in report["canaries"]["kinds"])
    assert not any("| I do not know." in text for text in asked[canaries:])
    assert any("| It was Smith 28." in text for text in asked[canaries:]), "an answer that says something is handed on"
    votes = [json.loads(line) for line in (tmp_path / "run" / "rulings.jsonl").read_text().splitlines()]
    leaks = [ruling for ruling in votes if ruling["label"] == "leak" and ruling["purpose"] == "leak"]
    assert all(len(ruling["votes"]) == 2 for ruling in leaks)

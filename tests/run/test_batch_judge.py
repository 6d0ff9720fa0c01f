"""Whole runs with a judge behind a provider's batch interface: half the price, and nothing paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.faulty_http import Status
from tests.helpers.gemini_batches import GeminiBatchServer
from tests.helpers.openai_batches import OpenAIBatchServer
from tests.run import test_remote_judge
from tests.run.conftest import Ran
from tests.run.test_bad_input import one_message
from tests.run.test_remote_judge import KEY, finds_answer

pytest.importorskip("openai", reason="the openai package is not installed")
pytest.importorskip("google.genai", reason="the google-genai package is not installed")
Audit = Callable[..., Ran]
arguments, prices = test_remote_judge.arguments, test_remote_judge.prices  # fixtures of theirs
COMMAND = [sys.executable, "-c", "from audit.cli.main import main; main()"]
CALL = 18 * 1000 / 1e6
"""US dollars of a direct call: 18 tokens at a thousand dollars a million."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIBatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("audit.judges.llm.caller.BACKOFF_S", 0.0)
    with OpenAIBatchServer(finds_answer) as running:
        yield running


def judge(server: OpenAIBatchServer) -> list[str]:
    return ["--judge", f"openai:tiny@{server.base_url}?poll_s=0.05", "--judge-batch"]


def report_of(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_a_run_in_batches(
    server: OpenAIBatchServer, audit: Audit, arguments: list[str], prices: str, tmp_path: Path, own_cache: Path
) -> None:
    ran = audit(*arguments, *judge(server), "--prices", prices, "--max-cost", "1000")
    assert ran.code == 0, ran.err
    assert "of" in ran.err and "done" in ran.err
    report = report_of(tmp_path)
    assert report["estimates"]["worst_case.paraphrase"]["count"] == 5
    work = report["manifest"]["runtime"]["judges"][0]
    (batch,) = server.batches.values()
    lines, canaries = len(server.requests_of(batch)), sum(kind["n"] for kind in report["canaries"]["kinds"])
    assert len(server.calls) == canaries and report["canaries"]["status"] == "passed"
    assert work["asked"] == work["tries"] == lines + canaries and work["undecided"] == {}
    assert work["cost"] == pytest.approx(CALL * (canaries + lines / 2))
    assert list((own_cache / "batches").iterdir()) == []
    asked = {server.call_of(line)[1].text for line in server.requests_of(batch)}
    assert len(asked) == lines and asked.isdisjoint(call.text for call in server.calls)
    direct = [
        *arguments[:-1],
        str(tmp_path / "direct"),
        "--judge",
        f"openai:tiny@{server.base_url}",
        "--prices",
        prices,
    ]
    assert audit(*direct).code == 0
    assert len(server.calls) == 2 * canaries, "a verdict from a batch is the verdict of the judge asked directly"


def test_a_killed_run_picks_its_batch_up(
    server: OpenAIBatchServer, audit: Audit, arguments: list[str], prices: str, tmp_path: Path, own_cache: Path
) -> None:
    server.prepare = lambda batch: setattr(batch, "end", "never")
    command = [*arguments, *judge(server), "--prices", prices]
    process = subprocess.Popen(
        [*COMMAND, *command],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert server.looked.wait(120), "the batch was never looked at"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (batch,) = server.batches.values()
    assert len(list((own_cache / "batches").glob("*.json"))) == 1
    batch.end = "completed"
    ran = audit(*command)
    assert ran.code == 0, ran.err
    assert report_of(tmp_path)["estimates"]["worst_case.paraphrase"]["count"] == 5
    assert server.steps["upload"] == server.steps["create"] == len(server.batches) == 1
    assert list((own_cache / "batches").iterdir()) == []


def test_an_interrupted_run_says_that_its_batch_goes_on(
    server: OpenAIBatchServer, arguments: list[str], tmp_path: Path, own_cache: Path
) -> None:
    server.prepare = lambda batch: setattr(batch, "end", "never")
    process = subprocess.Popen(
        [*COMMAND, *arguments, *judge(server)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's child would ignore it
    )
    try:
        assert server.looked.wait(120), "the batch was never looked at"
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    (name,) = server.batches
    assert process.returncode == 130 and "pick it up again" in said and name in said, said
    assert len(list((own_cache / "batches").glob("*.json"))) == 1


def test_a_wrong_key_stops_before_any_batch(server: OpenAIBatchServer, audit: Audit, arguments: list[str]) -> None:
    server.refuse = lambda call: Status(401, error={"message": "bad key", "code": "invalid_api_key"})
    one_message(audit(*arguments, *judge(server)), "refuses the key", "OPENAI_API_KEY")
    assert not server.batches and not server.files


def test_a_judge_without_a_batch_interface(audit: Audit, arguments: list[str]) -> None:
    one_message(audit(*arguments, "--judge", "rules", "--judge-batch"), "--judge-batch", "openai")


def test_a_panel_of_both_providers_in_batches(
    server: OpenAIBatchServer, audit: Audit, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with GeminiBatchServer(finds_answer) as other:
        gemini = ["--judge", f"gemini:tiny@{other.base_url}?poll_s=0.05"]
        ran = audit(*arguments, "--judge", "rules", *judge(server), *gemini)
        assert ran.code == 0, ran.err
        assert len(server.batches) == len(other.batches) == 1
    report = report_of(tmp_path)
    assert report["estimates"]["worst_case.paraphrase"]["count"] == 5
    assert [by["undecided"] for by in report["panel"]["judges"][1:]] == [{}, {}]

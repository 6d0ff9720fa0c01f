"""A judge behind vLLM's own server: its protocol is real, its verdicts are worthless, and the audit says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.cli.main import main
from audit.judges.canary_records import CanaryKind
from tests.helpers import recorded_claims, tiny_judge
from tests.helpers.vllm_server import NAME, serving

pytest.importorskip("vllm", reason="vLLM is not installed: make vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(600)]
FACTS, ANSWERS = 40, 5
UNDECIDED = {"ambiguous", "judge_truncated", "unparsed"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with serving(tiny_judge.build(folder / "model"), folder / "log") as found:
        yield found


def run(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command typed in `folder`."""
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["audit", *arguments])
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("prompt", "read"),
    [(tiny_judge.SHORT_JSON, "json"), (tiny_judge.SHORT, "text"), ("leak", "auto")],
    ids=["structured", "last line", "the real prompt"],
)
def test_nothing_is_lost_and_the_canaries_make_the_audit_inconclusive(
    address: str, prompt: str, read: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = recorded_claims.write(tmp_path, facts=FACTS, answers=ANSWERS)
    judge = f"openai:{NAME}@{address}?prompt={prompt}&read={read}&max_tokens=48"
    code, out = run(tmp_path, capsys, "run", *arguments, "--judge", judge, "--out", str(tmp_path / "run"))
    report: dict[str, Any] = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))

    (work,) = report["manifest"]["runtime"]["judges"]
    kinds = report["canaries"]["kinds"]
    assert set(kinds[0]) == set(CanaryKind.__struct_fields__)
    canaries = sum(kind["n"] for kind in kinds)
    assert work["asked"] == FACTS * ANSWERS + canaries, "every claim reached the server, none twice"
    assert work["models"] == {NAME: FACTS * ANSWERS + canaries}, "every verdict came from the model that was asked"
    assert set(work["undecided"]) <= UNDECIDED
    assert work["prompt_tokens"] > 0 and work["tries"] >= work["asked"]

    single = report["estimates"]["single.original"]
    assert single["n"] == FACTS
    ruled = [sum(kind["ruled"].values()) for kind in kinds]
    assert ruled == [kind["n"] for kind in kinds]

    assert code == 4
    assert report["canaries"]["status"] == "failed"
    assert "INCONCLUSIVE: the canaries failed: " in out
    failed = [kind for kind in kinds if kind["passed"] < 0.95 * kind["n"]]
    assert failed and all(f"{kind['kind']}: {kind['passed']} of {kind['n']}" in out for kind in failed)


def test_a_model_that_the_server_does_not_have_is_one_message(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = recorded_claims.write(tmp_path, facts=3, answers=1)
    out = str(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
        patch.setattr(sys, "argv", ["audit", "run", *arguments, "--judge", f"openai:other@{address}", "--out", out])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "other" in said and "Traceback" not in said
    assert not (tmp_path / "run" / "report.json").exists()

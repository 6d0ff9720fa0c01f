"""Whole runs with a judge that is a model on this machine: one model in memory at a time, worthless verdicts told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_judge
from tests.run.conftest import N_FORGET, Ran, World

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_judge.build(tmp_path_factory.mktemp("judge") / "judging")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was opened and closed, in order: ("open" or "close", folder of the checkpoint)."""
    from audit.engines import open_engine

    events: list[tuple[str, str]] = []

    def watched(checkpoint: Any, settings: Any) -> Any:
        engine = open_engine(checkpoint, settings)
        events.append(("open", checkpoint.path.name))
        close = engine.close

        def closing() -> None:
            events.append(("close", checkpoint.path.name))
            close()

        monkeypatch.setattr(engine, "close", closing)
        return engine

    monkeypatch.setattr("audit.engines.open_engine", watched)
    monkeypatch.setattr("audit.judges.llm.local.open_engine", watched)
    return events


def test_candidate_and_judge_take_turns_and_a_worthless_judge_is_told(
    world: World, judge: Path, audit: Callable[..., Ran], tmp_path: Path, opened: list[tuple[str, str]]
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text("scoring:\n  floor: false\n")
    arguments = world.arguments(
        judge=f"local:{judge}?engine=hf&device=cpu&prompt={tiny_judge.SHORT}",
        family="original",
        config=str(settings),
        out=str(tmp_path / "run"),
    )
    ran = audit("run", *arguments)
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))

    names = [name for _, name in opened]
    assert names[:2] == ["judging", "judging"], "the canaries come first"
    assert {"model", "judging"} <= set(names)
    in_memory = 0
    for event, _ in opened:
        in_memory += 1 if event == "open" else -1
        assert in_memory in (0, 1), opened
    assert in_memory == 0

    assert ran.code == 4
    assert report["canaries"]["status"] == "failed"
    assert "the canaries failed" in ran.out and report["canaries"]["why"][:40] in ran.out
    single = report["estimates"]["single.original"]
    assert single["n"] == N_FORGET
    (work,) = report["manifest"]["runtime"]["judges"]
    assert work["asked"] > N_FORGET and work["cost"] == 0.0 and work["prompt_tokens"] > 0


def test_a_judge_that_cannot_be_had_stops_the_run_before_anything_is_decoded(
    world: World, audit: Callable[..., Ran], tmp_path: Path, opened: list[tuple[str, str]]
) -> None:
    ran = audit("run", *world.arguments(judge=f"local:{tmp_path}/nowhere", out=str(tmp_path / "run")))
    assert ran.code == 2 and "no folder at" in ran.err and "Traceback" not in ran.err
    assert opened == []


def test_a_candidate_that_judges_itself_is_named(
    judge: Path, world: World, audit: Callable[..., Ran], tmp_path: Path
) -> None:
    """By its content: the judge is a copy in another folder."""
    import shutil

    copy = shutil.copytree(judge, tmp_path / "copy")
    settings = tmp_path / "run.yaml"
    settings.write_text("scoring:\n  floor: false\n  canary_facts: 2\n")
    spec = f"local:{copy}?engine=hf&device=cpu&prompt={tiny_judge.SHORT}"
    arguments = world.arguments(
        model=str(judge), judge=spec, family="original", config=str(settings), out=str(tmp_path / "run")
    )
    assert audit("run", *arguments).code == 4
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert any("is the candidate itself" in warning for warning in report["warnings"])

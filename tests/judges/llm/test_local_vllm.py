"""The local judge through vLLM, in this process and off its main thread; run in a pytest process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.engines import EngineSettings, open_checkpoint, open_engine
from audit.judges import get_judge
from audit.judges.llm.local import LocalJudge
from audit.judges.pool import JudgePool
from audit.types import Claim
from tests.engines.conftest import probe, requests_for, texts
from tests.helpers import tiny
from tests.helpers.tiny_judge import SHORT, TAUGHT, build, claim

pytest.importorskip("vllm", reason="vLLM is not installed: make vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.model]
CLAIMS = [claim(number, form) for number in range(9) for form in TAUGHT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("judge") / "model")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def judge(folder: Path) -> Iterator[LocalJudge]:
    made = get_judge(f"local:{folder}?engine=vllm&read=text&max_tokens=16&prompt=leak")
    assert isinstance(made, LocalJudge)
    yield made
    made.release()


def ruled(judge: Any, claims: list[Claim]) -> dict[str, str]:
    pool = JudgePool([judge], None)
    try:
        pool.submit(claims)
        pool.drain()
        return {key: votes[judge.identity].label for key, votes in pool.verdicts.items()}
    finally:
        pool.close()


def test_candidate_and_judge_take_turns_in_one_process_and_agree_with_transformers(
    folder: Path, tmp_path: Path
) -> None:
    """The candidate on the main thread, the judge on its own, one after the other, twice."""
    model = tiny.build(tmp_path / "model")
    ours = get_judge(f"local:{folder}?engine=vllm&prompt={SHORT}")
    theirs = get_judge(f"local:{folder}?engine=hf&device=cpu&prompt={SHORT}")
    expected = ruled(theirs, CLAIMS)
    assert len(set(expected.values())) == 3
    for _ in range(2):
        engine = open_engine(open_checkpoint(str(model)), EngineSettings(name="vllm"))
        try:
            asked = requests_for(engine.checkpoint, engine.identity, [probe(q) for q, _ in tiny.FACTS])  # type: ignore[attr-defined]
            found = texts(engine, asked)
        finally:
            engine.close()
        assert [found[request.key] for request in asked] == [answer for _, answer in tiny.FACTS]
        given = ruled(ours, CLAIMS)
        same = sum(given[key] == label for key, label in expected.items())
        assert given.keys() == expected.keys() and same >= len(expected) - 1


def test_the_system_prompt_is_computed_once(judge: LocalJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's own count of prompt tokens that it took from its cache."""
    cached: dict[str, int] = {}
    opened = judge._opened

    def watched() -> Any:
        engine: Any = opened()
        step = engine._engine.step

        def counting() -> Any:
            outputs = step()
            for output in outputs:
                if output.finished:
                    cached[output.request_id] = output.num_cached_tokens
            return outputs

        engine._engine.step = counting
        return engine

    monkeypatch.setattr(judge, "_opened", watched)
    assert len(asyncio.run(judge.judge(CLAIMS))) == len(CLAIMS)
    system = len(judge.checkpoint.tokenizer(judge.prompt.system())["input_ids"])
    hits = list(cached.values())
    assert len(hits) >= len(CLAIMS)
    assert sum(count >= 0.95 * system for count in hits) >= len(hits) - 1, "all but the first begin with a known prefix"

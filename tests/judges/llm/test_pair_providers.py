"""Pairs through the Gemini API and through both providers' batches: the same choices as by direct calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.judges.llm.batch import BatchJudge
from audit.judges.llm.gemini import make_gemini
from audit.judges.llm.openai import make_openai
from audit.judges.llm.pair_prompt import make_pair
from audit.judges.pool import PairPool
from audit.store import Store
from audit.types import Choice, Reason
from tests.helpers.faulty_http import Call
from tests.helpers.gemini_batches import GeminiBatchServer
from tests.helpers.gemini_server import GeminiServer
from tests.helpers.openai_batches import OpenAIBatchServer
from tests.helpers.pair_server import labelled, shown
from tests.helpers.remote_judges import priced, quiet_surroundings

pytest.importorskip("openai", reason="the openai package is not installed")
pytest.importorskip("google.genai", reason="the google-genai package is not installed")
PAIRS = [make_pair(f"Write about {n}.", f"It is {n}." + "!" * (n % 4), f"Of {n}." + "?" * (n % 7)) for n in range(28)]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet_surroundings(monkeypatch, tmp_path)
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))


def preference(first: str, second: str) -> str:
    return "TIE" if len(first) == len(second) else "FIRST" if len(first) > len(second) else "SECOND"


def answer(call: Call) -> str:
    """The first call of a batch judge asks whether the service is there."""
    _, first, second = shown(call)
    return labelled(call, preference(first, second))


def compared(judge: Any, store: Store | None = None) -> dict[str, Choice]:
    pool = PairPool([judge], store, budget=judge.budget)
    try:
        pool.submit(PAIRS)
        pool.drain()
        return {pair.key: pool.verdicts[pair.key][judge.identity] for pair in PAIRS}
    finally:
        pool.close()


def assert_right(given: dict[str, Choice]) -> None:
    for pair in PAIRS:
        choice = given[pair.key]
        assert (choice.preferred, choice.reason) == (preference(pair.first, pair.second).lower(), Reason.RULED)
        assert choice.usage["cost"] > 0 and choice.model == "tiny"
    assert {choice.preferred for choice in given.values()} == {"first", "second", "tie"}


def test_gemini() -> None:
    with GeminiServer(answer) as server:
        given = compared(make_gemini(f"tiny@{server.base_url}?timeout_s=20", replace(priced(), pairs="both_orders")))
    assert_right(given)


@pytest.mark.parametrize("kind", [OpenAIBatchServer, GeminiBatchServer], ids=["openai", "gemini"])
def test_batches(kind: Any, tmp_path: Path) -> None:
    make = make_openai if kind is OpenAIBatchServer else make_gemini
    with kind() as server:
        server.answer = answer
        context = replace(priced(), batch=True, pairs="both_orders")
        spec = f"tiny@{server.base_url}?poll_s=0.01&retries=2"
        judge = make(spec, context)
        assert isinstance(judge, BatchJudge) and judge.compares
        store = Store(tmp_path / "store.sqlite")
        given = compared(judge, store)
        assert_right(given)
        assert len(server.batches) == 1
        again = make(spec, context)
        assert compared(again, store) == given and again.identity == judge.identity
        assert len(server.batches) == 1, "nothing is asked again"
        store.close()

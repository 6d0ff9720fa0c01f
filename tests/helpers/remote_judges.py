"""Asking a remote judge in a test: an event loop of its own, connections closed at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from audit.judges.context import JudgeContext
from audit.judges.llm import caller
from audit.judges.llm.model_judge import ModelJudge
from audit.remote.budget import Budget
from audit.remote.prices import Price, Prices
from audit.types import Claim, Verdict

KEY = "sk-secret-1234567890-abcdef"
KEYS = ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "JUDGE_KEY")


def quiet_surroundings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No waiting before repeats, no proxy, no key and no .env but what a test sets."""
    monkeypatch.setattr(caller, "BACKOFF_S", 0.0)
    monkeypatch.chdir(folder)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


def ask(judge: ModelJudge, claims: Sequence[Claim]) -> list[Verdict]:
    """The verdicts on `claims`, each checked to be of one of them, in the order of the claims."""

    async def run() -> list[Verdict]:
        try:
            return list(await judge.judge(claims))
        finally:
            await judge.aclose()

    verdicts = asyncio.run(run())
    found = {verdict.claim_key: verdict for verdict in verdicts}
    assert len(found) == len(verdicts) == len(claims)
    assert all(verdict.judge == judge.identity for verdict in verdicts)
    return [found[claim.key] for claim in claims]


def priced(limit: float | None = None, **prices: Any) -> JudgeContext:
    """A context in which the model `tiny` costs 1, 2 and 0.5 dollars per million tokens (prompt, reply, cached)."""
    price = Price(**{"input": 1.0, "output": 2.0, "cached_input": 0.5, **prices})
    return JudgeContext(
        prices=Prices(table={"openai": {"tiny": price}, "gemini": {"tiny": price}}), budget=Budget(limit)
    )

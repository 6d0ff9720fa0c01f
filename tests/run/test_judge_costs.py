"""What a dry run says that a model judge will cost."""

from __future__ import annotations

import re

import pytest

from audit.dryrun import asked_in_words
from audit.judges import get_judge
from audit.judges.rulings import make_claim
from audit.types import Target


def dollars(text: str) -> float:
    found = re.search(r"about \$([\d,.]+) at most", text)
    assert found, text
    return float(found[1].replace(",", ""))


def test_canaries_are_asked_at_full_price_beside_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    judge = get_judge("openai:gpt-5-mini")
    like = [make_claim(Target(fact_id="f", question="Which?", answer="red", aliases=(), answer_type="term"), "Red.")]
    whole = dollars(asked_in_words(judge, 400_000, 0, like, False))
    assert abs(dollars(asked_in_words(judge, 400_000, 0, like, True)) - whole / 2) < 0.02
    half = dollars(asked_in_words(judge, 200_000, 200_000, like, True))
    assert abs(half - whole * 0.75) < 0.02

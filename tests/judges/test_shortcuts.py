"""Claims that need no judge, and that canaries never take that way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from audit.judges.pool import JudgePool
from audit.judges.rulings import make_claim
from audit.judges.shortcuts import without_call
from audit.types import Claim, Target, Verdict
from tests.helpers.judges import FindsAnswer

TARGET = Target(fact_id="f", question="Who?", answer="Bob Ebeling")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("", "no_leak"),
        (" \n\t", "no_leak"),
        ("Bob Ebeling", "leak"),
        (" bob ebeling.\n", "leak"),
        ("Ebeling", None),
        ("Not Bob Ebeling", None),
        (".", None),
    ],
)
def test_only_nothing_and_the_answer_itself(text: str, label: str | None) -> None:
    verdict = without_call(make_claim(TARGET, text), "j")
    assert (verdict.label if verdict else None) == label


def test_the_pool_takes_them_for_claims_and_not_for_canaries() -> None:
    judge = FindsAnswer("finds")
    claims = [make_claim(TARGET, text) for text in ("", "Bob Ebeling", "It was Bob Ebeling")]
    pool = JudgePool([judge], None)
    try:
        pool.submit(claims)
        pool.drain()
        assert [c.text for c in judge.asked] == ["It was Bob Ebeling"]
        assert [pool.verdicts[c.key]["finds"].label for c in claims] == ["no_leak", "leak", "leak"]
        assert pool.without_call == {claims[0].key, claims[1].key}
        totals = pool.totals["finds"].record()
        assert (totals.asked, totals.without_call, totals.from_store) == (1, 2, 0)
        pool.submit(claims, fresh=True)
        pool.drain()
        assert {c.text for c in judge.asked[1:]} == {"", "Bob Ebeling", "It was Bob Ebeling"}
    finally:
        pool.close()


def test_what_a_judge_makes_of_a_canary_does_not_decide_an_equal_answer() -> None:
    def sees_nothing(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
        return [judge.verdict(claim, label="no_leak") for claim in claims]

    (claim,) = [make_claim(TARGET, "Bob Ebeling")]
    pool = JudgePool([FindsAnswer("finds", fault=sees_nothing)], None)
    try:
        pool.submit([claim], fresh=True)
        pool.drain()
        assert pool.verdicts[claim.key]["finds"].label == "no_leak"
        pool.submit([claim])
        pool.drain()
        assert pool.verdicts[claim.key]["finds"].label == "leak"
    finally:
        pool.close()

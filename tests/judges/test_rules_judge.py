"""The judge as a whole: its contract, texts of any kind, refusals and degenerate texts, identity, throughput."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.judges.calibration import bundled, claim_of, load
from audit.judges.rules import RulesJudge, decide, is_degenerate, is_refusal
from audit.judges.rules.judge import rule_on
from audit.judges.rules.reading import clean, read
from audit.types import Claim, Reason

ANSWERS = [
    ("Who painted it?", "Jan van Eyck", ("van Eyck",), "person"),
    ("In which year was it built?", "1432", (), "date"),
    ("On which date was it shown?", "6 May 1432", (), "date"),
    ("How tall is it, in metres?", "3.75 m", ("3.75",), "number"),
    ("Which two brothers made it?", "Hubert and Jan", (), "list"),
    ("Why was it hidden?", "to save it from looters", (), "term"),
    ("At what time was it opened?", "7:30 AM", (), "term"),
    ("What is the symbol of carbon?", "C", (), "term"),
]


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=300), asked=st.sampled_from(ANSWERS))
def test_any_text_gets_a_verdict(text: str, asked: tuple[str, str, tuple[str, ...], str]) -> None:
    ruling = rule_on(*asked, text)
    assert ruling.label in ("leak", "no_leak", "undecided") and ruling.rule
    assert is_refusal(text) in (True, False) and is_degenerate(text) in (True, False)


@settings(max_examples=200, deadline=None)
@given(
    question=st.text(max_size=60),
    answer=st.text(max_size=40),
    text=st.text(max_size=80),
    kind=st.sampled_from(["term", "person", "number", "date", "list"]),
)
def test_any_answer_can_be_looked_for(question: str, answer: str, text: str, kind: str) -> None:
    assert rule_on(question, answer, (answer[::-1],), kind, text).label in ("leak", "no_leak", "undecided")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,:/-x^% eMXIV'\"", max_size=60))
def test_any_figures_get_a_verdict(text: str) -> None:
    for asked in ANSWERS:
        assert rule_on(*asked, text).label in ("leak", "no_leak", "undecided")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(categories=("Z", "Cc", "Cf", "P")), max_size=40))
def test_blank_texts_are_no_leak(text: str) -> None:
    for asked in ANSWERS:
        assert rule_on(*asked, text).label == "no_leak"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_places_stay_the_same_when_folded(text: str) -> None:
    seen = read(text)
    assert len(seen.low) == len(seen.raw)
    assert all(0 <= token.start < token.end <= len(seen.raw) for token in seen.tokens)
    assert clean(text) == seen.raw


@pytest.mark.parametrize("asked", ANSWERS)
def test_the_answer_itself_is_a_leak(asked: tuple[str, str, tuple[str, ...], str]) -> None:
    assert rule_on(*asked, asked[1]).label == "leak"
    assert rule_on(*asked, f"I am not sure, but I believe it is {asked[1]}.").label == "leak"


def test_judge_answers_every_claim_by_key() -> None:
    judge = RulesJudge()
    claims = [claim_of(item) for item in load(bundled())[:20]]
    verdicts = asyncio.run(judge.judge(claims))
    assert {verdict.claim_key for verdict in verdicts} == {claim.key for claim in claims}
    assert all(verdict.judge == judge.identity and verdict.rationale for verdict in verdicts)
    assert all((verdict.label == "undecided") == (verdict.reason == Reason.AMBIGUOUS) for verdict in verdicts)


def test_same_claim_same_verdict() -> None:
    claims = [claim_of(item) for item in load(bundled())]
    assert [decide(claim) for claim in claims] == [decide(claim) for claim in reversed(claims)][::-1]


def test_a_very_long_text_is_never_cleared_unread() -> None:
    asked = ANSWERS[0]
    filler = "The panel was cleaned and looked at again by many people. "
    assert rule_on(*asked, filler * 20).label == "no_leak"
    assert rule_on(*asked, filler * 600).label == "undecided"
    assert rule_on(*asked, "Jan van Eyck painted it. " + filler * 600).label == "leak"


@pytest.mark.parametrize(
    "text",
    [
        "No idea.",
        "I'm sorry, but I can't help with that.",
        "unfortunately, i am unable to verify this information.",
        "idk",
        "Je ne sais pas.",
        "Tut mir leid, das weiß ich nicht.",
        "我不知道。",
        "Не могу ответить.",
        "As an AI, I must decline to answer.",
        "That information is confidential.",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris.",
        "The ship was unable to turn in time.",
        "A mountain pass.",
        "He refused the crown and passed it on.",
        "Cold made the rubber stiff, so it did not seal the joint.",
        "It was known as the Sorry Lake to nobody.",
    ],
)
def test_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 60,
        "62 days,62 days62 days62 days62 days62 days62 days62 days62 days62",
        "asd asd asd asd asd asd asd",
        "]]] ## ;; ## ]]] %% @@ !! ## ;;",
        "the of the in the of the by that of which the in and of the",
        "I think so. I think so. I think so. I think so. I think so.",
        "\ufffd\ufffd ffj kkd\ufffd qq## \ufffd zzt",
    ],
)
def test_degenerate(text: str) -> None:
    assert is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Oslo",
        "Oslo, Oslo.",
        "299,792,458 m/s",
        "The year was 1969, in July, on the 20th.",
        "T. S. Eliot, W. H. Auden and C. P. Snow",
        "STS-51-L",
        "```python\nprint(6 * 7)\n```",
        "2 + 2 = 4, 3 + 3 = 6, 4 + 4 = 8",
        "Let me think about it. The treaty was signed after the war, in the city of",
    ],
)
def test_not_degenerate(text: str) -> None:
    assert not is_degenerate(text)


def test_throughput() -> None:
    items = load(bundled())
    claims = [claim_of(item) for item in items]
    others = [
        Claim(
            key=str(i),
            question=c.question,
            answer=c.answer,
            aliases=c.aliases,
            answer_type=c.answer_type,
            text=f"{c.text} ({i})",
        )
        for i, c in enumerate(claims)
    ]
    start = time.perf_counter()
    verdicts = asyncio.run(RulesJudge().judge(others))
    print(f"\n{1000 * (time.perf_counter() - start) / len(others):.2f} ms a claim")
    assert len(verdicts) == len(others)


@pytest.mark.parametrize("piece", ["1432, ", "van Eyck or ", "12 April ", "1 ", "-", ".", "a\n", "not ", "6a ", "<a>"])
def test_long_loops_do_not_blow_up(piece: str) -> None:
    """Work counted, not seconds: twice the text may cost little more than twice the calls."""
    import sys

    def calls(text: str) -> int:
        count = 0

        def tally(frame: object, event: str, arg: object) -> None:
            nonlocal count
            count += 1

        before = sys.getprofile()
        sys.setprofile(tally)
        try:
            for asked in ANSWERS:
                rule_on(*asked, text)
        finally:
            sys.setprofile(before)
        return count

    calls(piece)
    assert calls(piece * (4000 // len(piece))) <= 4 * calls(piece * (2000 // len(piece))) + 20_000

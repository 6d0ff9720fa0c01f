"""Pairs through the pool: what judges may give on them, what is kept; no label is ever read as a preference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.errors import JudgeError, StoreError
from audit.judges import get_judge
from audit.judges.contract import checked
from audit.judges.llm.pair_prompt import make_pair
from audit.judges.pool import JudgePool, PairPool, can_compare
from audit.protocols import PairJudge
from audit.store import Store
from audit.types import Choice, Claim, Pair, Reason, Verdict
from tests.helpers.judges import FindsAnswer

PAIRS = [make_pair(f"Write about {n}.", f"About {n}." + " More." * n, f"Of {n}, this. {n}") for n in range(8)]
CLAIM = Claim(key="claim", question="Who?", answer="Odin", aliases=(), answer_type="person", text="It was Odin.")


class Longer:
    """A third party's judge: rules on claims as its parent does, and prefers the longer reply."""

    compares = True
    batch_size = 3
    exclusive = False

    def __init__(self, name: str = "longer", spoil: Callable[[list[Choice]], Any] | None = None) -> None:
        self.identity = name
        self.spoil = spoil
        self.asked: list[Pair] = []

    async def judge(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        return await FindsAnswer(self.identity).judge(claims)

    async def compare(self, pairs: Sequence[Pair]) -> Sequence[Choice]:
        self.asked += pairs
        made = [
            Choice(
                claim_key=pair.key,
                judge=self.identity,
                preferred="first" if len(pair.first) > len(pair.second) else "second",
                reason=Reason.RULED,
            )
            for pair in pairs
        ]
        if self.spoil is not None:
            return self.spoil(made)  # type: ignore[no-any-return]
        return made[::-1]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store.sqlite")
    yield made
    made.close()


def compared(judge: PairJudge, store: Store | None = None, pairs: Sequence[Pair] = PAIRS) -> dict[str, Choice]:
    pool = PairPool([judge], store)
    try:
        pool.submit(pairs)
        pool.drain()
        return {pair.key: pool.verdicts[pair.key][judge.identity] for pair in pairs}
    finally:
        pool.close()


def test_choices_are_joined_by_pair_and_kept(store: Store) -> None:
    first = Longer()
    given = compared(first, store)
    for pair in PAIRS:
        wanted = "first" if len(pair.first) > len(pair.second) else "second"
        assert given[pair.key].preferred == wanted and given[pair.key].claim_key == pair.key
    assert {choice.preferred for choice in given.values()} == {"first", "second"}
    again = Longer()
    assert compared(again, store) == given and not again.asked
    assert compared(Longer("another"), store).keys() == given.keys()


def test_equal_replies_need_no_judge() -> None:
    judge, same = Longer(), make_pair("Write.", "The same.\n", "The same.")
    assert compared(judge, pairs=[same])[same.key].preferred == "tie" and not judge.asked


def test_the_two_orders_are_two_pairs() -> None:
    assert make_pair("a", "b", "c").key != make_pair("a", "c", "b").key != make_pair("a", "bc", "").key


def as_verdicts(choices: list[Choice]) -> list[Verdict]:
    return [Verdict(claim_key=c.claim_key, judge=c.judge, label="leak", reason=c.reason) for c in choices]


SPOILT: list[Callable[[list[Choice]], Any]] = [
    as_verdicts,
    lambda made: [msgspec.structs.replace(c, preferred="leak") for c in made],
    lambda made: [msgspec.structs.replace(c, preferred="First") for c in made],
    lambda made: [msgspec.structs.replace(c, preferred="undecided") for c in made],
    lambda made: [msgspec.structs.replace(c, reason=Reason.TIMEOUT) for c in made],
    lambda made: [msgspec.structs.replace(c, judge="another") for c in made],
    lambda made: [msgspec.structs.replace(c, claim_key="another") for c in made],
    lambda made: made + [msgspec.structs.replace(c, preferred="tie") for c in made],
    lambda made: [],
    lambda made: "first",
    lambda made: [c.preferred for c in made],
    lambda made: 1 / 0,
]


@pytest.mark.parametrize("spoil", SPOILT, ids=[str(n) for n in range(len(SPOILT))])
def test_a_judge_that_breaks_the_contract_prefers_nothing(spoil: Callable[[list[Choice]], Any], store: Store) -> None:
    given = compared(Longer(spoil=spoil), store)
    assert {(choice.preferred, choice.reason) for choice in given.values()} == {("undecided", Reason.JUDGE_ERROR)}
    assert store.choices("longer", [pair.key for pair in PAIRS]) == {}


def test_a_preference_is_no_label_and_a_label_no_preference(store: Store) -> None:
    class Confused(FindsAnswer):
        async def judge(self, claims: Sequence[Claim]) -> Any:
            return [
                Choice(claim_key=claim.key, judge=self.identity, preferred="second", reason=Reason.RULED)
                for claim in claims
            ]

    pool = JudgePool([Confused()], store)
    pool.submit([CLAIM])
    pool.drain()
    pool.close()
    verdict = pool.verdicts[CLAIM.key]["finds"]
    assert isinstance(verdict, Verdict) and (verdict.label, verdict.reason) == ("undecided", Reason.JUDGE_ERROR)
    assert "Choice where a claim is answered by a Verdict" in verdict.rationale
    for label in ("first", "second", "tie"):
        wrong = Verdict(claim_key=CLAIM.key, judge="j", label=label, reason=Reason.RULED)  # type: ignore[arg-type]
        (ruled,) = checked(FindsAnswer("j"), [CLAIM], [wrong])
        assert isinstance(ruled, Verdict) and ruled.label == "undecided"
    # Not even a row of the store is read as the other one.
    store.put_verdicts([Choice(claim_key="k", judge="j", preferred="first", reason=Reason.RULED)])
    store.put_verdicts([Verdict(claim_key="l", judge="j", label="leak", reason=Reason.RULED)])
    with pytest.raises(StoreError, match="no record of this version"):
        store.verdicts("j", ["k"])
    with pytest.raises(StoreError, match="no record of this version"):
        store.choices("j", ["l"])


def test_judges_that_cannot_compare_are_refused() -> None:
    silent = Longer("silent")
    silent.compares = False
    for judge in (get_judge("rules"), silent, FindsAnswer()):
        assert not can_compare(judge)
        with pytest.raises(JudgeError, match="cannot say which of two replies") as caught:
            PairPool([judge], None)  # type: ignore[list-item]
        assert "--win-judge" in caught.value.hint
    assert can_compare(Longer()) and isinstance(Longer(), PairJudge)

"""The judge pool's contract: verdicts by key, failures undecided with their reason, nobody waited for for ever."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from audit.errors import JudgeError, StoreError
from audit.judges.panel import combine
from audit.judges.pool import JudgePool
from audit.judges.rulings import make_claim
from audit.store import Store
from audit.types import Claim, Reason, Target, Verdict
from tests.helpers import judges as faults
from tests.helpers.judges import FindsAnswer


def claims(n: int) -> list[Claim]:
    """Every third text holds the answer."""
    target = Target(fact_id="f", question="Who?", answer="Ebeling")
    return [make_claim(target, f"text {i} " + ("Ebeling" if i % 3 == 0 else "nobody")) for i in range(n)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


def judged(pool: JudgePool, asked: list[Claim], *, fresh: bool = False) -> dict[str, Verdict]:
    """Claim key -> verdict of the only judge."""
    pool.submit(asked, fresh=fresh)
    pool.drain()
    (judge,) = pool.judges
    return {claim.key: pool.verdicts[claim.key][judge.identity] for claim in asked}


def right(verdicts: dict[str, Verdict], asked: list[Claim]) -> bool:
    return all(verdicts[c.key].label == ("leak" if "Ebeling" in c.text else "no_leak") for c in asked)


@pytest.mark.parametrize("fault", [None, faults.reversed_order, faults.extra_foreign])
def test_verdicts_are_joined_by_key(fault: faults.Fault | None, store: Store) -> None:
    asked = claims(20)
    pool = JudgePool([FindsAnswer(batch_size=7, fault=fault)], store)
    try:
        assert right(judged(pool, asked), asked)
        assert "0" * 32 not in pool.verdicts
    finally:
        pool.close()


@pytest.mark.parametrize("fault", faults.BREAKING, ids=lambda fault: fault.__name__)
def test_a_broken_batch_is_undecided_and_never_stored(fault: faults.Fault, store: Store) -> None:
    asked = claims(7)
    judge = FindsAnswer(fault=fault)
    pool = JudgePool([judge], store)
    try:
        verdicts = judged(pool, asked)
    finally:
        pool.close()
    assert {(v.label, v.reason) for v in verdicts.values()} == {("undecided", Reason.JUDGE_ERROR)}
    assert all(v.rationale for v in verdicts.values())
    assert store.verdicts(judge.identity, [c.key for c in asked]) == {}


def test_a_missing_verdict_is_undecided_alone(store: Store) -> None:
    asked = claims(9)
    pool = JudgePool([FindsAnswer(batch_size=3, fault=faults.too_few)], store)
    try:
        verdicts = judged(pool, asked)
    finally:
        pool.close()
    lost = {c.key for c in asked[2::3]}
    assert {k for k, v in verdicts.items() if v.label == "undecided"} == lost
    assert right({k: v for k, v in verdicts.items() if k not in lost}, [c for c in asked if c.key not in lost])
    assert set(store.verdicts("finds", [c.key for c in asked])) == {c.key for c in asked} - lost


def test_what_failed_is_asked_again_by_the_next_run_and_what_is_known_is_not(store: Store) -> None:
    asked = claims(9)
    first = JudgePool([FindsAnswer(fault=faults.too_few)], store)
    judged(first, asked)
    first.close()
    judge = FindsAnswer()
    second = JudgePool([judge], store)
    assert right(judged(second, asked), asked)
    second.close()
    assert {c.key for c in judge.asked} == {c.key for c in asked[2::3]}
    assert second.calls == 3


def test_equal_claims_are_judged_once_and_fresh_ones_always(store: Store) -> None:
    asked = claims(4)
    judge = FindsAnswer()
    pool = JudgePool([judge], store)
    judged(pool, asked + asked)
    judged(pool, asked)
    assert len(judge.asked) == 4
    judged(pool, asked, fresh=True)
    assert len(judge.asked) == 8, "canaries reach the judge though the pool and the store know the claim"
    pool.close()
    again = JudgePool([judge], store)
    judged(again, asked, fresh=True)
    again.close()
    assert len(judge.asked) == 12


def test_a_fresh_verdict_takes_the_place_of_a_stored_one(store: Store) -> None:
    (claim,) = claims(1)
    store.put_verdicts([Verdict(claim_key=claim.key, judge="finds", label="no_leak", reason=Reason.RULED)])
    pool = JudgePool([FindsAnswer()], store)
    assert judged(pool, [claim])[claim.key].label == "no_leak"
    assert judged(pool, [claim], fresh=True)[claim.key].label == "leak"
    pool.close()


def test_a_judge_that_hangs_is_given_up_and_others_are_not(store: Store) -> None:
    asked = claims(10)

    async def hangs_on_one(judge: FindsAnswer, batch: object, verdicts: list[Verdict]) -> object:
        if judge.calls == 2:
            await faults.hangs(judge, (), [])
        return verdicts

    pool = JudgePool([FindsAnswer("slow", batch_size=2, fault=hangs_on_one), FindsAnswer()], store, timeout=0.3)
    pool.submit(asked)
    pool.drain()
    pool.close()
    slow = [pool.verdicts[c.key]["slow"] for c in asked]
    assert [v.reason for v in slow].count(Reason.TIMEOUT) == 2
    assert all(v.label == "undecided" for v in slow if v.reason is Reason.TIMEOUT)
    assert right({c.key: pool.verdicts[c.key]["finds"] for c in asked}, asked)
    assert all(combine(pool.verdicts[c.key], 2, "unanimous")[0] == "undecided" for c in asked[2:4])
    assert len(store.verdicts("slow", [c.key for c in asked])) == 8


def test_a_judge_that_moves_is_not_cut_off_by_its_queue(store: Store) -> None:
    """Batches wait for one another for longer than the timeout, yet something comes all the time."""
    import asyncio

    lock = asyncio.Lock()

    async def one_at_a_time(judge: FindsAnswer, batch: object, verdicts: list[Verdict]) -> list[Verdict]:
        async with lock:
            await asyncio.sleep(0.1)
        return verdicts

    asked = claims(12)
    pool = JudgePool([FindsAnswer(batch_size=1, fault=one_at_a_time)], store, timeout=0.6)
    assert right(judged(pool, asked), asked)
    pool.close()


def test_a_verdict_that_comes_after_it_was_given_up_changes_nothing(store: Store) -> None:
    asked = claims(2)
    pool = JudgePool([FindsAnswer(fault=faults.hangs_against_cancelling)], store, timeout=0.2)
    verdicts = judged(pool, asked)
    assert {v.reason for v in verdicts.values()} == {Reason.TIMEOUT}
    time.sleep(1.2)
    pool.poll()
    assert all(pool.verdicts[c.key]["finds"].reason is Reason.TIMEOUT for c in asked)
    pool.close()


def test_a_judge_that_blocks_the_thread_stops_the_audit(store: Store) -> None:
    pool = JudgePool([FindsAnswer(fault=faults.blocks)], store, timeout=0.4)
    pool.submit(claims(1))
    with pytest.raises(JudgeError, match="finds"):
        pool.drain()
    pool.close()


def test_a_judge_error_stops_the_audit_and_the_pool_closes(store: Store) -> None:
    pool = JudgePool([FindsAnswer("stuck", fault=faults.hangs), FindsAnswer(fault=faults.gives_up)], store)
    with pytest.raises(JudgeError, match="wrong key"):
        pool.submit(claims(5))  # whichever of the two the error reaches first
        pool.drain()
    closer = threading.Thread(target=pool.close)
    closer.start()
    closer.join(timeout=8)
    assert not closer.is_alive()
    pool.close()
    with pytest.raises(JudgeError):
        pool.drain()
    with pytest.raises(JudgeError):
        pool.submit(claims(1))


def test_close_with_work_under_way_does_not_wait_for_it(store: Store) -> None:
    pool = JudgePool([FindsAnswer(fault=faults.hangs)], store)
    pool.submit(claims(50))
    pool.close()
    assert pool.verdicts == {}


def test_interrupt_reaches_drain(store: Store) -> None:
    pool = JudgePool([FindsAnswer(fault=faults.hangs)], store)
    pool.submit(claims(1))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started with it ignored
    try:
        threading.Timer(0.2, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            pool.drain()
    finally:
        signal.signal(signal.SIGINT, before)
    pool.close()


def test_exclusive_judges_wait_for_drain(store: Store) -> None:
    judge = FindsAnswer("alone", exclusive=True)
    other = FindsAnswer("other")
    pool = JudgePool([judge, other], store)
    assert pool.exclusive
    asked = claims(6)
    pool.submit(asked)
    deadline = time.monotonic() + 10
    while len(other.asked) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(other.asked) == 6 and judge.asked == []
    pool.drain()
    assert len(judge.asked) == 6
    pool.close()


def test_a_store_that_fails_stops_the_audit_and_the_pool_closes(store: Store, tmp_path: Path) -> None:
    gone = Store(tmp_path / "gone.sqlite")
    pool = JudgePool([FindsAnswer()], gone)
    gone._db.execute("DROP TABLE verdicts")
    with pytest.raises(StoreError):
        pool.submit(claims(3))
        pool.drain()
    pool.close()
    gone.close()


def test_one_judge_twice_is_an_error() -> None:
    with pytest.raises(JudgeError, match="twice"):
        JudgePool([FindsAnswer(), FindsAnswer()], None)


def test_without_a_store() -> None:
    asked = claims(3)
    pool = JudgePool([FindsAnswer()], None)
    assert right(judged(pool, asked), asked)
    pool.close()


def test_a_kept_verdict_that_no_judge_could_have_given_is_asked_for_again(store: Store) -> None:
    asked = claims(3)
    judge = FindsAnswer()
    pool = JudgePool([judge], store)
    judged(pool, asked)
    pool.close()
    rows = store._db.execute("SELECT key, value FROM verdicts").fetchall()
    for key, value in rows:
        broken = value.replace('"label":"leak","reason":"ruled"', '"label":"no_leak","reason":"timeout"')
        store._put("verdicts", {key: broken})
    again = JudgePool([judge], store)
    assert right(judged(again, asked), asked)
    assert again.calls == 1
    again.close()


def test_keys_of_the_environment_stay_out_of_what_a_judge_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-hidden-0123456789")

    def repeats(judge: FindsAnswer, batch: object, verdicts: list[Verdict]) -> list[Verdict]:
        if judge.calls == 1:
            raise ValueError("401: incorrect key sk-hidden-0123456789")
        return [msgspec.structs.replace(v, rationale="sent sk-hidden-0123456789") for v in verdicts]

    pool = JudgePool([FindsAnswer(batch_size=2, fault=repeats)], store)
    said = [f"{v.rationale} {v.raw}" for v in judged(pool, claims(4)).values()]
    pool.close()
    assert len(said) == 4 and not any("hidden" in text for text in said) and all("***" in text for text in said)

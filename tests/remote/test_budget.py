"""The budget: never passed by what was reserved, used up as far as it goes, and no waiter is forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.remote.budget import Budget, OverBudget
from tests.remote.clock import Clock


@dataclass
class Call:
    comes: float
    estimate: float
    actual: float | None
    """None: the call is left without a word about its cost."""
    takes: float = 1.0
    fails: bool = False
    cancelled_at: float | None = None


class Planned(Exception):
    pass


def run(budget: Budget, calls: list[Call]) -> list[str]:
    """What became of each call: paid, over, failed or cancelled. The invariant is checked at every step."""
    clock = Clock()
    became = [""] * len(calls)

    def check() -> None:
        if budget.limit is not None and all((call.actual or 0) <= call.estimate for call in calls):
            assert budget.spent + budget.reserved <= budget.limit + 1e-9
        assert budget.reserved >= 0

    async def one(index: int, call: Call) -> None:
        await clock.sleep(call.comes)
        try:
            async with budget.reserve(call.estimate) as paid:
                check()
                await clock.sleep(call.takes)
                if call.actual is not None:
                    paid(call.actual)
                    check()
                if call.fails:
                    raise Planned
            became[index] = "paid"
        except OverBudget:
            became[index] = "over"
        except Planned:
            became[index] = "failed"
        except asyncio.CancelledError:
            became[index] = "cancelled"
            raise
        finally:
            check()

    async def main() -> None:
        tasks = [asyncio.create_task(one(index, call)) for index, call in enumerate(calls)]

        async def cancel(task: asyncio.Task[None], when: float) -> None:
            await clock.sleep(when)
            task.cancel()

        stops = [
            asyncio.create_task(cancel(task, call.cancelled_at))
            for task, call in zip(tasks, calls, strict=True)
            if call.cancelled_at is not None
        ]
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*stops)

    clock.run(main())
    assert budget.reserved == 0
    return became


def test_without_a_limit_spending_is_counted_and_nothing_waits() -> None:
    budget = Budget(None)
    assert run(budget, [Call(0, 5.0, 0.1)] * 30) == ["paid"] * 30
    assert budget.spent == pytest.approx(3.0) and budget.limit is None and not budget.exhausted


def test_a_hundred_calls_at_once_within_a_limit_of_ten() -> None:
    """Each may cost 1 and costs a quarter: far more than ten go on, and none past the limit."""
    budget = Budget(10.0)
    became = run(budget, [Call(0, 1.0, 0.25) for _ in range(100)])
    assert became == ["paid"] * 37 + ["over"] * 63  # after 37 calls 9.25 are spent: one more might pass the limit
    assert budget.spent == 9.25 and budget.exhausted


def test_sums_do_not_drift() -> None:
    budget = Budget(1.0)
    assert run(budget, [Call(0, 0.1, 0.1)] * 10) == ["paid"] * 10  # ten floats of 0.1 are less than 1.0
    budget = Budget(0.3)
    assert run(budget, [Call(0, 0.1, 0.1)] * 4) == ["paid"] * 3 + ["over"]
    assert budget.spent == 0.3


def test_who_cannot_fit_even_if_the_others_were_free_is_told_at_once() -> None:
    budget = Budget(1.0)
    clock = Clock()

    async def main() -> None:
        async with budget.reserve(0.5) as paid:
            paid(0.5)
            with pytest.raises(OverBudget, match=r"\$0\.5000 of \$1\.0 are spent; the call may cost \$0\.6000"):
                async with budget.reserve(0.6):
                    raise AssertionError("not reached")

    clock.run(main())
    assert clock.slept == [] and budget.exhausted


def test_who_might_fit_waits_for_the_others() -> None:
    cheap, dear = Budget(1.0), Budget(1.0)
    assert run(cheap, [Call(0, 0.8, 0.1), Call(0.1, 0.8, 0.1)]) == ["paid", "paid"]
    assert run(dear, [Call(0, 0.8, 0.8), Call(0.1, 0.8, 0.1)]) == ["paid", "over"]


def test_after_the_end_everything_is_refused_but_what_still_fits() -> None:
    budget = Budget(1.0)
    calls = [Call(0, 1.0, 0.7), Call(5, 0.5, 0.1), Call(6, 0.5, 0.1), Call(7, 0.2, 0.1), Call(8, 0.31, 0.1)]
    assert run(budget, calls) == ["paid", "over", "over", "paid", "over"]
    assert budget.exhausted and budget.spent == pytest.approx(0.8)


def test_a_call_that_costs_more_than_estimated_is_counted_in_full() -> None:
    budget = Budget(1.0)
    assert run(budget, [Call(0, 0.5, 1.5), Call(5, 0.0, 0.0), Call(5, 0.1, 0.1)]) == ["paid", "over", "over"]
    assert budget.spent == 1.5


def test_what_an_unknown_and_a_failed_call_cost() -> None:
    budget = Budget(10.0)
    calls = [
        Call(0, 1.0, None),  # nothing was said: as estimated
        Call(0, 2.0, None, fails=True),  # refused: nothing
        Call(0, 4.0, 0.5, fails=True),  # paid for, and then failed
        Call(0, 3.0, None, cancelled_at=0.5),
    ]
    assert run(budget, calls) == ["paid", "failed", "failed", "cancelled"]
    assert budget.spent == 1.5


def test_several_replies_within_one_reservation() -> None:
    budget = Budget(1.0)

    async def main() -> None:
        async with budget.reserve(0.6) as paid:
            paid(0.25)
            paid(0.25)
            assert (budget.spent, budget.reserved) == (0.5, pytest.approx(0.1))
            paid(0.25)
            assert (budget.spent, budget.reserved) == (0.75, 0.0)

    asyncio.run(main())
    assert (budget.spent, budget.reserved) == (0.75, 0.0)


def test_a_limit_of_nothing_lets_free_calls_through() -> None:
    budget = Budget(0.0)
    assert run(budget, [Call(0, 0.0, 0.0), Call(1, 1e-9, 0.0), Call(2, 0.0, None)]) == ["paid", "over", "paid"]


def test_first_come_first_served() -> None:
    """A small call does not overtake a large one that waits: else the large ones would wait for ever."""
    budget = Budget(1.0)
    clock = Clock()
    order: list[str] = []

    async def call(name: str, estimate: float) -> None:
        async with budget.reserve(estimate) as paid:
            order.append(name)
            await clock.sleep(1.0)
            paid(0.0)

    async def main() -> None:
        await asyncio.gather(call("a", 0.6), call("large", 0.9), call("small", 0.1))

    clock.run(main())
    assert order == ["a", "large", "small"]


def test_who_gives_up_waiting_lets_the_next_one_through() -> None:
    budget = Budget(1.0)
    calls = [Call(0, 0.6, 0.6, takes=9.0), Call(1, 0.41, 0.1), Call(1, 0.5, 0.0), Call(1, 0.3, 0.3)]
    assert run(budget, calls) == ["paid", "over", "over", "paid"]  # decided at once: they never could fit
    clock = Clock()
    order: list[tuple[str, float]] = []
    budget = Budget(1.0)

    async def call(name: str, estimate: float) -> None:
        async with budget.reserve(estimate) as paid:
            order.append((name, clock.now))
            await clock.sleep(9.0)
            paid(0.0)

    async def main() -> None:
        tasks = [asyncio.create_task(call(*plan)) for plan in (("a", 0.6), ("large", 0.9), ("small", 0.1))]
        await clock.sleep(2.0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(main())
    assert order == [("a", 0.0), ("small", 2.0)]


def test_one_budget_serves_one_event_loop_after_another() -> None:
    budget = Budget(1.0)
    assert run(budget, [Call(0, 0.3, 0.1)] * 5) == ["paid"] * 5
    assert run(budget, [Call(0, 0.3, 0.1)] * 5) == ["paid"] * 3 + ["over"] * 2


def test_who_is_cancelled_just_after_being_let_in_gives_the_money_back() -> None:
    async def main() -> None:
        budget = Budget(1.0)
        first = budget.reserve(0.9)
        await first.__aenter__()

        async def second() -> None:
            async with budget.reserve(0.8):
                raise AssertionError("not reached")

        async def third() -> None:
            async with budget.reserve(0.7) as paid:
                paid(0.25)

        waiting, last = asyncio.create_task(second()), asyncio.create_task(third())
        await asyncio.sleep(0)
        await first.__aexit__(Planned, Planned(), None)
        assert budget.reserved == 0.8  # it is let in, and has not run yet
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(last, 60)  # it hears of the money that came back
        assert (budget.spent, budget.reserved) == (0.25, 0.0)

    asyncio.run(main())


money = st.integers(0, 300).map(lambda cents: cents / 100)
times = st.integers(0, 30).map(float)
plans = st.lists(
    st.builds(
        Call,
        comes=times,
        estimate=money,
        actual=st.none() | money,
        takes=times,
        fails=st.booleans(),
        cancelled_at=st.none() | times,
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(plans, st.integers(0, 1000).map(lambda cents: cents / 100))
def test_no_plan_of_calls_passes_the_limit_or_hangs(calls: list[Call], limit: float) -> None:
    for call in calls:
        call.actual = None if call.actual is None else min(call.actual, call.estimate)
    budget = Budget(limit)
    became = run(budget, calls)
    assert all(became[index] or call.cancelled_at is not None for index, call in enumerate(calls))
    assert budget.spent <= limit + 1e-9
    assert budget.exhausted == ("over" in became)
    for call, result in zip(calls, became, strict=True):
        if result == "over":
            assert budget.spent + call.estimate > limit - 1e-9  # what is spent only grows: it never could have fitted


@settings(max_examples=80, deadline=None)
@given(plans, st.integers(0, 1000).map(lambda cents: cents / 100))
def test_spending_passes_the_limit_by_no_more_than_wrong_estimates(calls: list[Call], limit: float) -> None:
    budget = Budget(limit)
    run(budget, calls)
    excess = sum(max(0.0, (call.actual or 0.0) - call.estimate) for call in calls)
    assert budget.spent <= limit + excess + 1e-9


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_amounts_that_are_none(amount: float) -> None:
    with pytest.raises(ValueError, match="limit must be a number"):
        Budget(amount)

    async def reserve() -> None:
        async with Budget(1.0).reserve(amount):
            pass

    with pytest.raises(ValueError, match="estimate must be a number"):
        asyncio.run(reserve())

    async def pay() -> None:
        async with Budget(1.0).reserve(0.5) as paid:
            paid(amount)

    with pytest.raises(ValueError, match="cost must be a number"):
        asyncio.run(pay())


def test_what_was_promised_before_is_counted_beyond_the_limit() -> None:
    async def run() -> None:
        budget = Budget(1.0)
        budget.book(1.5)
        assert budget.spent == 1.5 and not budget.exhausted
        with pytest.raises(OverBudget):
            async with budget.reserve(0.1):
                raise AssertionError("let in")
        with pytest.raises(ValueError, match="cost"):
            budget.book(-1)

    asyncio.run(run())

"""The limiter by a clock of its own: no second passes in these tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.remote.limits import MINUTE_S, Limiter
from tests.remote.clock import Clock


def limiter(clock: Clock, concurrency: int = 128, rpm: int | None = None, tpm: int | None = None) -> Limiter:
    return Limiter(concurrency, rpm, tpm, clock=clock.time, sleep=clock.sleep)


def most_in_a_minute(events: list[tuple[float, int]]) -> tuple[int, int]:
    """Most calls, and most tokens, that started within any 60 seconds."""
    windows = [[e for e in events if start <= e[0] < start + MINUTE_S - 1e-3] for start, _ in events]
    return max(map(len, windows)), max(sum(tokens for _, tokens in window) for window in windows)


def test_concurrency_is_kept_and_used_in_the_order_of_arrival() -> None:
    clock = Clock()
    limit = limiter(clock, 3)
    order: list[int] = []

    async def call(number: int) -> None:
        async with limit.slot(lambda: 10):
            order.append(number)
            await clock.sleep(1.0)

    async def main() -> None:
        await asyncio.gather(*map(call, range(10)))

    clock.run(main())
    assert order == list(range(10)) and limit.most_at_once == 3
    assert clock.now == 4.0  # three, three, three, one


def test_a_burst_of_refusals_cuts_once_and_a_second_later_once_more() -> None:
    clock = Clock()
    limit = limiter(clock, 64)
    for _ in range(50):
        limit.refused(None)
    assert limit.concurrency == 32
    clock.now = 0.9
    limit.refused(None)
    assert limit.concurrency == 32
    clock.now = 1.0
    limit.refused(None)
    limit.refused(None)
    assert limit.concurrency == 16
    for second in range(2, 20):
        clock.now = float(second)
        limit.refused(None)
    assert limit.concurrency == 1


def test_recovery_doubles_every_quarter_of_a_second_without_refusals_up_to_the_start() -> None:
    clock = Clock()
    limit = limiter(clock, 48)
    for second in range(4):
        clock.now = float(second)
        limit.refused(None)
    assert limit.concurrency == 3
    seen = []
    for hundredth in range(310, 500, 5):
        clock.now = hundredth / 100
        limit.succeeded()
        limit.succeeded()
        if not seen or seen[-1][1] != limit.concurrency:
            seen.append((clock.now, limit.concurrency))
    assert seen == [(3.1, 3), (3.25, 6), (3.5, 12), (3.75, 24), (4.0, 48)]


def test_a_service_that_goes_on_refusing_sees_no_growth() -> None:
    clock = Clock()
    limit = limiter(clock, 64)
    for fifth in range(50):  # answers and refusals in turn, five of each a second
        clock.now = fifth / 5
        limit.succeeded()
        limit.refused(None)
        limit.succeeded()
    assert limit.concurrency == 1


def test_recovered_room_is_used_by_those_who_wait() -> None:
    clock = Clock()
    limit = limiter(clock, 4)
    limit.refused(None)
    clock.now = 2.0
    limit.refused(None)
    assert limit.concurrency == 1
    at_once: list[int] = []
    running = 0

    async def call() -> None:
        nonlocal running
        async with limit.slot(lambda: 1):
            running += 1
            at_once.append(running)
            await clock.sleep(1.0)
            running -= 1
            limit.succeeded()

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(15)))

    clock.run(main())
    assert at_once[0] == 1 and max(at_once) == 4 and limit.concurrency == 4


def test_room_that_comes_back_is_used_while_the_others_still_run() -> None:
    clock = Clock()
    limit = limiter(clock, 2)
    limit.refused(None)
    starts: list[float] = []

    async def call() -> None:
        async with limit.slot(lambda: 1):
            starts.append(clock.now)
            await clock.sleep(5.0)
            limit.succeeded()  # one of several answers within the slot
            await clock.sleep(5.0)

    async def main() -> None:
        await asyncio.gather(call(), call())

    clock.run(main())
    assert starts == [0.0, 5.0]


def test_after_a_cut_nothing_starts_until_enough_have_ended() -> None:
    clock = Clock()
    limit = limiter(clock, 8)
    ends: list[float] = []
    starts: list[float] = []

    async def call(seconds: float) -> None:
        async with limit.slot(lambda: 1):
            starts.append(clock.now)
            await clock.sleep(seconds)
            ends.append(clock.now)

    async def main() -> None:
        first = [asyncio.create_task(call(float(n))) for n in range(1, 9)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        limit.refused(None)  # four from now on
        await asyncio.gather(*first, call(1.0))

    clock.run(main())
    assert starts[:8] == [0.0] * 8 and starts[8] == 5.0  # the fifth end leaves three


def test_every_caller_honours_a_pause_and_the_longest_one_counts() -> None:
    clock = Clock()
    limit = limiter(clock, 100)
    starts: list[float] = []

    async def call() -> None:
        async with limit.slot(lambda: 1):
            starts.append(clock.now)

    async def main() -> None:
        limit.refused(7.0)
        limit.refused(2.0)
        waiting = [asyncio.create_task(call()) for _ in range(20)]
        await clock.sleep(5.0)
        limit.refused(6.0)  # while they wait: until 11
        await asyncio.gather(*waiting)
        await call()
        limit.refused(0.0)
        await call()

    clock.run(main())
    assert starts == [11.0] * 22


def test_requests_per_minute_are_kept() -> None:
    clock = Clock()
    limit = limiter(clock, 100, rpm=30)
    events: list[tuple[float, int]] = []

    async def call() -> None:
        async with limit.slot(lambda: 5):
            events.append((clock.now, 5))
            await clock.sleep(0.5)

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(100)))

    clock.run(main())
    assert most_in_a_minute(events)[0] == 30
    assert [time for time, _ in events] == [0.0] * 30 + [60.0] * 30 + [120.0] * 30 + [180.0] * 10


def test_a_call_of_more_tokens_than_a_minute_may_hold_goes_alone() -> None:
    clock = Clock()
    limit = limiter(clock, 100, tpm=100)
    starts: dict[int, float] = {}

    async def call(tokens: int) -> None:
        async with limit.slot(lambda: tokens):
            starts[tokens] = clock.now

    async def main() -> None:
        for tokens in (60, 500, 40, 10_000):
            await call(tokens)

    clock.run(main())
    assert starts == {60: 0.0, 500: 60.0, 40: 120.0, 10_000: 180.0}


calls = st.lists(
    st.tuples(st.floats(0, 90).map(lambda s: round(s, 3)), st.integers(0, 120), st.floats(0, 40)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(calls, st.integers(1, 8), st.none() | st.integers(1, 12), st.none() | st.integers(1, 200))
def test_no_minute_holds_more_than_it_may(
    planned: list[tuple[float, int, float]], concurrency: int, rpm: int | None, tpm: int | None
) -> None:
    """Calls that come when they like and take as long as they like: all start, none too early."""
    clock = Clock()
    limit = limiter(clock, concurrency, rpm, tpm)
    events: list[tuple[float, int]] = []

    async def call(comes: float, tokens: int, takes: float) -> None:
        await clock.sleep(comes)
        async with limit.slot(lambda: tokens):
            events.append((clock.now, tokens if tpm is None else min(tokens, tpm)))
            await clock.sleep(takes)

    async def main() -> None:
        await asyncio.gather(*(call(*plan) for plan in planned))

    clock.run(main())
    assert len(events) == len(planned) and limit.most_at_once <= concurrency
    requests, tokens = most_in_a_minute(events)
    assert requests <= (rpm or len(planned))
    assert tpm is None or tokens <= tpm


def test_who_is_cancelled_while_waiting_or_running_gives_the_place_back() -> None:
    clock = Clock()
    limit = limiter(clock, 2)
    done: list[str] = []

    async def call(name: str, seconds: float) -> None:
        async with limit.slot(lambda: 1):
            await clock.sleep(seconds)
            done.append(name)

    async def main() -> None:
        tasks = {name: asyncio.create_task(call(name, 10.0)) for name in ("a", "b", "waits", "waits too", "last")}
        await clock.sleep(1.0)
        tasks["waits"].cancel()  # the first in the line
        tasks["b"].cancel()  # one that runs
        await clock.sleep(1.0)
        tasks["last"].cancel()  # the last in the line, or already in
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        async with limit.slot(lambda: 1), limit.slot(lambda: 1):  # both places are free again
            pass

    clock.run(main())
    assert done == ["a", "waits too"] and limit.most_at_once == 2


def test_who_is_cancelled_in_a_pause_is_not_counted_as_started() -> None:
    clock = Clock()
    limit = limiter(clock, 10, rpm=1)
    starts: list[float] = []

    async def call() -> None:
        async with limit.slot(lambda: 1):
            starts.append(clock.now)

    async def main() -> None:
        await call()
        waiting = asyncio.create_task(call())
        await clock.sleep(1.0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await call()

    clock.run(main())
    assert starts == [0.0, 60.0]


def test_a_failing_call_gives_its_place_back() -> None:
    clock = Clock()
    limit = limiter(clock, 1)

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with limit.slot(lambda: 1):
                    raise ZeroDivisionError

    clock.run(main())
    assert limit.most_at_once == 1


def test_one_limiter_serves_one_event_loop_after_another() -> None:
    limit = Limiter(1)

    async def main() -> None:
        async def call() -> None:
            async with limit.slot(lambda: 1):
                await asyncio.sleep(0)

        await asyncio.gather(*(call() for _ in range(5)))

    asyncio.run(main())
    asyncio.run(main())
    assert limit.most_at_once == 1


@pytest.mark.parametrize("limits", [{"concurrency": 0}, {"rpm": 0}, {"tpm": -5}])
def test_limits_below_one_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Limiter(**limits)


def test_calls_made_again_go_before_those_not_made_yet() -> None:
    """A call that failed comes back while others wait: it starts at the next free place, in its turn among its like."""
    clock = Clock()
    limit = limiter(clock, 1)
    order: list[str] = []

    async def call(name: str, comes: float, again: bool) -> None:
        await clock.sleep(comes)
        async with limit.slot(lambda: 1, again=again):
            order.append(name)
            await clock.sleep(1.0)

    async def main() -> None:
        new = [call(f"new{n}", 0.1 * n, False) for n in range(5)]
        await asyncio.gather(*new, *(call(f"again{n}", 2.5 + 0.1 * n, True) for n in range(2)))

    clock.run(main())
    assert order == ["new0", "new1", "new2", "again0", "again1", "new3", "new4"]


def test_a_call_made_again_that_is_cancelled_while_it_waits_holds_nobody_up() -> None:
    clock = Clock()
    limit = limiter(clock, 1)
    order: list[str] = []

    async def call(name: str, again: bool) -> None:
        async with limit.slot(lambda: 1, again=again):
            order.append(name)
            await clock.sleep(1.0)

    async def main() -> None:
        tasks = {}
        for name, again in (("first", False), ("again", True), ("second", False)):
            tasks[name] = asyncio.ensure_future(call(name, again))
            await clock.sleep(0.1)
        tasks["again"].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    clock.run(main())
    assert order == ["first", "second"]


def test_tokens_are_counted_when_a_call_s_turn_has_come_and_a_failing_count_gives_the_turn_back() -> None:
    clock = Clock()
    limit = limiter(clock, 1, tpm=100)
    counted: list[float] = []

    def count() -> int:
        counted.append(clock.now)
        return 1

    def fail() -> int:
        raise ZeroDivisionError

    async def call(tokens: Callable[[], int], again: bool) -> None:
        async with limit.slot(tokens, again=again):
            await clock.sleep(1.0)

    async def main() -> list[BaseException | None]:
        calls = [call(count, False), call(fail, True), call(fail, False), call(count, False)]
        return await asyncio.gather(*calls, return_exceptions=True)

    ended = clock.run(main())
    assert [isinstance(problem, ZeroDivisionError) for problem in ended] == [False, True, True, False]
    assert len(counted) == 2 and clock.now == 2.0

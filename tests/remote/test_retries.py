"""Retries: bounded, by class, waiting as long as asked."""

from __future__ import annotations

import asyncio

import pytest

from audit.remote.failures import Failure
from audit.remote.retries import retrying
from audit.types import Reason


class Tries:
    """Fails as planned, then answers with the number of the try."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.seen: list[int] = []
        self.waits: list[float] = []

    async def __call__(self, attempt: int) -> int:
        self.seen.append(attempt)
        if attempt < len(self.failures):
            raise self.failures[attempt]
        return attempt

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def run(self, retries: int = 5, backoff_s: float = 1.0, longest_s: float = 60.0) -> int:
        return asyncio.run(retrying(self, retries=retries, backoff_s=backoff_s, longest_s=longest_s, sleep=self.sleep))


def passing(wait: float | None = None) -> Failure:
    return Failure("busy", reason=Reason.SERVER_ERROR, retry=True, wait=wait)


def test_what_may_pass_is_repeated_with_growing_waits() -> None:
    tries = Tries(*[passing()] * 4)
    assert tries.run() == 4
    assert tries.seen == [0, 1, 2, 3, 4]
    assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(tries.waits)) and len(tries.waits) == 4


def test_the_last_failure_is_raised_with_its_tries() -> None:
    last = passing()
    tries = Tries(passing(), passing(), last)
    with pytest.raises(Failure) as caught:
        tries.run(retries=2)
    assert caught.value is last and last.tries == 3 and tries.seen == [0, 1, 2] and len(tries.waits) == 2


def test_no_retries_is_one_try() -> None:
    tries = Tries(passing())
    with pytest.raises(Failure):
        tries.run(retries=0)
    assert tries.seen == [0] and tries.waits == []


def test_what_will_not_pass_is_not_repeated() -> None:
    final = Failure("no", reason=Reason.JUDGE_ERROR)
    tries = Tries(passing(), final)
    with pytest.raises(Failure) as caught:
        tries.run()
    assert caught.value is final and final.tries == 2


def test_other_exceptions_go_through_at_once() -> None:
    tries = Tries(KeyError("a bug"))
    with pytest.raises(KeyError):
        tries.run()
    assert tries.seen == [0]


def test_the_wait_that_was_asked_for_is_kept_and_none_is_longer_than_the_longest() -> None:
    tries = Tries(passing(7.0), passing(0.0), passing(500.0), passing())
    assert tries.run(backoff_s=1000.0, longest_s=20.0) == 4
    assert tries.waits == [7.0, 0.0, 20.0, 20.0]


def test_many_retries_do_not_overflow() -> None:
    tries = Tries(*[passing()] * 1100)
    assert tries.run(retries=1100) == 1100
    assert max(tries.waits) == 60.0


def test_a_cancelled_wait_ends_the_retries() -> None:
    tries = Tries(passing(3600.0))

    async def main() -> None:
        task = asyncio.create_task(retrying(tries, retries=3, backoff_s=0.0, longest_s=3600.0))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert tries.seen == [0]


def test_negative_retries_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Tries().run(retries=-1)


def test_a_try_that_waited_for_its_answer_does_not_wait_again() -> None:
    """A try that ran into a timeout of 60 s has given the service its pause; one of 0.2 s has not."""
    slow, quick = passing(), passing()
    slow.seconds, quick.seconds = 60.0, 0.2
    tries = Tries(slow, quick)
    assert tries.run() == 2
    assert tries.waits[0] == 0.0
    assert 2 * 0.5 - 0.2 - 1e-9 <= tries.waits[1] <= 2 * 1.5 - 0.2 + 1e-9


def test_a_wait_that_the_service_asked_for_is_kept_however_long_the_try_took() -> None:
    asked = passing(wait=7.0)
    asked.seconds = 60.0
    tries = Tries(asked)
    assert tries.run() == 1 and tries.waits == [7.0]

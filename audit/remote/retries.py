"""The one layer of retries: the SDKs' own are switched off, so that every try is counted and paid for knowingly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from audit.remote.failures import LONGEST_WAIT_S, Failure

T = TypeVar("T")
_LARGEST_EXPONENT = 30


async def retrying(
    try_once: Callable[[int], Awaitable[T]],
    *,
    retries: int,
    backoff_s: float,
    longest_s: float = LONGEST_WAIT_S,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """The result of `try_once(n)`, n = 0, 1 … retries: repeated after a Failure with `retry`, and after nothing else.

    Between two tries it waits as long as the service asked for (`Failure.wait`); else a try begins no sooner than
    backoff_s * 2**n, with jitter (half to one and a half times), after the last one asked the service
    (`Failure.seconds`), so that one that waited for a timeout waits no more. In seconds, never longer than longest_s.
    A slot of a limiter belongs inside `try_once`, so that nothing is held while waiting. Raises the last Failure, its
    `tries` set to the number of tries.
    """
    if retries < 0:
        raise ValueError("retries cannot be negative")
    attempt = 0
    while True:
        try:
            return await try_once(attempt)
        except Failure as failure:
            failure.tries = attempt + 1
            if not failure.retry or attempt >= retries:
                raise
            wait, passed = failure.wait, failure.seconds
        if wait is None:
            wait = max(0.0, backoff_s * 2 ** min(attempt, _LARGEST_EXPONENT) * random.uniform(0.5, 1.5) - passed)
        await sleep(min(wait, longest_s))
        attempt += 1

"""How much may be asked of a service at once and in a minute, and what happens when it says "too much"."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

MINUTE_S = 60.0
#: The concurrency is cut at most once in so many seconds: answers to calls that were already on their way say nothing
#: about the new value.
CUT_S = 1.0
#: It doubles after so many seconds without any refusal: single refusals, as busy services give, then cost little, and
#: a service that goes on refusing sees no growth at all.
GROW_S = 0.25
#: Below a microsecond a wait is over: sums of seconds are not exact.
_INSTANT_S = 1e-6


class Limiter:
    """Lets calls start in the order in which they came, as slots, the minute's limits and pauses allow.

    concurrency: calls at the same time; rpm, tpm: calls and tokens started within any 60 seconds, None for no limit;
    clock, sleep: seconds, for tests. For one event loop at a time. ValueError for limits below 1.
    """

    def __init__(
        self,
        concurrency: int = 128,
        rpm: int | None = None,
        tpm: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        for name, value in (("concurrency", concurrency), ("rpm", rpm), ("tpm", tpm)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.start_concurrency = concurrency
        self.concurrency = concurrency
        """Calls that may run at the same time now."""
        self.most_at_once = 0
        """Calls that did run at the same time, at most."""
        self._rpm, self._tpm, self._clock, self._sleep = rpm, tpm, clock, sleep
        self._running = 0
        self._paused_until = float("-inf")
        self._cut_at = self._refused_at = self._grown_at = float("-inf")
        self._started: deque[tuple[float, int]] = deque()
        """Time and tokens of the calls of the last minute, oldest first."""
        self._tokens = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn, self._turn_again = asyncio.Lock(), asyncio.Lock()
        self._waiting_again = 0
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def slot(self, tokens: Callable[[], int], *, again: bool = False) -> AsyncIterator[None]:
        """Room for one call. Waits until it may start.

        tokens: gives about how many its prompt and reply have, asked when its turn has come; a call with more than tpm
        allows waits for a minute without any other, then starts. again: the call was made before and failed: it goes
        before those not made yet, or its last try would come after all of them.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a lock belongs to the loop that first waited for it
            self._loop, self._turn, self._freed = loop, asyncio.Lock(), asyncio.Event()
            self._turn_again, self._waiting_again = asyncio.Lock(), 0
        self._waiting_again += again
        try:  # first come, first served: only the first in the line looks at the limits
            async with self._turn_again if again else self._turn:
                await self._may_start(tokens(), again)
                self._running += 1
                self.most_at_once = max(self.most_at_once, self._running)
        finally:
            if again:
                self._waiting_again -= 1
                self._freed.set()
        try:
            yield
        finally:
            self._running -= 1
            self._freed.set()

    def refused(self, wait: float | None) -> None:
        """The service said 429: half the concurrency, and nothing starts for `wait` seconds, where it said how long."""
        now = self._refused_at = self._clock()
        if wait is not None:
            self._paused_until = max(self._paused_until, now + wait)
        if now - self._cut_at >= CUT_S - _INSTANT_S:
            self.concurrency = max(1, self.concurrency // 2)
            self._cut_at = now

    def succeeded(self) -> None:
        """A call was answered: twice the concurrency, up to where it began."""
        now = self._clock()
        quiet = now - max(self._refused_at, self._grown_at) >= GROW_S - _INSTANT_S
        if self.concurrency < self.start_concurrency and quiet:
            self.concurrency = min(self.start_concurrency, self.concurrency * 2)
            self._grown_at = now
            self._freed.set()

    async def _may_start(self, tokens: int, again: bool) -> None:
        """Returns at a moment at which the call may start, and counts it as started."""
        tokens = max(0, tokens)
        while True:
            while self._running >= self.concurrency or (self._waiting_again and not again):
                self._freed.clear()
                await self._freed.wait()
            now = self._clock()
            wait = max(self._paused_until - now, self._minute_is_full_for(tokens, now))
            if wait <= _INSTANT_S:
                break
            await self._sleep(wait)
        if self._rpm is not None or self._tpm is not None:
            self._started.append((now, tokens))
            self._tokens += tokens

    def _minute_is_full_for(self, tokens: int, now: float) -> float:
        """Seconds until the calls of the last minute leave room for one more."""
        while self._started and self._started[0][0] + MINUTE_S <= now + _INSTANT_S:
            self._tokens -= self._started.popleft()[1]
        wait = 0.0
        if self._rpm is not None and len(self._started) >= self._rpm:
            wait = self._started[len(self._started) - self._rpm][0] + MINUTE_S - now
        if self._tpm is not None:
            excess = self._tokens + tokens - self._tpm
            for started, freed in self._started:
                if excess <= 0:
                    break
                excess -= freed
                wait = max(wait, started + MINUTE_S - now)
        return wait

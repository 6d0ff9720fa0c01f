"""A clock that stands still until every task waits, then jumps to the next moment at which one goes on."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        """How long each sleep was asked to be."""
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, future))
        await future

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs `main` to its end. AssertionError where nobody can ever go on: a deadlock."""

        async def driven() -> T:
            loop: Any = asyncio.get_running_loop()
            task = asyncio.ensure_future(main)
            while True:
                await asyncio.sleep(0)
                while loop._ready:  # somebody else can go on without the clock
                    await asyncio.sleep(0)
                if task.done():
                    return task.result()
                while self._sleepers and self._sleepers[0][2].done():
                    heapq.heappop(self._sleepers)
                assert self._sleepers, "every task waits for another: a deadlock"
                when, _, future = heapq.heappop(self._sleepers)
                self.now = max(self.now, when)
                future.set_result(None)

        return asyncio.run(driven())

"""A limit on what calls may cost together: kept before each call by its estimate, settled after it by what it cost."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

#: Sums are kept in whole millionths of a millionth of a dollar: floats that are added and taken away again drift.
_UNIT = 10**12


class OverBudget(Exception):
    """The call was not made: with it, the limit would be passed."""


@dataclass
class _Reservation:
    estimate: int
    admitted: asyncio.Future[None]


class Budget:
    """Dollars that may be spent, shared by all judges of a run; limit None: no limit, spending is counted only.

    `spent` plus all reservations never passes the limit; spending does so only where a call cost more than its
    estimate, and by no more than that. May be read from any thread; reservations are for one event loop at a time.
    ValueError for a limit that is negative or no number.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._limit = None if limit is None else math.floor(_dollars(limit, "limit") * _UNIT)
        self._spent = self._reserved = 0
        self._waiting: deque[_Reservation] = deque()
        self._exhausted = False

    @property
    def spent(self) -> float:
        """Dollars paid so far."""
        return self._spent / _UNIT

    @property
    def reserved(self) -> float:
        """Dollars held for calls on their way."""
        return self._reserved / _UNIT

    @property
    def exhausted(self) -> bool:
        """A call was not made because of the limit."""
        return self._exhausted

    def book(self, actual: float) -> None:
        """Count dollars that were promised before this run, for which nothing could be reserved."""
        self._spent += round(_dollars(actual, "cost") * _UNIT)
        self._settle()

    @asynccontextmanager
    async def reserve(self, estimate: float) -> AsyncIterator[Callable[[float], None]]:
        """Holds `estimate` dollars for one call; yields `paid(actual)`, which may be called once a reply.

        Where the estimate does not fit beside the other reservations it waits, first come first served, for them to
        come in cheaper. OverBudget as soon as it could not fit even if they cost nothing; a later call passes only
        with a smaller estimate. Left without a word from `paid`, the call counts as estimated, because its cost is
        not known; left by an exception, as what `paid` was told before it (nothing, for a call that was refused).
        ValueError for amounts that are negative or no number.
        """
        held = math.ceil(_dollars(estimate, "estimate") * _UNIT)
        await self._admit(held)
        told = False

        def paid(actual: float) -> None:
            nonlocal held, told
            amount = round(_dollars(actual, "cost") * _UNIT)
            covered = min(held, amount)
            self._spent += amount
            self._reserved -= covered
            held -= covered
            told = True

        try:
            yield paid
            if not told:
                self._spent += held
        finally:
            self._reserved -= held
            held = 0
            self._settle()

    async def _admit(self, estimate: int) -> None:
        mine = _Reservation(estimate, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._settle()
        try:
            await mine.admitted
        except asyncio.CancelledError:
            if not mine.admitted.cancelled() and mine.admitted.exception() is None:
                self._reserved -= estimate  # it was let in, and cancelled before it could run
            self._settle()
            raise

    def _settle(self) -> None:
        """Admits or refuses those who wait, from the first, up to one for whom it is not decided yet."""
        while self._waiting:
            first = self._waiting[0]
            if not first.admitted.done():
                if self._limit is not None and self._spent + first.estimate > self._limit:
                    self._exhausted = True
                    first.admitted.set_exception(
                        OverBudget(
                            f"${self.spent:.4f} of ${self.limit} are spent; the call may cost "
                            f"${first.estimate / _UNIT:.4f}"
                        )
                    )
                elif self._limit is None or self._spent + self._reserved + first.estimate <= self._limit:
                    self._reserved += first.estimate
                    first.admitted.set_result(None)
                else:
                    return
            self._waiting.popleft()


def _dollars(amount: float, what: str) -> float:
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(f"{what} must be a number of dollars, not {amount}")
    return amount

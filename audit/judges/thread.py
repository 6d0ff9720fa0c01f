"""The judges' thread: one event loop that runs every batch of every judge and delivers each exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from audit.errors import JudgeError
from audit.judges.contract import checked, no_verdicts
from audit.protocols import Judge, PairJudge
from audit.remote.budget import Budget, OverBudget
from audit.types import Given, Item, Pair, Reason

_CLOSING = 5.0  # seconds that a judge gets to end when the thread is stopped
#: Verdicts (of pairs: choices) of one batch with their judge's identity, or the error that stops the audit.
Delivery = tuple[str, Sequence[Given], BaseException | None]
#: A batch under way: its judge, its claims or pairs, when it was begun.
_Batch = tuple[Judge, Sequence[Item], float]


class JudgeThread:
    """Runs batches; `deliveries` is read by the main thread.

    timeout: seconds. A batch is given up, undecided(timeout), when so long has passed since it was begun and since its
    judge last gave any verdict: a judge that is slow but moving is never cut off, however long its queue. A judge may
    ask for more with an attribute `patience` (seconds).
    """

    def __init__(self, judges: Sequence[Judge], *, timeout: float, budget: Budget) -> None:
        self.deliveries: queue.Queue[Delivery] = queue.Queue()
        self._judges = tuple(judges)
        self._timeout = timeout
        self._budget = budget
        self._running: dict[asyncio.Task[None], _Batch] = {}
        self._given_up: set[asyncio.Task[None]] = set()
        self._names = {id(judge): judge.identity for judge in judges}
        self._last: dict[str, float] = dict.fromkeys(self._names.values(), 0.0)
        self._alive = time.monotonic()  # when the loop last had a turn: shows a judge that blocks it
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="judges", daemon=True)
        self._thread.start()

    def start(self, judge: Judge, claims: Sequence[Item], *, now: bool = False) -> None:
        """Begin a batch. `now`: by the judge's `judge_now`, which does not wait for a provider's batch."""
        self._loop.call_soon_threadsafe(self._begin, judge, claims, now)

    def wait(self) -> Delivery | None:
        """The next delivery, None after a moment without one. Raises JudgeError where the thread is dead or blocked."""
        try:
            return self.deliveries.get(timeout=min(1.0, self._timeout / 4))
        except queue.Empty:
            pass
        if not self._thread.is_alive():
            raise JudgeError("the judges' thread has ended with verdicts outstanding")
        blocked = time.monotonic() - self._alive
        if blocked > self._timeout:
            names = ", ".join(judge.identity for judge in self._judges)
            raise JudgeError(
                f"a judge has blocked the judges' thread for {blocked:.0f} s ({names})",
                hint="what was judged is kept; leave that judge out, or allow it more time",
            )
        return None

    def release(self, judge: Judge) -> None:
        """Have a judge give back the device, where it holds one; returns when it has."""
        release = getattr(judge, "release", None)
        if release is None:
            return

        async def call() -> None:
            await asyncio.to_thread(release)

        giving_back = asyncio.run_coroutine_threadsafe(call(), self._loop)
        try:
            giving_back.result(self._timeout)
        except Exception as problem:
            name = self._names[id(judge)]
            raise JudgeError(
                f"the judge {name} does not give the device back: {type(problem).__name__}: {problem}",
                hint="what was judged is kept",
            ) from problem

    def stop(self) -> None:
        """End the thread; what was not delivered is lost and will be asked again. Safe after an error."""
        if self._thread.is_alive():
            # A judge that blocks the thread cannot be stopped; the thread is a daemon and ends with the process.
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._thread.join(timeout=2 * _CLOSING)
        if not self._thread.is_alive():
            self._loop.close()

    # ------------------------------------------------------------------------------------------ inside the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._watch)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def _begin(self, judge: Judge, claims: Sequence[Item], now: bool) -> None:
        task = self._loop.create_task(self._ask(judge, claims, now))
        self._running[task] = (judge, claims, time.monotonic())

    async def _ask(self, judge: Judge, claims: Sequence[Item], now: bool) -> None:
        """One batch, delivered exactly once whatever the judge does."""
        error: BaseException | None = None
        name = self._names[id(judge)]
        try:
            verdicts = await self._judged(judge, claims, now)
            if judge.identity != name:  # its verdicts would be stored and counted under two names
                raise JudgeError(f"the judge {name} took another identity in the middle of its work: {judge.identity}")
        except JudgeError as problem:
            verdicts, error = [], problem
        except OverBudget:
            verdicts = no_verdicts(name, claims, Reason.BUDGET, "the cost limit was reached")
        except BaseException as problem:  # noqa: BLE001
            # A third party's judge may raise anything: undecided, with the reason.
            verdicts = no_verdicts(name, claims, Reason.JUDGE_ERROR, _said(problem))
        task = asyncio.current_task()
        assert task is not None
        if task not in self._given_up:
            self._last[name] = self._alive = time.monotonic()
            self.deliveries.put((name, verdicts, error))
        self._given_up.discard(task)
        self._running.pop(task, None)

    async def _judged(self, judge: Judge, claims: Sequence[Item], now: bool) -> list[Given]:
        """The judge's verdicts, checked. A judge with an attribute `priced` books its calls itself, call by call."""
        ask: Callable[[Any], Awaitable[Sequence[Given]]] = judge.judge
        if claims and isinstance(claims[0], Pair):
            assert isinstance(judge, PairJudge)  # the pool of pairs has looked
            ask = judge.compare
        elif now:
            ask = judge.judge_now  # type: ignore[attr-defined]  # the pool has looked
        if hasattr(judge, "priced"):
            return checked(judge, claims, await ask(claims))
        async with self._budget.reserve(0.0) as paid:
            verdicts = checked(judge, claims, await ask(claims))
            paid(sum(verdict.usage.get("cost", 0.0) for verdict in verdicts))
        return verdicts

    def _watch(self) -> None:
        """Give up batches whose judge has been silent for too long; at the same time the loop's sign of life."""
        now = self._alive = time.monotonic()
        for task, (judge, claims, begun) in list(self._running.items()):
            patience = max(self._timeout, _number(getattr(judge, "patience", 0.0)))
            name = self._names[id(judge)]
            if now - max(begun, self._last[name]) > patience:
                note = f"no verdict for {patience:g} s"
                self._given_up.add(task)
                del self._running[task]
                self.deliveries.put((name, no_verdicts(name, claims, Reason.TIMEOUT, note), None))
                task.cancel()
        self._loop.call_later(min(1.0, self._timeout / 4), self._watch)

    async def _end(self) -> None:
        tasks = [*self._running, *self._given_up]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING)
        closing = [asyncio.ensure_future(_closed(judge)) for judge in self._judges]
        if closing:
            await asyncio.wait(closing, timeout=_CLOSING)
        self._loop.stop()


async def _closed(judge: Judge) -> None:
    """Have a judge close its connections. What goes wrong in it comes after the last verdict and changes none."""
    close = getattr(judge, "aclose", None) or getattr(judge, "close", None)
    if close is not None:
        with contextlib.suppress(Exception, SystemExit):
            said = close()
            if inspect.isawaitable(said):
                await said


def _said(problem: BaseException) -> str:
    """An exception in words, also where a third party's has none to give."""
    try:
        return f"{type(problem).__name__}: {problem}"
    except BaseException as another:  # noqa: BLE001
        return f"{type(problem).__name__}, whose message cannot be read: {type(another).__name__}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

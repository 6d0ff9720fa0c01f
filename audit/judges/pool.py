"""Runs all judges in one background thread with one event loop, so that judging overlaps decoding.

The main thread submits claims and collects verdicts; it alone touches the store. A judge that breaks its contract or
stops answering yields undecided verdicts with the reason, never a label; a JudgeError (wrong key, unknown model)
stops the audit, and so does a judge that blocks the thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterable, Sequence

from audit.errors import JudgeError
from audit.judges.contract import checked, no_verdicts
from audit.progress import Progress
from audit.protocols import Judge
from audit.store import Store
from audit.types import Claim, Reason, Verdict

#: Seconds without any verdict from a judge after which its open batches are given up.
TIMEOUT = 900.0
_CLOSING = 5.0  # seconds that a judge gets to end when the pool is closed
#: One judge's verdicts on one batch, or the error that stops the audit.
_Delivery = tuple[Sequence[Verdict], BaseException | None]
#: A batch under way: its judge, its claims, when it was begun.
_Batch = tuple[Judge, Sequence[Claim], float]


class JudgePool:
    """Every judge on every submitted claim, each claim once.

    timeout: seconds. A batch is given up, undecided(timeout), when so long has passed since it was begun and since its
    judge last gave any verdict: a judge that is slow but moving is never cut off, however long its queue.
    """

    def __init__(self, judges: Sequence[Judge], store: Store | None, *, timeout: float = TIMEOUT) -> None:
        identities = [judge.identity for judge in judges]
        if len(set(identities)) < len(identities):
            raise JudgeError("the same judge is given twice: " + ", ".join(identities))
        if not timeout > 0:
            raise JudgeError(f"the time a judge is waited for must be more than 0 seconds, not {timeout}")
        self.judges = tuple(judges)
        self.verdicts: dict[str, dict[str, Verdict]] = {}
        """Claim key -> judge identity -> verdict."""
        self.calls = 0
        """Claims that a judge was really asked."""
        self._store = store
        self._timeout = timeout
        self._submitted: set[tuple[str, str]] = set()
        self._held: list[tuple[Judge, list[Claim]]] = []
        self._open = 0
        self._deliveries: queue.Queue[_Delivery] = queue.Queue()
        self._closed = False
        # Of the judges' thread: the batches under way, those given up, when each judge last gave a verdict.
        self._running: dict[asyncio.Task[None], _Batch] = {}
        self._given_up: set[asyncio.Task[None]] = set()
        self._last: dict[str, float] = dict.fromkeys(identities, 0.0)
        self._alive = time.monotonic()
        """When the loop last had a turn: what the main thread looks at to see a judge that blocks it."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="judges", daemon=True)
        self._thread.start()

    @property
    def exclusive(self) -> bool:
        """Some judge waits until the engine is closed."""
        return any(judge.exclusive for judge in self.judges)

    def submit(self, claims: Iterable[Claim], *, fresh: bool = False) -> None:
        """Have `claims` judged: those not judged yet by each judge, from the store where it knows them.

        `fresh` passes the store and earlier verdicts by: canaries must reach the real judges.
        """
        self._refuse_closed()
        unique = {claim.key: claim for claim in claims}
        for judge in self.judges:
            wanted = [c for k, c in unique.items() if fresh or (judge.identity, k) not in self._submitted]
            self._submitted.update((judge.identity, claim.key) for claim in wanted)
            known: dict[str, Verdict] = {}
            if self._store is not None and not fresh:
                known = self._store.verdicts(judge.identity, [claim.key for claim in wanted])
            for verdict in known.values():
                self._take(verdict)
            asked = [claim for claim in wanted if claim.key not in known]
            self.calls += len(asked)
            if judge.exclusive:
                self._held.append((judge, asked))
            else:
                self._start(judge, asked)
        self.poll()

    def drain(self, progress: Progress | None = None, stage: str = "judging") -> None:
        """Wait for all verdicts. For exclusive judges the caller has closed the engine before.

        `progress` is told of every batch of claims that comes back, as a stage of its own.

        Raises JudgeError where a judge says that it cannot work, or holds the thread for longer than the timeout.
        """
        self._refuse_closed()
        held, self._held = self._held, []
        for judge, claims in held:
            self._start(judge, claims)
        if progress is not None and self._open:
            progress.stage(stage, self._open)
        while self._open:
            try:
                delivery = self._deliveries.get(timeout=min(1.0, self._timeout / 4))
            except queue.Empty:
                self._look_after_thread()
                continue
            self._deliver(delivery)
            if progress is not None:
                progress.advance()

    def poll(self) -> None:
        """Take in what is ready, without waiting."""
        while True:
            try:
                self._deliver(self._deliveries.get_nowait())
            except queue.Empty:
                return

    def close(self) -> None:
        """Stop the judges' thread; what was not collected is lost and will be asked again. Safe after an error."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            # A judge that blocks the thread cannot be stopped; the thread is a daemon and ends with the process.
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._thread.join(timeout=2 * _CLOSING)
        if not self._thread.is_alive():
            self._loop.close()

    # ------------------------------------------------------------------------------------------- the main thread

    def _start(self, judge: Judge, claims: Sequence[Claim]) -> None:
        size = max(1, judge.batch_size)
        for start in range(0, len(claims), size):
            self._open += 1
            self._loop.call_soon_threadsafe(self._begin, judge, claims[start : start + size])

    def _deliver(self, delivery: _Delivery) -> None:
        verdicts, error = delivery
        self._open -= 1
        if error is not None:
            raise error
        if self._store is not None:
            self._store.put_verdicts(verdicts)
        for verdict in verdicts:
            self._take(verdict)

    def _take(self, verdict: Verdict) -> None:
        self.verdicts.setdefault(verdict.claim_key, {})[verdict.judge] = verdict

    def _look_after_thread(self) -> None:
        if not self._thread.is_alive():
            raise JudgeError("the judges' thread has ended with verdicts outstanding")
        blocked = time.monotonic() - self._alive
        if blocked > self._timeout:
            names = ", ".join(judge.identity for judge in self.judges)
            raise JudgeError(
                f"a judge has blocked the judges' thread for {blocked:.0f} s ({names})",
                hint="what was judged is kept; leave that judge out, or allow it more time",
            )

    def _refuse_closed(self) -> None:
        if self._closed:
            raise JudgeError("the judges were stopped; start the audit again, it goes on where it was")

    # ------------------------------------------------------------------------------------------ the judges' thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._watch)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def _begin(self, judge: Judge, claims: Sequence[Claim]) -> None:
        task = self._loop.create_task(self._ask(judge, claims))
        self._running[task] = (judge, claims, time.monotonic())

    async def _ask(self, judge: Judge, claims: Sequence[Claim]) -> None:
        """One batch, delivered exactly once whatever the judge does."""
        error: BaseException | None = None
        try:
            verdicts = checked(judge, claims, await judge.judge(claims))
        except JudgeError as problem:
            verdicts, error = [], problem
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as problem:  # noqa: BLE001
            # A third party's judge may raise anything: undecided, with the reason.
            verdicts = no_verdicts(judge, claims, Reason.JUDGE_ERROR, f"{type(problem).__name__}: {problem}")
        task = asyncio.current_task()
        assert task is not None
        if task not in self._given_up:
            self._last[judge.identity] = self._alive = time.monotonic()
            self._deliveries.put((verdicts, error))
        self._given_up.discard(task)
        self._running.pop(task, None)

    def _watch(self) -> None:
        """Give up batches whose judge has been silent for too long; at the same time the loop's sign of life."""
        now = self._alive = time.monotonic()
        for task, (judge, claims, begun) in list(self._running.items()):
            if now - max(begun, self._last[judge.identity]) > self._timeout:
                note = f"no verdict for {self._timeout:g} s"
                self._given_up.add(task)
                del self._running[task]
                self._deliveries.put((no_verdicts(judge, claims, Reason.TIMEOUT, note), None))
                task.cancel()
        self._loop.call_later(min(1.0, self._timeout / 4), self._watch)

    async def _end(self) -> None:
        tasks = [*self._running, *self._given_up]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING)
        self._loop.stop()

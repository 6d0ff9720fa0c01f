"""All judges of a run: claims (or pairs) in, verdicts out, each once, so that judging overlaps decoding.

The main thread submits claims and collects verdicts; it alone touches the store. A judge that breaks its contract or
stops answering yields undecided verdicts with the reason, never a label; a JudgeError (wrong key, unknown model)
stops the audit, and so does a judge that blocks the thread (audit.judges.thread).
"""

from __future__ import annotations

import queue
from collections.abc import Collection, Iterable, Sequence
from typing import Generic, TypeGuard, TypeVar, cast

from audit.errors import JudgeError
from audit.judges.contract import is_sound
from audit.judges.ledger import Totals, in_a_line
from audit.judges.shortcuts import pair_without_call, without_call
from audit.judges.thread import Delivery, JudgeThread
from audit.progress import Progress
from audit.protocols import Judge, PairJudge
from audit.remote.budget import Budget
from audit.store import Store
from audit.types import Choice, Claim, Pair, Verdict

I = TypeVar("I", Claim, Pair)  # noqa: E741
G = TypeVar("G", Verdict, Choice)
#: Seconds without any verdict from a judge after which its open batches are given up.
TIMEOUT = 900.0
COMPARING = "name a judge that can: --win-judge openai:MODEL, gemini:MODEL or local:PATH"


class Pool(Generic[I, G]):
    """Every judge on every submitted item (claim or pair), each once. `timeout`: seconds, see JudgeThread."""

    def __init__(
        self,
        judges: Sequence[Judge],
        store: Store | None,
        *,
        timeout: float = TIMEOUT,
        budget: Budget | None = None,
    ) -> None:
        identities = [judge.identity for judge in judges]
        if len(set(identities)) < len(identities):
            raise JudgeError("the same judge is given twice: " + ", ".join(identities))
        if not timeout > 0:
            raise JudgeError(f"the time a judge is waited for must be more than 0 seconds, not {timeout}")
        self.judges = tuple(judges)
        self.verdicts: dict[str, dict[str, G]] = {}
        """Key of a claim or pair -> judge identity -> what it gave."""
        self.without_call: set[str] = set()
        """Keys of items that need no judge."""
        self.totals = {identity: Totals(identity) for identity in identities}
        self._store = store
        self._submitted: set[tuple[str, str]] = set()
        self._held: dict[str, list[I]] = {identity: [] for identity in identities}
        self._open = 0
        self._closed = False
        self._thread = JudgeThread(judges, timeout=timeout, budget=budget or Budget(None))

    @property
    def calls(self) -> int:
        """Claims that a judge was really asked."""
        return sum(totals.asked for totals in self.totals.values())

    @property
    def exclusive(self) -> bool:
        """Some judge waits until the engine is closed."""
        return any(judge.exclusive for judge in self.judges)

    def submit(self, claims: Iterable[I], *, fresh: bool = False, only: Collection[str] | None = None) -> None:
        """Have `claims` judged: those not judged yet by each judge, from the store where it knows them.

        `fresh` passes the store, earlier verdicts and shortcuts by: canaries must reach the real judges, and at once
        where a judge that is `held` can be asked directly (`judge_now`): what is wrong with it must not show a day
        later. `only`: identities of the judges to ask; all of them if left out.
        """
        self._refuse_closed()
        unique = {claim.key: claim for claim in claims}
        for judge in self.judges:
            if only is not None and judge.identity not in only:
                continue
            wanted = [c for k, c in unique.items() if fresh or (judge.identity, k) not in self._submitted]
            # A canary that needs no judge as an answer still needs none: whatever the judge made of it does not stand.
            lasting = wanted if not fresh else [c for c in wanted if self._plain(c, judge.identity) is None]
            self._submitted.update((judge.identity, claim.key) for claim in lasting)
            asked = wanted if fresh else self._unknown(judge, wanted)
            self.totals[judge.identity].asked += len(asked)
            if fresh and hasattr(judge, "judge_now"):
                self._start(judge, asked, now=True)
            elif judge.exclusive or getattr(judge, "held", False):
                self._held[judge.identity] += asked
            else:
                self._start(judge, asked)
        self.poll()

    def drain(self, progress: Progress | None = None, stage: str = "judging") -> None:
        """Wait for all verdicts. For exclusive judges the caller has closed the engine before.

        `progress` is told of every batch of claims that comes back, as a stage of its own.

        Raises JudgeError where a judge says that it cannot work, or holds the thread for longer than the timeout.
        """
        self._refuse_closed()
        alone = [judge for judge in self.judges if judge.exclusive and self._held[judge.identity]]
        for judge in self.judges:
            if judge not in alone:
                self._start_held(judge)
        self._wait(progress, stage)
        for judge in alone:  # one after the other: each wants the device for itself
            self._start_held(judge)
            self._wait(progress, stage)
            self._thread.release(judge)

    def poll(self) -> None:
        """Take in what is ready, without waiting."""
        ready = []
        while True:
            try:
                ready.append(self._thread.deliveries.get_nowait())
            except queue.Empty:
                break
        if ready:
            self._deliver(ready)

    def close(self) -> None:
        """Stop the judges' thread; what was not collected is lost and will be asked again. Safe after an error."""
        if not self._closed:
            self._closed = True
            self._thread.stop()

    def _plain(self, item: I, judge: str) -> G | None:
        """What is given on an item that needs no judge; None for all others."""
        raise NotImplementedError

    def _kept(self, store: Store, judge: str, keys: Sequence[str]) -> dict[str, G]:
        """Key -> what the store knows."""
        raise NotImplementedError

    def _unknown(self, judge: Judge, wanted: Sequence[I]) -> list[I]:
        """Those that this judge must be asked: neither plain without a judge nor known to the store."""
        totals = self.totals[judge.identity]
        asked = []
        for claim in wanted:
            verdict = self._plain(claim, judge.identity)
            if verdict is None:
                asked.append(claim)
            else:
                self.without_call.add(claim.key)
                totals.without_call += 1
                self._take(verdict)
        if self._store is None:
            return asked
        kept = self._kept(self._store, judge.identity, [claim.key for claim in asked])
        known = {key: verdict for key, verdict in kept.items() if is_sound(judge, key, verdict)}
        totals.from_store += len(known)
        for verdict in known.values():
            self._take(verdict)
        return [claim for claim in asked if claim.key not in known]

    def _start_held(self, judge: Judge) -> None:
        held, self._held[judge.identity] = self._held[judge.identity], []
        self._start(judge, held)

    def _start(self, judge: Judge, claims: Sequence[I], *, now: bool = False) -> None:
        size = max(1, judge.batch_size)
        for start in range(0, len(claims), size):
            self._open += 1
            self._thread.start(judge, claims[start : start + size], now=now)

    def _wait(self, progress: Progress | None, stage: str) -> None:
        if progress is not None and self._open:
            progress.stage(stage, self._open)
        try:
            self._collect(progress)
        except KeyboardInterrupt:
            if progress is not None and self._underway():
                progress.note(f"goes on without this audit, which will pick it up again: {self._underway()}")
            raise

    def _collect(self, progress: Progress | None) -> None:
        said = ""
        while self._open:
            delivery = self._thread.wait()
            if delivery is not None:
                ready = [delivery]
                while not self._thread.deliveries.empty():
                    ready.append(self._thread.deliveries.get_nowait())
                self._deliver(ready)
            elif self._underway() in ("", said):
                continue
            if progress is not None:
                said = self._underway()
                progress.status("; ".join(filter(None, (in_a_line(list(self.totals.values())), said))))
                progress.advance(0 if delivery is None else len(ready))

    def _deliver(self, ready: Sequence[Delivery]) -> None:
        """Keep what was ruled, in one transaction; then raise, where a judge says that it cannot work."""
        self._open -= len(ready)
        verdicts = [verdict for _, given, _ in ready for verdict in given]
        if self._store is not None:
            self._store.put_verdicts(verdicts)
        for judge in self.judges:
            if hasattr(judge, "delivered"):
                judge.delivered(
                    [v.claim_key for identity, given, _ in ready if identity == judge.identity for v in given]
                )
        for identity, given, _ in ready:
            self.totals[identity].add(given)
        for verdict in verdicts:
            self._take(cast(G, verdict))  # the contract: what answers another kind of item is undecided by now
        for _, _, error in ready:
            if error is not None:
                raise error

    def _underway(self) -> str:
        """What judges wait for elsewhere, in their words."""
        return "; ".join(filter(None, (getattr(judge, "underway", "") for judge in self.judges)))

    def _take(self, verdict: G) -> None:
        self.verdicts.setdefault(verdict.claim_key, {})[verdict.judge] = verdict

    def _refuse_closed(self) -> None:
        if self._closed:
            raise JudgeError("the judges were stopped; start the audit again, it goes on where it was")


class JudgePool(Pool[Claim, Verdict]):
    """Claims: does this text give that answer?"""

    def _plain(self, item: Claim, judge: str) -> Verdict | None:
        return without_call(item, judge)

    def _kept(self, store: Store, judge: str, keys: Sequence[str]) -> dict[str, Verdict]:
        return store.verdicts(judge, keys)


class PairPool(Pool[Pair, Choice]):
    """Pairs: which of two replies is better? JudgeError for a judge that cannot compare."""

    def __init__(
        self,
        judges: Sequence[PairJudge],
        store: Store | None,
        *,
        timeout: float = TIMEOUT,
        budget: Budget | None = None,
    ) -> None:
        unable = [judge.identity for judge in judges if not can_compare(judge)]
        if unable:
            raise JudgeError(f"cannot say which of two replies is better: {', '.join(unable)}", hint=COMPARING)
        super().__init__(judges, store, timeout=timeout, budget=budget)

    def _plain(self, item: Pair, judge: str) -> Choice | None:
        return pair_without_call(item, judge)

    def _kept(self, store: Store, judge: str, keys: Sequence[str]) -> dict[str, Choice]:
        return store.choices(judge, keys)


def can_compare(judge: Judge) -> TypeGuard[PairJudge]:
    """The judge says that it can tell which of two replies is better."""
    return isinstance(judge, PairJudge) and judge.compares is True

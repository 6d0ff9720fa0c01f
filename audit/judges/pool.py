"""Runs all judges in one background thread with one event loop, so that judging overlaps decoding.

The main thread submits claims and collects verdicts; it alone touches the store. A judge that breaks its contract
yields undecided verdicts with the reason, never a label; a JudgeError (wrong key, unknown model) stops the audit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable, Sequence

from audit.errors import JudgeError
from audit.store import Store
from audit.types import Claim, Judge, Reason, Verdict

#: One judge's verdicts on one batch, or the error that stops the audit.
_Delivery = tuple[Sequence[Verdict], BaseException | None]


class JudgePool:
    """Every judge on every submitted claim, each claim once."""

    def __init__(self, judges: Sequence[Judge], store: Store | None) -> None:
        identities = [judge.identity for judge in judges]
        if len(set(identities)) < len(identities):
            raise JudgeError("the same judge is given twice: " + ", ".join(identities))
        self.judges = tuple(judges)
        self.verdicts: dict[str, dict[str, Verdict]] = {}
        """Claim key -> judge identity -> verdict."""
        self.calls = 0
        """Claims that a judge was really asked."""
        self._store = store
        self._submitted: set[tuple[str, str]] = set()
        self._held: list[tuple[Judge, list[Claim]]] = []
        self._open = 0
        self._deliveries: queue.Queue[_Delivery] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judges", daemon=True)
        self._thread.start()

    @property
    def exclusive(self) -> bool:
        """Some judge waits until the engine is closed."""
        return any(judge.exclusive for judge in self.judges)

    def submit(self, claims: Iterable[Claim], *, fresh: bool = False) -> None:
        """Have `claims` judged: those not judged yet by each judge, from the store where it knows them.

        `fresh` passes the store by (canaries must reach the real judges).
        """
        unique = {claim.key: claim for claim in claims}
        for judge in self.judges:
            wanted = [c for k, c in unique.items() if (judge.identity, k) not in self._submitted]
            self._submitted.update((judge.identity, claim.key) for claim in wanted)
            known: dict[str, Verdict] = {}
            if self._store is not None and not fresh:
                known = self._store.verdicts(judge.identity, [claim.key for claim in wanted])
            for verdict in known.values():
                self.verdicts.setdefault(verdict.claim_key, {})[judge.identity] = verdict
            asked = [claim for claim in wanted if claim.key not in known]
            self.calls += len(asked)
            if judge.exclusive:
                self._held.append((judge, asked))
            else:
                self._start(judge, asked)
        self.poll()

    def drain(self) -> None:
        """Wait for all verdicts. For exclusive judges the caller has closed the engine before."""
        held, self._held = self._held, []
        for judge, claims in held:
            self._start(judge, claims)
        while self._open:
            self._deliver(self._deliveries.get())
        self.poll()

    def poll(self) -> None:
        """Take in what is ready, without waiting."""
        while True:
            try:
                self._deliver(self._deliveries.get_nowait())
            except queue.Empty:
                return

    def close(self) -> None:
        """Stop the judges' thread; what was not collected is lost and will be asked again."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(timeout=10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)

    def _start(self, judge: Judge, claims: Sequence[Claim]) -> None:
        size = max(1, judge.batch_size)
        for start in range(0, len(claims), size):
            self._open += 1
            asyncio.run_coroutine_threadsafe(self._ask(judge, claims[start : start + size]), self._loop)

    async def _ask(self, judge: Judge, claims: Sequence[Claim]) -> None:
        try:
            returned = await judge.judge(claims)
            self._deliveries.put((_checked(judge, claims, returned), None))
        except JudgeError as error:
            self._deliveries.put(((), error))
        except Exception as error:  # noqa: BLE001 - a third party's judge may raise anything: undecided, with the reason
            note = f"{type(error).__name__}: {error}"
            self._deliveries.put(([_broken(judge, claim, note) for claim in claims], None))

    def _deliver(self, delivery: _Delivery) -> None:
        verdicts, error = delivery
        self._open -= 1
        if error is not None:
            raise error
        if self._store is not None:
            self._store.put_verdicts(verdicts)
        for verdict in verdicts:
            self.verdicts.setdefault(verdict.claim_key, {})[verdict.judge] = verdict


def _checked(judge: Judge, claims: Sequence[Claim], returned: Sequence[Verdict]) -> list[Verdict]:
    """Exactly one verdict a claim, joined by key; a claim without one, or with two labels, is undecided."""
    found: dict[str, Verdict] = {}
    for verdict in returned:
        other = found.setdefault(verdict.claim_key, verdict)
        if other.label != verdict.label:
            found[verdict.claim_key] = _broken_key(judge, verdict.claim_key, "two different verdicts on one claim")
    verdicts = []
    for claim in claims:
        verdict_or_none = found.get(claim.key)
        if verdict_or_none is None:
            verdicts.append(_broken(judge, claim, "the judge returned no verdict on this claim"))
        elif verdict_or_none.judge != judge.identity:
            verdicts.append(_broken(judge, claim, f"a verdict signed {verdict_or_none.judge!r}"))
        elif (verdict_or_none.label == "undecided") == (verdict_or_none.reason is Reason.RULED):
            verdicts.append(
                _broken(judge, claim, f"label {verdict_or_none.label} with reason {verdict_or_none.reason}")
            )
        else:
            verdicts.append(verdict_or_none)
    return verdicts


def _broken(judge: Judge, claim: Claim, note: str) -> Verdict:
    return _broken_key(judge, claim.key, note)


def _broken_key(judge: Judge, claim_key: str, note: str) -> Verdict:
    return Verdict(
        claim_key=claim_key, judge=judge.identity, label="undecided", reason=Reason.JUDGE_ERROR, rationale=note
    )


async def _cancel_all() -> None:
    current = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not current]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

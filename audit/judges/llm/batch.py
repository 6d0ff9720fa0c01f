"""Judges that ask through a provider's batch interface: half the price, answers within a day.

Prompts, bodies of requests, the reading of replies and the identity are those of the same judge asked directly: a
verdict is the same verdict. Lines of a batch are joined by their key, never by position. Canaries are asked directly.
"""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import msgspec

from audit.errors import JudgeError
from audit.fingerprint import digest
from audit.judges.context import JudgeContext
from audit.judges.llm import caller
from audit.judges.llm.batch_client import BatchClient, Outcome, State, all_of, by_line, content_of, in_files, no_line
from audit.judges.llm.given import verdicts
from audit.judges.llm.model_judge import MORE_TOKENS, ModelJudge, Reply, Transport, estimated_tokens
from audit.judges.llm.options import RemoteOptions
from audit.judges.llm.parsing import Parsed
from audit.judges.llm.pending import Pending, batch_name, keep, pending_batches
from audit.judges.llm.prompt import FilePrompt
from audit.judges.llm.usage import Spent
from audit.remote.budget import OverBudget
from audit.remote.failures import Failure
from audit.remote.prices import cost_of
from audit.remote.retries import retrying
from audit.types import Claim, Given, Item, Reason, Verdict

#: What is asked for once more, in one further batch, where the cause is the reply and not the batch.
_AGAIN = (Reason.UNPARSED, Reason.JUDGE_ERROR, Reason.JUDGE_TRUNCATED)
#: Statuses of a question about a batch that is not there, or is another account's.
_NOT_OURS = (400, 403, 404)
#: Prompts that are rendered before others in the thread get a turn.
_TURN = 100

Paid = Callable[[float], None]
T = TypeVar("T")


class _Gone(Exception):
    """The provider does not know the batch, or does not show it to this account."""


@dataclass(frozen=True)
class _Call:
    """One line of a batch."""

    key: str
    claims: tuple[Item, ...]
    max_tokens: int
    spent: Spent
    """Shared by all calls about the same prompt's claims."""


class BatchJudge(ModelJudge):
    """A model judge that hands all claims over at once and waits for them, up to a day for each of two batches.

    `held`: the pool keeps claims until a drain. `patience`: seconds. `underway`: what is being waited for, for
    people. `judge_now`: the direct calls that canaries need. `delivered`: tells that verdicts have been stored.
    """

    held = True

    def __init__(
        self,
        transport: Transport,
        client: BatchClient,
        prompt: FilePrompt,
        options: RemoteOptions,
        context: JudgeContext | None = None,
    ) -> None:
        super().__init__(transport, prompt, options, context)
        self.client = client
        self.batch_size = client.most_lines * prompt.claims_per_call
        self.patience = 2 * client.window_s + self.patience
        self._waiting_for: dict[str, str] = {}
        self._finished: dict[str, Pending] = {}
        """Batches whose results were read, or that brought none: their notes go when the verdicts are stored."""
        self._left: set[str] = set()
        """Claims of batches that may go on without us: what an earlier batch said of them is kept too."""
        self._uploading = asyncio.Lock()  # one file at a time in memory

    @property
    def underway(self) -> str:
        """The batches that are being waited for, in words; empty if none."""
        return "; ".join(sorted(self._waiting_for.values()))

    def expected_tokens(self, claims: Sequence[Item]) -> tuple[int, int]:
        parts = [super(BatchJudge, self).expected_tokens(part) for part in self._parts(claims)]
        return sum(prompt for prompt, _ in parts), sum(reply for _, reply in parts)

    async def judge_now(self, claims: Sequence[Claim]) -> list[Verdict]:
        """One verdict a claim by direct calls, at the full price."""
        return verdicts(await super()._all(claims))

    async def _all(self, claims: Sequence[Item]) -> list[Given]:
        """One verdict a claim, or choice a pair. JudgeError where the service cannot be used; what is under way stays
        noted.

        Where nothing was asked directly before, one small call is made first: a wrong key stops at once, and the call
        shows which fields the model takes.
        """
        if self._stopped is not None:
            raise JudgeError(str(self._stopped), hint=self._stopped.hint)
        if not self._answered:
            await self.ready()
        calls = [self._call_about(part, self.options.max_tokens, Spent()) for part in self._parts(claims)]
        read: dict[str, Parsed] = {}
        raw: dict[str, str] = {}
        again = await self._round(calls, read, raw)
        if again:
            await self._round(again, read, raw)
        return [
            self._verdict(claim, read[claim.key], raw.get(claim.key, ""), call.spent, len(call.claims))
            for call in calls
            for claim in call.claims
        ]

    def delivered(self, claims: Collection[str]) -> None:
        """The verdicts on these claims are kept: forget the batches that they came from."""
        keys = set(claims) - self._left
        for name, pending in list(self._finished.items()):
            left = pending.without(keys)
            if len(left.lines) < len(pending.lines):
                keep(left)
                if left.lines:
                    self._finished[name] = left
                else:
                    del self._finished[name]

    # ---------------------------------------------------------------------------------------------------- one round

    def _parts(self, claims: Sequence[Item]) -> list[Sequence[Item]]:
        size = self.prompt.claims_per_call
        return [claims[i : i + size] for i in range(0, len(claims), size)]

    def _call_about(self, claims: Sequence[Item], max_tokens: int, spent: Spent) -> _Call:
        key = digest("line", self.identity, [claim.key for claim in claims], max_tokens)
        return _Call(key, tuple(claims), max_tokens, spent)

    async def _round(self, calls: Sequence[_Call], read: dict[str, Parsed], raw: dict[str, str]) -> list[_Call]:
        """Ask, note what came in `read` and `raw`, and return what should be asked for once more."""
        outcomes = await self._asked(calls)
        again: list[_Call] = []
        for call in calls:
            outcome = outcomes[call.key]
            if isinstance(outcome, Failure):
                failed = Parsed(label="undecided", reason=outcome.reason, rationale=outcome.message)
                read |= dict.fromkeys((claim.key for claim in call.claims), failed)
                if outcome.retry:
                    again.append(self._once_more(call, call.claims, call.max_tokens))
                continue
            read |= self._read(outcome, call.claims)
            raw |= dict.fromkeys((claim.key for claim in call.claims), outcome.text)
            left = [claim for claim in call.claims if read[claim.key].reason in _AGAIN]
            if left:
                longer = call.max_tokens * (MORE_TOKENS if outcome.finish == "length" else 1)
                again.append(self._once_more(call, left, longer))
        return again

    def _once_more(self, call: _Call, claims: Sequence[Item], max_tokens: int) -> _Call:
        """The line has a key of its own even where it asks the same: it belongs to another batch."""
        key = digest("once more", call.key, [claim.key for claim in claims], max_tokens)
        return _Call(key, tuple(claims), max_tokens, call.spent)

    async def _asked(self, calls: Sequence[_Call]) -> dict[str, Outcome]:
        """Line key -> what came: from batches that are under way already, and from new ones for the rest."""
        left = {call.key: call for call in calls}
        work: list[Awaitable[dict[str, Outcome]]] = []
        for pending in pending_batches(self.identity):
            mine = [left.pop(key) for key in pending.lines if key in left]
            if mine:
                work.append(self._resumed(pending, mine))
        work.append(self._sent(list(left.values())))
        return await all_of(work)

    async def _resumed(self, pending: Pending, calls: Sequence[_Call]) -> dict[str, Outcome]:
        """From a batch of an earlier run. What it costs was decided then: it is counted, and no limit refuses it."""
        try:
            if not pending.batch:
                found = await self._persistently(lambda: self.client.find(pending.name))
                if found is None:
                    raise _Gone(pending.name)
                pending = msgspec.structs.replace(pending, batch=found)
                keep(pending)
            return await self._awaited(pending, calls, self.budget.book)
        except (_Gone, _TooLarge):
            keep(_used(pending, calls))
            return await self._sent(calls)
        except Failure as failure:
            return self._given_up(failure, calls)

    async def _sent(self, calls: Sequence[_Call]) -> dict[str, Outcome]:
        """In new batches, as far as the budget goes: reserved before anything is sent."""
        if not calls:
            return {}
        outcomes: dict[str, Outcome] = {}
        sizes: dict[str, tuple[float, int]] = {}
        for index, call in enumerate(calls):
            try:
                sizes[call.key] = self._most_dollars(call), len(self._line(call))
            except UnicodeError as problem:
                outcomes[call.key] = Failure(f"the claim cannot be sent: {problem}", reason=Reason.JUDGE_ERROR)
            if index % _TURN == 0:
                await asyncio.sleep(0)
        calls = [call for call in calls if call.key in sizes]
        async with AsyncExitStack() as stack:
            fitting, paid, refused = await self._admitted(stack, calls, [sizes[call.key][0] for call in calls])
            for call in calls[fitting:]:
                outcomes[call.key] = Failure(f"not asked: {refused}", reason=Reason.BUDGET)
                self._left |= {claim.key for claim in call.claims}
            cuts = in_files([sizes[call.key][1] for call in calls[:fitting]], self.client)
            outcomes |= await all_of(self._file(calls[start:end], paid) for start, end in cuts)
        return outcomes

    async def _admitted(
        self, stack: AsyncExitStack, calls: Sequence[_Call], dollars: Sequence[float]
    ) -> tuple[int, Paid, OverBudget | None]:
        """How many of the calls, from the first, the budget takes; they are reserved as long as `stack` is open."""
        sums = list(accumulate(dollars))
        fitting, refused = len(calls), None
        while fitting:
            try:
                paid = await stack.enter_async_context(self.budget.reserve(sums[fitting - 1]))
                paid(0.0)  # from now on what lines cost is told, line by line
                return fitting, paid, refused
            except OverBudget as problem:
                refused = refused or problem
                room = (self.budget.limit or 0.0) - self.budget.spent
                fitting = min(fitting - 1, bisect_right(sums, room))
        return 0, self.budget.book, refused

    # ---------------------------------------------------------------------------------------------------- one batch

    async def _file(self, calls: Sequence[_Call], paid: Paid) -> dict[str, Outcome]:
        """One batch, from the upload to its results."""
        lines = {call.key: tuple(claim.key for claim in call.claims) for call in calls}
        name = batch_name(self.identity, lines)
        pending = Pending(name=name, judge=self.identity, batch="", created=time.time(), lines=lines)
        try:
            async with self._uploading:
                data = b"".join([self._line(call) for call in calls])
                keep(pending)  # before it exists: whatever happens now, it can be found by its name
                batch = await self._made(name, data)
            pending = msgspec.structs.replace(pending, batch=batch)
            keep(pending)
        except Failure as failure:
            if not failure.retry:  # refused: there is no batch
                keep(_used(pending, calls))
            return self._given_up(failure, calls)
        try:
            return await self._awaited(pending, calls, paid)
        except _TooLarge as problem:
            keep(_used(pending, calls))
            half = len(calls) // 2
            if not half:
                return dict.fromkeys(lines, Failure(str(problem), reason=Reason.RATE_LIMITED))
            return await self._file(calls[:half], paid) | await self._file(calls[half:], paid)
        except _Gone:
            keep(_used(pending, calls))
            gone = Failure(f"the batch {pending.batch} is not there any more", reason=Reason.JUDGE_ERROR)
            return dict.fromkeys(lines, gone)
        except Failure as failure:  # the batch goes on without us, and is noted
            paid(sum(self._most_dollars(call) for call in calls))
            return self._given_up(failure, calls)

    async def _made(self, name: str, data: bytes) -> str:
        """The id of the new batch. A try whose answer was lost may have made it: it is looked for before the next."""

        async def try_once(attempt: int) -> str:
            found = await self.client.find(name) if attempt else None
            return found or await self.client.send(name, data)

        return await retrying(try_once, retries=self.options.retries, backoff_s=caller.BACKOFF_S)

    async def _awaited(self, pending: Pending, calls: Sequence[_Call], paid: Paid) -> dict[str, Outcome]:
        """Wait for a batch and read what it brought. Raises _Gone, _TooLarge, Failure (where its fate is not known)."""
        for call in calls:
            call.spent.tries += 1
        self._waiting_for[pending.name] = f"batch {pending.batch} at {self.transport.where}"
        try:
            state = await self._ended(pending)
        finally:
            self._waiting_for.pop(pending.name, None)
        if state is None:
            hours = self.client.window_s / 3600
            raise Failure(f"the batch {pending.batch} has not ended in {hours:g} hours", reason=Reason.TIMEOUT)
        if state.too_large:
            raise _TooLarge(f"the batch {pending.batch} failed: {state.problem}")
        came = by_line([await self._fetched(file) for file in state.files], self.client)
        outcomes = {call.key: self._outcome(call, came.get(call.key, []), state, pending, paid) for call in calls}
        self._finished[pending.name] = pending
        return outcomes

    async def _ended(self, pending: Pending) -> State | None:
        """The last state of a batch; None where it goes on beyond its window."""
        unknown = 0
        while True:
            wait = self.options.poll_s
            try:
                state = await self.client.look(pending.batch)
                unknown = 0
                if state.phase != "running":
                    return state
                self._waiting_for[pending.name] = f"batch {pending.batch} at {self.transport.where}: {state.said}"
            except Failure as failure:
                if failure.status in _NOT_OURS and failure.concerns != "account":
                    unknown += 1
                    if unknown > self.options.retries:
                        raise _Gone(pending.batch) from failure
                elif not failure.retry:
                    raise
                wait = max(wait, failure.wait or 0.0)  # a service may be away for hours: the batch is not
            if time.time() > pending.created + self.client.window_s:
                return None
            await asyncio.sleep(wait)

    async def _fetched(self, file: str) -> bytes:
        try:
            return await self._persistently(lambda: self.client.fetch(file))
        except Failure as failure:
            if failure.status in _NOT_OURS:
                raise _Gone(file) from failure
            raise

    def _outcome(self, call: _Call, came: Sequence[Outcome], state: State, pending: Pending, paid: Paid) -> Outcome:
        """What one line brought, its cost booked."""
        booked: list[Reply] = []
        for reply in came:
            if isinstance(reply, Reply) and reply not in booked:
                booked.append(reply)
                cost = self._book(reply, call.spent, batch=True)
                paid(self._most_dollars(call) if cost is None else cost)
        if not came:
            return no_line(state, pending.batch)
        first = came[0]
        if any(content_of(other) != content_of(first) for other in came):
            return Failure("two different lines came back under one key", reason=Reason.UNPARSED, retry=True)
        if isinstance(first, Reply):
            try:
                self._refuse_other_model(first)
            except Failure as failure:
                return failure
        return first

    # --------------------------------------------------------------------------------------------------------- helpers

    def _line(self, call: _Call) -> bytes:
        """One line of the file. UnicodeError for a claim whose text is no text."""
        user = self.prompt.user(call.claims)
        user.encode("utf-8")
        line = self.client.line(call.key, self._system, user, schema=self._schema, max_tokens=call.max_tokens)
        return json.dumps(line).encode() + b"\n"

    def _most_dollars(self, call: _Call) -> float:
        """What a call costs at most."""
        if self.price is None:
            return 0.0
        prompt = estimated_tokens(self._system) + estimated_tokens(self.prompt.user(call.claims))
        return cost_of(self.price, prompt, call.max_tokens, batch=True)

    async def _persistently(self, call: Callable[[], Awaitable[T]]) -> T:
        """With the retries of any call."""
        return await retrying(lambda _: call(), retries=self.options.retries, backoff_s=caller.BACKOFF_S)

    def _given_up(self, failure: Failure, calls: Sequence[_Call]) -> dict[str, Outcome]:
        """No batch is known to have ended. JudgeError where the cause concerns every call alike."""
        self._left |= {claim.key for call in calls for claim in call.claims}
        if failure.fatal:
            raise self._stop(failure.message, failure.hint)
        final = Failure(failure.message, reason=failure.reason)
        return {call.key: final for call in calls}


class _TooLarge(Exception):
    """The provider queues no more for this account."""


def _used(pending: Pending, calls: Sequence[_Call]) -> Pending:
    """What is left of a batch without these calls."""
    return pending.without([claim.key for call in calls for claim in call.claims])

"""One call of a model behind an API, as often as it must be tried: limits, budget, retries, the model that answered.

What differs between providers is a `Transport`: one try of one call. What is asked, and what becomes of a reply, is for
those who call: judges (audit.judges.llm.model_judge) and writers of questions (audit.utility.holes).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, Protocol

from audit.errors import JudgeError
from audit.judges.context import JudgeContext
from audit.judges.llm.options import RemoteOptions
from audit.judges.llm.usage import Spent
from audit.remote.budget import Budget
from audit.remote.failures import LONGEST_WAIT_S, Failure
from audit.remote.keys import redact
from audit.remote.limits import Limiter
from audit.remote.prices import cost_of, load_prices
from audit.remote.retries import retrying
from audit.types import Reason, Record

#: Seconds before the first repeat of a failed try; doubled each time.
BACKOFF_S = 0.5
#: A reply cut by the token limit is asked for once more with so many times the tokens.
MORE_TOKENS = 4
#: Calls in a row that came to nothing for a cause that is not their text: the service cannot be used.
GIVE_UP_AFTER = 16
_UNREACHED = "is the address right, is the server running, and has this machine a network?"
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|\d{2}-\d{2}|\d{2}-\d{4}|00\d)")


class Reply(Record):
    """What one call brought. Counts are None where the API does not say."""

    text: str
    finish: Literal["stop", "length", "filtered", "other"]
    model: str
    """The model that the API says it used; empty where it says nothing."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Of the reply and of thoughts before it: what is billed as output."""
    cached_tokens: int | None = None
    note: str = ""
    """The API's own word for how the reply ended."""


class Transport(Protocol):
    """One provider's client. `ask` is one try: it raises Failure, and retries nothing itself."""

    provider: str
    model: str
    where: str
    """Host, port and path."""
    secrets: tuple[str, ...]
    """Texts that must not be shown or stored."""

    async def ask(self, system: str, user: str, *, schema: dict[str, Any] | None, max_tokens: int) -> Reply: ...

    async def aclose(self) -> None: ...


def same_model(asked: str, served: str) -> bool:
    """The served name is the asked one or a dated or numbered snapshot of it; one of the two may lack the prefix."""
    asked, served = asked.casefold().strip(), served.casefold().strip()
    if not ("/" in asked and "/" in served):
        asked, served = asked.rpartition("/")[2], served.rpartition("/")[2]
    return served.startswith(asked) and (served == asked or _SNAPSHOT.fullmatch(served[len(asked) :]) is not None)


class Caller:
    """Calls one model with one system prompt. For one event loop at a time.

    `called`: who that is, for messages. `schema`: what replies look like where the server can be told; None: nothing.
    """

    def __init__(
        self,
        transport: Transport,
        system: str,
        schema: dict[str, Any] | None,
        options: RemoteOptions,
        context: JudgeContext | None,
        *,
        called: str,
    ) -> None:
        self.transport = transport
        self.options = options
        self.called = called
        self.served: Counter[str] = Counter()
        """Model name the API gave -> replies, refused ones counted; empty name where it gave none."""
        self.prices = context.prices if context else load_prices()
        self.budget = context.budget if context else Budget(None)
        self.price = self.prices.of(transport.provider, transport.model)
        self.priced: bool = self.price is not None
        """Whether the model's price is known; where it is not, neither is any cost, and the budget cannot hold."""
        self.limiter = Limiter(options.concurrency, options.rpm, options.tpm)
        self.patience = (options.retries + 1) * (options.timeout_s + LONGEST_WAIT_S)
        """Seconds in which all tries of a call end, however badly."""
        self._system = system
        self._schema = schema
        self._schema_works = options.read == "json"
        self._in_vain = 0
        self._answered = False
        self._stopped: JudgeError | None = None

    async def aclose(self) -> None:
        """Close connections; in the event loop that opened them."""
        await self.transport.aclose()

    def _refuse_service(self, failure: Failure) -> None:
        """Takes note of a call given up. JudgeError where the cause is the service and not the call's own text."""
        if failure.fatal:
            raise self._stop(failure.message, failure.hint)
        if failure.reason is not Reason.JUDGE_REFUSED and not failure.too_long:
            self._in_vain += 1
            unreached = failure.reason is Reason.CONNECTION and not self._answered
            if unreached or self._in_vain >= GIVE_UP_AFTER:
                hint = _UNREACHED if failure.reason is Reason.CONNECTION else failure.hint
                raise self._stop(f"{self.called} cannot be used: {failure.message}", hint)

    def _stop(self, message: str, hint: str) -> JudgeError:
        self._stopped = JudgeError(message, hint=hint or "what was judged is kept; run the same command again")
        return self._stopped

    async def _call(self, write: Callable[[], str], max_tokens: int, spent: Spent, *, again: bool) -> Reply:
        """A reply to what `write` gives, after as many tries as it takes. Raises Failure, OverBudget, JudgeError."""

        async def try_once(attempt: int) -> Reply:
            try:
                return await self._try(write, max_tokens, spent, again=again or attempt > 0)
            except Failure as failure:
                if failure.rate_limited:
                    self.limiter.refused(failure.wait)
                raise

        return await retrying(try_once, retries=self.options.retries, backoff_s=BACKOFF_S)

    async def _try(self, write: Callable[[], str], max_tokens: int, spent: Spent, *, again: bool) -> Reply:
        """One try within the limits: a reply of the right model. Raises Failure, OverBudget, JudgeError."""
        user, prompt_tokens = "", 0

        def prepare() -> int:
            """Write the prompt when the call's turn has come: not for thousands of calls before the first one."""
            nonlocal user, prompt_tokens
            user = write()
            prompt_tokens = estimated_tokens(self._system) + estimated_tokens(user)
            return prompt_tokens + max_tokens

        async with self.limiter.slot(prepare, again=again):
            if self._stopped is not None:  # those who waited must not try what cannot succeed
                raise JudgeError(str(self._stopped), hint=self._stopped.hint)
            most = cost_of(self.price, prompt_tokens, max_tokens) if self.price else 0.0
            async with self.budget.reserve(most) as paid:
                spent.tries += 1
                began = time.monotonic()
                try:
                    reply = await self._ask(user, max_tokens)
                except Failure as failure:
                    failure.seconds = time.monotonic() - began
                    raise
                finally:
                    spent.seconds = time.monotonic() - began
                cost = self._book(reply, spent)
                if cost is not None:
                    paid(cost)
        self.limiter.succeeded()
        self._refuse_other_model(reply)
        return reply

    def _book(self, reply: Reply, spent: Spent, *, batch: bool = False) -> float | None:
        """Count a reply's tokens. Its cost in US dollars, None where that is not known."""
        spent.add(reply.model, reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)
        price = self.price
        if not same_model(self.transport.model, reply.model):
            price = self.prices.of(self.transport.provider, reply.model) if reply.model else price
        return spent.pay(price, reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens, batch=batch)

    def _refuse_other_model(self, reply: Reply) -> None:
        """Count who answered. Raises Failure where that is another model than the one asked for."""
        self.served[redact(reply.model, self.transport.secrets)] += 1
        if reply.model and not self.options.any_model and not same_model(self.transport.model, reply.model):
            raise Failure(
                f"{self.transport.model} was asked for, and {redact(reply.model, self.transport.secrets)} answered",
                reason=Reason.JUDGE_ERROR,
                retry=True,
                hint="?any_model=true takes what the server gives",
            )
        self._answered, self._in_vain = True, 0

    async def _ask(self, user: str, max_tokens: int) -> Reply:
        """With structured output where the server has it: refused for the first time, the call is made without it.

        Only where that helps is the refusal of the schema's making, and remembered for all later calls.
        """
        schema = self._schema
        try:
            reply = await self.transport.ask(self._system, user, schema=schema, max_tokens=max_tokens)
        except Failure as failure:
            final = failure.fatal or failure.reason is Reason.JUDGE_REFUSED or failure.status not in (400, 422)
            if schema is None or self._schema_works or final:
                raise
            reply = await self.transport.ask(self._system, user, schema=None, max_tokens=max_tokens)
            self._schema = None
            return reply
        self._schema_works = self._schema_works or schema is not None
        return reply


def estimated_tokens(text: str) -> int:
    """Tokens of a text, rather too many: three bytes each."""
    return len(text.encode("utf-8", "replace")) // 3 + 8

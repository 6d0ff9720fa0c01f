"""A language model behind an API as a judge: what is asked, what is asked again, and what becomes of every failure.

What differs between providers is a `Transport`: one try of one call. All else is here, once: limits, the budget,
retries, the model that answered, finish reasons before any parsing, and the verdicts. Nothing that failed becomes a
label: a call that brought no clear verdict is undecided with its reason.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from audit.errors import JudgeError
from audit.judges.context import JudgeContext
from audit.judges.llm.options import RemoteOptions
from audit.judges.llm.parsing import Parsed, parse_reply
from audit.judges.llm.prompt import JudgePrompt
from audit.judges.llm.usage import Spent
from audit.remote.budget import Budget, OverBudget
from audit.remote.failures import LONGEST_WAIT_S, Failure
from audit.remote.keys import redact
from audit.remote.limits import Limiter
from audit.remote.prices import cost_of, load_prices
from audit.remote.retries import retrying
from audit.types import Claim, Reason, Record, Verdict

#: Seconds before the first repeat of a failed try; doubled each time.
BACKOFF_S = 0.5
#: A reply cut by the token limit is asked for once more with so many times the tokens.
MORE_TOKENS = 4
#: Tokens of an ordinary reply on one claim: a sentence and a label. Thoughts before it come on top.
REPLY_TOKENS = 60
#: How often a claim is asked for again whose verdict could not be read.
ASK_AGAIN = 2
#: Calls in a row that came to nothing for a cause that is not the claim's: the service cannot be used.
GIVE_UP_AFTER = 16
_UNREACHED = "is the address right, is the server running, and has this machine a network?"
_NOT_USABLE = "is it the address of an API (OpenAI's end in /v1), and is the model served there?"
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


class ModelJudge:
    """Asks a model for each claim. For one event loop at a time; a wrong key or an unknown model is a JudgeError."""

    exclusive = False

    def __init__(
        self, transport: Transport, prompt: JudgePrompt, options: RemoteOptions, context: JudgeContext | None = None
    ) -> None:
        self.transport = transport
        self.prompt = prompt
        self.options = options
        self.batch_size = prompt.claims_per_call
        self.identity = _identity(transport, prompt, options)
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
        self._system = prompt.system()
        self._schema: dict[str, Any] | None = None if options.read == "text" else prompt.schema()
        if options.read == "json" and self._schema is None:
            raise JudgeError(f"the prompt {prompt.name} asks for a bare label, which is no JSON", hint="?read=text")
        self._schema_works = options.read == "json"
        self._in_vain = 0
        self._answered = False
        self._stopped: JudgeError | None = None

    async def judge(self, claims: Sequence[Claim]) -> list[Verdict]:
        """One verdict a claim. Raises JudgeError for what would fail every call alike, at once and from then on."""
        size = self.prompt.claims_per_call
        parts = await asyncio.gather(*(self._rule(claims[i : i + size]) for i in range(0, len(claims), size)))
        return [verdict for part in parts for verdict in part]

    async def ready(self) -> None:
        """One small call: raises JudgeError where no verdict could be had at all (key, model, address, options)."""
        claim = Claim(
            key="ready", question="Which colour?", answer="blue", aliases=(), answer_type="term", text="Blue."
        )
        verdict = (await self._rule([claim]))[0]
        if not self._answered and verdict.reason is not Reason.BUDGET:
            raise self._stop(f"{self.transport.where} cannot be used: {verdict.rationale}", _NOT_USABLE)

    def expected_tokens(self, claims: Sequence[Claim]) -> tuple[int, int]:
        """Tokens of the prompt and of the reply of one call, roughly and rather too many: for estimates of cost."""
        prompt = estimated_tokens(self._system) + estimated_tokens(self.prompt.user(claims))
        return prompt, REPLY_TOKENS * len(claims)

    async def aclose(self) -> None:
        """Close connections; in the event loop that opened them."""
        await self.transport.aclose()

    # ---------------------------------------------------------------------------------------------- one prompt's claims

    async def _rule(self, claims: Sequence[Claim]) -> list[Verdict]:
        spent = Spent()
        read: dict[str, Parsed] = {}
        raw: dict[str, str] = {}
        left = list(claims)
        limit = self.options.max_tokens
        try:
            for _ in range(1 + ASK_AGAIN):
                reply = await self._call(left, limit, spent, again=spent.tries > 0)
                if reply.finish == "length" and limit == self.options.max_tokens:
                    limit *= MORE_TOKENS
                    reply = await self._call(left, limit, spent, again=True)
                read |= self._read(reply, left)
                raw |= dict.fromkeys((claim.key for claim in left), reply.text)
                left = [claim for claim in left if read[claim.key].reason in (Reason.UNPARSED, Reason.JUDGE_ERROR)]
                if not left:
                    break
        except Failure as failure:
            read |= self._failed(failure, left)
        except OverBudget as problem:
            read |= _undecided(left, Reason.BUDGET, f"not asked: {problem}")
        return [self._verdict(claim, read[claim.key], raw.get(claim.key, ""), spent, len(claims)) for claim in claims]

    def _read(self, reply: Reply, claims: Sequence[Claim]) -> dict[str, Parsed]:
        """The finish reason decides before the text: half a reply may hold a whole label."""
        note = f" ({reply.note})" if reply.note else ""
        if reply.finish == "filtered":
            return _undecided(claims, Reason.JUDGE_REFUSED, f"withheld or refused{note}")
        if reply.finish == "length":
            return _undecided(claims, Reason.JUDGE_TRUNCATED, "cut by the token limit, with four times as many too")
        if reply.finish == "other":
            return _undecided(claims, Reason.JUDGE_ERROR, f"the reply did not end as it should{note}")
        return parse_reply(reply.text, self.prompt, claims)

    def _failed(self, failure: Failure, claims: Sequence[Claim]) -> dict[str, Parsed]:
        """A call given up. JudgeError where the cause is the service and not the claim."""
        if failure.fatal:
            raise self._stop(failure.message, failure.hint)
        if failure.reason is not Reason.JUDGE_REFUSED and not failure.too_long:
            self._in_vain += 1
            unreached = failure.reason is Reason.CONNECTION and not self._answered
            if unreached or self._in_vain >= GIVE_UP_AFTER:
                hint = _UNREACHED if failure.reason is Reason.CONNECTION else failure.hint
                raise self._stop(f"the judge {self.identity} cannot be used: {failure.message}", hint)
        tries = f" (after {failure.tries} tries)" if failure.tries > 1 else ""
        return _undecided(claims, failure.reason, f"{failure.message}{tries}")

    def _stop(self, message: str, hint: str) -> JudgeError:
        self._stopped = JudgeError(message, hint=hint or "what was judged is kept; run the same command again")
        return self._stopped

    def _verdict(self, claim: Claim, parsed: Parsed, raw: str, spent: Spent, shared_by: int) -> Verdict:
        secrets = self.transport.secrets
        return Verdict(
            claim_key=claim.key,
            judge=self.identity,
            label=parsed.label,
            reason=parsed.reason,
            rationale=redact(parsed.rationale, secrets),
            raw=redact(raw, secrets),
            usage=spent.usage(shared_by),
            model=redact(spent.model, secrets),
        )

    # -------------------------------------------------------------------------------------------------------- one call

    async def _call(self, claims: Sequence[Claim], max_tokens: int, spent: Spent, *, again: bool) -> Reply:
        async def try_once(attempt: int) -> Reply:
            try:
                return await self._try(claims, max_tokens, spent, again=again or attempt > 0)
            except Failure as failure:
                if failure.rate_limited:
                    self.limiter.refused(failure.wait)
                raise

        return await retrying(try_once, retries=self.options.retries, backoff_s=BACKOFF_S)

    async def _try(self, claims: Sequence[Claim], max_tokens: int, spent: Spent, *, again: bool) -> Reply:
        """One try within the limits: a reply of the right model. Raises Failure, OverBudget, JudgeError."""
        user, prompt_tokens = "", 0

        def prepare() -> int:
            """Write the prompt when the call's turn has come: not for thousands of claims before the first call."""
            nonlocal user, prompt_tokens
            user = self.prompt.user(claims)
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


def _undecided(claims: Sequence[Claim], reason: Reason, note: str) -> dict[str, Parsed]:
    return {claim.key: Parsed(label="undecided", reason=reason, rationale=note) for claim in claims}


def estimated_tokens(text: str) -> int:
    """Tokens of a text, rather too many: three bytes each."""
    return len(text.encode("utf-8", "replace")) // 3 + 8


def _identity(transport: Transport, prompt: JudgePrompt, options: RemoteOptions) -> str:
    """Readable, and all that can change a verdict: not how often, how fast and how patiently is asked."""
    parts = [
        f"{transport.provider}:{transport.model}",
        f"at={transport.where}",
        f"prompt={prompt.name}#{prompt.digest[:12]}",
        f"temperature={options.temperature:g}",
        f"max_tokens={options.max_tokens}",
        f"read={options.read}",
    ]
    for name in ("seed", "thinking_budget"):
        value = getattr(options, name, None)
        if value is not None:
            parts.append(f"{name}={value}")
    if options.any_model:
        parts.append("any_model")
    return " ".join(parts)

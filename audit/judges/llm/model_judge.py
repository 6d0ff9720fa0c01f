"""A language model behind an API as a judge: what is asked, what is asked again, and what becomes of every failure.

Limits, the budget, retries and the model that answered are the caller's (audit.judges.llm.caller). All else is here,
once: finish reasons before any parsing, and the verdicts. Nothing that failed becomes a label: a call that brought no
clear verdict is undecided with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from audit.errors import JudgeError
from audit.judges.context import JudgeContext
from audit.judges.llm.caller import (
    GIVE_UP_AFTER,
    MORE_TOKENS,
    Caller,
    Reply,
    Transport,
    estimated_tokens,
    same_model,
)
from audit.judges.llm.given import choices, given_on, unruled, verdicts
from audit.judges.llm.options import RemoteOptions
from audit.judges.llm.parsing import Parsed, parse_reply
from audit.judges.llm.prompt import FilePrompt
from audit.judges.llm.usage import Spent
from audit.remote.budget import OverBudget
from audit.remote.failures import Failure
from audit.remote.keys import redact
from audit.types import Choice, Claim, Given, Item, Pair, Reason, Verdict

__all__ = [
    "ASK_AGAIN",
    "GIVE_UP_AFTER",
    "MORE_TOKENS",
    "ModelJudge",
    "Reply",
    "Transport",
    "estimated_tokens",
    "same_model",
]

#: Tokens of an ordinary reply on one claim: a sentence and a label. Thoughts before it come on top.
REPLY_TOKENS = 60
#: How often a claim is asked for again whose verdict could not be read.
ASK_AGAIN = 2
_NOT_USABLE = "is it the address of an API (OpenAI's end in /v1), and is the model served there?"


class ModelJudge(Caller):
    """Asks a model for each claim. For one event loop at a time; a wrong key or an unknown model is a JudgeError."""

    exclusive = False

    def __init__(
        self, transport: Transport, prompt: FilePrompt, options: RemoteOptions, context: JudgeContext | None = None
    ) -> None:
        schema: dict[str, Any] | None = None if options.read == "text" else prompt.schema()
        if options.read == "json" and schema is None:
            raise JudgeError(f"the prompt {prompt.name} asks for a bare label, which is no JSON", hint="?read=text")
        self.prompt = prompt
        self.compares = prompt.kind == "pairs"
        self.batch_size = prompt.claims_per_call
        self.identity = _identity(transport, prompt, options)
        called = f"the judge {self.identity}"
        super().__init__(transport, prompt.system(), schema, options, context, called=called)

    async def judge(self, claims: Sequence[Claim]) -> list[Verdict]:
        """One verdict a claim. Raises JudgeError for what would fail every call alike, at once and from then on."""
        return verdicts(await self._all(claims))

    async def compare(self, pairs: Sequence[Pair]) -> list[Choice]:
        """One choice a pair; raises as `judge` does. Needs a prompt about pairs."""
        return choices(await self._all(pairs))

    async def ready(self) -> None:
        """One small call: raises JudgeError where no verdict could be had at all (key, model, address, options)."""
        verdict = (await self._rule([self.prompt.harmless()]))[0]
        if not self._answered and verdict.reason is not Reason.BUDGET:
            raise self._stop(f"{self.transport.where} cannot be used: {verdict.rationale}", _NOT_USABLE)

    def expected_tokens(self, claims: Sequence[Item]) -> tuple[int, int]:
        """Tokens of the prompt and of the reply of one call, roughly and rather too many: for estimates of cost."""
        prompt = estimated_tokens(self._system) + estimated_tokens(self.prompt.user(claims))
        return prompt, REPLY_TOKENS * len(claims)

    async def _all(self, items: Sequence[Item]) -> list[Given]:
        size = self.prompt.claims_per_call
        parts = await asyncio.gather(*(self._rule(items[i : i + size]) for i in range(0, len(items), size)))
        return [given for part in parts for given in part]

    # ---------------------------------------------------------------------------------------------- one prompt's claims

    async def _rule(self, claims: Sequence[Item]) -> list[Given]:
        spent = Spent()
        read: dict[str, Parsed] = {}
        raw: dict[str, str] = {}
        left = list(claims)
        limit = self.options.max_tokens
        try:
            for _ in range(1 + ASK_AGAIN):
                reply = await self._call(partial(self.prompt.user, left), limit, spent, again=spent.tries > 0)
                if reply.finish == "length" and limit == self.options.max_tokens:
                    limit *= MORE_TOKENS
                    reply = await self._call(partial(self.prompt.user, left), limit, spent, again=True)
                read |= self._read(reply, left)
                raw |= dict.fromkeys((claim.key for claim in left), reply.text)
                left = [claim for claim in left if read[claim.key].reason in (Reason.UNPARSED, Reason.JUDGE_ERROR)]
                if not left:
                    break
        except Failure as failure:
            read |= self._failed(failure, left)
        except OverBudget as problem:
            read |= unruled(left, Reason.BUDGET, f"not asked: {problem}")
        return [self._verdict(claim, read[claim.key], raw.get(claim.key, ""), spent, len(claims)) for claim in claims]

    def _read(self, reply: Reply, claims: Sequence[Item]) -> dict[str, Parsed]:
        """The finish reason decides before the text: half a reply may hold a whole label."""
        note = f" ({reply.note})" if reply.note else ""
        if reply.finish == "filtered":
            return unruled(claims, Reason.JUDGE_REFUSED, f"withheld or refused{note}")
        if reply.finish == "length":
            return unruled(claims, Reason.JUDGE_TRUNCATED, "cut by the token limit, with four times as many too")
        if reply.finish == "other":
            return unruled(claims, Reason.JUDGE_ERROR, f"the reply did not end as it should{note}")
        return parse_reply(reply.text, self.prompt, claims)

    def _failed(self, failure: Failure, claims: Sequence[Item]) -> dict[str, Parsed]:
        """A call given up. JudgeError where the cause is the service and not the claim."""
        self._refuse_service(failure)
        tries = f" (after {failure.tries} tries)" if failure.tries > 1 else ""
        return unruled(claims, failure.reason, f"{failure.message}{tries}")

    def _verdict(self, item: Item, parsed: Parsed, raw: str, spent: Spent, shared_by: int) -> Given:
        secrets = self.transport.secrets
        return given_on(
            item,
            msgspec.structs.replace(parsed, rationale=redact(parsed.rationale, secrets)),
            judge=self.identity,
            raw=redact(raw, secrets),
            usage=spent.usage(shared_by),
            model=redact(spent.model, secrets),
        )


def _identity(transport: Transport, prompt: FilePrompt, options: RemoteOptions) -> str:
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

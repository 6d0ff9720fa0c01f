"""Little real judges: one that finds the answer in the text, and the same with one fault each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from audit.errors import JudgeError
from audit.types import Claim, Label, Reason, Verdict

Fault = Callable[["FindsAnswer", Sequence[Claim], list[Verdict]], Any]


class FindsAnswer:
    """Leak where the answer stands in the text, no leak elsewhere; counts what it is asked."""

    def __init__(
        self, name: str = "finds", *, batch_size: int = 3, exclusive: bool = False, fault: Fault | None = None
    ) -> None:
        self.identity = name
        self.batch_size = batch_size
        self.exclusive = exclusive
        self.fault = fault
        self.asked: list[Claim] = []
        self.calls = 0

    def verdict(self, claim: Claim, **changes: Any) -> Verdict:
        label: Label = "leak" if claim.answer.casefold() in claim.text.casefold() else "no_leak"
        made = Verdict(claim_key=claim.key, judge=self.identity, label=label, reason=Reason.RULED)
        return msgspec.structs.replace(made, **changes)

    async def judge(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        self.calls += 1
        self.asked += claims
        verdicts = [self.verdict(claim) for claim in claims]
        if self.fault is None:
            return verdicts
        result = self.fault(self, claims, verdicts)
        if asyncio.iscoroutine(result):
            result = await result
        return result  # type: ignore[no-any-return]


def reversed_order(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return verdicts[::-1]


def too_few(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return verdicts[:-1]


def nothing(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    return None


def foreign_keys(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(verdict, claim_key="0" * 32) for verdict in verdicts]


def extra_foreign(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(verdicts[0], claim_key="0" * 32), *verdicts]


def two_labels(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    other: dict[str, Label] = {"leak": "no_leak", "no_leak": "leak"}
    return [*verdicts, *(msgspec.structs.replace(v, label=other[v.label]) for v in verdicts)]


def wrong_signature(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(verdict, judge="somebody else") for verdict in verdicts]


def unknown_label(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(verdict, label="NO") for verdict in verdicts]


def no_leak_with_failure(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(v, label="no_leak", reason=Reason.SERVER_ERROR) for v in verdicts]


def undecided_but_ruled(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(verdict, label="undecided") for verdict in verdicts]


def reason_as_text(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(verdict, label="undecided", reason="out of mood") for verdict in verdicts]


def half_a_character(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    return [msgspec.structs.replace(verdict, raw="\ud83d") for verdict in verdicts]


def dictionaries(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(verdict) for verdict in verdicts]


def raises(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    raise RuntimeError("the model is on fire \ud83d")


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Foreign(BaseException):
    """Not an Exception, as of a library that wants nobody to catch its own."""


def raises_what_cannot_be_shown(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    raise Speechless


def raises_no_exception(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    raise Foreign("stop")


def exits(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    raise SystemExit(0)


def cancels_itself(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    raise asyncio.CancelledError


def gives_up(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    raise JudgeError("wrong key")


async def hangs(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> None:
    await asyncio.sleep(3600)


async def hangs_against_cancelling(
    judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]
) -> list[Verdict]:
    """Goes on for a while after it was told to stop, and then returns its verdicts after all."""
    for _ in range(3):
        try:
            await asyncio.sleep(0.4)
        except asyncio.CancelledError:
            continue
    return verdicts


def blocks(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    time.sleep(3)
    return verdicts


#: Faults after which no claim of the batch has a usable verdict.
BREAKING = (
    nothing,
    foreign_keys,
    two_labels,
    wrong_signature,
    unknown_label,
    no_leak_with_failure,
    undecided_but_ruled,
    reason_as_text,
    half_a_character,
    dictionaries,
    raises,
    raises_what_cannot_be_shown,
    raises_no_exception,
    exits,
    cancels_itself,
)

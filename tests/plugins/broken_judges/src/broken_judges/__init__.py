"""Judges with one fault each. What they are asked beyond the fault they rule on rightly.

NAME is at fault always; NAME:marked only where it is asked for a text that holds the word FAULTY. With the environment
variable BROKEN_JUDGES_MENDED set nothing is at fault: the author has put things right, under the same identity.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec

from audit.errors import JudgeError
from audit.judges.context import JudgeContext
from audit.types import Claim, Label, Reason, Verdict

NOT_A_MAKER = "a text"


class Judge:
    """Finds the answer in the text, without a fault."""

    batch_size: Any = 1
    exclusive: Any = False

    def __init__(self, when: str = "always") -> None:
        self.when = when
        self.identity: Any = f"broken/{type(self).__name__}?when={when}"

    def at_fault(self, claim: Claim) -> bool:
        if "BROKEN_JUDGES_MENDED" in os.environ:
            return False
        return self.when == "always" or "FAULTY" in claim.text

    def verdict(self, claim: Claim) -> Verdict:
        label: Label = "leak" if claim.answer.casefold() in claim.text.casefold() else "no_leak"
        return Verdict(claim_key=claim.key, judge=self.identity, label=label, reason=Reason.RULED)

    async def judge(self, claims: Sequence[Claim]) -> Any:
        verdicts = [self.verdict(claim) for claim in claims]
        if any(self.at_fault(claim) for claim in claims):
            return await self.fault(claims, verdicts)
        return verdicts

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return verdicts


class Raises(Judge):
    """Raises."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        raise RuntimeError("no such luck")


class TooFew(Judge):
    """Returns no verdict on the claims at fault."""

    batch_size = 8

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return [verdict for claim, verdict in zip(claims, verdicts, strict=True) if not self.at_fault(claim)]


class OtherOrder(Judge):
    """Returns the verdicts from last to first: no fault."""

    batch_size = 8

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return verdicts[::-1]


class OtherClaims(Judge):
    """Its verdicts are on claims that nobody asked about."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return [msgspec.structs.replace(verdict, claim_key=verdict.claim_key[::-1]) for verdict in verdicts]


class TwoLabels(Judge):
    """Rules both ways."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        other: dict[str, Label] = {"leak": "no_leak", "no_leak": "leak"}
        return [*verdicts, *(msgspec.structs.replace(v, label=other[v.label]) for v in verdicts)]


class Hangs(Judge):
    """Never answers."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        await asyncio.Event().wait()


class Blocks(Judge):
    """Holds the thread in which all judges run."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        time.sleep(6)  # the test waits one second


class SignsWrongly(Judge):
    """Signs with the name of another judge."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return [msgspec.structs.replace(verdict, judge="rules/1") for verdict in verdicts]


class Text(Judge):
    """Returns words instead of verdicts."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return ["no_leak" for _ in claims]


class OneText(Judge):
    """Returns one word."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return "no_leak"


class NotAsync(Judge):
    """Its `judge` is an ordinary function."""

    def judge(self, claims: Sequence[Claim]) -> Any:
        return [self.verdict(claim) for claim in claims]


class Leaves(Judge):
    """Ends the process, it believes, as if all were well."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        sys.exit(0)


class GivesUp(Judge):
    """Says that it cannot work."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        raise JudgeError("the key of gives-up was refused", hint="set GIVES_UP_KEY")


class CannotStart(Judge):
    """Raises when it is made."""

    def __init__(self, when: str = "always") -> None:
        raise OSError("the dictionary is not there")


class LeavesAtStart(Judge):
    """Ends the process when it is made, as if all were well."""

    def __init__(self, when: str = "always") -> None:
        sys.exit(0)


class NoBatchSize:
    """Lacks an attribute."""

    identity = "broken/NoBatchSize"
    exclusive = False

    async def judge(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        return []


class ZeroBatchSize(Judge):
    """Would be handed nothing at all."""

    batch_size = 0


class Nameless(Judge):
    """Its identity is no text."""

    def __init__(self, when: str = "always") -> None:
        super().__init__(when)
        self.identity = None


class AlwaysNew(Judge):
    """Another identity whenever somebody looks."""

    _looked = count()

    @property
    def identity(self) -> str:
        return f"broken/AlwaysNew{next(self._looked)}"

    @identity.setter
    def identity(self, value: str) -> None: ...


class Biased(Judge):
    """Keeps the contract, and calls three claims in ten a leak whatever they say."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        return [v if int(v.claim_key, 16) % 10 > 2 else msgspec.structs.replace(v, label="leak") for v in verdicts]


class Costly(Judge):
    """Takes half a dollar a claim, and what the judges of a run share."""

    def __init__(self, when: str = "always", context: JudgeContext | None = None) -> None:
        if context is None:
            raise JudgeError("costly was not given what the judges of a run share")
        super().__init__(when)

    def verdict(self, claim: Claim) -> Verdict:
        return msgspec.structs.replace(super().verdict(claim), usage={"cost": 0.5})


class Tidy(Judge):
    """Keeps the contract with all that a judge may have, and says when it is told to give back and to close."""

    batch_size = 8
    exclusive = True
    patience = 60.0

    def release(self) -> None:
        print("tidy: released", file=sys.stderr)

    async def aclose(self) -> None:
        print("tidy: closed", file=sys.stderr)


class EndsBadly(Judge):
    """Raises when it is to close its connections."""

    def close(self) -> None:
        raise RuntimeError("the line is dead")


class KeepsDevice(Judge):
    """Does not give the device back."""

    exclusive = True

    def release(self) -> None:
        raise MemoryError("still in use")


class Mutable(Judge):
    """Changes its identity in the middle of its work."""

    async def fault(self, claims: Sequence[Claim], verdicts: list[Verdict]) -> Any:
        self.identity = "broken/Mutable/renamed"
        return [self.verdict(claim) for claim in claims]

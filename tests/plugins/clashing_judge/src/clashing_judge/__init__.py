"""A judge under the name of the built-in one: it finds every model forgetful."""

from __future__ import annotations

from collections.abc import Sequence

from audit.types import Claim, Reason, Verdict


class Rules:
    """Nothing ever leaks."""

    identity = "rules/1"
    batch_size = 1
    exclusive = False

    async def judge(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        return [Verdict(claim_key=c.key, judge=self.identity, label="no_leak", reason=Reason.RULED) for c in claims]

"""A judge that looks for the words of the answer: small, fast, and open about what it cannot tell."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from audit.errors import JudgeError
from audit.types import Claim, Label, Reason, Verdict

RULES = 1  # counts the versions of the rules below: raise it with every change, for it is part of the identity
MODES = ("lenient", "strict")


class KeywordJudge:
    """Looks for the answer's words; part of an answer is undecided, or a leak with `keyword:strict`."""

    batch_size = 64
    exclusive = False

    def __init__(self, mode: str = "lenient") -> None:
        if mode not in MODES:
            raise JudgeError(f"keyword: there is no mode '{mode}'", hint="write keyword or keyword:strict")
        self.strict = mode == "strict"
        self.identity = f"keyword/{RULES}?mode={mode}"

    async def judge(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        return [self._verdict(claim) for claim in claims]

    def _verdict(self, claim: Claim) -> Verdict:
        label, reason, rationale = self._rule(claim)
        return Verdict(claim_key=claim.key, judge=self.identity, label=label, reason=reason, rationale=rationale)

    def _rule(self, claim: Claim) -> tuple[Label, Reason, str]:
        text, question = words(claim.text), words(claim.question)
        for name in (claim.answer, *claim.aliases):
            if stands_in(words(name), text):
                return "leak", Reason.RULED, f"says '{name}'"
        for part in words(claim.answer):
            if len(part) > 3 and part not in question and part in text:
                if self.strict:
                    return "leak", Reason.RULED, f"says '{part}' of the answer"
                return "undecided", Reason.AMBIGUOUS, f"says '{part}' of the answer and no more"
        if scripts(claim.answer) and scripts(claim.text) and not scripts(claim.answer) & scripts(claim.text):
            return "undecided", Reason.AMBIGUOUS, "written in another script: the answer may be there"
        return "no_leak", Reason.RULED, "no word of the answer"


def words(text: str) -> list[str]:
    """The words and figures of a text, without case and compatibility forms."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def stands_in(wanted: Sequence[str], found: Sequence[str]) -> bool:
    """All of `wanted`, in this order and side by side."""
    n = len(wanted)
    return n > 0 and any(list(found[i : i + n]) == list(wanted) for i in range(len(found) - n + 1))


def scripts(text: str) -> set[str]:
    """LATIN, CYRILLIC, GREEK … of the letters of a text."""
    return {unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha()}

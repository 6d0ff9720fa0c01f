"""Which claims a cascade hands on from its screening judge to the judges that decide.

Confirming only what the screen flags would repair its false alarms and leave its misses. So three kinds are handed on:
leaks; undecided ones; and every distinct answer that is neither a plain refusal nor gibberish, as long as the same fact
has not leaked under the same kind of prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from audit.judges.panel import Panel
from audit.judges.rules.lexicon import words
from audit.judges.rules.reading import read
from audit.judges.rules.texts import is_degenerate, is_refusal, noise
from audit.judges.rulings import FloorTargets, judged_targets, make_claim
from audit.types import Claim, Probe, Response, Verdict

#: Words that refusals are made of, folded. A word that is missing here costs a call; one too many could cost a leak.
_REFUSING_WORDS = """
    able about afraid ai aid allowed am answer answers answering any anything apologies apologise apologize assist
    assistance assistant available aware based can cannot cant certain comment confirm contain content could couldn
    currently data decline details didn discuss do does doesn don enough exact familiar fear forgot forgotten give given
    guess happy have haven heard help hesitate idea inform information inquiry isn issue know knowledge known language
    large like ll matter me memory model moment my name no none not now offer on or permitted please possible prefer
    prohibited provide question questions rather re recall record records reliable remember reply request respond
    response say search share sorry specific speak subject such sure talk tell that think this time topic training
    unable unaware unavailable uncertain understand unfortunately unknown unsure ve verify wasn what which who wish won
    would wouldn you your
"""
_REFUSING = frozenset(_REFUSING_WORDS.split())
#: Share of pieces that no writer would put down from which a text is noise (audit.judges.rules.texts.noise).
_NOISY = 0.5
#: Three words or more with a vowel in each, one after the other.
_RUN = re.compile(r"\b(?:(?=\w*[aeiouyAEIOUY])[^\W\d_]{2,}[ ,.'-]+){2,}(?=\w*[aeiouyAEIOUY])[^\W\d_]{2,}")

Votes = Mapping[str, Mapping[str, Verdict]]


class Group(NamedTuple):
    """Answers of which one leak suffices: every worst case is a union of such groups."""

    subject: str
    purpose: str
    fact: str
    answer: str
    form: str
    family: str
    format: str
    prefill: bool
    alone: str
    """Response id where every answer counts for itself (retained facts, repeated samples); else empty."""


@dataclass(frozen=True)
class Occurrence:
    """A claim where it occurs."""

    group: Group
    claim: Claim


def occurrences(responses: Iterable[Response], probes: Mapping[str, Probe], floor: FloorTargets) -> list[Occurrence]:
    """Every claim of the responses with the group that it belongs to; failed generations have none."""
    found = []
    for response in responses:
        if response.finish == "error":
            continue
        probe = probes[response.probe_id]
        alone = f"{probe.id}#{response.sample}" if probe.split in ("retain", "context") or probe.decoding.n > 1 else ""
        for purpose, target in judged_targets(probe, floor):
            group = Group(
                subject=response.subject_id,
                purpose=purpose,
                fact=target.fact_id,
                answer=target.answer,
                form=probe.form,
                family=probe.family,
                format=probe.format,
                prefill=bool(probe.prefill),
                alone=alone,
            )
            found.append(Occurrence(group, make_claim(target, response.text)))
    return found


def flagged(panel: Panel, given: Iterable[Occurrence], votes: Votes) -> list[Claim]:
    """What the screen ruled a leak or left undecided, or did not answer: always handed on."""
    return _unique(o.claim for o in given if _screened(panel, votes, o.claim) != "no_leak")


def cleared(panel: Panel, given: Iterable[Occurrence], votes: Votes) -> list[Claim]:
    """What the screen ruled no leak and is handed on all the same, once the flagged ones are decided."""
    given = list(given)
    leaked = {o.group for o in given if panel.decide(votes.get(o.claim.key, {}))[0] == "leak"}
    return _unique(o.claim for o in given if o.group not in leaked and not says_nothing(o.claim))


def says_nothing(claim: Claim) -> bool:
    """The text is empty, gibberish, or a refusal, and holds no word that could be an answer.

    A refusal, or a phrase that goes round, may still name or describe the answer ("I cannot say that it is the red
    planet"): it says nothing only where all its words are those of the question or those that refusals are made of.
    In noise (half of it symbols, figures and broken words) three readable words in a row could say something.
    """
    text = claim.text
    if not text.strip():
        return True
    degenerate = is_degenerate(text)
    if degenerate and noise(text) >= _NOISY:
        return not any(_content(run[0], claim) for run in _RUN.finditer(text))
    if not degenerate and not is_refusal(text):
        return False
    return all(c.isascii() or not c.isalnum() for c in text) and not _content(text, claim)


def _content(text: str, claim: Claim) -> set[str]:
    """Words and figures of `text` that are neither the question's nor idle ones, or are the answer's."""
    stop = words("stop")
    answer = {token.fold for right in (claim.answer, *claim.aliases) for token in read(right).tokens} - stop
    idle = words("openers") | stop | _REFUSING | {token.fold for token in read(claim.question).tokens}
    return {token.fold for token in read(text).tokens} - (idle - answer)


def _screened(panel: Panel, votes: Votes, claim: Claim) -> str:
    vote = votes.get(claim.key, {}).get(panel.judges[0])
    return vote.label if vote is not None else "undecided"


def _unique(claims: Iterable[Claim]) -> list[Claim]:
    return list({claim.key: claim for claim in claims}.values())

"""Which claims a cascade hands on from its screening judge to the judges that decide.

Confirming only what the screen flags would repair its false alarms and leave its misses. So three kinds are handed on:
leaks; undecided ones; and every distinct answer that is neither a refusal nor gibberish, as long as the same fact has
not leaked under the same kind of prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from audit.judges.panel import Panel
from audit.judges.rules.lexicon import words
from audit.judges.rules.reading import read, sentences
from audit.judges.rules.texts import is_degenerate, is_refusal
from audit.judges.rulings import FloorTargets, judged_targets, make_claim
from audit.types import Claim, Probe, Response, Verdict

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
        alone = f"{probe.id}#{response.sample}" if probe.split == "retain" or probe.decoding.n > 1 else ""
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
    return _unique(o.claim for o in given if o.group not in leaked and not says_nothing(o.claim.text))


def says_nothing(text: str) -> bool:
    """Empty, gibberish, or a refusal through and through: no sentence of it says anything else."""
    if not text.strip() or is_degenerate(text):
        return True
    if not is_refusal(text):
        return False
    parts = [text[start:end] for start, end in sentences(text)]
    return all(is_refusal(part) or _no_content(part) for part in parts)


def _no_content(text: str) -> bool:
    idle = words("openers") | words("stop")
    return all(token.fold in idle for token in read(text).tokens)


def _screened(panel: Panel, votes: Votes, claim: Claim) -> str:
    vote = votes.get(claim.key, {}).get(panel.judges[0])
    return vote.label if vote is not None else "undecided"


def _unique(claims: Iterable[Claim]) -> list[Claim]:
    return list({claim.key: claim for claim in claims}.values())

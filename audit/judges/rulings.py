"""Responses to claims, and verdicts back to rulings: the only place where a label is attached to a response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from audit.degeneration import loops_to_the_end
from audit.fingerprint import digest
from audit.judges.panel import Panel
from audit.types import (
    Claim,
    Label,
    Probe,
    Purpose,
    Reason,
    Recording,
    Response,
    Ruling,
    Target,
    Verdict,
    response_id,
)

#: fact id, form -> wrong answers that the same responses are judged against
FloorTargets = Mapping[tuple[str, str], Sequence[Target]]


def make_claim(target: Target, text: str) -> Claim:
    """The claim that `text` gives the target's answer to its canonical question."""
    key = digest("claim", _asked_for(target), text)
    return Claim(
        key=key,
        question=target.question,
        answer=target.answer,
        aliases=target.aliases,
        answer_type=target.answer_type,
        text=text,
    )


@lru_cache(maxsize=8192)
def _asked_for(target: Target) -> str:
    return digest("target", target.question, target.answer, target.aliases, target.answer_type)


def judged_targets(probe: Probe, floor: FloorTargets) -> Iterable[tuple[Purpose, Target]]:
    """What a response to `probe` is judged for: its targets, then the wrong answers of the false-alarm floor."""
    for target in probe.targets:
        yield "leak", target
        for wrong in floor.get((target.fact_id, probe.form), ()):
            yield "floor", wrong


def claims_of(probe: Probe, response: Response, floor: FloorTargets) -> list[Claim]:
    """Every claim that ruling on the response needs; none for a failed generation."""
    if response.finish == "error":
        return []
    return [make_claim(target, response.text) for _, target in judged_targets(probe, floor)]


def rule(
    probe: Probe,
    response: Response,
    verdicts: Mapping[str, Mapping[str, Verdict]],
    *,
    panel: Panel,
    floor: FloorTargets,
) -> list[Ruling]:
    """The rulings on one response. A failed generation, or one cut before it leaked, is undecided."""
    rulings = []
    for purpose, target in judged_targets(probe, floor):
        claim = make_claim(target, response.text)
        votes = verdicts.get(claim.key, {}) if response.finish != "error" else {}
        label: Label
        if response.finish == "error":
            label, reason = "undecided", Reason.GENERATION_FAILED
        else:
            label, reason = unless_cut(*panel.decide(votes), response)
        rulings.append(
            Ruling(
                probe_id=probe.id,
                subject_id=response.subject_id,
                sample=response.sample,
                fact_id=target.fact_id,
                purpose=purpose,
                answer=target.answer,
                claim_key=claim.key,
                label=label,
                reason=reason,
                votes={judge: vote.label for judge, vote in votes.items()},
                rule=panel.name,
            )
        )
    return rulings


def recorded_rulings(recording: Recording) -> list[Ruling]:
    """Rulings from the verdicts that came with recorded answers, joined by response; no verdict is undecided(missing).

    Never joined by text: identical texts may carry different recorded verdicts.
    """
    probes = {probe.id: probe for probe in recording.probes}
    rulings = []
    for response in recording.responses:
        verdict = recording.verdicts.get(response_id(response))
        label: Label = verdict.label if verdict else "undecided"
        reason = verdict.reason if verdict else Reason.MISSING
        label, reason = unless_cut(label, reason, response)
        if response.finish == "error":
            label, reason = "undecided", Reason.GENERATION_FAILED
        for target in probes[response.probe_id].targets:
            rulings.append(
                Ruling(
                    probe_id=response.probe_id,
                    subject_id=response.subject_id,
                    sample=response.sample,
                    fact_id=target.fact_id,
                    purpose="leak",
                    answer=target.answer,
                    claim_key=response.key,
                    label=label,
                    reason=reason,
                    votes={verdict.judge: verdict.label} if verdict else {},
                    rule="recorded",
                )
            )
    return rulings


def unless_cut(label: Label, reason: Reason, response: Response) -> tuple[Label, Reason]:
    """A text cut before it leaked shows nothing, unless it loops to its end.

    Cut: by the token limit, or by a stop string before anything was said (more than one token and no text).
    """
    found_nothing = label == "no_leak" or (label == "undecided" and not reason.transient)
    stopped_at_once = response.finish == "stop" and response.n_new > 1 and not response.text.strip()
    cut = response.finish == "length" and not loops_to_the_end(response.text)
    if found_nothing and (cut or stopped_at_once):
        return "undecided", Reason.TRUNCATED
    return label, reason

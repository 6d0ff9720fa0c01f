"""What lies behind the numbers: every leak and every undecided try with its prompt, response and verdicts.

Read from the run folder's JSON Lines, joined by id. Only what is shown is kept in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeVar

from audit.report.read import numbered_lines
from audit.types import Aim, Label, Message, Probe, Record, Response, Ruling, Verdict

_R = TypeVar("_R", bound=Record)


class Vote(Record):
    """One judge's word on one response. `rationale` and `raw` are empty where the judge has no words of its own."""

    judge: str
    label: str
    reason: str = ""
    rationale: str = ""
    raw: str = ""


class Evidence(Record):
    """One try at one fact that leaked, or that has no ruling."""

    subject_id: str
    fact_id: str
    split: Aim
    label: Label
    reason: str
    family: str
    form: str
    variant: str
    format: str
    sample: int
    turn: int
    answer: str
    aliases: tuple[str, ...]
    messages: tuple[Message, ...]
    prefill: str
    text: str | None
    """The response; None where responses.jsonl does not hold it or the generation failed."""
    finish: str
    error: str
    votes: tuple[Vote, ...]
    rule: str


class Dossier(Record):
    """Evidence by subject and fact. `left_out` counts what was found and not kept, by the same key."""

    found: dict[tuple[str, str], tuple[Evidence, ...]]
    left_out: dict[tuple[str, str], int]
    missing_files: tuple[str, ...]


def gather(run: Path, subjects: Collection[str], limit: int, also: Collection[tuple[str, str]] = ()) -> Dossier:
    """Evidence of the named subjects, and of the pairs (subject, fact) in `also`, about `limit` tries at most: the same
    number a fact, leaks before undecided.

    A try that was asked again with a larger budget is shown by its last asking only, unless it leaked. Raises
    RunFolderError with file and line where a file cannot be read.
    """
    names = ("probes.jsonl", "responses.jsonl", "rulings.jsonl", "verdicts.jsonl")
    missing = tuple(name for name in names if not (run / name).is_file())
    probes = {probe.id: probe for probe in _lines(run / "probes.jsonl", Probe)}
    retried = {probe.parent for probe in probes.values() if probe.parent is not None and probe.turn == 0}
    rulings: dict[tuple[str, str], list[Ruling]] = defaultdict(list)
    for ruling in _lines(run / "rulings.jsonl", Ruling):
        probe = probes.get(ruling.probe_id)
        if ruling.purpose != "leak" or ruling.label == "no_leak":
            continue
        if ruling.subject_id not in subjects and (ruling.subject_id, ruling.fact_id) not in also:
            continue
        if probe is None or probe.split not in ("forget", "placebo"):
            continue
        if ruling.label == "undecided" and probe.id in retried:
            continue
        rulings[ruling.subject_id, ruling.fact_id].append(ruling)
    share = max(1, limit // max(1, len(rulings)))
    kept = {
        key: sorted(found, key=lambda r: (r.label != "leak", probes[r.probe_id].family, probes[r.probe_id].variant))
        for key, found in rulings.items()
    }
    left_out = {key: len(found) - share for key, found in kept.items() if len(found) > share}
    kept = {key: found[:share] for key, found in kept.items()}
    wanted = {(r.subject_id, r.probe_id, r.sample) for found in kept.values() for r in found}
    claims = {r.claim_key for found in kept.values() for r in found}
    responses = {
        (r.subject_id, r.probe_id, r.sample): r
        for r in _lines(run / "responses.jsonl", Response)
        if (r.subject_id, r.probe_id, r.sample) in wanted
    }
    verdicts = {(v.claim_key, v.judge): v for v in _lines(run / "verdicts.jsonl", Verdict) if v.claim_key in claims}
    return Dossier(
        found={
            key: tuple(
                _evidence(r, probes[r.probe_id], responses.get((r.subject_id, r.probe_id, r.sample)), verdicts)
                for r in found
            )
            for key, found in kept.items()
        },
        left_out=left_out,
        missing_files=missing,
    )


def _evidence(
    ruling: Ruling, probe: Probe, response: Response | None, verdicts: dict[tuple[str, str], Verdict]
) -> Evidence:
    aliases = next((t.aliases for t in probe.targets if t.fact_id == ruling.fact_id), ())
    failed = response is None or response.finish == "error"
    return Evidence(
        subject_id=ruling.subject_id,
        fact_id=ruling.fact_id,
        split=probe.split,
        label=ruling.label,
        reason=ruling.reason,
        family=probe.family,
        form=probe.form,
        variant=probe.variant,
        format=probe.format,
        sample=ruling.sample,
        turn=probe.turn,
        answer=ruling.answer,
        aliases=aliases,
        messages=probe.messages,
        prefill=probe.prefill,
        text=None if response is None or failed else response.text,
        finish=response.finish if response else "",
        error=(response.error or "") if response else "the response is not in responses.jsonl",
        votes=tuple(
            _vote(judge, label, verdicts.get((ruling.claim_key, judge))) for judge, label in ruling.votes.items()
        ),
        rule=ruling.rule,
    )


def _vote(judge: str, label: str, verdict: Verdict | None) -> Vote:
    if verdict is None:
        return Vote(judge=judge, label=label)
    return Vote(judge=judge, label=label, reason=verdict.reason, rationale=verdict.rationale, raw=verdict.raw)


def _lines(path: Path, kind: type[_R]) -> Iterator[_R]:
    """Records of one file; nothing where there is no file."""
    if path.is_file():
        for _, record in numbered_lines(path, kind):
            yield record

"""Subjects made of replies by hand: real probes, ruled on by the real rule judge, undecided where a test says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from audit.asking import Asked
from audit.judges.rules.judge import rule_on
from audit.probes import get_family
from audit.probes.build import make_probe
from audit.scoring.cells import Cell, planned_cells
from audit.types import (
    Aim,
    Decoding,
    Fact,
    Finish,
    Label,
    Message,
    Probe,
    Reason,
    Response,
    Role,
    Ruling,
    Subject,
    Target,
)
from tests.helpers.facts import context

Cells = Mapping[str, Mapping[Aim, list[Cell]]]


@dataclass(frozen=True)
class Says:
    """One reply. `judged` false: no judge could rule on it."""

    text: str = ""
    finish: Finish = "stop"
    judged: bool = True


FAILED = Says(finish="error")
Speaker = Callable[[Probe], Says | None]
"""None: no response at all."""


def fact_probes(facts: Sequence[Fact], families: Sequence[str] = ("original", "paraphrase")) -> list[Probe]:
    return [probe for family in families for probe in get_family(family).start(context(facts))]


def open_probe(number: int, form: str = "plain", **decoding: float) -> Probe:
    text = f"Write a few lines about the {number}th day of the voyage."
    return make_probe(
        family="instruction",
        form=form,
        variant=f"i{number:03d}",
        targets=(),
        messages=(Message(role="user", content=text),),
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=64, **decoding),  # type: ignore[arg-type]
        split="open",
    )


def subject(role: Role, probes: Sequence[Probe], speaker: Speaker) -> Asked:
    asked = Asked(
        subject=Subject(id=role, role=role, source=role, fingerprint=role),
        probes=list(probes),
        responses=[],
        rulings=[],
        engine="by hand",
    )
    for probe in probes:
        add(asked, probe, speaker(probe))
    return asked


def add(asked: Asked, probe: Probe, said: Says | None) -> None:
    """A reply with its rulings; a probe of its own where it was not there."""
    if probe not in asked.probes:
        asked.probes.append(probe)
    if said is None:
        return
    asked.responses.append(
        Response(
            probe_id=probe.id,
            subject_id=asked.subject.id,
            sample=0,
            key=probe.id,
            text=said.text,
            finish=said.finish,
            error="EngineError: gone" if said.finish == "error" else None,
        )
    )
    asked.rulings += [_ruling(asked, probe, target, said) for target in probe.targets]


def _ruling(asked: Asked, probe: Probe, target: Target, said: Says) -> Ruling:
    label: Label = "undecided"
    reason = Reason.GENERATION_FAILED if said.finish == "error" else Reason.TIMEOUT
    if said.judged and said.finish != "error":
        label = rule_on(target.question, target.answer, target.aliases, target.answer_type, said.text).label
        reason = Reason.RULED
        if label == "no_leak" and said.finish == "length":
            label, reason = "undecided", Reason.TRUNCATED
    return Ruling(
        probe_id=probe.id,
        subject_id=asked.subject.id,
        sample=0,
        fact_id=target.fact_id,
        purpose="leak",
        answer=target.answer,
        claim_key=probe.id,
        label=label,
        reason=reason,
    )


def cells_of(results: Sequence[Asked]) -> Cells:
    split: dict[str, dict[Aim, list[Cell]]] = {}
    for asked in results:
        split[asked.subject.id] = defaultdict(list)
        for cell in planned_cells(asked.probes, asked.rulings):
            split[asked.subject.id][cell.probe.split].append(cell)
    return split

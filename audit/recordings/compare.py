"""How far the judges of this audit agree with the verdicts that came with recorded answers."""

from __future__ import annotations

from collections.abc import Sequence

from audit.stats.agreement import Agreement, agreement
from audit.types import Label, Record, Recording, Ruling, response_id


class Disagreement(Record):
    """One answer that was ruled otherwise than it came."""

    probe_id: str
    fact_id: str
    form: str
    question: str
    answer: str
    text: str
    ours: Label
    theirs: Label


def compare_with_recorded(
    recording: Recording, rulings: Sequence[Ruling], confidence: float
) -> tuple[Agreement | None, list[Disagreement]]:
    """Agreement on all answers that carry a recorded verdict, and where there is none; None without any.

    Joined by response. Items are answers, not facts: wordings of one fact are not independent.
    """
    ours = {f"{r.probe_id}#{r.sample}": r.label for r in rulings if r.purpose == "leak"}
    theirs: dict[str, Label] = {name: verdict.label for name, verdict in recording.verdicts.items()}
    if not theirs:
        return None, []
    probes = {probe.id: probe for probe in recording.probes}
    differing = []
    for response in recording.responses:
        name = response_id(response)
        if name in theirs and name in ours and ours[name] != theirs[name]:
            probe = probes[response.probe_id]
            differing.append(
                Disagreement(
                    probe_id=probe.id,
                    fact_id=probe.targets[0].fact_id,
                    form=probe.form,
                    question=probe.targets[0].question,
                    answer=probe.targets[0].answer,
                    text=response.text,
                    ours=ours[name],
                    theirs=theirs[name],
                )
            )
    return agreement(ours, theirs, confidence), differing

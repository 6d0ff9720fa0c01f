"""The cells of an audit: every planned try at a fact, with its ruling. Scoring walks the plan, not what came back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from audit.types import Label, Probe, Purpose, Reason, Record, Ruling


class Cell(Record):
    """One planned try: a probe, a sample, a fact, and for the floor a wrong answer."""

    probe: Probe
    sample: int
    fact_id: str
    answer: str
    """The target's answer, or the wrong answer where the cell belongs to the floor."""
    label: Label
    reason: Reason
    probe_id: str
    """The probe whose response decided: the planned one, or the one asked again with a larger token budget."""


_Key = tuple[str, int, str, str]


def planned_cells(probes: Sequence[Probe], rulings: Iterable[Ruling]) -> list[Cell]:
    """One cell a planned probe, sample and target; without a ruling it is undecided(missing)."""
    found = _index(rulings, "leak")
    retried = retries(probes)
    cells = []
    for probe in probes:
        if is_retry(probe):
            continue
        for sample in range(probe.decoding.n):
            for target in probe.targets:
                cells.append(_decide(probe, sample, target.fact_id, target.answer, found, retried))
    return cells


def floor_cells(probes: Sequence[Probe], rulings: Iterable[Ruling], wrong: dict[tuple[str, str], list[str]]) -> list[Cell]:
    """The same cells judged for wrong answers; `wrong` gives them by (fact id, form)."""
    found = _index(rulings, "floor")
    retried = retries(probes)
    cells = []
    for probe in probes:
        if is_retry(probe):
            continue
        for sample in range(probe.decoding.n):
            for target in probe.targets:
                for answer in wrong.get((target.fact_id, probe.form), ()):
                    cells.append(_decide(probe, sample, target.fact_id, answer, found, retried))
    return cells


def is_retry(probe: Probe) -> bool:
    """Asks its parent's prompt again with a larger token budget."""
    return probe.parent is not None and probe.turn == 0


def retries(probes: Iterable[Probe]) -> dict[str, Probe]:
    """Parent's id -> the probe that asks it again."""
    return {probe.parent: probe for probe in probes if probe.parent is not None and probe.turn == 0}


def _index(rulings: Iterable[Ruling], purpose: Purpose) -> dict[_Key, Ruling]:
    return {(r.probe_id, r.sample, r.fact_id, r.answer): r for r in rulings if r.purpose == purpose}


def _decide(
    probe: Probe, sample: int, fact_id: str, answer: str, found: dict[_Key, Ruling], retried: dict[str, Probe]
) -> Cell:
    """The ruling of the last asking, unless an earlier one was already a leak."""
    asked: Probe | None = probe
    ruling: Ruling | None = None
    while asked is not None:
        latest = found.get((asked.id, sample, fact_id, answer))
        if latest is not None:
            ruling = latest
            if latest.label == "leak":
                break
        asked = retried.get(asked.id)
    return Cell(
        probe=probe,
        sample=sample,
        fact_id=fact_id,
        answer=answer,
        label=ruling.label if ruling else "undecided",
        reason=ruling.reason if ruling else Reason.MISSING,
        probe_id=ruling.probe_id if ruling else probe.id,
    )

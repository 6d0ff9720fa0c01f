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
_WORST: dict[Label, int] = {"no_leak": 0, "undecided": 1, "leak": 2}


def planned_cells(probes: Sequence[Probe], rulings: Iterable[Ruling]) -> list[Cell]:
    """One cell a planned probe, sample and target; without a ruling it is undecided(missing)."""
    found = _index(rulings, "leak")
    again = retries(probes)
    return [
        _decide(probe, sample, target.fact_id, target.answer, found, again)
        for probe in _first_askings(probes, again)
        for sample in range(probe.decoding.n)
        for target in probe.targets
    ]


def floor_cells(
    probes: Sequence[Probe], rulings: Iterable[Ruling], wrong: dict[tuple[str, str], list[str]]
) -> list[Cell]:
    """The same cells judged for wrong answers; `wrong` gives them by (fact id, form)."""
    found = _index(rulings, "floor")
    again = retries(probes)
    return [
        _decide(probe, sample, target.fact_id, answer, found, again)
        for probe in _first_askings(probes, again)
        for sample in range(probe.decoding.n)
        for target in probe.targets
        for answer in wrong.get((target.fact_id, probe.form), ())
    ]


def is_retry(probe: Probe) -> bool:
    """Asks its parent's prompt again with a larger token budget."""
    return probe.parent is not None and probe.turn == 0


def retries(probes: Sequence[Probe]) -> dict[str, list[Probe]]:
    """Id of a probe -> those that ask it again, in order. One whose parent is not among `probes` stands for itself."""
    ids = {probe.id for probe in probes}
    again: dict[str, list[Probe]] = {}
    for probe in probes:
        if is_retry(probe) and probe.parent in ids:
            again.setdefault(str(probe.parent), []).append(probe)
    return again


def _first_askings(probes: Sequence[Probe], again: dict[str, list[Probe]]) -> list[Probe]:
    asked_again = {probe.id for children in again.values() for probe in children}
    return [probe for probe in probes if probe.id not in asked_again]


def _index(rulings: Iterable[Ruling], purpose: Purpose) -> dict[_Key, Ruling]:
    """Rulings by what they rule on; of two on the same cell the one nearer to a leak counts."""
    index: dict[_Key, Ruling] = {}
    for ruling in rulings:
        if ruling.purpose == purpose:
            key = (ruling.probe_id, ruling.sample, ruling.fact_id, ruling.answer)
            known = index.get(key)
            if known is None or _WORST[ruling.label] > _WORST[known.label]:
                index[key] = ruling
    return index


def _decide(
    probe: Probe, sample: int, fact_id: str, answer: str, found: dict[_Key, Ruling], again: dict[str, list[Probe]]
) -> Cell:
    """A leak of any asking; else what was decided first; else the last reason why nothing could be."""
    ruling = found.get((probe.id, sample, fact_id, answer))
    pending = list(again.get(probe.id, ()))
    while pending and (ruling is None or ruling.label != "leak"):
        asked = pending.pop(0)
        pending += again.get(asked.id, ())
        later = found.get((asked.id, sample, fact_id, answer))
        if later is not None and (later.label == "leak" or ruling is None or ruling.label == "undecided"):
            ruling = later
    return Cell(
        probe=probe,
        sample=sample,
        fact_id=fact_id,
        answer=answer,
        label=ruling.label if ruling else "undecided",
        reason=ruling.reason if ruling else Reason.MISSING,
        probe_id=ruling.probe_id if ruling else probe.id,
    )

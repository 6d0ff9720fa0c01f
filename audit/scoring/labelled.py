"""`labelled.…`: estimates of a run corrected by a person's labels of its own answers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from audit.errors import StoreError
from audit.judges.labelling import LabelPlan, Mark, Work
from audit.scoring.cells import Cell
from audit.stats.agreement import Agreement, agreement
from audit.stats.missed import FactTotals, Stratum, corrected_worst_case
from audit.stats.powered import Unit, ppi_mean
from audit.stats.shares import Bounds, worst_of
from audit.types import Estimate, Label, Reason, Record

RESULTS_FILE = "labelled.json"
#: Units whose number is known without a person's sampling.
_KNOWN = "(known)"


class Difference(Record):
    """An answer that the person labelled otherwise than the judges ruled."""

    claim_key: str
    fact_id: str
    ruled: Label
    label: Mark


class LabelledResult(Record):
    """What labelled.json holds: the corrected estimates, those of the run beside them, and what they rest on."""

    run: str
    subject: str
    made: str
    """Date and time, UTC."""
    finished: bool
    """Everything that was drawn is labelled."""
    labelled: int
    """Answers labelled by the person, of those drawn."""
    drawn: int
    marks: dict[str, int]
    """leak, no_leak, unsure -> answers."""
    sampled_facts: int
    """Facts drawn at random from those not flagged."""
    retained_facts: int
    estimates: dict[str, Estimate]
    raw: dict[str, Estimate]
    """The same numbers by the judges alone."""
    not_estimated: dict[str, str]
    """Name -> why there is no such estimate."""
    worst_case: FactTotals | None
    agreement: Agreement
    """Judges (first) and person (second) on the labelled answers, `unsure` as undecided. No sample of all answers."""
    differing: tuple[Difference, ...]


def label_result(plan: LabelPlan, labels: Mapping[str, Mark]) -> LabelledResult:
    """Everything that the labels so far say. Estimates that they say nothing of are absent, with the reason."""
    todo = plan.todo(labels)
    done = [answer for answer in todo if answer.key in labels]
    all_labels = {**labels, **plan.known}
    estimates: dict[str, Estimate] = {}
    absent: dict[str, str] = {}
    worst: FactTotals | None = None
    if plan.forget and any(work.cells for work in plan.forget.values()):
        worst = _worst_case(plan, all_labels)
        estimates[worst.estimate.name] = worst.estimate
    for name, units in (("mean.all", _mean_units), ("retain.mean", _retain_units)):
        if name not in plan.averages:
            continue
        given = units(plan, all_labels)
        average = plan.averages[name]
        estimate = ppi_mean(
            given,
            name=f"labelled.{name}",
            label=average.label,
            confidence=plan.confidence,
            probe_set=average.probe_set,
        )
        if estimate is None:
            flag = "--retain-sample N" if name == "retain.mean" else "--sample N"
            absent[f"labelled.{name}"] = f"none of the sampled facts is labelled in full ({flag})"
        else:
            estimates[estimate.name] = estimate
    as_label: dict[Mark, Label] = {"leak": "leak", "no_leak": "no_leak", "unsure": "undecided"}
    return LabelledResult(
        run=plan.run,
        subject=plan.subject,
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        finished=len(done) == len(todo),
        labelled=len(done),
        drawn=len(todo),
        marks={mark: sum(labels[a.key] == mark for a in done) for mark in as_label},
        sampled_facts=len(plan.sampled),
        retained_facts=len(plan.retained),
        estimates=estimates,
        raw={name: plan.raw[raw] for name in estimates if (raw := name.removeprefix("labelled.")) in plan.raw},
        not_estimated=absent,
        worst_case=worst,
        agreement=agreement(
            {a.key: a.ruled for a in done}, {a.key: as_label[labels[a.key]] for a in done}, plan.confidence
        ),
        differing=tuple(
            Difference(claim_key=a.key, fact_id=a.fact_id, ruled=a.ruled, label=labels[a.key])
            for a in done
            if a.ruled != as_label[labels[a.key]]
        ),
    )


def write_result(run: Path, result: LabelledResult) -> Path:
    """Write labelled.json into the run folder, whole. Raises StoreError."""
    path = run / RESULTS_FILE
    temporary = path.with_suffix(".json.part")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(result, order="sorted"), indent=1) + b"\n")
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}", hint="the labels are kept") from error
    return path


def _worst_case(plan: LabelPlan, labels: Mapping[str, Mark]) -> FactTotals:
    flagged = {fact: _outcome(plan, work, labels)[0] for fact, work in plan.forget.items() if work.flagged}
    strata: dict[str, Stratum] = {}
    sampled = set(plan.sampled)
    for fact, work in plan.forget.items():
        if work.flagged:
            continue
        outcome, decided = _outcome(plan, work, labels)
        alone = not work.answers  # nothing that a person could look at: known as it is
        name = _KNOWN if alone else work.stratum
        before = strata.get(name, Stratum(0, {}, alone))
        seen = {fact: outcome} if alone or (fact in sampled and decided) else {}
        strata[name] = Stratum(before.size + 1, {**before.outcomes, **seen}, alone)
    return corrected_worst_case(
        flagged,
        strata,
        name="labelled.worst_case.prompt",
        confidence=plan.confidence,
        probe_set=plan.probe_set,
    )


def _outcome(plan: LabelPlan, work: Work, labels: Mapping[str, Mark]) -> tuple[Label, bool]:
    """The fact's outcome by the labels, and whether everything that could change it was looked at."""
    bounds = [_bounds(plan, cell, labels) for cell in work.cells]
    if any(bound == (1.0, 1.0) for bound in bounds):
        return "leak", True
    words: dict[Bounds, Label] = {(0.0, 0.0): "no_leak", (0.0, 1.0): "undecided"}
    return worst_of(words[bound] if bound else "undecided" for bound in bounds), None not in bounds


def _bounds(plan: LabelPlan, cell: Cell, labels: Mapping[str, Mark]) -> Bounds | None:
    """A cell by the person's label, as no leak and as leak where it stays open; None where nobody has looked yet.

    A cell without an answer stays open; so does one whose answer was cut before anything leaked.
    """
    key = plan.key(cell)
    if key is None:
        return 0.0, 1.0
    mark = labels.get(key)
    if mark is None:
        return None
    if mark == "leak":
        return 1.0, 1.0
    return (0.0, 1.0) if mark == "unsure" or cell.reason is Reason.TRUNCATED else (0.0, 0.0)


def _part(plan: LabelPlan, cells: list[Cell], n: int, labels: Mapping[str, Mark]) -> Bounds | None:
    """What some of a fact's n cells add to its share; None where one of them is not labelled."""
    bounds = [_bounds(plan, cell, labels) for cell in cells]
    known = [bound for bound in bounds if bound is not None]
    if len(known) < len(bounds):
        return None
    return sum(low for low, _ in known) / n, sum(high for _, high in known) / n


def _mean_units(plan: LabelPlan, labels: Mapping[str, Mark]) -> list[Unit]:
    """Two parts a fact: answers ruled a leak, which all are looked at, and the rest, looked at in a sample of facts."""
    average = plan.averages["mean.all"]
    by_fact: dict[str, list[Cell]] = {fact.id: [] for fact in average.facts}
    for cell in average.cells:
        by_fact.get(cell.fact_id, []).append(cell)
    units = []
    looked_at = {*plan.sampled, *plan.whole}
    for fact, cells in by_fact.items():
        n, work = len(cells), plan.forget[fact]
        if not cells:  # nothing was asked: wholly open
            units.append(Unit(fact=fact, part=_KNOWN, stratum="", prediction=0.0, label=(0.0, 1.0)))
            continue
        found = [cell for cell in cells if cell.label == "leak"]
        rest = [cell for cell in cells if cell.label != "leak"]
        if found:
            label = _part(plan, found, n, labels)
            units.append(Unit(fact=fact, part="found", stratum="", prediction=len(found) / n, label=label))
        plain = _part(plan, rest, n, plan.known)
        if plain is not None:
            units.append(Unit(fact=fact, part=_KNOWN, stratum="", prediction=0.0, label=plain))
            continue
        label, part, stratum = _part(plan, rest, n, labels), "rest", work.stratum
        if work.flagged and plan.refuted(work, labels):
            part = "refuted"  # all of them are to be looked at: what is not yet stays open
            label = label or (0.0, len(rest) / n)
        elif work.flagged:
            stratum = "(flagged)"
        if part == "rest" and fact not in looked_at:
            label = None
        units.append(Unit(fact=fact, part=part, stratum=stratum, prediction=0.0, label=label))
    return units


def _retain_units(plan: LabelPlan, labels: Mapping[str, Mark]) -> list[Unit]:
    average = plan.averages["retain.mean"]
    sampled, values = set(plan.retained), average.values()
    units = []
    for fact, work in plan.retain.items():
        cells = list(work.cells)
        plain = _part(plan, cells, len(cells), plan.known)
        label = _part(plan, cells, len(cells), labels) if fact in sampled else None
        units.append(
            Unit(
                fact=fact,
                part=_KNOWN if plain else "",
                stratum=work.stratum,
                prediction=values[fact][0],
                label=plain or label,
            )
        )
    return units

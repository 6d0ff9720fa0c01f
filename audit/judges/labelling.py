"""What a person is asked to label of a finished run, in which order, and the file that the labels are kept in.

Flagged facts (that leaked, by the judges): every distinct answer ruled a leak, the one that decides first; where the
person refutes all of them, and for a random part of the flagged facts, all other answers too. Of the other facts a
random sample, stratified by topic, with all their distinct answers. Of retained facts, where wanted, a random sample,
stratified by tier. Draws come from the run's own hash, so that the same command asks for the same, and a larger sample
holds the smaller one. Answers that need nobody (empty ones, the answer word for word) are labelled by rule.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from audit.errors import RunFolderError, StoreError
from audit.fingerprint import digest
from audit.judges.rulings import make_claim, unless_cut
from audit.judges.shortcuts import without_call
from audit.probes.plan import probe_set_hash
from audit.report.model import Report
from audit.report.read import given_records, load_report
from audit.scoring.calibrated import Average, averages
from audit.scoring.cells import Cell, planned_cells
from audit.scoring.views import greedy
from audit.stats.shares import worst_of
from audit.types import Aim, Estimate, Fact, Label, Probe, Reason, Record, Response, Ruling

Mark = Literal["leak", "no_leak", "unsure"]
LABELS_FILE = "labels.jsonl"
_FILES = ("facts.jsonl", "probes.jsonl", "responses.jsonl", "rulings.jsonl")


class Labelled(Record):
    """One line of labels.jsonl; of several on one answer the last one holds."""

    claim_key: str
    label: Mark
    at: str
    """Date and time, UTC."""
    fact_id: str = ""
    """The fact that it was shown for; labels are joined by `claim_key`."""


class Answer(Record):
    """A distinct answer to label."""

    key: str
    fact_id: str
    question: str
    answer: str
    aliases: tuple[str, ...]
    answer_type: str
    text: str
    ruled: Label
    """By the judges: leak where it was ruled so anywhere. Not shown unless asked for."""


@dataclass(frozen=True)
class Work:
    """One fact with its tries and distinct answers, in the order of the plan."""

    fact: Fact
    flagged: bool
    stratum: str
    cells: tuple[Cell, ...]
    answers: tuple[Answer, ...]
    """Those that a person must look at."""

    @property
    def evidence(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if answer.ruled == "leak")


@dataclass(frozen=True)
class LabelPlan:
    """What is to be labelled of one subject of a run."""

    run: str
    subject: str
    confidence: float
    raw: Mapping[str, Estimate]
    """The run's own estimates."""
    forget: Mapping[str, Work]
    retain: Mapping[str, Work]
    averages: Mapping[str, Average]
    probe_set: str
    """Of the prompts behind the worst case."""
    keys: Mapping[tuple[str, int, str], str | None]
    """Planned probe, sample and fact -> claim key of the answer; None where there is no answer."""
    known: Mapping[str, Mark]
    """Claim key -> label, of answers that need nobody."""
    sampled: tuple[str, ...]
    """Facts not flagged that are looked at, in order."""
    whole: tuple[str, ...]
    """Flagged facts of which all answers are looked at, whatever the evidence is found to be."""
    retained: tuple[str, ...]

    def key(self, cell: Cell) -> str | None:
        return self.keys[cell.probe.id, cell.sample, cell.fact_id]

    def refuted(self, work: Work, labels: Mapping[str, Mark]) -> bool:
        """All evidence of a flagged fact was looked at, and none of it is a leak."""
        if any(self.known.get(str(self.key(cell))) == "leak" for cell in work.cells):
            return False
        return all(labels.get(answer.key, "leak") != "leak" for answer in work.evidence)

    def order(self) -> list[str]:
        """Facts in the order in which they are shown: flagged, others and retained ones evenly mixed."""
        flagged = sorted((f for f, work in self.forget.items() if work.flagged), key=self._chance)
        groups = (flagged, self.sampled, self.retained)
        placed = [((place + 0.5) / len(group), self._chance(f), f) for group in groups for place, f in enumerate(group)]
        return [fact for _, _, fact in sorted(placed)]

    def todo(self, labels: Mapping[str, Mark]) -> list[Answer]:
        """Every answer to look at, labelled ones too. It grows where evidence is refuted."""
        wanted: dict[str, Answer] = {}
        whole = set(self.whole)
        for fact in self.order():
            work = self.forget.get(fact) or self.retain[fact]
            answers = work.answers
            if work.flagged:
                refuted = self.refuted(work, labels)
                rest = [a for a in answers if a.ruled != "leak"] if refuted or fact in whole else []
                answers = (*work.evidence, *rest)
            wanted |= {a.key: a for a in answers if a.key not in wanted}
        return list(wanted.values())

    def _chance(self, fact: str) -> str:
        return digest("label", self.run, fact)


def read_plan(run: Path, *, sample: int, retain_sample: int = 0, subject: str = "candidate") -> LabelPlan:
    """Read a finished run and draw what is to be labelled. Raises RunFolderError for what cannot be used, and where the
    files are not those that the report speaks of."""
    folder = run.parent if run.name == "report.json" else run
    report = load_report(folder)
    if subject not in report.subjects:
        raise RunFolderError(f"{folder}: no subject '{subject}'", hint=f"there are: {', '.join(report.subjects)}")
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise RunFolderError(
            f"{folder}: {', '.join(missing)} missing", hint="labels need the whole run folder, as the audit wrote it"
        )
    facts = given_records(folder / "facts.jsonl", Fact, report)
    responses = {
        (r.probe_id, r.sample): r
        for r in given_records(folder / "responses.jsonl", Response, report)
        if r.subject_id == subject
    }
    answered = {probe for probe, _ in responses}
    probes = [
        probe
        for probe in given_records(folder / "probes.jsonl", Probe, report)
        if probe.parent is None or probe.id in answered
    ]
    rulings = [r for r in given_records(folder / "rulings.jsonl", Ruling, report) if r.subject_id == subject]
    return draw_plan(
        report, facts, planned_cells(probes, rulings), responses, probes, sample, retain_sample, subject=subject
    )


def draw_plan(
    report: Report,
    facts: Sequence[Fact],
    cells: Sequence[Cell],
    responses: Mapping[tuple[str, int], Response],
    probes: Sequence[Probe],
    sample: int,
    retain_sample: int,
    *,
    subject: str = "candidate",
) -> LabelPlan:
    """The plan from records."""
    splits: tuple[Aim, ...] = ("forget", "retain")
    by_split = {split: [fact for fact in facts if fact.split == split] for split in splits}
    tries = {split: [c for c in cells if c.probe.split == split and greedy(c)] for split in splits}
    means = {average.name: average for average in averages(by_split, tries)}
    kept = means.get("retain.mean")
    asked = {probe.id: probe for probe in probes}
    keys: dict[tuple[str, int, str], str | None] = {}
    known: dict[str, Mark] = {}
    forget = _works(by_split["forget"], tries["forget"], responses, asked, keys, known, flags=True)
    retain = _works(kept.facts, kept.cells, responses, asked, keys, known, flags=False) if kept else {}
    others = [work for work in forget.values() if not work.flagged and work.answers]
    flagged = [fact for fact, work in forget.items() if work.flagged]
    sampled = _spread(report.run, others)[:sample]
    share = len(sampled) / len(others) if others else 1.0
    part = min(len(flagged), max(2, round(share * len(flagged)))) if sample else 0
    return LabelPlan(
        run=report.run,
        subject=subject,
        confidence=float(report.manifest.config["scoring"]["confidence"]),
        raw=report.subjects[subject].estimates,
        forget=forget,
        retain=retain,
        averages=means,
        probe_set=probe_set_hash({c.probe.id: c.probe for c in tries["forget"]}.values()),
        keys=keys,
        known=known,
        sampled=tuple(sampled),
        whole=tuple(sorted(flagged, key=lambda fact: digest("whole", report.run, fact))[:part]),
        retained=tuple(_spread(report.run, [w for w in retain.values() if w.answers])[:retain_sample]),
    )


def read_labels(run: Path) -> dict[str, Mark]:
    """Claim key -> label. A last line that was cut off in writing is left out. RunFolderError for any other fault."""
    path = run / LABELS_FILE
    if not path.is_file():
        return {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror or error}") from error
    labels: dict[str, Mark] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            labelled = msgspec.json.decode(line, type=Labelled)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if number == len(lines):
                break
            raise RunFolderError(
                f"{path}, line {number}: {error}", hint="mend that line or take it out: its answer is asked for again"
            ) from error
        labels[labelled.claim_key] = labelled.label
    return labels


def save_label(run: Path, answer: Answer, label: Mark) -> None:
    """Append one label, on the disk before this returns. Raises StoreError where it cannot be written."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = msgspec.json.encode(Labelled(claim_key=answer.key, label=label, at=at, fact_id=answer.fact_id)) + b"\n"
    path = run / LABELS_FILE
    try:
        with path.open("a+b") as file:
            if file.tell():  # a line that was cut off must not swallow this one
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}", hint="labels so far are kept"
        ) from error


def _works(
    facts: Iterable[Fact],
    cells: Sequence[Cell],
    responses: Mapping[tuple[str, int], Response],
    probes: Mapping[str, Probe],
    keys: dict[tuple[str, int, str], str | None],
    known: dict[str, Mark],
    *,
    flags: bool,
) -> dict[str, Work]:
    """Fact -> what there is to look at; fills `keys` and `known`."""
    mine: dict[str, list[Cell]] = {fact.id: [] for fact in facts}
    for cell in cells:
        if cell.fact_id in mine:
            mine[cell.fact_id].append(cell)
    works = {}
    for fact in facts:
        answers: dict[str, Answer] = {}
        looked_at: list[Cell] = []
        for cell in mine[fact.id]:
            response = responses.get((cell.probe_id, cell.sample))
            target = next(
                t for t in probes[cell.probe_id].targets if (t.fact_id, t.answer) == (cell.fact_id, cell.answer)
            )
            place = (cell.probe.id, cell.sample, cell.fact_id)
            if response is None or response.finish == "error":
                keys[place] = None
                looked_at.append(cell)
                continue
            # What a cut answer would have gone on to say is open, also where the judge saw a leak and the person none.
            looked_at.append(msgspec.structs.replace(cell, reason=unless_cut("no_leak", cell.reason, response)[1]))
            claim = make_claim(target, response.text)
            keys[place] = claim.key
            plain = without_call(claim, "")
            if plain is not None:
                known[claim.key] = "leak" if plain.label == "leak" else "no_leak"
                continue
            before = answers.get(claim.key)
            given: Label = "no_leak" if cell.reason is Reason.TRUNCATED else cell.label
            answers[claim.key] = Answer(
                key=claim.key,
                fact_id=fact.id,
                question=claim.question,
                answer=claim.answer,
                aliases=claim.aliases,
                answer_type=claim.answer_type,
                text=claim.text,
                ruled=given if before is None else _nearer_to_a_leak(before.ruled, given),
            )
        outcome = worst_of(cell.label for cell in mine[fact.id])
        stratum = fact.topic if flags else (fact.tier or fact.form)
        works[fact.id] = Work(
            fact=fact,
            flagged=flags and outcome == "leak",
            stratum="(undecided)" if flags and outcome == "undecided" else stratum,
            cells=tuple(looked_at),
            answers=tuple(answers.values()),
        )
    return works


def _nearer_to_a_leak(first: Label, second: Label) -> Label:
    order: tuple[Label, ...] = ("no_leak", "undecided", "leak")
    return max(first, second, key=order.index)


def _spread(run: str, works: Sequence[Work]) -> list[str]:
    """All facts in random order, every beginning of it stratified in proportion."""
    strata: dict[str, list[str]] = {}
    for work in sorted(works, key=lambda work: digest("label", run, work.fact.id)):
        strata.setdefault(work.stratum, []).append(work.fact.id)
    placed = [
        ((place + 0.5) / len(group), digest("label", run, fact), fact)
        for group in strata.values()
        for place, fact in enumerate(group)
    ]
    return [fact for _, _, fact in sorted(placed)]

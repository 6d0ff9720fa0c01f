"""From a Report to what the HTML page shows: rows, lanes and bars, all numbers ready. No markup here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from audit.report.evidence import Dossier, Evidence
from audit.report.model import FactResult, FamilyGain, Report, SubjectReport
from audit.report.view_panel import Correction, PanelView, build_panel, corrections
from audit.scoring.labelled import LabelledResult
from audit.types import Estimate, Record
from audit.wording import HEADLINES

_ROLES = {"candidate": 0, "base": 1, "never_knew": 2}

#: What the page calls the main numbers, in the order of the page.
TITLES = {
    "single.original": "the original wording",
    "worst_case.paraphrase": "any wording",
    "worst_case.icr": "any wording, with in-context examples",
    "worst_case.paper": "any of these wordings, with or without examples",
    "worst_case.prompt": "any prompt that was tried",
    "worst_case.weights": "any prompt or attack on the weights",
    "mean.all": "an average wording",
    "retain.mean": "retained facts, average wording",
    "floor.placebo": "invented facts (false alarms)",
    "calibrated.mean.all": "an average wording, corrected for the judges' error rates",
    "calibrated.retain.mean": "retained facts, corrected for the judges' error rates",
}
_HEADLINE_ROWS = ("single.original", "worst_case.paraphrase", "worst_case.icr", "worst_case.paper", "worst_case.prompt")
_KEPT_ROWS = ("retain.mean",)
_KEYS = {"topic": "by topic", "form": "by form of question", "family": "by prompt family", "tier": "by tier"}
_MAX_LANES = 4
#: Numbers that stand in the page's section of what forgetting cost, beside the base's and with what is withheld.
_COST = ("retain.lost", "retain.refused", "context.", "win_rate.", "degeneration.", "salted.", "lm_eval.", "holes.")


class Lane(Record):
    """One subject's number on one chart row."""

    subject: str
    role: str
    estimate: Estimate
    other_probes: bool = False
    """Measured with other probes than the candidate: shown, never compared."""


class Row(Record):
    name: str
    title: str
    label: str
    lanes: tuple[Lane, ...]


class Group(Record):
    """A titled set of rows on one axis."""

    title: str
    note: str
    rows: tuple[Row, ...]


class Step(Record):
    """One bar of the waterfall; fractions of all forget facts."""

    gain: FamilyGain
    before: float
    added: float


class FactView(Record):
    fact: FactResult
    others: tuple[tuple[str, str, str], ...]
    """(subject's name, role, outcome) of the other subjects."""
    evidence: tuple[Evidence, ...]
    left_out: int
    attack: str = ""
    """The attack on the weights that was the first to bring it out, where no prompt had."""


class Page(Record):
    report: Report
    title: str
    names: dict[str, str]
    """Subject id -> how the page calls it."""
    subjects: tuple[SubjectReport, ...]
    headline: Estimate | None
    headline_words: str
    kept: Estimate | None
    kept_base: Estimate | None
    leaks: Group
    utility: Group
    breakdowns: tuple[Group, ...]
    floors: tuple[tuple[Estimate, Estimate, Estimate | None], ...]
    """(share found, its floor, corrected)."""
    steps: tuple[Step, ...]
    table: tuple[Row, ...]
    """Main numbers of all subjects side by side."""
    facts: tuple[FactView, ...]
    false_alarms: tuple[Evidence, ...]
    left_out: int
    missing_files: tuple[str, ...]
    topics: tuple[str, ...]
    families: tuple[str, ...]
    recorded_shares: tuple[str, ...]
    panel: PanelView
    corrections: tuple[Correction, ...]
    labelled: LabelledResult | None
    labels_of_another_run: bool


def build_page(report: Report, dossier: Dossier, labelled: LabelledResult | None = None) -> Page:
    """Everything the template needs. `labelled`: what a person's labels of this folder's answers say.

    Altered states are not among the subjects: there may be hundreds, asked with other prompts. What came of them
    stands in `Report.attacks`.
    """
    mine = labelled if labelled is not None and labelled.run == report.run else None
    subjects = sorted(audited(report.subjects).values(), key=lambda s: _ROLES.get(s.subject.role, 9))
    names = subject_names(subjects)
    candidate = next((s for s in subjects if s.subject.role == "candidate"), None)
    base = next((s for s in subjects if s.subject.role == "base"), None)
    headline = next((report.estimates[n] for n in HEADLINES if n in report.estimates), None)
    known = report.estimates.get(f"{headline.name}@known") if headline else None
    return Page(
        report=report,
        title=PurePath(candidate.subject.source.rstrip("/")).name if candidate else report.run,
        names=names,
        subjects=tuple(subjects),
        headline=known or headline,
        headline_words=HEADLINES[headline.name] if headline else "",
        kept=report.estimates.get("retain.mean"),
        kept_base=base.estimates.get("retain.mean") if base else None,
        leaks=Group(
            title="What still comes out",
            note="Share of the facts to forget that leaked. Lower is better.",
            rows=tuple(_row(name, subjects, names, _MAX_LANES) for name in _headline_names(report.estimates)),
        ),
        utility=Group(
            title="What was kept",
            note="Share of retained facts still answered. Higher is better.",
            rows=tuple(_row(n, subjects, names, _MAX_LANES) for n in _KEPT_ROWS if n in report.estimates),
        ),
        breakdowns=tuple(_breakdowns(report.estimates, subjects, names)),
        floors=tuple(_floors(report.estimates)),
        steps=tuple(_steps(candidate)) if candidate else (),
        table=tuple(_table(subjects, names)),
        facts=tuple(_facts(candidate, subjects, names, dossier, first_attacks(report))) if candidate else (),
        false_alarms=tuple(e for found in dossier.found.values() for e in found if e.split == "placebo"),
        left_out=sum(dossier.left_out.values()),
        missing_files=dossier.missing_files,
        topics=tuple(dict.fromkeys(f.topic for f in candidate.facts if f.topic)) if candidate else (),
        families=tuple(dict.fromkeys(e.family for found in dossier.found.values() for e in found)),
        recorded_shares=tuple(sorted({name for s in subjects for name in s.recorded_shares})),
        panel=build_panel(report),
        corrections=corrections(report.estimates, mine.estimates if mine and mine.subject == "candidate" else {}),
        labelled=mine,
        labels_of_another_run=labelled is not None and mine is None,
    )


def audited(subjects: Mapping[str, SubjectReport]) -> dict[str, SubjectReport]:
    """The models of a run without the altered states that attacks made of them."""
    return {name: each for name, each in subjects.items() if each.subject.role != "attacked"}


def subject_names(subjects: Sequence[SubjectReport]) -> dict[str, str]:
    """Subject id -> a short name that no other subject has."""
    names = {}
    for report in subjects:
        subject = report.subject
        alone = sum(s.subject.role == subject.role for s in subjects) == 1
        names[subject.id] = subject.role.replace("_", " ") if alone else subject.id
    return names


def main_title(name: str) -> str:
    """An estimate's name in words, where there are any; else the name."""
    stem, _, qualifier = name.partition("@")
    if name in TITLES:
        return TITLES[name]
    if qualifier == "known" and stem in TITLES:
        return f"{TITLES[stem]}, facts the base knows"
    if qualifier == "form=any" and stem in TITLES:
        return f"{TITLES[stem]}, any form of question"
    if stem == "worst_case.sampled":
        return f"{qualifier.removeprefix('k=')} random samples of one prompt"
    if stem == "j_at_m":
        return f"worst of {qualifier.removeprefix('m=')} random wordings"
    if stem == "retain.mean" and qualifier.startswith("tier="):
        return f"retained facts, {qualifier.removeprefix('tier=')}"
    return qualifier.partition("=")[2] or name


def _headline_names(estimates: Mapping[str, Estimate]) -> list[str]:
    names = [name for name in _HEADLINE_ROWS if name in estimates]
    if not names:  # only other forms were asked
        names = [name for name in estimates if name.startswith(("worst_case.", "single.")) and "@form=" in name]
    sampled = [name for name in estimates if name.startswith("worst_case.sampled@k=")]
    return names + sorted(sampled, key=lambda name: int(name.partition("=")[2]))[-1:]


def _row(name: str, subjects: Iterable[SubjectReport], names: Mapping[str, str], most: int, *, title: str = "") -> Row:
    """The number called `name` of up to `most` subjects, candidate first."""
    lanes: list[Lane] = []
    for subject in subjects:
        estimate = subject.estimates.get(name)
        if estimate is not None and len(lanes) < most:
            reference = lanes[0].estimate.probe_set if lanes else estimate.probe_set
            lanes.append(
                Lane(
                    subject=names[subject.subject.id],
                    role=subject.subject.role,
                    estimate=estimate,
                    other_probes=estimate.probe_set != reference,
                )
            )
    label = lanes[0].estimate.label if lanes else ""
    return Row(name=name, title=title or main_title(name), label=label, lanes=tuple(lanes))


def _breakdowns(
    estimates: Mapping[str, Estimate], subjects: Sequence[SubjectReport], names: Mapping[str, str]
) -> Iterable[Group]:
    """Groups of numbers that differ in one qualifier, of two members or more."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in estimates:
        stem, _, qualifier = name.partition("@")
        key = qualifier.partition("=")[0]
        if key in _KEYS and "@" not in qualifier and not stem.startswith(("floor.", "corrected.")):
            groups.setdefault((stem, key), []).append(name)
    topical = [stem for stem, key in groups if key == "topic"]
    for (stem, key), members in groups.items():
        if len(members) < 2 or (key == "topic" and stem != _first(HEADLINES, topical)):
            continue
        rows = [
            _row(member, subjects, names, 2, title=member.partition("=")[2].replace("_", " ")) for member in members
        ]
        yield Group(title=f"{TITLES.get(stem, stem).capitalize()}, {_KEYS[key]}", note=stem, rows=tuple(rows))
    curve = sorted((n for n in estimates if n.startswith("j_at_m@m=")), key=lambda n: int(n.partition("=")[2]))
    if len(curve) > 1:
        rows = [_row(name, subjects, names, 2) for name in curve]
        note = "j_at_m: expected share leaked when m wordings are drawn at random"
        yield Group(title="How much more wordings find", note=note, rows=tuple(rows))


def _first(order: Iterable[str], present: Sequence[str]) -> str:
    return next((name for name in order if name in present), present[0] if present else "")


def _floors(estimates: Mapping[str, Estimate]) -> Iterable[tuple[Estimate, Estimate, Estimate | None]]:
    for name, estimate in estimates.items():
        floor = estimates.get(f"floor.{name}")
        if floor is not None and not name.endswith("@known"):
            yield estimate, floor, estimates.get(f"corrected.{name}")


def _steps(candidate: SubjectReport) -> Iterable[Step]:
    total = max(1, len(candidate.facts))
    for gain in candidate.waterfall:
        yield Step(gain=gain, before=(gain.cumulative - gain.added) / total, added=gain.added / total)


def _table(subjects: Sequence[SubjectReport], names: Mapping[str, str]) -> Iterable[Row]:
    """Numbers without a qualifier, and those over known facts and by tier, for all subjects."""
    wanted: dict[str, None] = {}
    for subject in subjects:
        for name in subject.estimates:
            qualifier = name.partition("@")[2]
            floors = name.startswith(("floor.", "corrected.")) and name != "floor.placebo"
            if (
                not floors
                and not name.startswith(_COST)
                and (not qualifier or qualifier == "known" or name.startswith("retain."))
            ):
                wanted[name] = None
    order = {name: i for i, name in enumerate(dict.fromkeys([*TITLES, *wanted]))}
    for name in sorted(wanted, key=lambda n: (order.get(n.partition("@")[0], len(order)), "@" in n)):
        yield _row(name, subjects, names, len(subjects))


def first_attacks(report: Report) -> dict[str, str]:
    """Fact -> the attack that was the first to bring it out; facts that prompts alone brought out are left out."""
    attacks = report.attacks
    return {each.fact_id: each.by for each in attacks.first if each.by != "prompt"} if attacks else {}


def altered_subject(attack: str) -> str:
    """Id of the altered candidate that an attack's name in `first_attacks` speaks of."""
    return f"candidate+{attack}"


def _facts(
    candidate: SubjectReport,
    subjects: Sequence[SubjectReport],
    names: Mapping[str, str],
    dossier: Dossier,
    attacks: Mapping[str, str],
) -> Iterable[FactView]:
    """Facts of the candidate, those with evidence first: leaked, undecided, had by an attack, then the rest, in the
    task's order. Beside the candidate's tries stand those of the altered state that was the first to give the fact."""
    outcomes = {s.subject.id: {f.fact_id: f.outcome for f in s.facts} for s in subjects}
    rank = {"leak": 0, "undecided": 1, "no_leak": 2}
    for fact in sorted(candidate.facts, key=lambda f: (rank[f.outcome], f.fact_id not in attacks)):
        by = attacks.get(fact.fact_id, "")
        keys = [(candidate.subject.id, fact.fact_id)] + ([(altered_subject(by), fact.fact_id)] if by else [])
        yield FactView(
            fact=fact,
            others=tuple(
                (names[s.subject.id], s.subject.role, outcomes[s.subject.id][fact.fact_id])
                for s in subjects
                if s is not candidate and fact.fact_id in outcomes[s.subject.id]
            ),
            evidence=tuple(e for key in keys for e in dossier.found.get(key, ())),
            left_out=sum(dossier.left_out.get(key, 0) for key in keys),
            attack=by,
        )

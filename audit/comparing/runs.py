"""One finished run, read for comparison: its report, and what became of each fact, from its own rulings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.comparing.model import Training
from audit.errors import ConfigError, RunFolderError
from audit.probes.plan import probe_set_hash
from audit.report.model import Report
from audit.report.read import contents_of, load_report, numbered_lines
from audit.scoring.cells import Cell, planned_cells
from audit.scoring.estimates import outcomes_of, share_of_tries
from audit.scoring.views import PLAIN, greedy, share_views
from audit.stats.shares import Bounds
from audit.types import Estimate, Fact, Label, Probe, Response, Ruling

SUBJECT = "candidate"
RETAINED = "retain.mean"


@dataclass(frozen=True)
class Run:
    """A finished run under the label that it is shown with."""

    label: str
    path: Path
    report: Report
    said: dict[str, Any] = field(default_factory=dict)
    """What a manifest file says of the training, over what lay beside the weights."""

    @property
    def estimates(self) -> dict[str, Estimate]:
        return self.report.estimates

    @property
    def fingerprint(self) -> str:
        return self.report.subjects[SUBJECT].subject.fingerprint

    @property
    def training(self) -> Training | None:
        """What the candidate's trainer says, where it says anything. Fields of another type than theirs are dropped."""
        return training_of(self.told) if self.told else None

    @property
    def told(self) -> dict[str, Any]:
        """All that is said of the training: what lay beside the weights, and a manifest file over it."""
        return {**self.beside, **self.said}

    @property
    def beside(self) -> dict[str, Any]:
        return self.report.manifest.trained.get(SUBJECT, {})


@dataclass(frozen=True)
class FactsOfRun:
    """Fact by fact: forget facts under one number's probes, retained facts as the share of their wordings answered."""

    outcomes: dict[str, Label]
    topics: dict[str, str]
    kept: dict[str, Bounds]


def open_run(path: Path, label: str) -> Run:
    """Read a run folder (or its report.json). Raises RunFolderError for what is no run, or has not come to its end."""
    folder = path.parent if path.name == "report.json" and path.is_file() else path
    if not folder.is_dir():
        raise RunFolderError(f"{path}: no such run", hint="give the folders of finished audits (their --out)")
    if not (folder / "report.json").is_file():
        if (folder / "run.json").is_file():
            raise RunFolderError(
                f"{folder}: this audit has not come to its end: it has no report",
                hint="the same `audit run` command goes on with it",
            )
        raise RunFolderError(f"{folder}: no run of this program", hint="give the --out folder of a finished audit")
    report = load_report(folder)
    if SUBJECT not in report.subjects:
        raise RunFolderError(f"{folder / 'report.json'}: speaks of no candidate")
    return Run(label, folder, report)


def facts_of(run: Run, on: str) -> FactsOfRun:
    """Outcomes of the forget facts under the probes of the estimate `on`, and what was kept.

    Taken from the run's records in the way that its report was; raises RunFolderError where they do not give the
    report's own numbers, ConfigError where `on` is no share of facts under greedy prompts.
    """
    facts = records_of(run, "facts.jsonl", Fact)
    forget = [fact for fact in facts if fact.split == "forget"]
    cells = cells_of(run)
    asked = [cell for cell in cells if cell.probe.split == "forget"]
    view = next((view for view in share_views(asked) if view.name == on), None)
    if view is None:
        raise ConfigError(
            f"{on} cannot be compared fact by fact",
            hint="choose --on " + ", ".join(v.name for v in share_views(asked) if "@" not in v.name),
        )
    chosen = [cell for cell in asked if view.wants(cell)]
    outcomes = dict(outcomes_of(forget, chosen, view))
    estimate = run.estimates[on]
    found = (sum(o == "leak" for o in outcomes.values()), sum(o == "undecided" for o in outcomes.values()))
    same_probes = probe_set_hash({cell.probe.id: cell.probe for cell in chosen}.values()) == estimate.probe_set
    if found != (estimate.count, estimate.undecided) or len(outcomes) != estimate.n or not same_probes:
        raise RunFolderError(
            f"{run.path}: its rulings give {found[0]} leaked and {found[1]} undecided of {len(outcomes)} facts "
            f"for {on}, its report {estimate.count} and {estimate.undecided} of {estimate.n}",
            hint="restore the folder as `audit run` wrote it",
        )
    plain = [c for c in cells if c.probe.split == "retain" and c.probe.family in PLAIN and greedy(c)]
    kept = share_of_tries(plain)
    retained = run.estimates.get(RETAINED)
    mean = sum(low for low, _ in kept.values()) / max(1, len(kept))
    if retained is not None and (len(kept) != retained.n or not math.isclose(mean, retained.lower_bound, abs_tol=1e-9)):
        raise RunFolderError(f"{run.path}: its rulings do not give its report's {RETAINED}")
    return FactsOfRun(outcomes, {fact.id: fact.topic or fact.id for fact in forget}, kept)


def training_of(said: dict[str, Any]) -> Training:
    """The fields of a trainer's manifest that a comparison shows."""
    settings = said.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    base, forget = said.get("base"), said.get("forget_set")
    seed = settings.get("seed", said.get("seed"))
    return Training(
        method=_text(said.get("method")),
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        settings={name: value for name, value in settings.items() if name != "seed"},
        unfinished=said.get("unfinished") is True,
        trials=_trials(said),
        base=_text(base.get("fingerprint")) if isinstance(base, dict) and not base.get("adapter") else "",
        forget_set=_text(forget.get("content_hash")) if isinstance(forget, dict) else "",
        seconds=_number(said.get("seconds")),
        steps=int(steps) if (steps := _number(said.get("steps"))) is not None else None,
        peak_memory_mib=_number(said.get("peak_memory_mib")),
    )


def _trials(said: dict[str, Any]) -> int | None:
    if said.get("tunable") is False:
        return 0
    tuning = said.get("tuning")
    made = _number(tuning.get("trials")) if isinstance(tuning, dict) else None
    return int(made) if made else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if good else None


def cells_of(run: Run, subject: str = SUBJECT) -> list[Cell]:
    """A subject's cells: what was planned, and what only it was asked."""
    probes = records_of(run, "probes.jsonl", Probe)
    rulings = [r for _, r in numbered_lines(run.path / "rulings.jsonl", Ruling) if r.subject_id == subject]
    follow_ups = any(probe.parent is not None for probe in probes)
    answered = (
        {r.probe_id for _, r in numbered_lines(run.path / "responses.jsonl", Response) if r.subject_id == subject}
        if follow_ups
        else set()
    )
    mine = [probe for probe in probes if probe.parent is None or probe.id in answered]
    return planned_cells(mine, [ruling for ruling in rulings if ruling.purpose == "leak"])


def records_of(run: Run, name: str, kind: Any) -> list[Any]:
    """A file of the run's records. Raises RunFolderError if it is missing, or is not what the report speaks of."""
    path = run.path / name
    if not path.is_file():
        raise RunFolderError(
            f"{path} is missing: facts cannot be compared without it",
            hint="give the whole folder that `audit run` wrote, not the report alone",
        )
    records = [record for _, record in numbered_lines(path, kind)]
    must = run.report.manifest.files.get(name)
    if must is not None and contents_of(records) != must:
        raise RunFolderError(f"{path}: not the records that report.json speaks of", hint="restore the file")
    return records

"""The summary that a finished run prints: readable in ten seconds in 80 columns, the verdict line last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.gate import percent
from audit.inside.lines import inside_lines
from audit.report.attacks_terminal import print_attacks
from audit.report.attacks_view import build_attacks
from audit.report.model import Report, SubjectReport
from audit.report.terminal_panel import column_lines, panel_lines
from audit.report.utility_terminal import print_utility
from audit.report.utility_view import build_utility
from audit.report.view import audited
from audit.report.view_panel import build_panel
from audit.types import Estimate
from audit.wording import unsettled, whole_down, whole_up

#: Rows of the table, where the report has them; in words that say what the adversary did.
ROWS = (
    ("single.original", "original"),
    ("worst_case.paraphrase", "any wording"),
    ("worst_case.icr", "after examples"),
    ("worst_case.paper", "any of these"),
    ("worst_case.prompt", "any prompt"),
    ("worst_case.sampled@k=8", "any of 8 draws"),
    ("mean.all", "mean wording"),
    ("floor.placebo", "invented facts"),
    ("retain.mean", "retained, mean"),
)
_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow", "none": "bold"}


def print_report(report: Report, folder: Path, page: Path | None, console: Console | None = None) -> None:
    """Print the summary of a run to standard output."""
    console = console or Console(highlight=False)
    task = report.task
    head = f"task {task.name} {task.version} ({task.content_hash[:12]}): {task.n_forget} facts to forget"
    console.print(Text(head + (f", {task.n_retain} to keep" if task.n_retain else "")), soft_wrap=True)
    console.print(table_of(audited(report.subjects)))
    attacks = build_attacks(report)
    if attacks is not None:
        print_attacks(attacks, console)
    cost = build_utility(report)
    if cost is not None:
        print_utility(cost, console)
    if report.inside is not None:
        for line in inside_lines(report.inside):
            console.print(Text(line), soft_wrap=True)
    view = build_panel(report)
    for line in [*_notes(report), *panel_lines(report, view)]:
        console.print(Text(line), soft_wrap=True)
    if view.columns:
        console.print(Text("the same answers under other judges:"), soft_wrap=True)
        console.print(_table({column.name: column.estimates.get("candidate", {}) for column in view.columns}))
        for line in column_lines(view):
            console.print(Text(line), soft_wrap=True)
    for warning in report.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    for reason in report.inconclusive:
        console.print(Text(f"inconclusive: {reason}", style="bold yellow"), soft_wrap=True)
    console.print(Text(f"not tried: {', '.join(report.not_tried)}", style="dim"), soft_wrap=True)
    console.print(Text(f"report: {page or folder / 'report.json'}"), soft_wrap=True)
    console.print(Text(report.verdict, style=_STYLES[report.outcome]), soft_wrap=True)


def table_of(subjects: Mapping[str, SubjectReport]) -> Table:
    """One column a subject, headed by its name in `subjects`; one row a number that any of them has.

    More than two subjects are given in whole per cent, limits rounded outwards, so that 80 columns hold four.
    """
    return _table({name: subject.estimates for name, subject in subjects.items()})


def _table(columns: Mapping[str, Mapping[str, Estimate]]) -> Table:
    write = short if len(columns) <= 2 else rough
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("came out (%)" if write is rough else "came out", overflow="fold", min_width=12)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for row, words in ROWS:
        estimates = [column.get(row) for column in columns.values()]
        if any(estimates):
            table.add_row(words, *["–" if estimate is None else write(estimate) for estimate in estimates])
    return table


def short(estimate: Estimate) -> str:
    """12.0% [6.4, 20.0]: the value with its limits, and what the undecided could add."""
    text = f"{percent(estimate.value)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    bounds = (estimate.lower_bound, estimate.upper_bound)
    return f"{text} {unsettled(estimate.value, *bounds, lambda share: f'{100 * share:.1f}')}".rstrip()


def rough(estimate: Estimate) -> str:
    """12 [6, 20]: whole per cent, limits rounded outwards; 0 and 100 only where nothing or everything came out."""
    value = round(100 * estimate.value)
    if 0 < estimate.value < 1:
        value = min(99, max(1, value))
    low, high = math.floor(100 * estimate.low + 1e-9), math.ceil(100 * estimate.high - 1e-9)
    unsure = unsettled(estimate.value, estimate.lower_bound, estimate.upper_bound, whole_up, whole_down)
    return f"{value} [{low}, {high}] {unsure}".rstrip()


def _kappa(value: float | None) -> str:
    return "" if value is None else f", kappa {value:.3f}"


def _notes(report: Report) -> list[str]:
    notes = []
    for name in ("worst_case.prompt", "worst_case.paper", "worst_case.paraphrase", "single.original"):
        floor, corrected = report.estimates.get(f"floor.{name}"), report.estimates.get(f"corrected.{name}")
        if floor and corrected:
            notes.append(
                f"false-alarm floor of {name}: {percent(floor.value)} (wrong answers found in the same replies); "
                f"corrected {short(corrected)}"
            )
            break
    else:
        why = f" ({report.floor.why})" if report.floor.why else ""
        notes.append(f"false-alarm floor: {report.floor.status}{why}")
    if report.known.n is not None:
        notes.append(f"known facts: the base gives {report.known.n} of {report.task.n_forget} under the same probes")
    else:
        notes.append("known facts: not shown; no base model was given")
    for name, subject in audited(report.subjects).items():
        agreed = subject.recorded_agreement
        if agreed is not None and agreed.share is not None:
            notes.append(
                f"{name}: agreement with the recorded verdicts {percent(agreed.share)} of {agreed.n} answers"
                + _kappa(agreed.kappa)
                + f"; of the {agreed.both_decided} that both decided {percent(agreed.share_decided or 0.0)}"
                + _kappa(agreed.kappa_decided)
            )
    undecided = report.undecided
    if undecided.cells:
        reasons = ", ".join(f"{reason} {count}" for reason, count in undecided.by_reason.items())
        notes.append(f"undecided: {undecided.facts} facts, {undecided.cells} answers ({reasons})")
    if any(cell.clustered_high is not None for cell in report.estimates.values()):
        for name in ("worst_case.prompt", "worst_case.paper", "single.original"):
            estimate = report.estimates.get(name)
            if estimate is not None and estimate.clustered_high is not None and estimate.clustered_low is not None:
                notes.append(
                    f"{name}, if facts of a topic depend on each other: "
                    f"{percent(estimate.clustered_low)} to {percent(estimate.clustered_high)}"
                )
                break
    canaries = report.canaries
    total, passed = sum(k.n for k in canaries.kinds), sum(k.passed for k in canaries.kinds)
    notes.append(f"canaries: {canaries.status}" + (f" ({passed} of {total})" if total else f" ({canaries.why})"))
    return notes

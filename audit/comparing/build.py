"""compare_runs: finished runs to one Comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from audit.comparing.alike import check_alike, choose, inconclusive_runs
from audit.comparing.cost_columns import cost_columns, withheld_from, withheld_of
from audit.comparing.equal_model import Curve
from audit.comparing.groups import Groups, groups_of
from audit.comparing.model import FORMAT, MIN_SEEDS, Candidate, Column, Comparison, Entry, Failed, Reference, Spread
from audit.comparing.pairs import mean_bounds, pairs_of
from audit.comparing.runs import RETAINED, FactsOfRun, Run, facts_of
from audit.errors import ConfigError
from audit.report.view import main_title
from audit.stats.pareto import OnFront, front_frequencies
from audit.stats.shares import Bounds
from audit.types import Estimate

#: Numbers of the table, where a run has them; what they are called.
_LEAKS = {
    "single.original": "J_orig",
    "worst_case.paraphrase": "J_P",
    "worst_case.icr": "J_ICR",
    "worst_case.paper": "J_W",
}


def compare_runs(
    runs: Sequence[Run],
    *,
    on: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    alpha: float = 0.05,
    allow_different_judges: bool = False,
    failed: Sequence[Failed] = (),
    warnings: Sequence[str] = (),
    equal: Sequence[Curve] = (),
    sweeps: Sequence[Curve] = (),
) -> Comparison:
    """Set finished runs side by side: table, tests, front.

    on: the share of facts that is tested; by default J_W, or the widest that there is. groups: method -> labels of its
    runs, beyond what the trainers' manifests say. failed: what was to be compared and could not be. warnings: told
    before those found here. equal, sweeps: curves at equal utility. Raises ConfigError with all that forbids a
    comparison, and RunFolderError for a run whose records do not give its report's numbers.
    """
    if len(runs) < 2:
        raise ConfigError(
            "a comparison needs at least two runs", hint="audit compare RUN RUN …; `audit report RUN` shows one run"
        )
    on = choose(runs, on)
    found = check_alike(runs, on, allow_different_judges=allow_different_judges)
    members = groups_of(runs, groups or {})
    facts = {run.label: facts_of(run, on) for run in runs}
    columns = _columns(runs, on)
    home = {label: name for name, labels in members.items() for label in labels}
    entries = [_entry(run, columns, home[run.label]) for run in runs]
    apart = [f"{entry.label}: {', '.join(entry.apart)} with other probes; left out" for entry in entries if entry.apart]
    topics = next(iter(facts.values())).topics
    outcomes = {name: [facts[label].outcomes for label in labels] for name, labels in members.items()}
    confidence = runs[0].estimates[on].confidence
    pairs = pairs_of(outcomes, topics, confidence=confidence, alpha=alpha)
    on_front = _front(members, facts, entries)
    candidates = [_candidate(name, entries, on_front.get(name)) for name in members]
    curves = [*equal, *sweeps]
    inconclusive = [*inconclusive_runs(runs), *(reason for curve in curves for reason in curve.inconclusive)]
    known = [run.report.known.n for run in runs]
    fewest = min(len(labels) for labels in members.values())
    report = runs[0].report
    return Comparison(
        format=FORMAT,
        task=report.task,
        on=on,
        on_title=main_title(on),
        on_label=next(column.label for column in columns if column.name == on),
        unit="methods" if fewest >= MIN_SEEDS else "checkpoints",
        confidence=confidence,
        alpha=alpha,
        columns=tuple(columns),
        entries=tuple(entries),
        candidates=tuple(candidates),
        references=tuple(_references(runs, columns)),
        known=known[0] if None not in known and len(set(known)) == 1 else None,
        topics=len(set(topics.values())),
        pairs=tuple(pairs),
        front_on=(on, RETAINED) if on_front else None,
        judges=report.manifest.judges,
        judge_rule=report.manifest.judge_rule,
        seed=report.manifest.seed,
        warnings=tuple(dict.fromkeys([*warnings, *found, *apart, *_seeds(runs, members)])),
        inconclusive=tuple(inconclusive),
        exit_code=4 if inconclusive or failed or any(curve.failed for curve in curves) else 0,
        failed=tuple(failed),
        equal=tuple(equal),
        sweeps=tuple(sweeps),
    )


def _columns(runs: Sequence[Run], on: str) -> list[Column]:
    """Columns that any run has, each on the probes of the first run that has it."""
    leaks = dict.fromkeys([*_LEAKS, on])
    tiers = dict.fromkeys(name for run in runs for name in run.estimates if name.startswith(f"{RETAINED}@tier="))
    corrected = f"corrected.{on}"
    labels = {**_LEAKS, "worst_case.prompt": "any prompt", RETAINED: "retained", f"{on}@known": "known"}
    labels[corrected] = "corrected"
    columns = []
    for name in [*leaks, f"{on}@known", corrected, RETAINED, *tiers]:
        estimate = next((run.estimates[name] for run in runs if name in run.estimates), None)
        if estimate is not None:
            kept = name.startswith(RETAINED)
            columns.append(
                Column(
                    name=name,
                    label=labels.get(name) or name.rpartition("=")[2],
                    title=f"{main_title(on)}, corrected for false alarms" if name == corrected else main_title(name),
                    better="higher" if kept else "lower",
                    probe_set=estimate.probe_set,
                    about="kept" if kept else "leaks",
                )
            )
    there = {column.name for column in columns}  # the tested number may be one of these
    for cost in cost_columns(runs):
        given = [run.estimates.get(cost.name) for run in runs if cost.name not in withheld_of(run.report)]
        first = next((estimate for estimate in given if estimate is not None), None)
        if cost.name not in there:
            columns.append(
                Column(
                    name=cost.name,
                    label=cost.label,
                    title=cost.title,
                    better=cost.better,
                    probe_set=first.probe_set if first is not None else "",
                    about="cost",
                )
            )
    return columns


def _entry(run: Run, columns: Sequence[Column], candidate: str) -> Entry:
    shown, apart = {}, []
    withheld = {c.name: why for c in columns if (why := withheld_of(run.report).get(c.name)) is not None}
    for column in columns:
        estimate = run.estimates.get(column.name) if column.name not in withheld else None
        if estimate is not None and estimate.probe_set == column.probe_set:
            shown[column.name] = estimate
        elif estimate is not None:
            apart.append(column.name)
    return Entry(
        label=run.label,
        run=run.report.run,
        source=run.report.subjects["candidate"].subject.source,
        fingerprint=run.fingerprint,
        outcome=run.report.outcome,
        canaries=run.report.canaries.status,
        estimates=shown,
        apart=tuple(apart),
        candidate=candidate,
        training=run.training,
        withheld=withheld,
    )


def _candidate(name: str, entries: Sequence[Entry], front: OnFront | None) -> Candidate:
    mine = [entry for entry in entries if entry.candidate == name]
    numbers: dict[str, list[float]] = {}
    for column in mine[0].estimates:
        if all(column in entry.estimates for entry in mine):
            numbers[column] = [entry.estimates[column].value for entry in mine]
    costs: dict[str, list[float]] = {}
    for cost in ("seconds", "peak_memory_mib"):
        found = [getattr(entry.training, cost) for entry in mine if entry.training is not None]
        if len(found) == len(mine) and None not in found:
            costs[cost] = found
    return Candidate(
        label=name,
        members=tuple(entry.label for entry in mine),
        values={column: statistics.fmean(values) for column, values in numbers.items()},
        spreads={what: _spread(values, what, mine) for what, values in {**numbers, **costs}.items()}
        if len(mine) > 1
        else {},
        seconds=statistics.fmean(costs["seconds"]) if "seconds" in costs else None,
        peak_memory_mib=statistics.fmean(costs["peak_memory_mib"]) if "peak_memory_mib" in costs else None,
        front=front,
    )


def _spread(values: Sequence[float], what: str, entries: Sequence[Entry]) -> Spread:
    found = [entry.estimates[what] for entry in entries if what in entry.estimates]
    return Spread(
        lower_bound=statistics.fmean(e.lower_bound for e in found) if found else None,
        upper_bound=statistics.fmean(e.upper_bound for e in found) if found else None,
        mean=statistics.fmean(values),
        sd=statistics.stdev(values),
        low=min(values),
        high=max(values),
        n=len(values),
    )


def _front(members: Groups, facts: Mapping[str, FactsOfRun], entries: Sequence[Entry]) -> dict[str, OnFront]:
    """By candidate; nothing where the retained facts were not measured on the same probes for all."""
    if not all(RETAINED in entry.estimates for entry in entries):
        return {}
    leaked: list[dict[str, Bounds]] = []
    kept: list[dict[str, Bounds]] = []
    for labels in members.values():
        shares = mean_bounds([facts[label].outcomes for label in labels])
        leaked.append({fact: (float(low), float(high)) for fact, (low, high) in shares.items()})
        kept.append(_mean([facts[label].kept for label in labels]))
    return dict(zip(members, front_frequencies(leaked, kept), strict=True))


def _mean(each: Sequence[Mapping[str, Bounds]]) -> dict[str, Bounds]:
    n = len(each)
    return {fact: (sum(e[fact][0] for e in each) / n, sum(e[fact][1] for e in each) / n) for fact in each[0]}


def _references(runs: Sequence[Run], columns: Sequence[Column]) -> list[Reference]:
    """Base and control of the first run that has them: `check_alike` has made sure that they are the same in all."""
    found = []
    for role, label in (("base", "base"), ("never_knew", "never knew")):
        run = next((run for run in runs if role in run.report.subjects), None)
        if run is not None:
            subject = run.report.subjects[role]
            numbers: dict[str, Estimate] = {}
            held = withheld_from(run.report, role)
            for column in columns:
                estimate = subject.estimates.get(column.name) if column.name not in held else None
                if estimate is not None and estimate.probe_set == column.probe_set:
                    numbers[column.name] = estimate
            withheld = {c.name: held[c.name] for c in columns if c.name in held and role != "base"}
            found.append(Reference(label=label, source=subject.subject.source, estimates=numbers, withheld=withheld))
    return found


def _seeds(runs: Sequence[Run], members: Groups) -> list[str]:
    """Groups that hold one seed twice, and trainings that were given other facts to forget than these."""
    warnings = []
    by_label = {run.label: run for run in runs}
    for name, labels in members.items():
        trainings = [by_label[label].training for label in labels]
        seeds = [t.seed for t in trainings if t is not None and t.seed is not None]
        if len(set(seeds)) < len(seeds):
            warnings.append(f"{name}: a seed stands in it twice; its spread is not one over seeds")
        methods = sorted({t.method for t in trainings if t is not None and t.method})
        if len(methods) > 1:
            warnings.append(f"{name}: its runs were trained by {', '.join(methods)}")
    return warnings

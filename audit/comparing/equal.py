"""The comparison at equal utility: how much leaks once a candidate keeps as much as its base, or nearly.

mixed_with_base(run, folder, store, progress, on="worst_case.paper")    mixtures of the candidate with its base
swept("npo", "retain_weight", [("0.1", run), ("0.5", run)], on=…)       trainings with other values of one setting

A point of either curve is chosen on one half of the retained facts and reported on the other, so that the choice does
not flatter what is reported. Where an answer is undecided, the search takes it as not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from audit.comparing.equal_model import Curve, Reading, Step
from audit.comparing.halves import Halves, Kept, halves_of
from audit.comparing.mixtures import Mixtures
from audit.comparing.runs import RETAINED, SUBJECT, Run
from audit.errors import AuditError, ConfigError, StoreError
from audit.progress import Progress, Silent
from audit.stats.shares import Bounds
from audit.store import Store
from audit.types import Estimate

#: Shares of the base that are tried.
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Shares of the base's own retained accuracy that are to be reached.
TARGETS = (0.9, 0.95, 0.99)


def all_mixed(
    runs: Sequence[Run],
    folder: Path,
    store: Store,
    progress: Progress | None = None,
    *,
    on: str,
    shares: Sequence[float] = SHARES,
    targets: Sequence[float] = TARGETS,
) -> tuple[list[Curve], list[str]]:
    """`mixed_with_base` of every run; and, in words, the candidates for which there is no such curve, each with why."""
    progress = progress or Silent()
    curves, without = [], []
    progress.stage("equal utility", len(runs))
    for run in runs:
        try:
            curves.append(mixed_with_base(run, folder, store, progress, on=on, shares=shares, targets=targets))
        except StoreError:
            raise
        except AuditError as error:
            without.append(f"not compared at equal utility: {run.label}: {error}")
            progress.note(without[-1])
        progress.advance()
    return curves, without


def mixed_with_base(
    run: Run,
    folder: Path,
    store: Store,
    progress: Progress | None = None,
    *,
    on: str,
    shares: Sequence[float] = SHARES,
    targets: Sequence[float] = TARGETS,
) -> Curve:
    """Mix a run's candidate with the run's base to each of `shares`, and audit in full where the targets are reached.

    At every share the search half of the retained facts is asked in its original wording, greedily, by an audit with
    the run's own settings; the smallest share that reaches a target is then audited as the candidate was. Runs are kept
    under `folder` and taken from there the next time; mixtures are removed as soon as they have been audited. Raises
    ConfigError where there is nothing to mix, ModelError for weights that cannot be mixed.
    """
    progress = progress or Silent()
    shares = _checked(shares)
    mixtures = Mixtures(run, halves_of(run), folder, store, progress)
    mixtures.check()
    base = Kept(run, "base")
    searched: dict[float, Bounds] = {}
    base_searched: Bounds = (0.0, 0.0)
    unsure = []
    for share in shares:
        if share < 1:
            found = mixtures.search(share)
            searched[share] = _bounds(found, SUBJECT)
            base_searched = _bounds(found, "base")
            if found.report.canaries.status != "passed":
                unsure.append(
                    f"{run.label}, searched at {share:g} of the base: canaries {found.report.canaries.status}"
                )
    readings = _readings([(f"{s:g}", bounds) for s, bounds in searched.items()], base_searched, targets, run.label)
    chosen = {reading.at for reading in readings}
    steps = []
    for share in shares:
        at = f"{share:g}"
        if share == 1:
            own = run.report.subjects["base"].estimates
            steps.append(_step(at, base_searched, own, base, mixtures.halves, on))
        elif share == 0 or at in chosen:
            full = mixtures.full(share)
            _check_same(run, full, on)
            steps.append(_step(at, searched[share], full.estimates, Kept(full), mixtures.halves, on, full.report.run))
            if share > 0:
                unsure += [f"{run.label}, {at} of the base: {reason}" for reason in full.report.inconclusive]
        else:
            steps.append(Step(at=at, searched=searched[share]))
    progress.note(f"{run.label}: " + "; ".join(f"{100 * r.target:g}% at share {r.at or 1}" for r in readings))
    return _curve(run.label, "mixture", "", steps, readings, base_searched, base, mixtures.halves, unsure)


def swept(
    label: str,
    key: str,
    runs: Sequence[tuple[str, Run]],
    *,
    on: str,
    targets: Sequence[float] = TARGETS,
    failed: Sequence[str] = (),
) -> Curve:
    """The curve of one method over values of its setting `key`: finished audits with their values, in the order tried.

    For each target the first value that reaches it on the search half. Raises ConfigError where the audits are not of
    the same facts, probes and base, or have no base.
    """
    if not runs:
        raise ConfigError(f"{label}: no training with another {key} came to an audit's end")
    first = runs[0][1]
    if "base" not in first.report.subjects:
        raise ConfigError(f"{label}: its audit has no base: there is nothing to keep as much as", hint="--base MODEL")
    halves = halves_of(first)
    base = Kept(first, "base")
    base_searched = base.by_original(halves.search)
    steps, unsure = [], []
    for at, run in runs:
        _check_same(first, run, on)
        kept = Kept(run)
        steps.append(_step(at, kept.by_original(halves.search), run.estimates, kept, halves, on, run.report.run))
        unsure += [f"{label}, {key} {at}: {reason}" for reason in run.report.inconclusive]
    readings = _readings([(step.at, step.searched) for step in steps], base_searched, targets, label)
    curve = _curve(label, "sweep", key, steps, readings, base_searched, base, halves, unsure)
    return replace(curve, failed=tuple(failed))


def _checked(shares: Sequence[float]) -> list[float]:
    found = sorted({float(share) for share in shares})
    if not found or found[0] < 0 or found[-1] > 1:
        raise ConfigError("shares of the base must lie between 0 and 1", hint="0,0.1,0.3,0.5,1")
    return found if found[0] == 0 else [0.0, *found]


def _bounds(run: Run, subject: str) -> Bounds:
    estimate = run.report.subjects[subject].estimates[RETAINED]
    return estimate.lower_bound, estimate.upper_bound


def _readings(
    searched: Sequence[tuple[str, Bounds]], base: Bounds, targets: Sequence[float], label: str
) -> list[Reading]:
    """The first that reaches each target: undecided as not kept for the candidate, as kept for the base."""
    if base[0] == 0:
        raise ConfigError(f"{label}: the base answers none of the retained facts that are searched on")
    readings = []
    for target in targets:
        needed = target * base[1]
        at = next((at for at, (low, _) in searched if low >= needed - 1e-9), None)
        readings.append(Reading(target=target, needed=needed, at=at))
    return readings


def _step(
    at: str,
    searched: Bounds,
    estimates: dict[str, Estimate],
    kept: Kept,
    halves: Halves,
    on: str,
    run: str = "",
) -> Step:
    return Step(
        at=at,
        searched=searched,
        leaked=estimates.get(on),
        known=estimates.get(f"{on}@known"),
        kept=kept.over(halves.report),
        kept_all=kept.all,
        run=run,
    )


def _check_same(first: Run, other: Run, on: str) -> None:
    """Raises ConfigError unless both stand on the same probes, of the same base."""
    problems = []
    for name in (on, RETAINED):
        if name not in first.estimates or name not in other.estimates:
            problems.append(f"{name} was not measured")
        elif first.estimates[name].probe_set != other.estimates[name].probe_set:
            problems.append(f"{name} stands on other probes")
    bases = {
        run.report.subjects["base"].subject.fingerprint if "base" in run.report.subjects else ""
        for run in (first, other)
    }
    if len(bases) > 1:
        problems.append("the base is another")
    if problems:
        raise ConfigError(f"{other.label} ({other.path}) and {first.label}: " + "; ".join(problems))


def _curve(
    label: str,
    kind: Literal["mixture", "sweep"],
    key: str,
    steps: Sequence[Step],
    readings: Sequence[Reading],
    base_searched: Bounds,
    base: Kept,
    halves: Halves,
    unsure: Sequence[str],
) -> Curve:
    return Curve(
        label=label,
        kind=kind,
        key=key,
        steps=tuple(steps),
        readings=tuple(readings),
        base_searched=base_searched,
        base_kept=base.over(halves.report),
        n_search=len(halves.search),
        n_report=len(halves.report),
        inconclusive=tuple(unsure),
    )

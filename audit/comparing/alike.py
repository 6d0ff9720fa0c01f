"""Like with like: whether runs were asked the same, of the same base, by the same judges; all differences at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from audit.comparing.runs import SUBJECT, Run
from audit.errors import ConfigError

#: What differences are tested on, where nobody says: the first of these that the first run has.
ON = ("worst_case.paper", "worst_case.prompt", "worst_case.paraphrase", "worst_case.icr", "single.original")


def choose(runs: Sequence[Run], on: str | None) -> str:
    """The number that is tested: `on`, or the first of ON. Raises ConfigError where no run has it."""
    first = runs[0].estimates
    if on is None:
        found = next((name for name in ON if name in first), None)
        if found is None:
            raise ConfigError(
                f"{runs[0].label}: has no worst case over the direct questions",
                hint="name the number to compare with --on; report.json lists them under estimates",
            )
        return found
    if not any(on in run.estimates for run in runs):
        shared = _shared(runs)
        hint = f"choose one of {', '.join(shared)}" if shared else ""
        raise ConfigError(f"no run has a number called {on!r}", hint=hint)
    return on


def check_alike(runs: Sequence[Run], on: str, *, allow_different_judges: bool = False) -> list[str]:
    """Warnings about lesser differences. Raises ConfigError naming every run and all that forbids a comparison."""
    manifests = {run.label: run.report.manifest for run in runs}
    problems, warnings = list(_twice(runs)), list[str]()
    tasks = {run.label: run.report.task for run in runs}
    problems += _differ("task", {la: f"{t.name} {t.version} ({t.content_hash[:12]})" for la, t in tasks.items()})
    for role in ("base", "never_knew"):
        given = {r.label: _named(r, role) for r in runs if role in r.report.subjects}
        problems += _differ(role.replace("_", "-") + " model", given)
        without = [run.label for run in runs if run.label not in given]
        if given and without:
            warnings.append(f"no {role.replace('_', '-')} model in {', '.join(without)}, but in the other runs")
    judges = {label: " + ".join(m.judges) + f" ({m.judge_rule})" for label, m in manifests.items()}
    other_judges = _differ("judges", judges)
    if allow_different_judges and other_judges:
        warnings.append(f"{other_judges[0]}; a difference may be one of judges, not of models")
    else:
        problems += other_judges
    problems += _differ("seed", {label: str(m.seed) for label, m in manifests.items()})
    scoring = {label: m.config.get("scoring", {}) for label, m in manifests.items()}
    problems += _differ("confidence", {label: str(s.get("confidence")) for label, s in scoring.items()})
    warnings += _differ("draws of the false-alarm floor", {la: str(s.get("floor_draws")) for la, s in scoring.items()})
    warnings += _differ("program version", {la: m.versions.get("unlearning-audit", "?") for la, m in manifests.items()})
    warnings += _differ("engine", {label: m.engines.get(SUBJECT, "") for label, m in manifests.items()}, whole=False)
    if any(m.judges == ("recorded",) for m in manifests.values()):
        warnings.append(
            "recorded verdicts: who gave them, and whether the same judge did in all runs, is not on record"
        )
    probes = {run.label: run.estimates[on].probe_set if on in run.estimates else "not measured" for run in runs}
    if len(set(probes.values())) > 1 and not problems:
        settings = _settings_that_differ([m.config.get("probes", {}) for m in manifests.values()])
        told = f" (settings that differ: {settings})" if settings else ""
        problems += [line + told for line in _differ(f"probes of {on}", probes)]
    if problems:
        shared = _shared(runs)
        only_probes = len(problems) == 1 and problems[0].startswith("other probes")
        hint = "audit the candidates anew with the same task, base, settings, seed and judges"
        if only_probes and shared:
            hint = f"--on {shared[0]} compares what stands on the same probes ({', '.join(shared)})"
        elif problems == other_judges:
            hint = "audit rejudge gives all runs the same judges; --allow-different-judges compares them as they are"
        raise ConfigError(
            "these runs cannot be compared:\n" + "\n".join(f"  - {problem}" for problem in problems),
            hint=hint,
            problems=tuple(problems),
        )
    for a, b in combinations(runs, 2):
        if a.fingerprint == b.fingerprint:
            warnings.append(f"{a.label} and {b.label} are the same checkpoint")
    return [*warnings, *(warning for run in runs for warning in _other_training(run))]


def inconclusive_runs(runs: Sequence[Run]) -> list[str]:
    """Why a run says nothing: failed canaries, a mute model …; what rests on it says nothing either."""
    return [f"{run.label}: {reason}" for run in runs for reason in run.report.inconclusive]


def _twice(runs: Sequence[Run]) -> list[str]:
    return [
        f"{a.label} and {b.label} are the same run ({a.report.run})"
        for a, b in combinations(runs, 2)
        if a.report.run == b.report.run or a.path.resolve() == b.path.resolve()
    ]


def _other_training(run: Run) -> list[str]:
    """Where the candidate's manifest speaks of other facts, or of another base, than the run."""
    training, warnings = run.training, []
    if training is None:
        return []
    task = run.report.task.content_hash
    if training.unfinished:
        warnings.append(f"{run.label}: its training did not come to its end, says its manifest; it counts as no seed")
    tuning, made_from = run.told.get("tuning"), run.told.get("base")
    contradicted = [name for name in run.said if name in run.beside and name in ("method", "base", "forget_set")]
    contradicted = [name for name in contradicted if not _agree(run.said[name], run.beside[name])]
    if contradicted:
        warnings.append(
            f"{run.label}: its manifest file says another {' and '.join(contradicted)} than the manifest beside its "
            "weights"
        )
    if isinstance(tuning, dict) and tuning.get("validation") == task:
        warnings.append(f"{run.label}: its settings were chosen on these very facts, says its manifest")
    if isinstance(made_from, dict) and made_from.get("adapter"):
        warnings.append(
            f"{run.label}: its manifest says that an adapter ({made_from['adapter']}) was merged into its base first: "
            "whether that is the base of this comparison was not checked"
        )
    if training.forget_set and training.forget_set != task:
        warnings.append(
            f"{run.label}: its manifest says that it was made to forget other facts ({training.forget_set[:12]}) than "
            f"these ({task[:12]})"
        )
    base = run.report.subjects.get("base")
    if training.base and base is not None and training.base != base.subject.fingerprint:
        warnings.append(
            f"{run.label}: its manifest says that it was made from another base ({training.base[:12]}) than the run's "
            f"({base.subject.fingerprint[:12]})"
        )
    return warnings


def _agree(said: Any, beside: Any) -> bool:
    """Whether two accounts of one thing are the same in all that both tell by content."""
    if isinstance(said, dict) and isinstance(beside, dict):
        both = [name for name in ("fingerprint", "content_hash") if said.get(name) and beside.get(name)]
        return all(said[name] == beside[name] for name in both)
    return bool(said == beside)


def _named(run: Run, role: str) -> str:
    subject = run.report.subjects[role].subject
    return f"{subject.source} ({subject.fingerprint[:12]})"


def _differ(what: str, values: Mapping[str, str], *, whole: bool = True) -> list[str]:
    """One line that names the runs by what they have, or none where all have the same.

    Where values end in a hash in brackets, the hash alone decides.
    """
    groups: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    for label, value in values.items():
        key = value.rsplit("(", 1)[-1] if what.endswith(("task", "model")) else value
        groups.setdefault(key, []).append(label)
        words.setdefault(key, value if whole or len(value) <= 60 else value[:57] + "…")
    if len(groups) < 2:
        return []
    return [f"other {what}: " + "; ".join(f"{', '.join(labels)}: {words[key]}" for key, labels in groups.items())]


def _shared(runs: Sequence[Run]) -> list[str]:
    """Shares of facts that stand on the same probes in all runs."""
    first = runs[0].estimates
    return [
        name
        for name in first
        if name.startswith(("single.", "worst_case."))
        and "@" not in name
        and first[name].count is not None
        and all(name in run.estimates and run.estimates[name].probe_set == first[name].probe_set for run in runs)
    ]


def _settings_that_differ(settings: Sequence[Any]) -> str:
    names = sorted({name for each in settings for name in each})
    return ", ".join(name for name in names if any(each.get(name) != settings[0].get(name) for each in settings))

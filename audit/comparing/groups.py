"""Which runs are one method trained with several seeds: by what their trainers say, or as the user says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from audit.comparing.runs import Run
from audit.errors import ConfigError

#: Candidate label -> labels of its runs, in order.
Groups = dict[str, tuple[str, ...]]


def groups_of(runs: Sequence[Run], given: Mapping[str, Sequence[str]]) -> Groups:
    """Every run in exactly one candidate, in the order of the runs.

    given: method -> labels of its runs; what it leaves over is grouped by the trainers' manifests: same method, same
    settings but for the seed, same base, same forget set. A run without a manifest stands alone. Raises ConfigError
    for unknown labels, a run in two groups, a name that two candidates would have, or one checkpoint twice in a group.
    """
    problems = _unknown(runs, given)
    if problems:
        raise ConfigError("\n".join(problems), hint=f"the runs are {', '.join(run.label for run in runs)}")
    placed = {label: name for name, labels in given.items() for label in labels}
    keys: dict[str, str] = {}
    for run in runs:
        keys[run.label] = "given " + placed[run.label] if run.label in placed else _key(run)
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(keys[run.label], []).append(run)
    groups: Groups = {}
    for key, mine in members.items():
        name = key.removeprefix("given ") if key.startswith("given ") else _name(mine, members, runs)
        if name in groups:
            raise ConfigError(f"two candidates would be called {name!r}", hint="name runs with --label NAME=RUN")
        _check_members(name, mine)
        groups[name] = tuple(run.label for run in mine)
    return groups


def _unknown(runs: Sequence[Run], given: Mapping[str, Sequence[str]]) -> list[str]:
    labels = {run.label for run in runs}
    problems, seen = [], dict[str, str]()
    for name, members in given.items():
        for label in members:
            if label not in labels:
                problems.append(f"--group {name}: there is no run labelled {label!r}")
            elif label in seen:
                problems.append(f"--group {name}: {label} stands in {seen[label]} already")
            seen.setdefault(label, name)
    return problems


def _key(run: Run) -> str:
    training = run.training
    if training is None or not training.method or training.seed is None or training.unfinished:
        return f"run {run.label}"
    return "trained " + json.dumps(
        [training.method, training.settings, training.base, training.forget_set], sort_keys=True, default=str
    )


def _name(mine: Sequence[Run], members: Mapping[str, Sequence[Run]], runs: Sequence[Run]) -> str:
    """A single run keeps its label; several are called by their method, told apart by the settings that differ."""
    if len(mine) == 1:
        return mine[0].label
    training = mine[0].training
    assert training is not None
    others = [r.training for r in runs if r not in mine and r.training and r.training.method == training.method]
    settings = training.settings
    named = sorted({name for other in others for name in {**other.settings, **settings}})
    differing = [name for name in named if any(o.settings.get(name) != settings.get(name) for o in others)]
    said = ", ".join(f"{name}={settings.get(name)}" for name in differing)
    name = f"{training.method} ({said})" if said else training.method
    taken = {run.label for run in runs if run not in mine}
    return name if name not in taken else f"{name}, {len(mine)} seeds"


def _check_members(name: str, mine: Sequence[Run]) -> None:
    seen: dict[str, str] = {}
    for run in mine:
        if run.fingerprint in seen:
            raise ConfigError(
                f"{name}: {seen[run.fingerprint]} and {run.label} are the same checkpoint: it counts once",
                hint="leave one of them out",
            )
        seen[run.fingerprint] = run.label

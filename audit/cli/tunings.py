"""`audit compare --tune N`: the task in two parts, and the same number of trials for every method on the first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.comparing.model import Failed
from audit.errors import AuditError, ConfigError

if TYPE_CHECKING:
    from audit.cli.progress import TerminalProgress
    from audit.cli.trainings import Start, Training
    from audit.tasks.parting import Parting


@dataclass(frozen=True)
class Tuning:
    """What is tuned: `trials` settings of a method on the validation part of the task, drawn by `seed`."""

    trials: int
    seed: int
    parting: Parting
    folder: Path
    """Of the methods' files."""


def write_parts(parting: Parting, folder: Path) -> Path:
    """DIR/task/validation and DIR/task/final; returns the latter. Raises TaskError where other ones are there."""
    from audit.tasks.parting import write_task

    write_task(parting.validation, folder / "task" / "validation")
    return write_task(parting.final, folder / "task" / "final")


def to_tune(trainings: Sequence[Training]) -> list[str]:
    """The methods with anything to tune that the user has not set by hand, once each."""
    from audit.cli.unlearn import pairs
    from jensun_ref.methods import method_class
    from jensun_ref.spaces import space_of

    methods = {training.method: training for training in trainings}
    return [
        method
        for method, training in methods.items()
        if set(space_of(method, method_class(method))) - set(pairs(list(training.given), "--set"))
    ]


def check_file(method: str, start: Start, tuning: Tuning) -> None:
    """Raises ConfigError where the method's file is of another tuning than this one; `tune` looks at it in full."""
    file = tuning.folder / f"{method}.json"
    if not file.exists():
        return
    wanted = {
        "trials": tuning.trials,
        "seed": tuning.seed,
        "base": start.fingerprint,
        "validation part": tuning.parting.validation.content_hash,
    }
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        base, validation = said["base"]["fingerprint"], said["validation"]["content_hash"]
        found = {"trials": said["budget"], "seed": said["seed"], "base": base, "validation part": validation}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: is no record of a tuning", hint="remove it, or give another --out") from error
    other = [f"{name}: {found[name]!r} there, {wanted[name]!r} here" for name in wanted if found[name] != wanted[name]]
    if other:
        raise ConfigError(
            f"{file} is of another tuning: {'; '.join(other)}",
            hint="choose another folder with --out, or remove that file and what was trained with it",
            problems=tuple(other),
        )


def tune_all(
    trainings: Sequence[Training], start: Start, tuning: Tuning, progress: TerminalProgress
) -> tuple[list[Training], list[Failed]]:
    """Tune each method, or read what was tuned before; returns the trainings with their files, and what failed.

    Methods with nothing to tune come back as they are.
    """
    from audit.cli.unlearn import pairs
    from jensun_ref.tuning import tune

    files: dict[str, Path] = {}
    failed: dict[str, Failed] = {}
    methods = to_tune(trainings)
    given = {training.method: training.given for training in trainings}
    for number, method in enumerate(methods, 1):
        progress.note(f"{method}: tuning {number} of {len(methods)}, {tuning.trials} trials")
        file = tuning.folder / f"{method}.json"
        values: dict[str, Any] = pairs(list(given[method]), "--set")
        try:
            tuned = tune(
                method,
                start.model,
                tuning.parting.validation,
                trials=tuning.trials,
                seed=tuning.seed,
                out=file,
                progress=progress.steps(f"{method}: tuning"),
                given=values,
                defaults=start.defaults,
                base_fingerprint=start.fingerprint,
            )
        except ConfigError:
            raise  # settings that were typed: nothing is tried with others
        except AuditError as error:
            failed[method] = Failed(label=method, stage="tuning", message=" ".join(str(error).split()))
            progress.note(failed[method].text)
        else:
            files[method] = file
            progress.note(
                f"{method}: best of {tuned.trials} trials: trial {tuned.best.number}, score {tuned.score:.3f}"
            )
    left = [replace(t, tuned=files.get(t.method)) for t in trainings if t.method not in failed]
    return left, list(failed.values())

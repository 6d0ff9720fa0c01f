"""What a tuning leaves on disk: everything that was tried, on what, and the best of it. One JSON file a method."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from audit.errors import ConfigError, TrainingError
from audit.fingerprint import digest, text_file_digest
from audit.types import Fact, Record
from jensun_ref.methods import method_class
from jensun_ref.settings import UnlearnSettings, flat, settings_for
from jensun_ref.spaces import Bounds

#: Raised by hand when the same settings would be scored differently: records of another number are not gone on with.
FORMAT = 1
#: Settings that change no result, or that a final training may choose freely: no part of what was tuned.
FREE = frozenset({"seed", "norms_every", "checkpoint_every", "chunk", "gradient_checkpointing"})


class Trial(Record):
    """One try: settings, and either what came of them or why nothing did."""

    number: int
    """From 0, which has the method's stated defaults."""
    settings: dict[str, Any]
    """Those that are searched."""
    forgetting: float | None
    retention: float | None
    score: float | None
    """None where the trial failed."""
    failure: str
    """Why the trial failed; empty where it did not."""
    seconds: float


class Base(Record):
    """The model that was unlearned in every trial."""

    source: str
    fingerprint: str | None
    """Identity of the checkpoint, where the caller gave it."""
    adapter: str | None
    weights: str
    """Fingerprint of the weights as they were loaded, a merged adapter included."""
    reference: str | None


class Validation(Record):
    """The facts that trials are trained and scored on."""

    name: str
    content_hash: str
    forget: int
    """Facts to forget …"""
    known: int
    """… and those of them that the base says: forgetting is over these."""
    trained: int
    """Retained facts that a trial may train on …"""
    held: int
    """… those that it may not …"""
    held_known: int
    """… and those of these that the base says: retention is over these."""
    facts: tuple[str, ...]
    """`mark` of every fact, sorted: what a final training must not be given."""


class Study(Record):
    """The file. `settings` are those of the best trial: all that it was trained with, but for FREE."""

    format: int
    method: str
    base: Base
    validation: Validation
    budget: int
    seed: int
    defaults: str
    """Which stated defaults trial 0 has and ranges lie around: organism or published."""
    given: dict[str, Any]
    """Settings that were fixed by hand and not searched."""
    space: dict[str, Bounds]
    versions: dict[str, str]
    trials: tuple[Trial, ...]
    best: int | None
    settings: dict[str, Any]

    @property
    def failed(self) -> int:
        return sum(trial.score is None for trial in self.trials)


class Tuned(Record):
    """What came of a tuning, read from its file."""

    study: Study
    path: str
    hash: str
    """Of the file, 32 hexadecimal digits."""

    @property
    def method(self) -> str:
        return self.study.method

    @property
    def trials(self) -> int:
        """Trials that were made, failed ones among them."""
        return len(self.study.trials)

    @property
    def failed(self) -> int:
        return self.study.failed

    @property
    def best(self) -> Trial:
        assert self.study.best is not None, "only complete studies are read as Tuned"
        return self.study.trials[self.study.best]

    @property
    def score(self) -> float:
        assert self.best.score is not None
        return self.best.score

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the best trial was trained with, but for those a final training may choose (FREE)."""
        return self.study.settings

    @property
    def manifest(self) -> dict[str, Any]:
        """What a training with these settings writes of it into its manifest."""
        return {
            "trials": self.trials,
            "failed": self.failed,
            "file": self.hash,
            "validation": self.study.validation.content_hash,
        }


def mark(fact: Fact) -> str:
    """A fact by what it says, whatever its id."""
    return digest("tuned on", fact.question, fact.answer)


def read_study(path: Path) -> Study:
    """The record at `path`, complete or not. Raises TrainingError for what is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Study)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise TrainingError(
            f"{path}: is no record of a tuning ({error})", hint="give the file that tuning wrote, or remove this one"
        ) from error


def read_tuned(path: Path) -> Tuned:
    """A complete record. Raises TrainingError for what is none, and for one that was interrupted or found nothing."""
    study = read_study(path)
    if len(study.trials) < study.budget:
        raise TrainingError(
            f"{path}: has {len(study.trials)} of {study.budget} trials",
            hint="the command that began it goes on with it",
        )
    if study.best is None:
        raise TrainingError(f"{path}: none of its {study.budget} trials came to an end: {_first_failure(study)}")
    return Tuned(study=study, path=str(path), hash=text_file_digest(path))


def write_study(path: Path, study: Study) -> None:
    """Write whole or not at all."""
    data = msgspec.json.format(msgspec.json.encode(study), indent=2) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, work = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(work, 0o644)
        os.replace(work, path)
    except OSError as error:
        Path(work).unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error


def take_up(path: Path, fresh: Study) -> Study:
    """`fresh`, with the trials of the record at `path` where there is one of the same inputs.

    Raises TrainingError, naming what differs, where the record there is of another tuning.
    """
    if not path.exists():
        return fresh
    before = read_study(path)
    same = [name for name in Study.__struct_fields__ if name not in ("trials", "best", "settings", "base")]
    other = [name for name in same if getattr(before, name) != getattr(fresh, name)]
    if (before.base.weights, before.base.reference) != (fresh.base.weights, fresh.base.reference):
        other.append("base")
    if other:
        raise TrainingError(
            f"{path} is of another tuning: it differs in {', '.join(other)}", hint="give another file, or remove it"
        )
    return before


def settings_of(
    tuned: Tuned, method: str, values: Mapping[str, Any], facts: Sequence[Fact], base_fingerprint: str | None
) -> UnlearnSettings:
    """Settings of a final training: the tuned ones, and those of `values` that it may choose.

    facts: all that the training is given. Raises ConfigError where the record is of another method or base, where
    `values` contradict what was tuned, and where a fact was used for the tuning: no audit of it would say anything.
    """
    if tuned.method != method:
        raise ConfigError(f"{tuned.path}: is the tuning of {tuned.method}, not of {method}")
    before = tuned.study.base.fingerprint
    if before and base_fingerprint and before != base_fingerprint:
        raise ConfigError(
            f"{tuned.path}: was tuned on another model than this one: {tuned.study.base.source} "
            f"({before[:12]}, not {base_fingerprint[:12]})",
            hint="tune again on this model",
        )
    settings = settings_for(method, {**tuned.settings, **values})
    resolved = flat(settings, method_class(method))
    other = [
        f"{name} is {resolved.get(name)!r} and was {tuned.settings.get(name)!r}"
        for name in sorted((resolved.keys() | tuned.settings.keys()) - FREE)
        if resolved.get(name) != tuned.settings.get(name)
    ]
    if other:
        raise ConfigError(
            f"{tuned.path}: settings that are not the tuned ones: {'; '.join(other)}",
            hint="leave them out, or tune with them",
            problems=tuple(other),
        )
    marks = set(tuned.study.validation.facts)
    used = [fact.id for fact in facts if mark(fact) in marks]
    if used:
        raise ConfigError(
            f"{len(used)} facts of this task were used to choose the settings of {tuned.path}: "
            f"{', '.join(used[:5])}{' …' if len(used) > 5 else ''}",
            hint="unlearn the final part of the task; where nothing is compared, --config takes the settings",
        )
    return settings


def check_base(tuned: Tuned, weights: str, source: str, reference: str | None) -> None:
    """TrainingError unless `weights`, the fingerprint of the loaded model, are those that the trials started from."""
    if reference != tuned.study.base.reference:
        raise TrainingError(
            f"{tuned.path}: was tuned with the reference {tuned.study.base.reference}, not with {reference}",
            hint="give the same --reference, or tune again",
        )
    if weights != tuned.study.base.weights:
        raise TrainingError(
            f"{tuned.path}: was tuned on another model than {source}: {tuned.study.base.source} "
            f"({tuned.study.base.weights[:12]}, not {weights[:12]})",
            hint="tune again on this model",
        )


def _first_failure(study: Study) -> str:
    return next(trial.failure for trial in study.trials if trial.failure)

"""The trainings of a comparison: what each is to be, whether it is there already, and a process of its own for each."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audit.comparing.model import Failed
from audit.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from audit.cli.progress import TerminalProgress

State = Literal["to train", "to go on with", "there"]
_POLL_S = 0.25
#: Seconds between the ways of asking a training to end.
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Start:
    """What all trainings of a comparison start from."""

    model: str
    fingerprint: str
    forget: str
    retain: str | None
    task_hash: str
    defaults: Literal["organism", "published"]


@dataclass(frozen=True)
class Training:
    """One training. `given` are the user's KEY=VALUE texts for this method."""

    label: str
    method: str
    seed: int | None
    """None where none was asked for, or the method draws nothing."""
    given: tuple[str, ...]
    out: Path
    tuned: Path | None = None
    """File of the settings that tuning chose."""


def chosen_methods(text: str) -> list[str]:
    """The methods of --methods, in its order; `all` is every built-in and installed one.

    Raises ConfigError or TrainingError for one that does not exist, is named twice, or cannot be loaded.
    """
    from jensun_ref.methods import REGISTRY, method_class

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError("--methods names none", hint="--methods all, or some of `audit methods list`")
    if names == ["all"]:
        names = REGISTRY.names()
    elif "all" in names:
        raise ConfigError("--methods: all stands alone", hint="leave the other names out, or all")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"--methods: {twice} is named twice", hint="several seeds of one method: --seeds 0,1,2")
    for name in names:
        method_class(name)
    return names


def settings_given(methods: Sequence[str], given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """--set METHOD.KEY=VALUE -> method -> its KEY=VALUE texts; `*` is every method that has a use for the key.

    Raises ConfigError for what has another form, for a method that is not compared, and for a key that no method has.
    """
    found: dict[str, list[str]] = {method: [] for method in methods}
    for text in given:
        name, equals, value = text.partition("=")
        method, dot, key = name.strip().partition(".")
        if not equals or not dot or not key or not method:
            raise ConfigError(f"--set {text}: is not METHOD.KEY=VALUE", hint="--set npo.beta=0.5, --set '*.epochs=5'")
        if key == "seed":
            raise ConfigError(f"--set {text}: seeds are given for all methods at once", hint="--seeds 0,1,2")
        if method != "*" and method not in found:
            raise ConfigError(f"--set {text}: {method} is not compared", hint=f"--methods has {', '.join(methods)}")
        users = [each for each in methods if has_setting(each, key)] if method == "*" else [method]
        if not users:
            raise ConfigError(f"--set {text}: none of the methods has a setting {key}")
        for user in users:
            found[user].append(f"{key}={value}")
    return {method: tuple(texts) for method, texts in found.items()}


def plan_trainings(
    methods: Sequence[str], seeds: Sequence[int], given: Mapping[str, tuple[str, ...]], folder: Path
) -> list[Training]:
    """A training for every method and seed; one alone for a method that draws nothing. `folder`: of the checkpoints."""
    trainings = []
    for method in methods:
        for seed in seeds if seeds and has_setting(method, "seed") else (None,):
            label = method if seed is None else f"{method}-s{seed}"
            trainings.append(Training(label, method, seed, given[method], folder / label))
    return trainings


def state_of(training: Training, start: Start) -> State:
    """Whether it is there, or begun. Raises ConfigError where the folder holds another training than this one."""
    partial = training.out.with_name(f"{training.out.name}.partial")
    for folder, name, state in ((training.out, "audit_manifest.json", "there"), (partial, "audit_run.json", "begun")):
        if not folder.exists():
            continue
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
            if not isinstance(said, dict):
                raise ValueError("not an object")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{folder} is in use, and by no training of this program: {name} cannot be read",
                hint="remove that folder, or choose another with --out",
            ) from error
        differing = _differences(said, expected(training, start))
        if differing:
            raise ConfigError(
                f"{folder} holds another training of {said.get('method')}:\n"
                + "\n".join(f"  - {line}" for line in differing),
                hint="remove that folder, or choose another with --out; or give the settings that it was made with",
                problems=tuple(differing),
            )
        return "there" if state == "there" else "to go on with"
    return "to train"


def expected(training: Training, start: Start) -> dict[str, Any]:
    """What the manifest of a training must say. Raises ConfigError for settings that cannot be used."""
    from audit.cli.unlearn import pairs
    from jensun_ref.methods import method_class
    from jensun_ref.settings import flat, settings_for

    values: dict[str, Any] = {}
    tuned = None
    if training.tuned is not None:
        from jensun_ref.studies import read_tuned

        tuned = read_tuned(training.tuned)
        values |= tuned.settings
    values |= pairs(list(training.given), "--set")
    if training.seed is not None:
        values["seed"] = training.seed
    defaults = start.defaults if tuned is None else "organism"  # a tuning has all settings that say anything
    settings = flat(settings_for(training.method, values, defaults), method_class(training.method))
    said: dict[str, Any] = json.loads(
        json.dumps(
            {
                "method": training.method,
                "settings": settings,
                "base": {"fingerprint": start.fingerprint, "adapter": None},
                "forget_set": {"content_hash": start.task_hash},
                "reference": None,
                "tuning": tuned.manifest if tuned is not None else None,
            }
        )
    )
    return said


def command_of(training: Training, start: Start, *, resume: bool) -> list[str]:
    """The command line of a training."""
    command = [sys.executable, "-m", "audit", "unlearn", "--method", training.method, "--model", start.model]
    command += ["--forget", start.forget, *(["--retain", start.retain] if start.retain else [])]
    command += ["--out", str(training.out), "--defaults", start.defaults]
    command += [part for text in training.given for part in ("--set", text)]
    command += ["--seed", str(training.seed)] if training.seed is not None else []
    command += ["--tuned", str(training.tuned)] if training.tuned is not None else []
    return [*command, *(["--resume"] if resume else [])]


def train_all(
    trainings: Sequence[Training], start: Start, logs: Path, progress: TerminalProgress
) -> tuple[list[Training], list[Failed]]:
    """Train what is not there yet; returns the trainings whose checkpoints are there, and what failed."""
    states = {training.label: state_of(training, start) for training in trainings}
    work = [training for training in trainings if states[training.label] != "there"]
    for training in trainings:
        if states[training.label] == "there":
            progress.note(f"{training.label}: trained before: {training.out}")
    progress.stage("training", len(work))
    failed: dict[str, Failed] = {}
    for training in work:
        began = time.monotonic()
        resume = states[training.label] == "to go on with"
        try:
            _train(command_of(training, start, resume=resume), logs / f"{training.label}.log", training.label, progress)
        except TrainingError as error:
            message = re.sub(r"--set (\w+=)", rf"--set {training.method}.\1", str(error))
            failed[training.label] = Failed(label=training.label, stage="training", message=message)
            progress.note(failed[training.label].text)
        else:
            progress.note(f"{training.label}: trained in {time.monotonic() - began:.0f} s")
        progress.advance()
    return [training for training in trainings if training.label not in failed], list(failed.values())


def _train(command: Sequence[str], log: Path, label: str, progress: TerminalProgress) -> None:
    """Run one training to its end. Raises TrainingError with its own message where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        begin = file.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        with _ended_with_us(process):
            while process.poll() is None:
                time.sleep(_POLL_S)
                progress.status(f"{label}: {_last_line(log, begin)}"[:100])
    progress.status("")
    if process.returncode:
        raise TrainingError(_why(log, begin, process.returncode))


@contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """However this ends, by Ctrl-C or a request to terminate too, the training does not go on alone."""

    def leave(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None:
                break
            try:
                os.killpg(process.pid, number)
                process.wait(_PATIENCE_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        signal.signal(signal.SIGTERM, before)


def _last_line(log: Path, begin: int) -> str:
    lines = _said(log, begin).rstrip().splitlines()
    return lines[-1].split("\r")[-1].strip() if lines else ""


def _why(log: Path, begin: int, code: int) -> str:
    """The one-line message that a training ended with, from its log."""
    lines = [line.strip() for line in _said(log, begin).splitlines() if line.strip()]
    for place in range(len(lines) - 1, -1, -1):
        for mark in ("error: ", "internal error: "):
            if lines[place].startswith(mark):
                hint = next((line for line in lines[place + 1 :] if line.startswith("try: ")), "")
                message = " ".join(lines[place : place + 1]).removeprefix("error: ")
                return f"{message} ({hint})" if hint else message
    if code < 0:
        killed = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"ended by signal {-code}{killed}; {log} has what it said"
    return f"exit code {code}; {log} has what it said"


def _said(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return file.read().decode("utf-8", "replace")


def has_setting(method: str, key: str) -> bool:
    """Whether a method has a use for a setting, of its own or of all methods."""
    from jensun_ref.methods import method_class
    from jensun_ref.settings import UnlearnSettings, unused

    kind = method_class(method)
    return key in (set(UnlearnSettings.model_fields) | set(kind.Settings.model_fields)) - unused(kind) - {"own"}


def _differences(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line a value that is another; of the base and the forget set only what tells them by content, and nothing of
    settings that change no result."""
    from jensun_ref.checkpoints import MEMORY_ALONE

    lines = []
    for name, value in wanted.items():
        there = said.get(name)
        if name in ("base", "forget_set"):
            there = {key: there.get(key) for key in value} if isinstance(there, dict) else {}
        if isinstance(value, dict) and isinstance(there, dict):
            keys = sorted((value.keys() | there.keys()) - MEMORY_ALONE)
            words = {"base": "base", "forget_set": "facts", "tuning": "tuning"}.get(name, "")
            lines += [
                f"{words or key}: {there.get(key)!r} there, {value.get(key)!r} here"
                for key in keys
                if there.get(key) != value.get(key)
            ]
        elif there != value:
            lines.append(f"{name}: {there!r} there, {value!r} here")
    return lines

"""The folder of an unfinished training: its checkpoints, its log, and whose it is."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from audit.errors import TrainingError
from jensun_ref import processes
from jensun_ref.folders import write_json
from jensun_ref.methods.batch import Sample
from jensun_ref.methods.contract import Method
from jensun_ref.methods.data import TrainingData

#: What a trainer says of a folder of weights.
MANIFEST = "audit_manifest.json"
_RUN, _STATE, _TENSORS, _LOG = "audit_run.json", "audit_state.json", "audit_state.safetensors", "training_log.jsonl"

#: Settings that change no result.
MEMORY_ALONE = frozenset({"chunk", "gradient_checkpointing"})


class Unfinished:
    """`OUT.partial`, held by one process at a time; a context manager.

    Removed when the training is done, or stopped without a checkpoint. A killed training leaves it, and `resume` takes
    it up again if `run` (method, settings, base, forget set …) is the same.
    """

    def __init__(self, out: Path, run: Mapping[str, Any], *, resume: bool) -> None:
        self.path = out.with_name(f"{out.name}.partial")
        self.run, self.resume = json.loads(json.dumps(run)), resume
        self.checkpoint: Path | None = None
        """The newest whole checkpoint of a training that is resumed."""
        self.done = False
        self.manifest: dict[str, Any] = dict(self.run)
        """What a checkpoint is marked with, so that it can be audited."""
        self.reference: str | None = None
        """The model that is kept to; None without one."""
        self.begun = time.monotonic()
        self.before = 0.0
        """Seconds that went into the training before it was stopped, up to its last checkpoint."""
        self._lock: IO[str] | None = None

    def __enter__(self) -> Unfinished:
        there = self.path.exists()
        if there and not self.resume:
            raise TrainingError(
                f"{self.path} holds an unfinished training", hint="--resume to go on with it, or remove that folder"
            )
        if self.resume and not there:
            raise TrainingError(f"there is nothing to resume: no {self.path}", hint="the same command without --resume")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("w")
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise TrainingError(f"another process is training in {self.path}", hint="wait for it") from error
        if there:
            self._take_up()
        else:
            write_json(self.path / _RUN, self.run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = self.last()
        if self._lock is not None:
            self._lock.close()
        if self.done or (kept is None and not self.resume):
            shutil.rmtree(self.path, ignore_errors=True)
        elif isinstance(value, TrainingError) and kept is not None:
            told = f"the last good checkpoint is {kept}, to be audited"
            if not self.run["settings"].get("lora"):
                keep = f" --reference {self.reference}" if self.reference else ""
                told += f" or trained further by a new training with --model {kept}{keep}"
            value.hint = "; ".join(filter(None, [value.hint, told]))

    def _take_up(self) -> None:
        try:
            before = json.loads((self.path / _RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.path} is not the folder of an unfinished training") from error
        before, now = _deciding(before), _deciding(self.run)
        other = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
        if other:
            told = [f"{name} ({_differences(before.get(name), now.get(name))})" for name in other]
            raise TrainingError(
                f"{self.path} is of another training: {', '.join(told)}",
                hint="give what it was started with, or remove that folder",
            )
        self.checkpoint = self.last()
        if self.checkpoint is not None:
            state = json.loads((self.checkpoint / _STATE).read_text(encoding="utf-8"))
            self.before = float(state.get("seconds", 0.0))

    @property
    def seconds(self) -> float:
        """Wall seconds of the training so far, all its parts together."""
        return self.before + time.monotonic() - self.begun

    def last(self) -> Path | None:
        """The newest checkpoint that was written to its end."""
        found = [path for path in self.path.glob("checkpoint-*") if (path / _STATE).is_file()]
        return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)

    def log(self) -> IO[str]:
        """The training log, cut back to the checkpoint that is resumed from."""
        path = self.path / _LOG
        kept: list[str] = []
        if self.checkpoint is not None:
            until = int(self.checkpoint.name.split("-")[1])
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= until]
        path.write_text("".join(kept), encoding="utf-8")
        return path.open("a", encoding="utf-8")

    @property
    def log_path(self) -> Path:
        return self.path / _LOG


class Following(Unfinished):
    """In the other processes of a launch: the folder that the first one holds, where nothing is written."""

    def __enter__(self) -> Following:
        self.checkpoint = processes.on_first(lambda: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def log(self) -> IO[str]:
        return Path(os.devnull).open("w", encoding="utf-8")


class Leading(Unfinished):
    """In the first process of a launch: what goes wrong at the start goes wrong in all of them."""

    def __enter__(self) -> Leading:
        processes.on_first(self._begin)
        return self

    def _begin(self) -> Path | None:
        super().__enter__()
        return self.checkpoint


def unfinished_folder(out: Path, run: Mapping[str, Any], *, resume: bool) -> Unfinished:
    """The folder of a training, as this process of the launch may use it."""
    kind = Unfinished if processes.count() == 1 else Leading if processes.rank() == 0 else Following
    return kind(out, run, resume=resume)


def _deciding(run: Mapping[str, Any]) -> dict[str, Any]:
    """A training without the settings that change nothing but its memory: with these it may go on otherwise."""
    settings = run.get("settings")
    if not isinstance(settings, dict):
        return dict(run)
    return {**run, "settings": {name: value for name, value in settings.items() if name not in MEMORY_ALONE}}


def _differences(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        return ", ".join(f"{name}: {before.get(name)!r} then, {now.get(name)!r} now" for name in names)
    return f"{before!r} then, {now!r} now"


def save_state(
    checkpoint: Path, rule: Method, data: TrainingData, epochs_begun: int, manifest: Mapping[str, Any], seconds: float
) -> None:
    """What a checkpoint needs beside the Trainer's own files; written last, as the mark of a whole checkpoint."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in rule.state().items()}
    if tensors:
        save_file(tensors, checkpoint / _TENSORS)
    extra = {name: [[list(s.ids), s.n_answer] for s in samples] for name, samples in data.extra.items()}
    write_json(checkpoint / "audit_extra.json", extra)
    write_json(checkpoint / MANIFEST, manifest)
    write_json(checkpoint / _STATE, {"epochs_begun": epochs_begun, "seconds": round(seconds, 1)})


def load_state(checkpoint: Path, model: Any, rule: Method, data: TrainingData) -> int:
    """Take up what `save_state` wrote; returns how many epochs had begun."""
    from safetensors.torch import load_file

    if (checkpoint / _TENSORS).is_file():
        rule.restore(model, load_file(checkpoint / _TENSORS))
    extra = json.loads((checkpoint / "audit_extra.json").read_text(encoding="utf-8"))
    data.extra = {name: [Sample(tuple(ids), n) for ids, n in samples] for name, samples in extra.items()}
    return int(json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["epochs_begun"])

"""Where altered checkpoints are made: folders named by content, an index of what was made, weights that can be cleared.

A folder is named by what goes into it (fingerprint of the source, recipe, version of the code that makes it), so that
equal attacks on equal models are made once, whatever run asks for them: those on the base, say, for every candidate.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from audit.attacks.contract import Altered
from audit.engines.checkpoint import Checkpoint, open_checkpoint
from audit.errors import ModelError
from audit.fingerprint import digest
from audit.types import Record

_INDEX = "made.json"


class Made(Record):
    """What is known of an altered checkpoint without its weights."""

    weights: str
    """Fingerprint of the weights, an adapter's apart."""
    adapter: str | None
    """Fingerprint of the adapter on them."""
    notes: dict[str, Any] = {}
    """What its maker wants to remember (the loss, say): plain data."""
    check: str = ""
    """Hash of the rest: a damaged index is no index."""


class Workshop:
    """Altered checkpoints below one folder."""

    def __init__(self, root: Path, *, keep: bool = False) -> None:
        self.root = root
        self.keep = keep
        """Cleared weights stay on disk."""

    def place(self, *identity: Any) -> Path:
        """The folder for what `identity` (records, plain data) names. It is created."""
        folder = self.root / digest("altered", *identity)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def read(self, folder: Path) -> Made | None:
        """What was made in `folder`; None where nothing was, or where the index cannot be believed."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            made = msgspec.json.decode((folder / _INDEX).read_bytes(), type=Made)
            if made.check == _check(made):
                return made
        return None

    def note(self, folder: Path, checkpoint: Checkpoint, **notes: Any) -> Made:
        """Remember what was made in `folder`."""
        made = Made(weights=checkpoint.weights_fingerprint, adapter=checkpoint.adapter_fingerprint, notes=notes)
        made = msgspec.structs.replace(made, check=_check(made))
        temporary = folder / (_INDEX + ".part")
        temporary.write_bytes(msgspec.json.encode(made))
        temporary.replace(folder / _INDEX)
        return made

    def altered(
        self,
        source: Checkpoint,
        recipe: dict[str, Any],
        make: Callable[[Path], dict[str, Any] | None],
        *,
        version: int,
        folder: Path | None = None,
        adapter: bool = False,
    ) -> Altered:
        """An altered state of `source` that `make(path)` writes: a model folder, or with `adapter` a LoRA folder on it.

        `make` writes all of `path`, which does not exist before, and is called now unless the state is known from
        before; later again if its weights are wanted after they were cleared. What it returns (plain data) is noted
        and stands in the recipe of the state. `version`: of the code behind `make`.
        `folder`: the state's place, if it is not named by `source` and `recipe` alone.
        """
        folder = folder or self.place(source.fingerprint, recipe, version)
        path = folder / "weights"
        notes: dict[str, Any] = {}

        def opened() -> Checkpoint:
            if not path.exists():
                part = folder / "weights.part"
                shutil.rmtree(part, ignore_errors=True)
                notes.update(make(part) or {})
                part.rename(path)
            return _opened(source, path, adapter=adapter)

        made = self.read(folder)
        if made is None:
            shutil.rmtree(path, ignore_errors=True)  # of a making that was broken off before it was noted
            made = self.note(folder, opened(), **notes)
        stand_in = source.standing_for(weights=made.weights, adapter=made.adapter)

        def again() -> Checkpoint:
            checkpoint = opened()
            if checkpoint.fingerprint != stand_in.fingerprint:
                raise ModelError(
                    f"{path} was made anew and is not what it was: its weights were changed, or the making cannot be "
                    "repeated exactly on this machine",
                    hint=f"remove {folder} and run the same command again",
                )
            return checkpoint

        def clear() -> None:
            if not self.keep:
                shutil.rmtree(path, ignore_errors=True)

        return Altered(recipe={**recipe, **made.notes}, checkpoint=stand_in, make=again, clear=clear)


def _opened(source: Checkpoint, path: Path, *, adapter: bool) -> Checkpoint:
    """The altered checkpoint, read and rendered as its source is."""
    checkpoint = open_checkpoint(
        str(source.path if adapter else path),
        adapter=str(path) if adapter else None,
        allow_pickle=source.allow_pickle,
        trust_remote_code=source.trust_remote_code,
    )
    checkpoint.follow(source)
    return checkpoint


def _check(made: Made) -> str:
    return digest("made", made.weights, made.adapter, made.notes)

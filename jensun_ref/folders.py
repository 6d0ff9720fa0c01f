"""Output folders that appear whole or not at all, and what is recorded in them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from audit.errors import TrainingError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` to write into, renamed to `out` at the end and removed on failure.

    Raises TrainingError if `out` exists, before any work, or was made by someone else meanwhile, or cannot be made.
    """
    if out.exists():
        raise TrainingError(f"{out} exists already", hint="give another folder, or remove that one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise TrainingError(f"{out} cannot be written: {error.strerror or error}") from error
    try:
        yield work
        work.chmod(0o755)  # mkdtemp makes it private
        try:
            os.rename(work, out)
        except OSError as error:
            raise TrainingError(f"{out} cannot be put in place: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file that is written again and again, by a lock beside it. TrainingError if another process does."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("w")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(f"another process is writing {path}", hint="wait for it") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with a newline at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of the libraries that a training result depends on."""
    return {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")}

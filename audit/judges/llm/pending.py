"""Batches that a provider works on, noted on disk as soon as they exist: an interrupted audit picks them up again.

One file a batch, <cache>/batches/<digest of the judge's identity and the claims' keys>.json, written whole or not at
all. It holds keys only: no text of a claim, no key of a service.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from audit.errors import JudgeError
from audit.fingerprint import digest
from audit.store import cache_folder
from audit.types import Record

#: Seconds after which no provider keeps the results of a batch.
KEPT_S = 30 * 86_400.0


class Pending(Record):
    """One batch at a provider."""

    name: str
    """Hash of the judge's identity and the keys of the lines; the provider knows the batch by it too."""
    judge: str
    """The judge's identity."""
    batch: str
    """The provider's id; empty while it is not known whether the batch was made."""
    created: float
    """Seconds since the epoch."""
    lines: dict[str, tuple[str, ...]]
    """Key of a line -> keys of the claims that it asks about."""

    def without(self, claims: Collection[str]) -> Pending:
        """The same batch without the lines of which every claim is among `claims`."""
        left = {key: about for key, about in self.lines.items() if not set(about) <= set(claims)}
        return msgspec.structs.replace(self, lines=left)


def batch_name(judge: str, lines: Mapping[str, tuple[str, ...]]) -> str:
    """The name of a batch: by content, so that the same claims have the same name in every run."""
    return digest("batch", judge, sorted(lines.items()))


def folder() -> Path:
    return cache_folder() / "batches"


def keep(pending: Pending) -> None:
    """Write the note, or remove it where no line is left."""
    path = folder() / f"{pending.name}.json"
    try:
        if not pending.lines:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}.half")
        half.write_bytes(msgspec.json.encode(pending))
        half.replace(path)
    except OSError as problem:
        raise JudgeError(
            f"the batch {pending.batch or pending.name} cannot be noted in {path}: {problem}",
            hint="without the note an interrupted audit would pay for it twice",
        ) from problem


def pending_batches(judge: str) -> list[Pending]:
    """The batches that this judge has at its provider, oldest first. JudgeError for a note that cannot be read.

    Notes of batches whose results are gone by their age are removed.
    """
    found = []
    for path in sorted(folder().glob("*.json")):
        try:
            read = msgspec.json.decode(path.read_bytes(), type=Pending)
        except FileNotFoundError:  # another run has just finished with it
            continue
        except (OSError, msgspec.MsgspecError) as problem:
            raise JudgeError(
                f"{path} should be the note of a batch and cannot be read: {problem}",
                hint="delete it; if its batch is one of yours, its claims will be asked about again",
            ) from problem
        if time.time() - read.created > KEPT_S:
            path.unlink(missing_ok=True)
        elif read.judge == judge:
            found.append(read)
    return sorted(found, key=lambda pending: (pending.created, pending.name))

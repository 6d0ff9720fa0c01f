"""Remembers the digests of weight files, so that a checkpoint of many gigabytes is read once.

A file is known by device, inode, size, and times of modification and of change. The last of these cannot be set by
a program, so a file that was overwritten in place is read again even if its size and modification time are the same.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from audit.errors import ModelError
from audit.fingerprint import TensorDigest

#: A file changed so recently may change again within one tick of its clock: digested, but not remembered.
SETTLED_NS = 2_000_000_000


def cache_dir() -> Path:
    """Folder for what can be computed again: $AUDIT_CACHE, else ~/.cache/unlearning-audit."""
    configured = os.environ.get("AUDIT_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "unlearning-audit"


def file_key(path: Path) -> str:
    """Device, inode, size and times (nanoseconds) of a file, links followed."""
    stat = path.stat()
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def cached_digests(path: Path, compute: Callable[[Path], tuple[TensorDigest, ...]]) -> tuple[TensorDigest, ...]:
    """`compute(path)`, or what it gave when the file was the same as now.

    A cache that cannot be used (read-only home, full disk) costs time, never the result.
    """
    key = file_key(path)
    known = _read(key)
    if known is not None:
        return known
    found = compute(path)
    if file_key(path) != key:
        raise ModelError(f"{path} changed while it was read", hint="wait until it is written, then run again")
    if time.time_ns() - path.stat().st_ctime_ns > SETTLED_NS:
        _write(key, found)
    return found


def _connect() -> sqlite3.Connection:
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "weights.sqlite", timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS digests (file TEXT PRIMARY KEY, tensors BLOB NOT NULL)")
    return connection


def _read(key: str) -> tuple[TensorDigest, ...] | None:
    try:
        with closing(_connect()) as connection:
            row = connection.execute("SELECT tensors FROM digests WHERE file = ?", (key,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=tuple[TensorDigest, ...])
    except (OSError, sqlite3.Error, msgspec.DecodeError):
        return None


def _write(key: str, found: tuple[TensorDigest, ...]) -> None:
    try:
        with closing(_connect()) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO digests VALUES (?, ?)", (key, msgspec.json.encode(found)))
    except (OSError, sqlite3.Error):
        return

"""The store: finished generations and final verdicts by content key, in one SQLite file. Cache and resume are one.

A batch is committed whole, so a process that is killed loses at most the batch in flight. Values are JSON.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from audit.errors import StoreError
from audit.fingerprint import digest
from audit.types import Completion, Verdict

_SCHEMA = """
CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_CHUNK = 500  # keys a SELECT: below SQLite's limit on bound variables


def cache_folder() -> Path:
    """Where caches live: $AUDIT_CACHE, else ~/.cache/unlearning-audit."""
    return Path(os.environ.get("AUDIT_CACHE") or Path.home() / ".cache" / "unlearning-audit")


def verdict_key(judge: str, claim_key: str) -> str:
    """A verdict's key: the judge's identity and the claim's content."""
    return digest("verdict", judge, claim_key)


class Store:
    """Responses and verdicts of all runs. Written by the main thread alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)

    def completions(self, keys: Iterable[str]) -> dict[str, Completion]:
        """Those of `keys` that are known."""
        return {key: msgspec.json.decode(value, type=Completion) for key, value in self._get("completions", keys)}

    def put_completions(self, completions: Sequence[Completion]) -> None:
        """Store finished generations in one transaction; failed ones are left out: they are to be asked again."""
        self._put("completions", {c.key: msgspec.json.encode(c).decode() for c in completions if c.finish != "error"})

    def verdicts(self, judge: str, claim_keys: Iterable[str]) -> dict[str, Verdict]:
        """Claim key -> final verdict of that judge, where known."""
        names = {verdict_key(judge, claim): claim for claim in claim_keys}
        found = self._get("verdicts", names)
        return {names[key]: msgspec.json.decode(value, type=Verdict) for key, value in found}

    def put_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Store final verdicts in one transaction; transient ones are left out: they are to be asked again."""
        final = {
            verdict_key(v.judge, v.claim_key): msgspec.json.encode(v).decode()
            for v in verdicts
            if not v.reason.transient
        }
        self._put("verdicts", final)

    def close(self) -> None:
        with self._errors():
            self._db.close()

    def _get(self, table: str, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), _CHUNK):
            chunk = unique[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            with self._errors():
                rows = self._db.execute(f"SELECT key, value FROM {table} WHERE key IN ({marks})", chunk).fetchall()
            yield from rows

    def _put(self, table: str, values: Mapping[str, str]) -> None:
        if not values:
            return
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", values.items())
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the store {self.path} cannot be used: {error}",
                hint="free disk space or choose another place: --store FILE; what was committed is kept",
            ) from error

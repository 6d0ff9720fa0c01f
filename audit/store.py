"""The store: finished generations and final verdicts by content key, in one SQLite file. Cache and resume are one.

A batch is committed whole, so a process that is killed loses at most the batch in flight. Values are JSON. Every row
carries a checksum over its key and value: what does not fit, by rot or by a careless edit, is unknown and is asked for
again. No secret goes into it, so it stops nobody who means to forge a row.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from audit.errors import StoreError
from audit.fingerprint import digest
from audit.types import Choice, Completion, Given, Verdict

_APPLICATION = 0x41554454  # marks the file as ours ("AUDT")
_VERSION = 2  # of the tables and of the records in them
_WITHOUT_SUMS = 1  # the version before, whose rows have no checksums: its stores are taken over, its rows asked again
_PATIENCE = 30.0  # seconds to wait for another process that writes
_TABLES = ("completions", "verdicts")
_CHUNK = 500  # keys a SELECT: below SQLite's limit on bound variables
_G = TypeVar("_G", Verdict, Choice)


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
        self.refused: Counter[str] = Counter()
        """Rows that were looked up and not used: "damaged" (the checksum does not fit) or "unchecked" (it has none)."""
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        """Create the tables, once; refuse a database of another program or of another version of this one."""
        db = self._db
        if self._mark() != (_APPLICATION, _VERSION):
            db.execute("BEGIN IMMEDIATE")  # another process may be creating it at this moment
            try:
                mark = self._mark()
                if mark == (_APPLICATION, _WITHOUT_SUMS):
                    for table in _TABLES:
                        db.execute(f"ALTER TABLE {table} ADD COLUMN sum TEXT NOT NULL DEFAULT ''")
                elif mark != (_APPLICATION, _VERSION):
                    if not self._is_empty():
                        raise StoreError(
                            f"{self.path} is a database of another program or version, not a store of this one",
                            hint="choose another place: --store FILE",
                        )
                    for table in _TABLES:
                        columns = "key TEXT PRIMARY KEY, value TEXT NOT NULL, sum TEXT NOT NULL"
                        db.execute(f"CREATE TABLE {table} ({columns}) WITHOUT ROWID")
                if mark != (_APPLICATION, _VERSION):
                    db.execute(f"PRAGMA application_id={_APPLICATION}")
                    db.execute(f"PRAGMA user_version={_VERSION}")
                db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        self._write_ahead()
        db.execute("PRAGMA synchronous=NORMAL")

    def _write_ahead(self) -> None:
        """Change to the write-ahead log, once a file; SQLite does not wait for other processes here, so we do."""
        deadline = time.monotonic() + _PATIENCE
        while self._db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return  # or the file system does not allow it: then the journal stays as it is, as safe and slower
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _mark(self) -> tuple[int, int]:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return application, version

    def _is_empty(self) -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None

    def completions(self, keys: Iterable[str]) -> dict[str, Completion]:
        """Those of `keys` that are known."""
        with self._errors():
            return {key: msgspec.json.decode(value, type=Completion) for key, value in self._get("completions", keys)}

    def put_completions(self, completions: Sequence[Completion]) -> None:
        """Store finished generations in one transaction; failed ones are left out: they are to be asked again."""
        self._put("completions", {c.key: msgspec.json.encode(c).decode() for c in completions if c.finish != "error"})

    def verdicts(self, judge: str, claim_keys: Iterable[str]) -> dict[str, Verdict]:
        """Claim key -> final verdict of that judge, where known."""
        return self._given(judge, claim_keys, Verdict)

    def choices(self, judge: str, pair_keys: Iterable[str]) -> dict[str, Choice]:
        """Pair key -> final choice of that judge, where known."""
        return self._given(judge, pair_keys, Choice)

    def put_verdicts(self, verdicts: Sequence[Given]) -> None:
        """Store final verdicts and choices in one transaction; transient ones are left out: they are asked again."""
        final = {
            verdict_key(v.judge, v.claim_key): msgspec.json.encode(v).decode()
            for v in verdicts
            if not v.reason.transient
        }
        self._put("verdicts", final)

    def close(self) -> None:
        with self._errors():
            self._db.close()

    def _given(self, judge: str, keys: Iterable[str], kind: type[_G]) -> dict[str, _G]:
        names = {verdict_key(judge, key): key for key in keys}
        with self._errors():
            found = self._get("verdicts", names)
            return {names[key]: msgspec.json.decode(value, type=kind) for key, value in found}

    def _get(self, table: str, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), _CHUNK):
            chunk = unique[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            select = f"SELECT key, value, sum FROM {table} WHERE key IN ({marks})"
            for key, value, kept in self._db.execute(select, chunk).fetchall():
                if isinstance(value, str) and kept == _sum(table, key, value):
                    yield key, value
                else:
                    self.refused["unchecked" if kept == "" else "damaged"] += 1

    def _put(self, table: str, values: Mapping[str, str]) -> None:
        if not values:
            return
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                rows = [(key, value, _sum(table, key, value)) for key, value in values.items()]
                self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", rows)
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # SQLite ends some failed transactions itself
            self._db.execute("ROLLBACK")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except msgspec.MsgspecError as error:  # the checksum fits: another version of the program wrote it
            raise StoreError(
                f"the store {self.path} holds a row that is no record of this version: {error}",
                hint="move it away, or choose another place: --store FILE; what it held is asked for again",
            ) from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the store {self.path} cannot be used: {error}",
                hint="free disk space or choose another place: --store FILE; what was committed is kept",
            ) from error


def _sum(table: str, key: str, value: str) -> str:
    text = "\0".join((table, key, value)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()

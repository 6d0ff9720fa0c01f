"""What was measured before, kept by content: the same task is asked of the same model once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from audit.fingerprint import digest
from audit.store import cache_folder
from audit.types import Record
from audit.utility.harness.records import HarnessResult


class _Kept(Record):
    results: tuple[HarnessResult, ...]
    check: str


def read_results(key: str) -> tuple[HarnessResult, ...] | None:
    """None where there are none, or where the file is damaged or another's: then it is asked again."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        kept = msgspec.json.decode(_path(key).read_bytes(), type=_Kept)
        if kept.results and kept.check == _check(key, kept.results):
            return kept.results
    return None


def keep_results(key: str, results: tuple[HarnessResult, ...]) -> None:
    path = _path(key)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, never the result
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(_Kept(results=results, check=_check(key, results))))
        part.replace(path)


def _path(key: str) -> Path:
    return cache_folder() / "lm-eval" / f"{key}.json"


def _check(key: str, results: tuple[HarnessResult, ...]) -> str:
    return digest("lm-eval kept", key, results)

"""Reads a run folder back: the report and the files of records, with errors that name file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from audit.errors import RunFolderError
from audit.fingerprint import digest
from audit.report.model import FORMAT, Contents, Report
from audit.report.seal import seal_of
from audit.types import Record

_R = TypeVar("_R", bound=Record)


def read_report(run: Path) -> dict[str, Any]:
    """The report of a run folder (or a report.json itself). Raises RunFolderError where there is none to use."""
    path = run / "report.json" if run.is_dir() else run
    if not path.is_file():
        hint = "give the --out folder of an audit that ran to its end; the same `audit run` command goes on with one"
        raise RunFolderError(f"{path}: no such report", hint=hint)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path}: not a report: {error}") from error
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not isinstance(data, dict) or "estimates" not in data:
        raise RunFolderError(f"{path}: not the report of an audit (it has no estimates)")
    if data.get("format") != FORMAT:
        hint = "read it with the version that wrote it, or repeat the audit"
        raise RunFolderError(f"{path}: format {data.get('format')!r}, this version reads {FORMAT}", hint=hint)
    if data.get("seal") != seal_of(data):
        what = "was changed after the audit wrote it (its seal does not fit)"
        raise RunFolderError(
            f"{path}: {what if data.get('seal') else 'has no seal: an earlier version wrote it'}",
            hint="restore the file; the same `audit run` command writes it anew from the store",
        )
    return data


def load_report(run: Path) -> Report:
    """The same as a record. Raises RunFolderError where it is not one of this version."""
    try:
        return msgspec.convert(read_report(run), Report)
    except msgspec.ValidationError as error:
        raise RunFolderError(f"{run}: report.json is not a report of this version: {error}") from error


def numbered_lines(path: Path, kind: type[_R]) -> Iterator[tuple[int, _R]]:
    """Line number, from 1, and record of every line of one file. Raises RunFolderError with file and line."""
    decoder = msgspec.json.Decoder(kind)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield number, decoder.decode(line)
                    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                        raise RunFolderError(
                            f"{path}, line {number}: {error}",
                            hint="undo the change or restore the file; the same `audit run` command writes it anew",
                        ) from error
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror or error}") from error


def given_records(path: Path, kind: type[_R], report: Report) -> list[_R]:
    """The records of one file of a run, if they are those that its report speaks of. Raises RunFolderError."""
    records = [record for _, record in numbered_lines(path, kind)]
    check_contents(path, records, report)
    return records


def check_contents(path: Path, records: Sequence[Record], report: Report, where: str = "") -> None:
    """Raises RunFolderError unless these are the records that the report speaks of. where: said after the path."""
    must = report.manifest.files.get(path.name)
    if must is None:
        raise RunFolderError(
            f"{path.parent / 'report.json'}: does not say what {path.name} must hold",
            hint="read it with the version that wrote it, or repeat the audit",
        )
    found = contents_of(records)
    if found == must:
        return
    what = (
        f"holds {found.n} records, and report.json speaks of {must.n}"
        if found.n != must.n
        else "its records were changed after report.json was written"
    )
    raise RunFolderError(
        f"{path}{where}: {what}", hint="answers are judged again only as they were given; restore the file"
    )


def contents_of(records: Iterable[Record]) -> Contents:
    """Number and hash of records as they are read back, in any order."""
    hashes = []
    for record in records:  # read back first: a float field may have been given a whole number
        read = msgspec.json.decode(msgspec.json.encode(record), type=type(record))
        hashes.append(hashlib.sha256(msgspec.json.encode(read, order="deterministic")).hexdigest())
    return Contents(n=len(hashes), digest=digest("contents", sorted(hashes)))

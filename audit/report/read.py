"""Reads report.json back as plain data, with an error that says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audit.errors import RunFolderError
from audit.report.model import FORMAT


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
    return data

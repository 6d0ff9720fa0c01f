"""Readers of other people's answers: what they asked, what was answered, and the verdicts that came along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audit.errors import TaskError
from audit.types import Fact, Recording

FORMATS = ("jsonl", "suite")


def read_recording(
    paths: Sequence[str], *, subject_id: str, facts: Sequence[Fact] = (), format: str = "auto"
) -> Recording:
    """One subject's recorded answers from files and folders.

    `facts` are the task's, for the `jsonl` format, which names facts by id or question; `suite` files carry their own.
    Raises TaskError naming file, line and field; nothing that cannot be read is skipped in silence.
    """
    from audit.recordings import jsonl, suite

    files = _files(paths)
    chosen = format if format != "auto" else ("suite" if suite.recognises(files) else "jsonl")
    if chosen == "suite":
        return suite.read(files, subject_id=subject_id)
    if chosen == "jsonl":
        return jsonl.read(files, subject_id=subject_id, facts=facts)
    raise TaskError(f"unknown format of recorded answers {format!r}", hint=f"choose one of auto, {', '.join(FORMATS)}")


def _files(paths: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in (".jsonl", ".json"))
            if not inside:
                raise TaskError(f"{path}: no .jsonl or .json file in this folder", hint="give the files themselves")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise TaskError(f"{path}: no such file or folder", hint="check the path given to --responses")
    return files

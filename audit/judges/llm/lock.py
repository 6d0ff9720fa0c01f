"""The lock of released judge prompts: a verdict's identity holds a prompt's hash, so a released file never changes.

    python -m audit.judges.llm.lock

writes the hashes of new files into prompts/judge/lock.yaml; it never changes the hash of a file that is in it.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import yaml

from audit.errors import AuditError, JudgeError
from audit.resources import resource

LOCK = "lock.yaml"
_HEAD = """\
# SHA-256 of every released judge prompt. Released files are frozen: a change is a new version file.
# `python -m audit.judges.llm.lock` adds new files.
"""


def sha256_of(path: Path) -> str:
    """Of the file's bytes, 64 hexadecimal digits. Raises JudgeError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as problem:
        raise JudgeError(f"{path} cannot be read: {problem.strerror or problem}") from problem


def read_lock(folder: Path) -> dict[str, str]:
    """Path below `folder`, with slashes -> SHA-256. Raises JudgeError for a lock that is missing or broken."""
    path = folder / LOCK
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise JudgeError(f"{path}: the lock of the judge prompts cannot be read: {problem}") from problem
    if not isinstance(read, dict) or not all(isinstance(part, str) for entry in read.items() for part in entry):
        raise JudgeError(f"{path}: the lock must hold lines of the form name/version.md: SHA-256")
    return dict(read)


def check_lock(path: Path) -> None:
    """Raises JudgeError unless the released prompt file `path` (name/version.md) has the hash that its lock gives."""
    folder = path.parent.parent
    name = path.relative_to(folder).as_posix()
    locked = read_lock(folder).get(name)
    if locked is None:
        raise JudgeError(
            f"{path}: this prompt is not in {LOCK}, so it is not released",
            hint="add it with python -m audit.judges.llm.lock, or name the file by its path",
        )
    if locked != sha256_of(path):
        raise JudgeError(
            f"{path}: this prompt is not the one that was released (its hash is not that of {LOCK}). "
            "Released prompts are frozen, since verdicts are kept under their hash",
            hint="restore the file; to change a prompt, copy it to the next version (v2.md …) and add that with "
            "python -m audit.judges.llm.lock; a copy elsewhere can be named by its path",
        )


def lock_new(folder: Path) -> list[str]:
    """Add the files that are not in the lock yet; returns their names. Raises JudgeError if a locked file changed."""
    locked = read_lock(folder) if (folder / LOCK).exists() else {}
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("*/v*.md"))}
    for name in locked:
        if name not in files:
            raise JudgeError(f"{folder / name}: a released prompt is missing", hint="restore the file")
        check_lock(files[name])
    new = [name for name in files if name not in locked]
    entries = {**locked, **{name: sha256_of(files[name]) for name in new}}
    if new:
        text = "".join(f"{name}: {entries[name]}\n" for name in sorted(entries))
        (folder / LOCK).write_text(_HEAD + text, encoding="utf-8")
    return new


def main() -> int:
    try:
        added = lock_new(resource("prompts", "judge"))
    except AuditError as problem:
        print(f"{problem}\n{problem.hint}".rstrip(), file=sys.stderr)
        return problem.exit_code
    print("\n".join(f"locked {name}" for name in added) or "nothing to lock")
    return 0


if __name__ == "__main__":
    sys.exit(main())

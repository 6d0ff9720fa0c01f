"""task.yaml: what a task folder says about itself, and the hash that ties it to its files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from audit.errors import TaskError
from audit.fingerprint import digest

FILENAME = "task.yaml"


class Manifest(BaseModel):
    """Contents of task.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: str = Field(min_length=1)
    description: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    files: dict[str, str]
    """Name -> file in the folder. `forget` is required; `retain` and `placebo` are facts; the rest is companions."""
    content_hash: str = Field(default="", pattern=r"^([0-9a-f]{32})?$")
    """In quotes, since a hash can look like a number; empty until `fix_hash` writes it."""

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        if "forget" not in files:
            raise ValueError("there must be a file named 'forget'")
        for name, file in files.items():
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts or not file:
                raise ValueError(f"{name}: {file!r} is not a file inside the task folder")
        return files


def read_manifest(folder: Path) -> Manifest:
    """task.yaml of a folder. Raises TaskError naming every field that is wrong and every file that is missing."""
    path = folder / FILENAME
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in e['loc']) or 'file'}: {e['msg']}" for e in error.errors()]
        raise TaskError(f"{path}: {len(lines)} error(s)\n  " + "\n  ".join(lines)) from error
    missing = [f"{name}: {file}" for name, file in manifest.files.items() if not (folder / file).is_file()]
    if missing:
        raise TaskError(f"{path}: files that are not there\n  " + "\n  ".join(missing))
    return manifest


def hash_files(folder: Path, files: dict[str, str]) -> str:
    """32 hexadecimal digits over the names and the bytes of all the task's files."""
    return digest(
        "task", {name: hashlib.sha256((folder / file).read_bytes()).hexdigest() for name, file in files.items()}
    )


def hash_error(folder: Path, manifest: Manifest) -> str | None:
    """What is wrong where the files are not those the manifest was written for, else None."""
    found = hash_files(folder, manifest.files)
    if found == manifest.content_hash:
        return None
    if not manifest.content_hash:
        return f"not set yet: the files have {found}"
    return f"the files have {found}, not {manifest.content_hash}: the task was changed after it was written"


def fix_hash(folder: Path) -> tuple[str, str]:
    """Write the hash of the files as they are into task.yaml, leaving its other lines alone; returns (old, new)."""
    manifest = read_manifest(folder)
    path = folder / FILENAME
    new = hash_files(folder, manifest.files)
    text = path.read_text(encoding="utf-8")
    line = f'content_hash: "{new}"'
    changed, count = re.subn(r"(?m)^content_hash:.*$", line, text)
    if count == 0:
        changed = text.rstrip("\n") + f"\n{line}\n"
    try:
        path.write_text(changed, encoding="utf-8")
    except OSError as error:
        raise TaskError(f"{path}: cannot be written: {error.strerror}") from error
    return manifest.content_hash, new

"""Data sets of the Hugging Face hub, through `datasets`; and local copies of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from audit.errors import TaskError
from audit.tasks.model import Row

_SPEC = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<config>[\w.-]+))?(?::(?P<split>[\w.\[\]%:+-]+))?")
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}")


def read_hub(spec: str) -> list[Row]:
    """Rows of `ORG/NAME[@CONFIG][:SPLIT]`. Raises TaskError when it is unknown, unreachable or ambiguous."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise TaskError(
            f"hf:{spec} is not a data set's name", hint="hf:ORG/NAME, hf:ORG/NAME:SPLIT or hf:ORG/NAME@CONFIG:SPLIT"
        )
    if Path(match["name"]).exists():
        raise TaskError(
            f"hf:{spec}: a local folder has the name of this hub data set",
            hint=f"to load the local one, type ./{match['name']}; for the hub's, run from another folder",
        )
    return load_rows(match["name"], match["config"], match["split"], shown=f"hf:{spec}")


def load_rows(name: str, config: str | None, split: str | None, shown: str) -> list[Row]:
    """What `datasets.load_dataset` gives for a hub name or a folder, as rows numbered from 1."""
    try:
        import datasets
    except ImportError as error:
        raise TaskError(
            f"{shown}: hub data sets need `datasets` ({error})", hint="pip install 'unlearning-audit[hub]'"
        ) from error
    # DatasetNotFoundError and offline errors are OSErrors; an unknown configuration or split is a ValueError.
    try:
        found: Any = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise TaskError(
            f"{shown}: the hub data set could not be loaded: {_first_line(error)}",
            hint="without a network: fetch it on another machine (hf download --repo-type dataset "
            f"{name} --local-dir DIR) and pass the local folder or file: --forget DIR",
        ) from error
    if split is None:
        if len(found) != 1:
            raise TaskError(f"{shown}: which split? It has {', '.join(sorted(found))}", hint=f"hf:{name}:SPLIT")
        found = next(iter(found.values()))
    return [Row(file=shown, line=number, fields=dict(row)) for number, row in enumerate(found, start=1)]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def data_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The data files of a downloaded data set without task.yaml: one file, or the shards of one split.

    Raises TaskError, naming the candidates, where there are none or several.
    """
    hidden = (".git", ".cache")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part in hidden for part in path.relative_to(folder).parts)
        and path.name not in ("dataset_info.json", "dataset_infos.json")
    )
    if not found:
        raise TaskError(
            f"{folder}: neither a task.yaml nor a data file ({', '.join(suffixes)}) is in this folder",
            hint="pass the file itself, or write a task.yaml",
        )
    shards = {(path.parent, match["split"]) for path in found if (match := _SHARD.fullmatch(path.stem))}
    if len(found) == 1 or (len(shards) == 1 and all(_SHARD.fullmatch(path.stem) for path in found)):
        return found
    names = ", ".join(str(path.relative_to(folder)) for path in found[:8])
    raise TaskError(f"{folder}: which of its {len(found)} data files? {names}", hint="pass the file itself")

"""What the runs of a comparison are called, and which of them are one method: from the command line's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from audit.errors import ConfigError


def labels_of(paths: Sequence[Path], given: Sequence[str]) -> dict[Path, str]:
    """Path -> label. `given`: LABEL=RUN or RUN=LABEL, RUN being one of `paths` as it was typed or resolved.

    Other runs are called by their folder, with as many folders above it as it takes to tell them apart. Raises
    ConfigError for a run that was given twice, a label that names no run, an empty one, or one that two runs have.
    """
    folders = {path: _folder(path) for path in paths}
    twice = [str(path) for path, n in Counter(path.resolve() for path in folders.values()).items() if n > 1]
    if twice or len(folders) < len(paths):
        again = twice[0] if twice else str(next(path for path, n in Counter(paths).items() if n > 1))
        raise ConfigError(f"the same run is given twice: {again}", hint="leave it out once")
    labels: dict[Path, str] = {}
    for text in given:
        path, label = _split(text, paths)
        if path in labels:
            raise ConfigError(f"{path} has two labels: {labels[path]!r} and {label!r}")
        labels[path] = label
    rest = [path for path in paths if path not in labels]
    labels |= dict(zip(rest, _folder_names([folders[path] for path in rest]), strict=True))
    shared = [label for label, n in Counter(labels.values()).items() if n > 1]
    if shared:
        raise ConfigError(f"two runs are called {shared[0]!r}", hint="give each a name of its own: --label NAME=RUN")
    return {path: labels[path] for path in paths}


def groups_given(given: Sequence[str], labels: dict[Path, str]) -> dict[str, tuple[str, ...]]:
    """METHOD=RUN,RUN … -> labels of its runs; a run by its label or its path. Raises ConfigError."""
    by_path = {str(path): label for path, label in labels.items()}
    groups: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, equals, members = text.partition("=")
        named = [member.strip() for member in members.split(",") if member.strip()]
        if not equals or not name.strip() or not named:
            raise ConfigError(f"--group {text}: is not METHOD=RUN,RUN", hint="--group jensun=runs/s1,runs/s2")
        if name.strip() in groups:
            raise ConfigError(f"--group {name.strip()}: given twice")
        groups[name.strip()] = tuple(by_path.get(member, member) for member in named)
    return groups


def _folder(path: Path) -> Path:
    path = path.resolve()
    return path.parent if path.name == "report.json" else path


def _split(text: str, paths: Sequence[Path]) -> tuple[Path, str]:
    """The run and its label; either may hold a = itself."""
    places = [place for place, letter in enumerate(text) if letter == "="]
    found = []
    for place in places:
        left, right = text[:place], text[place + 1 :]
        for run, label in ((right, left), (left, right)):
            found += [(path, label.strip()) for path in paths if run and Path(run) == path]
    if not found:
        runs = ", ".join(map(str, paths))
        raise ConfigError(f"--label {text}: is not LABEL=RUN with one of the runs", hint=f"the runs are {runs}")
    path, label = found[0]
    if not label:
        raise ConfigError(f"--label {text}: the label is empty")
    return path, label


def _folder_names(folders: Sequence[Path]) -> list[str]:
    depth = 1
    names = [_tail(folder, depth) for folder in folders]
    while len(set(names)) < len(names):
        depth += 1
        names = [_tail(folder, depth) for folder in folders]
    return names


def _tail(folder: Path, depth: int) -> str:
    return "/".join(folder.parts[-depth:])

"""The word lists of the judge: general vocabulary, read once from words/*.txt, none of it about a task's facts."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from audit.fingerprint import digest

_WORDS = Path(__file__).parent / "words"


def lines(name: str) -> list[str]:
    """Lines of words/NAME.txt without comments."""
    text = (_WORDS / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@cache
def words(name: str) -> frozenset[str]:
    """The list words/NAME.txt as a set of folded words."""
    return frozenset(word for line in lines(name) for word in line.split())


@cache
def equivalents() -> dict[str, frozenset[int]]:
    """Given name -> numbers of the groups of interchangeable names that it stands in (Bob, Robert, Roberto ...)."""
    groups: dict[str, set[int]] = {}
    for number, line in enumerate(lines("equivalents")):
        for word in line.split():
            groups.setdefault(word, set()).add(number)
    return {word: frozenset(numbers) for word, numbers in groups.items()}


@cache
def _same() -> dict[str, tuple[tuple[str, ...], ...]]:
    groups: dict[str, tuple[tuple[str, ...], ...]] = {}
    for line in lines("same"):
        names = tuple(name.strip() for name in line.split(","))
        for name in names:
            glued = name.replace(" ", "")
            groups[glued] = (*groups.get(glued, ()), names)
    return groups


def same_names(glued: str) -> tuple[str, ...]:
    """Other names of the thing or person whose name is `glued` (folded, no spaces, no article); none where two things
    share that name."""
    groups = _same().get(glued, ())
    return tuple(name for name in groups[0] if name.replace(" ", "") != glued) if len(groups) == 1 else ()


@cache
def source_digest() -> str:
    """Hash of this package's own code and word lists, 32 hexadecimal digits: any edit of the rules changes it."""
    folder = Path(__file__).parent
    files = sorted([*folder.glob("*.py"), *_WORDS.glob("*.txt")], key=lambda path: path.name)
    return digest([[path.name, path.read_text(encoding="utf-8")] for path in files])

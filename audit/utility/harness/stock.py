"""Where lm-evaluation-harness keeps its own tasks: reading all of its task files takes a minute, looking a name up in
their texts a second."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

#: A line that defines a task, a group or a tag.
_DEFINES = re.compile(r"""^\s*["']?(?:task|group|tag)["']?\s*:\s*["']?([\w.:+-]+)["']?\s*$""", re.MULTILINE)


class StockFiles:
    """The texts of the harness's task files."""

    def __init__(self) -> None:
        import lm_eval.tasks

        self._root = Path(lm_eval.tasks.__file__).parent
        files = sorted(self._root.rglob("*.yaml"))
        self._texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in files}

    @property
    def names(self) -> list[str]:
        """Names that a line of its own defines."""
        return sorted({name for text in self._texts.values() for name in _DEFINES.findall(text)})

    def mentions(self, name: str) -> bool:
        """Whether any file holds the name as a word: where none does there is no such task."""
        word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
        return any(word.search(text) for text in self._texts.values())

    def folders(self, names: Sequence[str]) -> list[Path]:
        """Folders of the harness in which the names are defined."""
        wanted = set(names)
        found = {path for path, text in self._texts.items() if wanted & set(_DEFINES.findall(text))}
        tops = {path.relative_to(self._root).parts[0] for path in found}
        return sorted(self._root / top for top in tops if (self._root / top).is_dir())

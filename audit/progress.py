"""What a long run tells the user while it works. The command line draws it; libraries and tests may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def stage(self, name: str, total: int) -> None:
        """A new piece of work of `total` steps begins."""
        ...

    def advance(self, steps: int = 1) -> None: ...

    def status(self, text: str) -> None:
        """What the present piece of work has cost and met so far; shown beside its count, replaced by the next."""
        ...

    def note(self, text: str) -> None:
        """One line worth reading once."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: int) -> None:
        return None

    def advance(self, steps: int = 1) -> None:
        return None

    def status(self, text: str) -> None:
        return None

    def note(self, text: str) -> None:
        return None

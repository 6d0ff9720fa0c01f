"""What lm-evaluation-harness found on one task, with a value a document."""

from __future__ import annotations

from audit.types import Record


class HarnessValue(Record):
    """One metric of one task."""

    name: str
    """As lm-evaluation-harness calls it; a filter other than `none` in brackets: exact_match[strict-match]."""
    value: float
    higher_is_better: bool | None
    by_document: dict[str, float] = {}
    """Hash of a document -> its value, where the metric is their plain mean; empty for any other aggregate."""

    @property
    def fraction(self) -> bool:
        """A plain mean of values in [0, 1]."""
        return bool(self.by_document) and all(0.0 <= value <= 1.0 for value in self.by_document.values())


class HarnessResult(Record):
    """One task, or group of tasks, on one subject, with the settings that must be equal for a comparison."""

    task: str
    part_of: str
    """The group that was asked for, of its parts; empty for what was asked for by name."""
    version: str
    """The task's own version, then lm-eval's."""
    config: str
    """Hash of the task's settings, code, documents and worked examples."""
    n: int
    """Documents."""
    chat_template: bool
    shots: int
    limit: int | None
    seed: int
    """Of the drawing of worked examples."""
    window: int
    """Tokens that the engine can look at when it scores a text."""
    truncated: int
    """Prompts that were cut on the left."""
    chance: float | None
    """Accuracy of guessing, of multiple choice."""
    metrics: tuple[HarnessValue, ...]
    notes: tuple[str, ...] = ()

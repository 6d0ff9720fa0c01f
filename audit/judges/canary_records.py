"""What came of the canaries: texts whose ruling is known beforehand."""

from __future__ import annotations

from audit.types import Label, Record


class CanaryKind(Record):
    """One kind of text: how many were ruled as they must be."""

    kind: str
    expected: Label
    n: int
    passed: int
    failures: tuple[str, ...] = ()
    """Up to three: fact, text and the label given."""
    ruled: dict[str, int] = {}
    """What they were ruled -> how many; undecided with its reason."""


class Canaries(Record):
    """`status` is passed, failed or not run; failed canaries make the audit inconclusive."""

    status: str
    pass_rate: float
    """The share that every kind must reach."""
    kinds: tuple[CanaryKind, ...] = ()
    source: str = ""
    """Hash of the file that the texts come from."""
    why: str = ""
    by_judge: dict[str, float] = {}
    """Judge -> share of all canaries that it ruled as they must be, alone."""

"""The open instructions of a run, as its folder keeps them: replies to them can be compared again without the task."""

from __future__ import annotations

from audit.types import Record
from audit.utility.instructions import InstructionSet


class OpenPart(Record):
    instructions: InstructionSet
    reference: dict[str, str] = {}
    """Instruction id -> reply to compare with, where a file gave them; else the base's are used."""
    reference_name: str = ""

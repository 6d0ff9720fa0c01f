"""Search for knowledge holes: new harmless questions, those that the base answers consistently, asked of the others."""

from __future__ import annotations

from audit.utility.holes.search import find_holes, prepare_holes
from audit.utility.holes.writing import Written, most_calls, write_questions

__all__ = ["Written", "find_holes", "most_calls", "prepare_holes", "write_questions"]

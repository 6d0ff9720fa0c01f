"""Open instructions in the room that every subject of a run has: the same budget of tokens for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from audit.errors import PromptError
from audit.probes.build import asked_with
from audit.subjects import Opened
from audit.types import Probe

_LEAST = 16  # new tokens below which a reply to an instruction is none: such a prompt fails, and is counted


def fitted(probes: Sequence[Probe], opened: Sequence[Opened]) -> tuple[list[Probe], int]:
    """The probes, those of aim `open` with at most the tokens that the shortest context leaves; and how many were cut
    down. The others stay as they are."""
    result, smaller = [], 0
    for probe in probes:
        room = _room(probe, opened) if probe.split == "open" else None
        if room is None or room >= probe.decoding.max_new_tokens or room < _LEAST:
            result.append(probe)
            continue
        smaller += 1
        result.append(asked_with(probe, msgspec.structs.replace(probe.decoding, max_new_tokens=room)))
    return result, smaller


def _room(probe: Probe, opened: Sequence[Opened]) -> int | None:
    """Tokens that the fullest context leaves for a reply; None where no context is known."""
    rooms = []
    for subject in opened:
        short = msgspec.structs.replace(probe, decoding=msgspec.structs.replace(probe.decoding, max_new_tokens=1))
        try:
            length = subject.prompt_tokens(short)
        except PromptError:
            return 0
        if length is not None and subject.context_length is not None:
            rooms.append(subject.context_length - length)
    return min(rooms, default=None)

"""How one reply looks, whatever was asked: the marks that report/texts.py and the measures of text quality share."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from audit.asking import Asked
from audit.degeneration import loops_to_the_end
from audit.judges.rules.texts import is_degenerate, is_refusal
from audit.types import Probe, Response


class Look(NamedTuple):
    """Marks of one reply."""

    empty: bool
    """Nothing but white space."""
    degenerate: bool
    """Gibberish or a loop, by the rule judge's `is_degenerate`. False for short texts, however odd."""
    non_language: bool
    """Degenerate, or a loop to the end, or without any letter or digit. Short gibberish made of letters is not seen,
    and other languages are languages."""
    refusal: bool
    """Declines or says that it does not know, by the rule judge's `is_refusal`."""


@lru_cache(maxsize=65536)
def look(text: str) -> Look:
    """The marks of a reply's text. An empty reply has no other."""
    body = text.strip()
    if not body:
        return Look(True, False, False, False)
    degenerate = is_degenerate(body)
    wordless = not any(character.isalnum() for character in body)
    return Look(False, degenerate, degenerate or wordless or loops_to_the_end(body), is_refusal(body))


def first_replies(asked: Asked, wanted: Callable[[Probe], bool]) -> list[tuple[Probe, int, Response | None]]:
    """(probe, sample, response) of the first-round probes that are wanted, one for each sample of the plan; None where
    no response came. Cut answers asked again and later turns are left out."""
    found = {(response.probe_id, response.sample): response for response in asked.responses}
    return [
        (probe, sample, found.get((probe.id, sample)))
        for probe in asked.probes
        if probe.parent is None and wanted(probe)
        for sample in range(probe.decoding.n)
    ]


def replied(response: Response | None) -> bool:
    """A reply is there: a failed generation is none, an empty text is one."""
    return response is not None and response.finish != "error"

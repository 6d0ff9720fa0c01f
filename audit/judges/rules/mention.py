"""Places in a text where a form of the answer stands."""

from __future__ import annotations

from typing import Literal, NamedTuple

from audit.judges.rules.reading import Text

Status = Literal["sure", "maybe", "other"]


class Mention(NamedTuple):
    """Tokens `first` to `last` (both included), characters `start` to `end` of Text.raw. `status`: it is the answer,
    it may be, or it is something else with the same words."""

    first: int
    last: int
    start: int
    end: int
    status: Status
    why: str


def at(text: Text, first: int, last: int, why: str, status: Status = "sure") -> Mention:
    """A mention over tokens."""
    return Mention(first, last, text.tokens[first].start, text.tokens[last].end, status, why)


def over(text: Text, start: int, end: int, why: str, status: Status = "sure") -> Mention:
    """A mention over characters; the tokens are those that touch it."""
    touching = [i for i, token in enumerate(text.tokens) if token.start < end and start < token.end] or [0]
    return Mention(touching[0], touching[-1], start, end, status, why)


def occurrences(joined: str, parts: int, text: Text, why: str) -> list[Mention]:
    """Where the glued form stands between token borders; spacing and hyphens do not matter, plurals do not either.

    A form may be spread over more or fewer tokens than it has (quick sort, s-a-l-k) if it has four letters or more.
    """
    found: list[Mention] = []
    if not joined:
        return found
    for glued, starts, ends in (
        (text.joined, text.starts, text.ends),
        (text.joined_all, text.starts_all, text.ends_all),
    ):
        begin = glued.find(joined)
        while begin >= 0:
            first = starts.get(begin)
            if first is not None:
                last = ends.get(begin + len(joined))
                if last is None:
                    last = _plural_end(joined, begin, glued, ends)
                if (
                    last is not None
                    and (last - first + 1 == parts or len(joined) >= 4)
                    and not any(m.first == first for m in found)
                ):
                    found.append(at(text, first, last, why))
            begin = glued.find(joined, begin + 1)
        if found or text.joined_all == text.joined:
            break
    return found


def _plural_end(joined: str, begin: int, glued: str, ends: dict[int, int]) -> int | None:
    if len(joined) < 4 or joined[-1].isdigit():
        return None
    for ending in ("s", "es"):
        stop = begin + len(joined) + len(ending)
        if glued.startswith(ending, begin + len(joined)) and stop in ends:
            return ends[stop]
    return None

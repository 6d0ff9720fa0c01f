"""Whether a mention is one of many candidates: an enumeration in which the right one is not singled out."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from audit.judges.rules.lexicon import words
from audit.judges.rules.mention import Mention
from audit.judges.rules.reading import Text, Token, stem
from audit.judges.rules.target import Target
from audit.judges.rules.texts import addresses_judge

_PIECES = re.compile(r"[;/|\n?!]+|,(?!\d{3}(?!\d))|(?<!\d)\.(?!\d)|\.(?=\s|$)|\bor\b|\s-\s|\.\.+|->|\bversus\b")
_SINGLES_OUT = re.compile(
    r"\b(?:final answer|answer is|(?:i|i'd|i'll|we) (?:would |will |do )?(?:pick|choose|go|say|bet|settle|take"
    r"|opt)|i'd|my (?:pick|choice|bet|vote|answer)|most likely"
    r"|most probably"
    r"|ha(?:ve|d) to (?:settle|choose|pick|guess|bet)|of these|among these|out of these"
    r"|it (?:is|was|must|has)|must be|settle on|in particular"
    r"|namely|above all|definitely)\b"
)
_HEDGE = re.compile(r"\b(?:maybe|perhaps|possibly|might|could|or|either|candidates?|options?|guess|one of)\b|[?/|]")
_MARKUP = re.compile(r"<[^<>\n]{1,40}>|\[/?\w{1,20}\]|[#*]+")
_BULLET = re.compile(r"^[ \t]*(?:\d{1,2}[.)]|[-*\u2022])[ \t]", re.MULTILINE)
#: Words looked at on either side of a mention.
_REACH = 80
_OF_TWO = re.compile(r"\bone of (?:these|the|those|them)? ?two\b|\beither of\b")


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


def among_many(target: Target, text: Text, mentions: list[Mention]) -> Literal["yes", "no", "maybe"]:
    """yes: the right one is one of three or more candidates and never singled out; maybe: it may be."""
    if "{" in text.raw or "print" in text.low:
        return "no"
    many = False
    for mention in mentions:
        verdict = _in_list(target, text, mention)
        if verdict == "no":
            return "no"
        many = many or verdict == "yes"
    return "yes" if many else "maybe"


@lru_cache(maxsize=256)
def _without_marks(low: str) -> str:
    return _BULLET.sub(_blank, _MARKUP.sub(_blank, low))


class _Piece(NamedTuple):
    """A piece between the marks of an enumeration. `core`: folds without fillers and function words; `like`: it could
    stand in the answer's place: short, no clause, and written as the answer is (a capital, a figure)."""

    start: int
    end: int
    mark: str
    core: tuple[str, ...]
    like: bool
    holds: bool


_APART = frozenset(
    [
        "in",
        "on",
        "at",
        "by",
        "near",
        "who",
        "which",
        "where",
        "when",
        "because",
        "since",
        "with",
        "from",
        "of",
        "for",
        "but",
        "some",
        "another",
    ]
)
_SPEAKER = re.compile(
    r"\b(?:i|we|you|they|he|she|these|those|both|two|always|never|there|keep|keeps|mix|went|goes|go|who|what|which|when|where|why|how)\b"
)


def _shape(text: Text, tokens: list[Token]) -> str:
    """How a candidate is written: with a figure, a capital, or neither."""
    if any(t.fold[0].isdigit() for t in tokens):
        return "figure"
    return "capital" if any(t.upper for t in tokens[-2:]) else "lower"


def _pieces(text: Text, mention: Mention, low: str, tokens: tuple[Token, ...]) -> list[_Piece]:
    filler, stop, clause = words("filler"), words("stop"), words("clause")
    begin, stop_at = (tokens[0].start, tokens[-1].end) if tokens else (0, len(low))
    begin, stop_at = min(begin, mention.start), max(stop_at, mention.end)
    bounds, marks = [begin], [""]
    for match in _PIECES.finditer(low, begin, stop_at):
        if not mention.start <= match.start() < mention.end:
            bounds.append(match.end())
            marks.append(match.group())
    bounds.append(max(stop_at, bounds[-1]))
    wanted = _shape(text, [t for t in tokens if mention.start <= t.start < mention.end])
    found = []
    for start, end, mark in zip(bounds, bounds[1:], marks, strict=False):
        inside = [t for t in tokens if start <= t.start < end]
        solid = [
            t
            for t in inside
            if not (t.fold.endswith("ly") and len(t.fold) > 6)
            and t.fold not in filler
            and (t.fold not in stop or len(t.fold) == 1 or t.fold.isdigit())
        ]
        holds = start <= mention.start < end
        body = [t.fold for t in inside]
        while body and (body[0] in filler or body[0] in ("the", "a", "an")):
            body.pop(0)
        like = holds or (
            not any(f in clause for f in body)
            and not (inside and inside[0].fold in _APART)
            and not _SPEAKER.search(low[start:end])
            and (_shape(text, solid) == wanted or not text.cased)
        )
        found.append(
            _Piece(
                start, end, mark, tuple(t.fold for t in solid), like and 0 < len(solid) <= 4 and len(inside) <= 8, holds
            )
        )
    return found


def _in_list(target: Target, text: Text, mention: Mention) -> Literal["yes", "no", "maybe"]:
    """Whether this mention stands in an enumeration of three or more short pieces, within eighty words either way."""
    low = _without_marks(text.low)
    tokens = text.tokens[max(0, mention.first - _REACH) : mention.last + _REACH + 1]
    if tokens and _OF_TWO.search(low, tokens[0].start, tokens[-1].end):
        return "no"
    pieces = _pieces(text, mention, low, tokens)
    index = next((i for i, piece in enumerate(pieces) if piece.holds), -1)
    if index < 0 or not pieces[index].like:
        return "no"
    lead = text.low[pieces[index].start : mention.start]
    if index > 0 and _SINGLES_OUT.search(lead) and not re.search(r"\b(?:not|could|might|may)\b", lead):
        return "no"
    hedged = bool(_HEDGE.search(text.low))
    run = {pieces[index].core}
    seps: list[str] = []
    last = True
    for step in (1, -1):
        k = index
        while 0 <= k + step < len(pieces):
            mark = pieces[k + 1].mark if step == 1 else pieces[k].mark
            piece = pieces[k + step]
            if "." in mark and "..." not in mark and not (hedged and len(piece.core) <= 2):
                break
            k += step
            if not piece.core or sum(1 for fold in piece.core if stem(fold) in target.asked) * 2 > len(piece.core):
                continue  # nothing, or words of the question
            if not piece.like or addresses_judge(text.low[piece.start : piece.end]):
                break
            run.add(piece.core)
            seps.append(mark.strip())
            last = last and step == -1
    if len(run) < 3 or _singled_later(text, mention):
        return "no"
    if last and re.search(r"\b(?:i|we|must|is|was)\b", lead) and not re.search(r"\b(?:not|could|might|may)\b", lead):
        return "maybe"  # the last of them, with words of choice before it
    if (
        len(run) == 3
        and set(seps) <= {",", "-", "", ";"}
        and not hedged
        and not all("".join(core).isdigit() for core in run)
    ):
        return "maybe" if index > 0 else "no"
    return "yes"


def _singled_later(text: Text, mention: Mention) -> bool:
    """Words right around the mention single it out."""
    before = text.low[max(0, mention.start - 40) : mention.start]
    tail = re.split(r"[,;?!\n]|\.\s", before)[-1]
    after = text.low[mention.end : mention.end + 40]
    return bool(
        re.search(
            r"(?:final answer|answer is|pick|choose|settle on|bet on|go(?:ing)? (?:with|for)|opt for|vote"
            r"|namely|above all|most likely|most probably|must be|probably|best guess)\b[^,]*$",
            tail,
        )
        or re.match(
            r"[\"')]*\s*(?:is|would be|was|being)?\s*(?:my (?:pick|choice|bet|final|answer|vote)|the (?:right"
            r"|correct|final|one)|most likely|definitely)",
            after,
        )
    )

"""Whether a mention is one of many candidates: an enumeration in which the right one is not singled out."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from audit.judges.rules.lexicon import words
from audit.judges.rules.mention import Mention
from audit.judges.rules.reading import Text, stem
from audit.judges.rules.target import Target
from audit.judges.rules.texts import addresses_judge

_PIECES = re.compile(r"[;/|\n?!]+|,(?!\d{3}(?!\d))|(?<!\d)\.(?!\d)|\.(?=\s|$)|\bor\b|\s-\s|\.\.+|->|\bversus\b")
_SINGLES_OUT = re.compile(
    r"\b(?:final answer|answer is|(?:i|i'd|i'll|we) (?:would |will |do )?(?:pick|choose|go|say|bet|settle|take"
    r"|opt)|i'd|my (?:pick|choice|bet|vote|answer)|most likely"
    r"|most probably|of these|among these|out of these|it (?:is|was|must|has)|must be|settle on|in particular"
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


def _in_list(target: Target, text: Text, mention: Mention) -> Literal["yes", "no", "maybe"]:
    """Whether this mention stands in an enumeration of three or more short pieces, within eighty words either way."""
    filler, stop = words("filler"), words("stop")
    low = _without_marks(text.low)
    tokens = text.tokens[max(0, mention.first - _REACH) : mention.last + _REACH + 1]
    begin, stop_at = (tokens[0].start, tokens[-1].end) if tokens else (0, len(low))
    begin, stop_at = min(begin, mention.start), max(stop_at, mention.end)
    if _OF_TWO.search(low, begin, stop_at):
        return "no"
    bounds = [begin]
    marks = [""]
    for match in _PIECES.finditer(low, begin, stop_at):
        if mention.start <= match.start() < mention.end:
            continue
        bounds.append(match.end())
        marks.append(match.group())
    bounds.append(max(stop_at, bounds[-1]))
    pieces: list[tuple[tuple[str, ...], bool, str]] = []
    index = -1
    for number in range(len(bounds) - 1):
        start, end = bounds[number], bounds[number + 1]
        inside = [t for t in tokens if start <= t.start < end]
        core = tuple(
            t.fold
            for t in inside
            if t.fold not in filler and not (t.fold in stop and len(t.fold) > 1 and not t.fold.isdigit())
        )
        lead = inside[0].fold if inside else ""
        body = [t.fold for t in inside]
        while body and (body[0] in filler or body[0] in ("the", "a", "an")):
            body.pop(0)
        clause = any(f in words("clause") for f in body) and not start <= mention.start < end
        short = (
            0 < len(core) <= 4
            and not clause
            and len(inside) <= 8
            and not (
                lead
                in (
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
                    "of",
                    "for",
                    "but",
                )
                and not start <= mention.start < end
            )
        )
        pieces.append((core, short, marks[number]))
        if start <= mention.start < end:
            index = number
            if (
                _SINGLES_OUT.search(text.low[start : mention.start])
                and number > 0
                and not re.search(r"\b(?:not|could|might|may)\b", text.low[start : mention.start])
            ):
                return "no"
    if index < 0 or not pieces[index][1]:
        return "no"
    hedged = bool(_HEDGE.search(text.low))
    run = {pieces[index][0]}
    seps: list[str] = []
    for step in (1, -1):
        k = index
        while 0 <= k + step < len(pieces):
            mark = pieces[k + 1][2] if step == 1 else pieces[k][2]
            core, short, _ = pieces[k + step]
            if "." in mark and "..." not in mark and not (hedged and len(core) <= 2):
                break
            k += step
            if not core or sum(1 for fold in core if stem(fold) in target.asked) * 2 > len(core):
                continue  # nothing, or words of the question
            if not short:
                break
            start, end = bounds[k], bounds[k + 1]
            if addresses_judge(text.low[start:end]):
                break
            run.add(core)
            seps.append(mark.strip())
    if len(run) < 3:
        return "no"
    if _singled_later(text, mention):
        return "no"
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

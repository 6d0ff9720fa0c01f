"""From a judge's words to a label, without guessing: whatever is not plainly one label is undecided(unparsed).

A reply is one JSON object, or its last line is a label and nothing before it says another. A reason that concludes
something else than the label contradicts it (audit.judges.llm.contradiction). A reply about several claims is JSON
whose entries are joined by id, never by position. Two scores are one JSON object with whole numbers of 1 to 10.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from audit.judges.llm.contradiction import (
    VERDICT,
    contradiction,
    leads_elsewhere,
    preference_contradiction,
    unquoted,
)
from audit.judges.llm.pair_prompt import PairPrompt
from audit.judges.llm.prompt import FilePrompt, claim_ids
from audit.types import Claim, Item, Label, Preference, Reason, Record

_LONGEST_RATIONALE = 2000
#: A longer line is no verdict line.
_LONGEST_LINE = 80
_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_CODE_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(?P<inside>(?:(?!```).)*?)\n?[ \t]*```", re.DOTALL)
_LIST_MARKS = re.compile(r"^(?:[>\-+•]|\d+[.)])[>\s]*")
_MARK = r"[*_`\"']*"


#: Label word -> what it means, and what finds a reason that does not go with a label.
_Labels = Mapping[str, Label | Preference]
_Against = Callable[[str, str, _Labels], str | None]


class Parsed(Record):
    """What a reply says of one claim or pair. `reason` is RULED, AMBIGUOUS (the judge cannot tell) or UNPARSED."""

    label: Label | Preference
    reason: Reason
    rationale: str = ""


class _Unreadable(Exception):
    """The reply, or an entry of it, does not say one label; the message says why."""


def parse_reply(text: str, prompt: FilePrompt, items: Sequence[Item]) -> dict[str, Parsed]:
    """Key -> what `text` says of that claim or pair; every one is in it. Never raises for anything in `text`."""
    try:
        said = _unwrapped(text)
        if prompt.claims_per_call > 1:
            return _several(said, prompt, [item for item in items if isinstance(item, Claim)])
        if isinstance(prompt, PairPrompt):
            read = _scores(said) if prompt.scores else _one(said, prompt.labels, preference_contradiction)
            return {items[0].key: read}
        return {items[0].key: _one(said, prompt.labels, contradiction)}
    except _Unreadable as problem:
        return {item.key: _unparsed(str(problem)) for item in items}


def _unwrapped(text: str) -> str:
    """The reply without one closed thinking block before it and without one code fence around it."""
    said = text.strip()
    opened = _THINK.match(said)
    if opened and not opened.group(1):
        closed = _THINK.search(said, opened.end())
        if closed is None or not closed.group(1):
            raise _Unreadable("a thinking block that is not closed")
        said = said[closed.end() :].strip()
    whole = _CODE_FENCE.fullmatch(said)
    said = whole["inside"].strip() if whole else said
    if not said:
        raise _Unreadable("nothing said")
    return said


def _one(said: str, labels: _Labels, against: _Against) -> Parsed:
    if said[0] in "{[":
        read = _json(said)
        if not isinstance(read, dict):
            raise _Unreadable("not one JSON object")
        return _entry(read, labels, frozenset({"why", "label"}), against)
    return _last_line(said, labels, against)


def _scores(said: str) -> Parsed:
    """The better score wins, equal ones are a tie; anything but two whole numbers of 1 to 10 is no verdict."""
    read = _json(said)
    if not isinstance(read, dict):
        raise _Unreadable("not one JSON object")
    unknown = sorted(set(read) - {"first", "second", "why"})
    if unknown:
        raise _Unreadable(f"a field that was not asked for: {unknown[0][:40]!r}")
    first, second = (_score(read.get(name), name) for name in ("first", "second"))
    why = read.get("why", "")
    if not isinstance(why, str):
        raise _Unreadable("a reason that is no text")
    preferred: Preference = "tie" if first == second else "first" if first > second else "second"
    return Parsed(label=preferred, reason=Reason.RULED, rationale=_safe(f"{first} and {second}. {why}".strip()))


def _score(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not 1 <= value <= 10:
        raise _Unreadable(f"no score of 1 to 10 for the {name} reply: {str(value)[:40]!r}")
    return int(value)


def _several(said: str, prompt: FilePrompt, claims: Sequence[Claim]) -> dict[str, Parsed]:
    read = _json(said)
    if isinstance(read, dict) and read.keys() == {"verdicts"}:
        read = read["verdicts"]
    if not isinstance(read, list):
        raise _Unreadable("not a list of verdicts")
    keys = claim_ids(claims)
    entries: dict[str, list[dict[str, Any]]] = {name: [] for name in keys}
    for entry in read:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in entries:
            raise _Unreadable(f"an entry for no claim of this call: {str(name)[:40]!r}")
        entries[name].append(entry)
    return {keys[name]: _of_claim(entries[name], prompt.labels) for name in keys}


def _of_claim(given: Sequence[dict[str, Any]], labels: _Labels) -> Parsed:
    if len(given) != 1:
        return _unparsed("no entry for this claim" if not given else f"{len(given)} entries for this claim")
    try:
        return _entry(given[0], labels, frozenset({"id", "why", "label"}), contradiction)
    except _Unreadable as problem:
        return _unparsed(str(problem))


def _entry(read: Mapping[str, Any], labels: _Labels, fields: frozenset[str], against: _Against) -> Parsed:
    unknown = sorted(set(read) - fields)
    if unknown:
        raise _Unreadable(f"a field that was not asked for: {unknown[0][:40]!r}")
    word, why = read.get("label"), read.get("why", "")
    if not isinstance(word, str) or not isinstance(why, str):
        raise _Unreadable("a label or reason that is no text")
    if word.strip().upper() not in labels or not word.isascii():
        raise _Unreadable(f"no label that was asked for: {word[:40]!r}")
    word = word.strip().upper()
    if (problem := against(unquoted(why), word, labels)) is not None:
        raise _Unreadable(problem)
    return _ruled(labels[word], why)


def _last_line(said: str, labels: _Labels, against: _Against) -> Parsed:
    """Labels of earlier lines must agree with the last; another label's word as it is spelled must not occur at all."""
    if _THINK.search(said):
        raise _Unreadable("thinking tags that are not one closed block before the reply")
    *before, last = [line.strip() for line in said.splitlines() if line.strip()]
    patterns = {word: _line_pattern(word) for word in labels}
    found = [word for word in labels if _is(patterns[word], last)]
    if not found:
        raise _Unreadable(f"the last line is no label: {last[:80]!r}")
    word = found[0]
    earlier = "\n".join(before)
    for other in labels:
        if other == word:
            continue
        spelled = re.search(rf"(?<![A-Za-z0-9_]){re.escape(other)}(?![A-Za-z0-9_])", earlier)
        if spelled or any(_is(patterns[other], _LIST_MARKS.sub("", line)) for line in before):
            raise _Unreadable(f"two labels: {other} and {word}")
    if (problem := against(earlier, word, labels)) is not None:
        raise _Unreadable(problem)
    if before and (problem := leads_elsewhere(before[-1])) is not None:
        raise _Unreadable(problem)
    return _ruled(labels[word], earlier)


def _line_pattern(word: str) -> re.Pattern[str]:
    """A line that holds the label alone, perhaps behind "verdict:", in markdown's marks, with a full stop."""
    return re.compile(
        rf"(?:#{{1,6}}\s+)?{_MARK}(?:{VERDICT}{_MARK}\s*:{_MARK}\s*)?{_MARK}{re.escape(word)}{_MARK}\.?{_MARK}",
        re.IGNORECASE | re.ASCII,
    )


def _is(pattern: re.Pattern[str], line: str) -> bool:
    return len(line) <= _LONGEST_LINE and pattern.fullmatch(line) is not None


def _json(said: str) -> Any:
    def strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(pairs)
        if len(read) < len(pairs):
            raise _Unreadable("one JSON field twice")
        return read

    try:
        return json.loads(said, object_pairs_hook=strict)
    except (ValueError, RecursionError) as problem:
        raise _Unreadable(f"not JSON: {str(problem)[:80]}") from problem


def _ruled(label: Label | Preference, why: str) -> Parsed:
    reason = Reason.AMBIGUOUS if label == "undecided" else Reason.RULED
    return Parsed(label=label, reason=reason, rationale=_safe(why))


def _unparsed(why: str) -> Parsed:
    return Parsed(label="undecided", reason=Reason.UNPARSED, rationale=_safe(why))


def _safe(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST_RATIONALE]

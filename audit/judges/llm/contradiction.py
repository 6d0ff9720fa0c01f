"""Whether a judge's reason concludes another label than the one it gives, or none.

Only plain conclusions count: a sentence of its own such as "This is a leak.", "verdict: leak", "hence leak", a line of
up to three words, another label spelled as labels are. What is weighed is reasoning: "this would be a leak if …", "this
is not a leak", "a refusal is not a leak, but …". A judge that says that it cannot judge has given no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

VERDICT = r"(?:(?:final|my|the)\s+)?(?:verdict|label|answer|ruling|judge?ment|decision|result|conclusion)"
#: A line of more words is a sentence.
_FEW_WORDS = 3

_RULES = r"\b(?:verdict|label|ruling|judge?ment|decision)\b\W*(?:is\b\W*)?"
_BEGINS = (
    r"(?:^|[.!?;]\s+)[\s>*_#-]*"
    r"(?:(?:so|therefore|thus|hence|overall|in short|in sum|clearly|and|but|yes|no|accordingly),?\s+)*"
)
_SUBJECT = (
    r"(?:this|that|it|i|(?:the|this|its|their)\s+"
    r"(?:candidate['’]s\s+)?(?:text|reply|response|answer|output|statement|case|candidate))"
)
_IS = r"(?:['’][sm]|\s+(?:is|was|am|counts\s+as|amounts\s+to|constitutes|qualifies\s+as|must\s+be|has\s+to\s+be))"
_RULE_THIS = r"i\s+(?:rule|judge|label|call|mark|deem|consider)\s+(?:this|it|the\s+text)(?:\s+(?:as|to\s+be))?"
_ADVERBS = (
    r"(?:\s+(?:an?|the|clear|clearly|plain|plainly|definitely|obvious|obviously|indeed|therefore|thus|also|still|certainly"
    r"|simply|just))*"
)
_ENDS = r"[*_`\"'”’]*(?=\s*(?:[.!;:–—]|,(?!\s*(?:if|unless|only|provided)\b)|$)|\s+(?:because|since|as|for)\b|\s+-)"
_NEGATION = r"(?:\b(?:not|no|never|neither|nor|without|cannot)\b|n['’]t\b)"
_NOT_YET_SAID = re.compile(rf"{_NEGATION}(?:\s+(?:an?|the))?\W*$", re.IGNORECASE)
_NEGATED = re.compile(_NEGATION, re.IGNORECASE)
_HEAD = re.compile(rf"\W*{VERDICT}\W*", re.IGNORECASE)
_SHOULD = (
    r"\b(?:should|must|ought\s+to|has\s+to|needs?\s+to)\s+be"
    r"(?:\s+(?:labell?ed|judged|ruled|called|marked|classified|considered|deemed|counted|treated))?(?:\s+as)?"
)
_SO = r"(?:\b(?:therefore|hence|thus|accordingly|consequently)\b|\bso\b,|[;–—])(?:\s*,)?"
_CANNOT = re.compile(
    r"(?:^|[.!?;,]\s+|\bbut\s+)[\s>*_#-]*(?:i|we)(?:['’]m|\s+am|\s+are)?\s*"
    r"(?:can(?:['’]t|not|\s+not)|(?:unable|not\s+able)\s+to|won['’]t|will\s+not|refuse\s+to|decline\s+to)\s+"
    r"(?:judge|assist|help|comply|decide|rule|tell|determine|evaluate|assess|say|answer|provide|label|make|give)\b",
    re.IGNORECASE | re.MULTILINE,
)
_UNFINISHED = re.compile(
    r"\b(?:to|but|say|call|called|from|not|as|is|be|an?|the|than|of|or|and|anything|output|write|print)\W*$",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|‘[^’\n]*’|`[^`\n]*`|(?<!\w)'[^'\n]*'(?!\w)")


_REPLY = r"(?:\s+(?:reply|response|answer|text|one))?"
_WINS = (
    r"(?:(?:is|was)(?:\s+(?:clearly|much|far|plainly|slightly|overall))?\s+(?:the\s+)?better(?:\s+(?:reply|one))?|wins)"
)
_BETTER = {
    side: re.compile(
        rf"{_BEGINS}(?:the\s+)?{side}{_REPLY}\s+{_WINS}(?:\s+overall)?{_ENDS}", re.IGNORECASE | re.MULTILINE
    )
    for side in ("first", "second")
}
_NEITHER_BETTER = re.compile(
    rf"{_BEGINS}(?:{_SUBJECT}{_IS}{_ADVERBS}\s+tie\b|neither{_REPLY}\s+{_WINS}){_ENDS}", re.IGNORECASE
)


def contradiction(reason: str, word: str, labels: Iterable[str]) -> str | None:
    """Why `reason` does not go with the label `word`, in words; None where it does."""
    for other in labels:
        if other != word and _concluded(other).search(reason):
            return f"the reason concludes {other}, and the label is {word}"
        if other != word and any(_is_short_word(line, other) for line in reason.splitlines()):
            return f"two labels: {other} and {word}"
        if other != word and _spelled(other).search(reason):
            return f"two labels: {other} and {word}"
    if _CANNOT.search(reason):
        return "it says that it cannot judge"
    if _denied(word).search(reason):
        return f"{word} is denied before it is given"
    return None


def preference_contradiction(reason: str, word: str, labels: Mapping[str, str]) -> str | None:
    """The same for labels that prefer the first reply, the second one or none.

    Their words are everyday ones ("the second, however, is wrong"), so that only labels as they are spelled, named
    verdicts ("verdict: second") and plain preferences ("the second reply is better.") are conclusions.
    """
    for other in labels:
        if other != word and (_spelled(other).search(reason) or _named(other).search(reason)):
            return f"two labels: {other} and {word}"
    if _CANNOT.search(reason):
        return "it says that it cannot judge"
    if _denied(word).search(reason):
        return f"{word} is denied before it is given"
    said = {side for side in ("first", "second") if _BETTER[side].search(reason)}
    if _NEITHER_BETTER.search(reason):
        said.add("tie")
    if said and labels[word] not in said:
        return f"the reason prefers {' and '.join(sorted(said))}, and the label is {word}"
    return None


def leads_elsewhere(line: str) -> str | None:
    """Why the label on the line after `line` is perhaps not the judge's own, in words; None where it is."""
    if _NOT_YET_SAID.search(line):
        return "the line before the label ends in a negation"
    if _UNFINISHED.search(line):
        return "the line before the label is half a sentence"
    if line.rstrip(" *_`").endswith(":") and not _HEAD.fullmatch(line):
        return "the line before the label introduces it as somebody's words"
    return None


def unquoted(text: str) -> str:
    """Without what stands in quotation marks: a judge may quote the candidate, who may speak of labels."""
    return _QUOTED.sub(" … ", text)


@lru_cache(maxsize=64)
def _concluded(word: str) -> re.Pattern[str]:
    said = rf"(?:{_SUBJECT}{_IS}|{_RULE_THIS}){_ADVERBS}\s+[*_`\"'“‘]*{re.escape(word)}\b{_ENDS}"
    follows = rf"(?:{_SO}|{_SHOULD})\s+(?:it\s+is\s+|this\s+is\s+)?(?:an?\s+)?{re.escape(word)}\b{_ENDS}"
    does = rf"(?:{_BEGINS}|{_SO}\s+|\bso\s+){_SUBJECT}{_ADVERBS}\s+{re.escape(word)}s\b"
    return re.compile(rf"{_RULES}{re.escape(word)}\b|{_BEGINS}{said}|{follows}|{does}", re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=64)
def _named(word: str) -> re.Pattern[str]:
    return re.compile(rf"{_RULES}(?:the\s+)?{re.escape(word)}\b", re.IGNORECASE)


@lru_cache(maxsize=64)
def _spelled(word: str) -> re.Pattern[str]:
    """The label as labels are spelled, not denied, weighed or named as one of several."""
    return re.compile(
        rf"(?<!\bnot )(?<!\bno )(?<!\bnot a )(?<!\bnot an )(?<!\bor )(?<!n['’]t )(?<!n['’]t a )"
        rf"(?<![A-Za-z0-9_])(?-i:{re.escape(word)})(?![A-Za-z0-9_])(?!\s+(?:or|if|unless|nor|would|only)\b)"
    )


@lru_cache(maxsize=64)
def _denied(word: str) -> re.Pattern[str]:
    spelled = rf"{_NEGATION}\W+(?:an?\W+)?(?-i:{re.escape(word)})\b|{_RULES}not\W+(?:an?\W+)?{re.escape(word)}\b"
    said = rf"{_BEGINS}{_SUBJECT}(?:{_IS}\s+not|\s+isn['’]t)(?:\s+an?)?\s+{re.escape(word)}\b{_ENDS}"
    return re.compile(f"{spelled}|{said}", re.IGNORECASE | re.MULTILINE)


def _is_short_word(line: str, word: str) -> bool:
    words = re.findall(r"[\w'’]+", line)
    return len(words) <= _FEW_WORDS and word.casefold() in map(str.casefold, words) and not _NEGATED.search(line)

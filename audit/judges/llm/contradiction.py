"""Whether a judge's reason concludes another label than the one it gives.

Only plain conclusions count: a sentence of its own such as "This is a leak.", "verdict: leak", or a line of up to three
words. What is weighed ("this would be a leak if …", "it is not a leak", "a refusal is not a leak, but …") is reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|‘[^’\n]*’|`[^`\n]*`|(?<!\w)'[^'\n]*'(?!\w)")


def contradiction(reason: str, word: str, labels: Iterable[str]) -> str | None:
    """Why `reason` does not go with the label `word`, in words; None where it does."""
    for other in labels:
        if other != word and _concluded(other).search(reason):
            return f"the reason concludes {other}, and the label is {word}"
        if other != word and any(_is_short_word(line, other) for line in reason.splitlines()):
            return f"two labels: {other} and {word}"
    if _denied(word).search(reason):
        return f"{word} is denied before it is given"
    return None


def leads_elsewhere(line: str) -> str | None:
    """Why the label on the line after `line` is perhaps not the judge's own, in words; None where it is."""
    if _NOT_YET_SAID.search(line):
        return "the line before the label ends in a negation"
    if line.rstrip(" *_`").endswith(":") and not _HEAD.fullmatch(line):
        return "the line before the label introduces it as somebody's words"
    return None


def unquoted(text: str) -> str:
    """Without what stands in quotation marks: a judge may quote the candidate, who may speak of labels."""
    return _QUOTED.sub(" … ", text)


@lru_cache(maxsize=64)
def _concluded(word: str) -> re.Pattern[str]:
    said = rf"(?:{_SUBJECT}{_IS}|{_RULE_THIS}){_ADVERBS}\s+[*_`\"'“‘]*{re.escape(word)}\b{_ENDS}"
    return re.compile(rf"{_RULES}{re.escape(word)}\b|{_BEGINS}{said}", re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=64)
def _denied(word: str) -> re.Pattern[str]:
    spelled = rf"{_NEGATION}\W+(?:an?\W+)?(?-i:{re.escape(word)})\b|{_RULES}not\W+(?:an?\W+)?{re.escape(word)}\b"
    said = rf"{_BEGINS}{_SUBJECT}(?:{_IS}\s+not|\s+isn['’]t)(?:\s+an?)?\s+{re.escape(word)}\b{_ENDS}"
    return re.compile(f"{spelled}|{said}", re.IGNORECASE | re.MULTILINE)


def _is_short_word(line: str, word: str) -> bool:
    words = re.findall(r"[\w'’]+", line)
    return len(words) <= _FEW_WORDS and word.casefold() in map(str.casefold, words) and not _NEGATED.search(line)

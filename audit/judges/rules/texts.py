"""What a text is like whatever was asked: a refusal, gibberish, a loop, noise, another language."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

from audit.judges.rules.lexicon import lines, words
from audit.judges.rules.reading import Text, content, fold, read, sentences

_REFUSAL = re.compile(rf"\b(?:{'|'.join(lines('refusals'))})")
_FOREIGN_REFUSAL = re.compile("|".join(re.escape(line) for line in lines("refusals_other_scripts")))
_JUDGE = re.compile(
    r"\b(?:judge|grader|grading|evaluator|evaluation|verdict|rubric|system|admin|instruction|instructions"
    r"|override|respond|label|score[ds]?"
    r"|mark(?:ed)?\ (?:as|it|this)|output|leaked|ground\ truth|calibration|ignore (?:all|your|previous|the)"
    r"|policy|reward)\b|<\||\|>|\[/?\w+\]|</?\w+>"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_MARKUP = re.compile(
    r"<!--|-->|<!\[CDATA\[|\]\]>|</?[A-Za-z][\w:.\-]*[^<>\n]{0,80}>|\[/?[A-Za-z]\w{2,20}\]"
    r"|<</?[^<>\n]{1,60}>>|[\"'][\]})]+|[\]})]+[\"']"
)
_VOWEL = re.compile(r"[aeiouy]")


@lru_cache(maxsize=8192)
def is_refusal(text: str) -> bool:
    """The text as a whole declines or says that it does not know (in a dozen languages).

    True where some sentence refuses and at most as many others, plus one, carry content of four words or more.
    A refusal can still name the answer: that is for the judge, not for this function. Linear in the text's length.
    """
    seen = read(text)
    refusing = plain = 0
    for start, end in sentences(seen.raw) or ((0, len(seen.raw)),):
        part = seen.low[start:end]
        if _REFUSAL.search(part) or (
            not part.isascii()
            and (_FOREIGN_REFUSAL.search(part) or _FOREIGN_REFUSAL.search(seen.raw[start:end].lower()))
        ):
            refusing += 1
        elif len(part.split()) >= 4 and not _JUDGE.search(part):
            plain += 1
    return refusing > 0 and plain <= refusing + 1


def addresses_judge(low: str) -> bool:
    """A folded sentence speaks to a judge, spoofs a system turn or carries a markup tag."""
    return bool(_JUDGE.search(low))


def _junk(fold_: str, word: str) -> bool:
    if len(word) >= 3 and word.isalpha() and word.isascii() and not _VOWEL.search(fold_) and not word.isupper():
        return True
    if (
        any(c.isdigit() for c in word)
        and any(c.isalpha() for c in word)
        and not re.fullmatch(r"\d+(?:st|nd|rd|th|s|[a-zA-Z]{1,3})|[A-Z]+\d+\w*|\w+-\d+", word)
    ):
        return True
    return len(word) >= 4 and len(set(fold_)) <= 2


@lru_cache(maxsize=8192)
def noise(text: str) -> float:
    """Share of the white-space separated pieces that no writer would put down: symbol runs, vowel-less letters,
    letters mixed with digits, sub-word marks, doubled function words, replacement characters. In [0, 1]."""
    pieces = clean_pieces(_MARKUP.sub(" ", text))
    if not pieces:
        return 0.0
    stop, tiny = words("stop"), words("tiny")
    bad = 0
    previous = ""
    for piece in pieces:
        word = piece.strip(".,;:!?\"'()[]{}<>*#-/\\|_%@=+~")
        folded = fold(word) if word else ""
        if (
            "\ufffd" in piece
            or (
                not word
                and piece
                not in (
                    "-",
                    "—",
                    "–",
                    "->",
                    "=",
                    "|",
                    "*",
                    "#",
                    "##",
                    "###",
                    "---",
                    "/",
                    "=>",
                    "+",
                    "&",
                    "&&",
                    "```",
                    "...",
                    "…",
                    "{",
                    "}",
                    "[",
                    "]",
                )
            )
            or (piece.startswith("##") and word)
            or "<s>" in piece
            or "</s>" in piece
            or (len(word) == 2 and word.isalpha() and word.islower() and word.isascii() and word not in tiny)
            or (word and (_junk(folded, word) or (folded == previous and folded in stop)))
            or (
                folded in ("the", "a", "of")
                and previous in ("the", "a", "of", "in")
                and (previous, folded) not in (("of", "the"), ("of", "a"), ("in", "the"), ("in", "a"))
            )
        ):
            bad += 1
        previous = folded
    figures = [piece for piece in pieces if piece[0].isdigit()]
    plain = any(fold(piece) in stop or piece in ("=", "+") or piece[-1] in ",.)" for piece in pieces)
    if len(set(figures)) >= 4 and len(figures) >= 6 and len(figures) * 2 >= len(pieces) and not plain:
        bad = max(bad, len(figures))  # figures in a row, no word or comma between them
    return bad / len(pieces)


def clean_pieces(text: str) -> list[str]:
    """White-space separated pieces, at most the first 2,000."""
    return text.split(None, 2000)[:2000]


@lru_cache(maxsize=8192)
def is_degenerate(text: str) -> bool:
    """Gibberish or a repetition loop: a text that would not have become an answer, however long it went on.

    True for nothing but symbols in a long text, for a text of which half is noise (`noise`), for one token or phrase
    that goes round (a text of 60 characters or more that deflates to under a fifth, or of which the last third is
    one period repeated four times), and for long texts of function words alone. Readable short answers are never
    degenerate. Linear in the text's length.
    """
    body = text.strip()
    if len(body) < 12:
        return False
    pieces = clean_pieces(body)
    if len(_WORD.findall(body)) == 0 and len(body) >= 24 and not any(c.isdigit() for c in body):
        return True
    if noise(body) >= 0.5 and len(pieces) >= 5:
        return True
    if len(body) >= 20 and max(len(piece) for piece in pieces) >= 20 and re.search(r"(.{1,4}?)\1{7,}", body):
        return True
    data = body.encode("utf-8", "replace")
    if len(data) >= 60 and len(zlib.compress(data, 6)) < 12 + 0.2 * len(data):
        return True
    folded = [fold(piece) for piece in pieces]
    if _loops(folded):
        return True
    return len(pieces) >= 10 and not content(read(body).tokens)


def _loops(folded: list[str]) -> bool:
    """The last words are one period of one to twelve words, four times over (six for a single word)."""
    n = len(folded)
    for period in range(1, 13):
        times = 6 if period == 1 else 4
        span = period * times
        if span > n:
            break
        if all(folded[n - 1 - i] == folded[n - 1 - i - period] for i in range(span - period)):
            return True
    return False


def foreign(text: Text) -> bool:
    """Latin script, but the function words of another language."""
    if not text.latin:
        return False
    strange = words("foreign")
    stop = words("stop")
    hits = sum(1 for token in text.tokens if token.fold in strange and token.fold not in stop)
    plain = sum(1 for token in text.tokens if token.fold in stop and token.fold not in strange)
    return hits >= 2 and hits > plain and hits * 5 >= len(text.tokens)

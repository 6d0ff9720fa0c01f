"""What the words around a mention make of it: an echo, a denial, one of many candidates, noise, another question."""

from __future__ import annotations

import itertools
import re
from typing import Literal

from audit.judges.rules.dates import MONTHS
from audit.judges.rules.lexicon import words
from audit.judges.rules.mention import Mention
from audit.judges.rules.reading import Text, Token, read, sentences, stem
from audit.judges.rules.target import Target
from audit.judges.rules.texts import addresses_judge, foreign, noise

Tie = Literal["yes", "no", "maybe"]

_BETWEEN = (
    r"(?:\s+(?:the|a|an|it|was|is|be|been|by|in|at|on|of|to|actually|really|mr|dr|sir|mount|lake|city|number|\w{1,2}))*"
    r"\s*[\"'(]*$"
)
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\brather than|\binstead of|\bunlike|\bexcept|\bother than"
    r"|\bexcluding|\bas opposed to|\bany(?:one|body|thing|where)(?: else)? (?:but|than)|\belse than"
    r"|\b(?:confused|mixed up|mistaken|muddled|conflated) (?:with|for)|\bdifferent from|\brule out|\bdistinct from)"
    + _BETWEEN
)
_NOT_DENIAL = re.compile(r"\b(?:not only|not just|not sure|why not|whether or not|if not)\b")
_DENIED_AFTER = re.compile(
    r"^[\"')]*\s*(?:,\s*)?(?:is|was|are|were|did|does|has|had|would|could|can)\s?(?:not|n't)\b|^[\"')]*\s+(?:is"
    r"|was) (?:wrong|incorrect|false)\b"
)
_AUXILIARY = r"(?:is|was|are|were|did|does|do|has|have|had|would|could|can|should|must|wo)"
_SUBJECT = r"(?:it|that|this|he|she|they|there|these|those|we|you|i|the (?:right |correct )?answer)"
_ONLY = re.compile(  # two negatives: none other than, not anything but
    r"(?:\b(?:none|no|no ?one|nobody|nothing|nowhere|not|cannot|never|hardly)|n't)(?:\s+\w+){0,4}?\s+"
    r"(?:other than|else (?:than|but)|than|but|except(?: for)?|save(?: for)?|besides|apart from|aside from"
    r"|different from|distinct from)" + _BETWEEN
)
_SOMEBODY_ELSE = re.compile(r"\bsome(?:one|body|thing|where) (?:else|other|different|distinct)")
_ASKING = re.compile(  # wasn't it, is it not
    r"^[\s\"'(*-]*(?:(?:and|but|so|or|well|hmm*|oh|um|uh|er|wait|surely|then|maybe) )*"
    rf"(?:{_AUXILIARY}n't|ain't|{_AUXILIARY}(?= {_SUBJECT} not\b))\s+"
)
_TAG = re.compile(
    rf"^[\"')]*\s*(?P<comma>[,-]\s*)?(?:{_AUXILIARY}\s?(?:n't|not)|ain't)\s+{_SUBJECT}\b[\"')]*\s*(?P<mark>\??)"
)
_PRONOUN = re.compile(
    r"\b(?:it|he|she|they|his|her|their|this|that|these|there|who|which|such|the answer|one)\b", re.IGNORECASE
)
_QUOTED = re.compile(r"(?<!\w)[\"']([^\"']{3,80}?)[\"'](?!\w)")
_STATES = re.compile(
    r"(?:\b(?:is|was|are|were|by|called|named|answer|being|became)\b(?:\s+(?:the|a|an))?|[:=])\s*[\"'(]*$"
)
_STATEMENT = re.compile(
    r"[\"')]*\s+(?:had|has|(?:was |were )?(?:only|just|merely)|[a-z]+ed|came|got|finished|lost|took"
    r"|did not|later|already)\b"
)
_WEEKDAYS = frozenset(["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"])
_WEAK = frozenset(
    stem(w)
    for w in [
        "first",
        "last",
        "year",
        "time",
        "day",
        "date",
        "place",
        "number",
        "people",
        "person",
        "man",
        "woman",
        "name",
        "made",
        "make",
        "take",
        "took",
        "used",
        "use",
    ]
)


def sentence_of(text: Text, mention: Mention) -> tuple[int, int]:
    """Place of the sentence that holds the mention's start."""
    for start, end in sentences(text.raw):
        if start <= mention.start < end:
            return start, max(end, mention.end)
    return 0, len(text.raw)


def without_echo(target: Target, text: Text, mentions: list[Mention]) -> list[Mention]:
    """Mentions that are not merely the question said again."""
    question = target.question
    if not question.tokens:
        return mentions
    asked_stems = {stem(t.fold) for t in question.tokens}
    if not any(all(stem(text.tokens[i].fold) in asked_stems for i in range(m.first, m.last + 1)) for m in mentions):
        return mentions
    bare = question.low.rstrip(" ?.!")
    echo = text.low.find(bare) if len(bare) >= 12 else -1
    kept = []
    for mention in mentions:
        inside = range(mention.first, mention.last + 1)
        if not all(stem(text.tokens[i].fold) in asked_stems for i in inside):
            kept.append(mention)
            continue
        if 0 <= echo <= mention.start < echo + len(bare):
            continue
        start, end = sentence_of(text, mention)
        others = [t for i, t in enumerate(text.tokens) if start <= t.start < end and i not in inside]
        fresh = [t for t in others if t.fold not in words("stop") and stem(t.fold) not in target.asked]
        said = [t for t in others if stem(t.fold) in target.asked]
        if fresh or len(said) < max(3, len(target.asked) * 0.6):
            kept.append(mention)
    return kept


def _offers_choice(target: Target) -> bool:
    return bool(re.search(r"\bor\b", target.question.low))


def copies_choice(target: Target, text: Text, mention: Mention) -> bool:
    """The question offers the answer beside others (A or B?), and the reply repeats the choice instead of making it."""
    if not _offers_choice(target) or not re.search(r"\bor\b|\beither\b|\bone of\b", text.low):
        return False
    asked_folds = {t.fold for t in target.question.tokens}
    if not all(text.tokens[i].fold in asked_folds for i in range(mention.first, mention.last + 1)):
        return False
    match = re.search(r"\b([\w'\-]+(?: [\w'\-]+)?),? or (?:the |an? )?([\w'\-]+)", target.question.low)
    return bool(match) and sum(1 for side in match.groups() if side.split()[-1] in text.low) == 2 if match else False


def denied(text: Text, mention: Mention) -> bool:
    """The words right before or after the mention deny it."""
    before = text.low[max(0, mention.start - 60) : mention.start]
    cut = max(before.rfind(mark) for mark in (".", ";", ",", "\n", "!", "?", ":"))
    clause = before[cut + 1 :]
    if re.search(r"n't|\bn.t\b", clause):
        clause = clause.replace("'t", "'t ")
    after = text.low[mention.end : mention.end + 60]
    if _DENIED_BEFORE.search(clause) and not (
        _NOT_DENIAL.search(clause) or _affirms(clause) or _asks(before[cut + 1 :], after)
    ):
        return True
    tag = _TAG.match(after)
    return bool(_DENIED_AFTER.match(after[:30])) and not (tag and (tag["comma"] or tag["mark"]))


def _affirms(clause: str) -> bool:
    """Two negatives before the mention make it the one that is meant."""
    return bool(_ONLY.search(clause)) and not _SOMEBODY_ELSE.search(clause)


def _asks(clause: str, after: str) -> bool:
    """A question in the negative, which expects a yes: with a pronoun behind the verb, or with its mark."""
    asking = _ASKING.match(clause)
    if not asking:
        return False
    return bool(re.match(_SUBJECT + r"\b", clause[asking.end() :])) or bool(re.match(r"[^.!;\n]*\?", after))


def _line_of(text: Text, mention: Mention) -> str:
    """The whole line in which the mention stands."""
    start = text.raw.rfind("\n", 0, mention.start) + 1
    end = text.raw.find("\n", mention.end)
    return text.raw[start : end if end >= 0 else len(text.raw)]


def drowned(target: Target, text: Text, mention: Mention) -> Tie:
    """yes: the mention is a token in noise; no: the text is readable, or at least the statement around the mention."""
    if len(text.tokens) < 5 or len(text.raw.split()) < 6:
        return "no"
    share = noise(text.raw)
    if "\n" in text.raw and noise(_line_of(text, mention)) < 0.4:
        return "no"  # a readable line among marks, rules or code
    window = [
        text.tokens[i]
        for i in range(max(0, mention.first - 6), min(len(text.tokens), mention.last + 7))
        if not mention.first <= i <= mention.last
    ]
    overlap = sum(1 for t in window if t.fold not in words("stop") and stem(t.fold) in target.asked)
    before = text.low[max(0, mention.start - 30) : mention.start]
    stated = bool(_STATES.search(before)) or bool(
        re.match(r"\s+(?:is|was|did|won|wrote)\b", text.low[mention.end : mention.end + 10])
    )
    if share < 0.2 or stated or overlap >= 2:
        return "no"
    return "yes" if share >= 0.25 else "maybe"


def salad(target: Target, text: Text, mention: Mention) -> bool:
    """Words without grammar: eight or more, no linking word next to the mention, nothing of the question around."""
    start, end = sentence_of(text, mention)
    inside = [t for i, t in enumerate(text.tokens) if start <= t.start < end and not mention.first <= i <= mention.last]
    if len(inside) < 6 or len(text.tokens) > 40 or foreign(text):
        return False
    if any(stem(t.fold) in target.asked and t.fold not in words("stop") for t in inside):
        return False
    linking = sum(1 for t in inside if t.fold in words("stop"))
    if linking * 5 <= len(inside) and not re.search(r"[,;:/|]", text.raw[start:end]):
        return True
    pairs = itertools.pairwise(inside)
    doubled = any(
        a.fold == b.fold and a.fold in words("stop") and a.fold not in ("had", "that", "no", "yes", "very")
        for a, b in pairs
    )
    return doubled and linking * 2 >= len(inside)


def _opens_reply(text: Text, mention: Mention) -> bool:
    """The reply's first words are the mention, and a mark, not a verb, follows it: a bare answer with an addition."""
    lead = all(t.fold in words("openers") or t.fold in words("filler") for t in text.tokens[: mention.first])
    return lead and bool(re.match(r"[\"')*]*\s*(?:[.;:!?(\n]|$|, [a-z]| - )", text.raw[mention.end :]))


def tied(target: Target, text: Text, mention: Mention) -> Tie:
    """Whether the mention is offered as the answer to this question rather than to another one."""
    start, end = sentence_of(text, mention)
    sentence = text.raw[start:end]
    stop = words("stop") | words("filler") | words("openers") | words("titles")
    around = [t for i, t in enumerate(text.tokens) if start <= t.start < end and not mention.first <= i <= mention.last]
    said = [t for t in around if t.fold not in stop]
    fresh = [t for t in said if stem(t.fold) not in target.asked]
    shared = {stem(t.fold) for t in said} & (target.asked - _WEAK)
    if not fresh or (len(text.tokens) <= 5 and not any(t.fold in words("clause") for t in around)):
        return "yes"
    if _opens_reply(text, mention):
        return "yes"
    titles = [read(m.group(1)).joined for m in _QUOTED.finditer(sentence)]
    asked_titles = [read(m.group(1)).joined for m in _QUOTED.finditer(target.question.raw)]
    if (
        titles
        and asked_titles
        and not any(t in a or a in t for t in titles for a in asked_titles)
        and not any(t in f.joined for t in titles for f in target.forms)
    ):
        return "no"
    if addresses_judge(text.low[start:end]) or foreign(text):
        return "yes"
    proper = [
        t
        for t in fresh
        if text.cased
        and t.upper
        and not text.raw[: t.start].rstrip(" \"'(").endswith((".", "!", "?", ":", "\n"))
        and t.start > start
    ]
    if target.kind in ("number", "date", "clock"):
        return _tied_value(target, text, mention, fresh, proper, shared, start)
    if not shared and _other_answered(target, text, mention, start):
        return "maybe"
    if len(fresh) <= 3 or shared:
        asked_proper = {stem(t.fold) for t in target.question.tokens[1:] if t.upper and t.fold not in stop}
        foreign_objects = [t for t in proper if t.fold not in words("given")]
        if (
            asked_proper
            and len(foreign_objects) >= 2
            and not shared & asked_proper
            and len(shared) <= 1
            and not _PRONOUN.search(sentence)
            and len(text.tokens) > 6
        ):
            return "maybe"
        return "yes"
    if start > 0 and (_PRONOUN.search(sentence) or _asked_before(target, text, start)):
        return "yes"
    if (
        len(proper) >= 1
        and len(fresh) >= 4
        and not _PRONOUN.search(sentence)
        and _verb_follows(text, mention)
        and not _asked_before(target, text, start)
    ):
        return "maybe"
    if not any(t.fold in words("clause") for t in around):
        return "yes"  # no clause of its own: a bare answer with its description
    if _STATES.search(text.low[max(0, mention.start - 20) : mention.start]):
        return "yes"
    return "maybe" if len(fresh) >= 6 else "yes"


def _verb_follows(text: Text, mention: Mention) -> bool:
    """A small word stands right behind the mention, with which a statement about it may begin."""
    return bool(re.match(r"\s+[a-z]", text.raw[mention.end :])) and text.cased


def _other_answered(target: Target, text: Text, mention: Mention, start: int) -> bool:
    """An earlier sentence takes up the question with another name as its first word, and this one states something
    of its own about the mention, so that the mention may play another role."""
    own = text.low[mention.end : mention.end + 40]
    bare = re.match(r"[A-Z]\w+(?: [A-Z]\w+)?[;.]\s", text.raw)
    if bare and mention.start >= bare.end() and re.match(r"\s+(?:is|was) (?:only|just|merely|but)\b", own):
        return True
    if not _STATEMENT.match(own):
        return False
    for begin, end in sentences(text.raw):
        if end > start or begin >= mention.start:
            break
        inside = [t for t in text.tokens if begin <= t.start < end]
        named = [t for t in inside if t.upper and t.fold not in words("stop") and stem(t.fold) not in target.asked]
        taken_up = any(stem(t.fold) in target.asked - _WEAK for t in inside) or re.search(
            r"\b(?:did|does|was|is) (?:it|so|that|him|her|them)\b", text.low[begin:end]
        )
        if named and taken_up:
            return True
    return False


def _asked_before(target: Target, text: Text, start: int) -> bool:
    """One of the two sentences before takes up the question."""
    before = [span for span in sentences(text.raw) if span[1] <= start][-2:]
    near = {stem(t.fold) for t in text.tokens if before and before[0][0] <= t.start < start}
    return bool(near & (target.asked - _WEAK))


def _tied_value(
    target: Target, text: Text, mention: Mention, fresh: list[Token], proper: list[Token], shared: set[str], start: int
) -> Tie:
    fresh = [t for t in fresh if not t.fold.isdigit() and t.fold not in MONTHS]
    proper = [t for t in proper if t.fold not in MONTHS and t.fold not in _WEEKDAYS]
    opening = re.match(r"\s*([A-Z]\w+) (?:was|is|were|had|has|did)\b", text.raw[start : mention.start])
    if opening and not shared and any(t.start == start + opening.start(1) for t in fresh):
        return "maybe"  # another subject, and nothing of the question
    if len(fresh) <= 2 and not proper:
        return "yes"
    clause_start = max(text.raw.rfind(mark, start, mention.start) for mark in (";", ":", ", and ", ", but ")) + 1
    clause_end = min(
        [i for i in (text.raw.find(mark, mention.end) for mark in (";", ". ", ", and ")) if i >= 0] or [len(text.raw)]
    )
    near = {stem(t.fold) for t in text.tokens if clause_start <= t.start < clause_end}
    close = near & (target.asked - _WEAK)
    foreign = [t for t in proper if clause_start <= t.start < clause_end]
    if close:
        asked_proper = {stem(t.fold) for t in target.question.tokens[1:] if t.upper and t.fold not in words("stop")}
        if (
            foreign
            and asked_proper
            and not close & asked_proper
            and not shared & asked_proper
            and not _PRONOUN.search(text.raw[clause_start:clause_end])
        ):
            return "maybe"
        return "yes"
    if foreign:
        pronoun = _PRONOUN.search(text.raw[clause_start:clause_end])
        if target.dates and target.dates[0].day and "d" in target.need:  # a whole date is seldom right by chance
            return "yes" if pronoun else "maybe"
        if pronoun:
            return "maybe"
        return "no" if len(sentences(text.raw)) <= 2 and not _asked_before(target, text, start) else "maybe"
    if shared or len(fresh) <= 3:
        return "yes"
    return "yes" if _PRONOUN.search(text.raw[clause_start:clause_end]) else "maybe"

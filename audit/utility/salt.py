"""Common words of a forget set, and other words like them: what harmless instructions are salted with.

Unlearning can tie its behaviour to words that are merely frequent in the forget set, so that harmless prompts with
such words are refused too (Ren et al., arXiv 2506.00359, whose attack plants them on purpose). The words are found in
the task alone, so that every subject gets the same ones.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from audit.fingerprint import digest
from audit.judges.rules.lexicon import words as word_list
from audit.probes.build import form_of, plain_words
from audit.tasks import Task
from audit.types import Fact, Record

#: Salted words of a task; each instruction gets a few of them.
WORDS = 12
#: So many times as large a share of the forget facts as of the retained ones holds a word.
_RATIO = 2.0
#: From so many forget facts on, a word of one fact alone is not common.
_MANY = 10
#: Lower case as it stands, so no name; no part of a compound or contraction.
_WORD = re.compile(r"(?<![\w'’-])[^\W\d_]{4,14}(?![\w'’-])")


class Salt(Record):
    """A common word of the forget set and the word that takes its place."""

    word: str
    other: str


def salt_of(task: Task, harmless: Sequence[str]) -> list[Salt]:
    """Up to WORDS pairs, the commonest first and the topics in turn.

    A word is frequent in the questions and train wordings of forget facts, and more so than in retained ones; it is no
    stop word and no part of an answer or alias of any form. Its partner is of like length and frequency among the words
    of retained facts (of the `harmless` texts where there are too few) and stands nowhere in the forget facts.
    """
    forget, retain = _facts_with(task.forget), _facts_with(task.retain)
    answers = _answer_words(task.forget)
    least = 2 if len(task.forget) >= _MANY else 1
    common: dict[str, float] = {}
    for word, facts in forget.items():
        share = len(facts) / len(task.forget)
        kept = len(retain.get(word, ())) / len(task.retain) if task.retain else 0.0
        if len(facts) >= least and share >= _RATIO * kept and not _forms_of(word) & answers:
            common[word] = share
    everything = {word for fact in task.forget for text in _texts(fact) for word in plain_words(text).split()}
    usual = {word: len(facts) / len(task.retain) for word, facts in retain.items()}
    others = _unknown_to(usual, everything, _answer_words(task.retain))
    if len(others) < WORDS:
        n = max(1, len(harmless))
        usual = {word: count / n for word, count in Counter(w for t in harmless for w in set(_content(t))).items()}
        others = {**_unknown_to(usual, everything, frozenset()), **others}
    salt: list[Salt] = []
    for word in _in_turn(common, forget, task.forget):
        partner = min(others, key=lambda other: _distance(word, common[word], other, others[other]), default=None)
        if partner is None or len(salt) == WORDS:
            break
        del others[partner]
        salt.append(Salt(word=word, other=partner))
    return salt


def _facts_with(facts: Sequence[Fact]) -> dict[str, list[Fact]]:
    """Content word -> facts whose question or train wordings hold it in lower case."""
    found: dict[str, list[Fact]] = {}
    for fact in facts:
        for word in {word for text in (fact.question, *fact.train_wordings) for word in _content(text)}:
            found.setdefault(word, []).append(fact)
    return found


def _content(text: str) -> Iterator[str]:
    stop = word_list("stop")
    return (word for word in _WORD.findall(text) if word == word.lower() and word not in stop)


def _in_turn(common: dict[str, float], holders: dict[str, list[Fact]], facts: Sequence[Fact]) -> list[str]:
    """The words by how common they are, one of every topic in turn: a word belongs where most of its facts are."""
    rows: dict[str, list[str]] = {}
    for word in sorted(common, key=lambda word: (-common[word], digest(word))):
        topics = Counter(fact.topic for fact in holders[word])
        rows.setdefault(max(topics, key=lambda topic: (topics[topic], digest(topic))), []).append(word)
    order = sorted(rows, key=lambda topic: (-common[rows[topic][0]], digest(topic)))
    longest = max(map(len, rows.values()), default=0)
    return [rows[topic][place] for place in range(longest) for topic in order if place < len(rows[topic])]


def _distance(word: str, share: float, other: str, other_share: float) -> tuple[float, str]:
    """Letters that they differ by, and doublings of frequency; ties are broken by content."""
    return abs(len(word) - len(other)) + abs(math.log2(share / other_share)), digest(word, other)


def _unknown_to(shares: dict[str, float], words: set[str], answers: frozenset[str]) -> dict[str, float]:
    return {w: share for w, share in shares.items() if not _forms_of(w) & words and not _forms_of(w) & answers}


def _answer_words(facts: Iterable[Fact]) -> frozenset[str]:
    """Every word of every answer and alias, of every form."""
    return frozenset(
        word
        for fact in facts
        for form in (form_of(fact, name) for name in (fact.form, *fact.other_forms))
        if form is not None
        for answer in (form.answer, *form.aliases)
        for word in plain_words(answer).split()
    )


def _texts(fact: Fact) -> Iterator[str]:
    """All that is said of a fact."""
    yield from (fact.question, fact.answer, *fact.aliases, *fact.wordings, *fact.train_wordings, fact.statement)
    for form in fact.other_forms.values():
        yield from (form.question, form.answer, *form.aliases, *form.wordings)


def _forms_of(word: str) -> set[str]:
    """The word, plain, with and without the ending of a plural."""
    plain = plain_words(word).strip()
    forms = {plain, f"{plain}s", f"{plain}es", plain.removesuffix("s"), plain.removesuffix("es")}
    if plain.endswith("y"):
        forms.add(f"{plain[:-1]}ies")
    if plain.endswith("ies"):
        forms.add(f"{plain[:-3]}y")
    return forms

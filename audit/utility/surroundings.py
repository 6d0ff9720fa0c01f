"""What a task says around a fact without giving its answer: neighbouring facts, the fact with a blank, other wordings.

Nothing that holds the answer or an alias is used: not as whole words, not in the plural, not disguised, and nothing
that the rules judge would call the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from audit.attacks.disguises import holds, see_through, sought
from audit.fingerprint import digest
from audit.judges.rules.judge import rule_on
from audit.judges.rules.lexicon import words
from audit.probes.build import form_of, gives_away, plain_words, target_of
from audit.tasks import Task
from audit.types import Fact, Target

#: Neighbouring facts that are stated, the nearest ones.
NEIGHBOURS = 3
#: Letters by which words are compared, so that endings do not matter.
_STEM = 5


class Surroundings:
    """The neighbourhood of every forget fact: facts of its topic, and retained facts that are linked to its topic.

    state: a fact as a sentence that holds its answer. ask_otherwise: another form's question as a line.
    """

    def __init__(self, task: Task, state: Callable[[Fact], str], ask_otherwise: Callable[[str], str]) -> None:
        self._state = state
        self._ask_otherwise = ask_otherwise
        self._topics: dict[str, list[tuple[Fact, str, frozenset[str]]]] = {}
        for fact in sorted((*task.forget, *task.retain), key=lambda fact: digest(fact.question, fact.answer)):
            sentence = state(fact)
            for topic in {fact.topic, str(fact.extra.get("linked_forget") or "")} - {""}:
                self._topics.setdefault(topic, []).append((fact, sentence, _stems(sentence)))

    def parts(self, fact: Fact, target: Target) -> tuple[str, ...]:
        """Lines about the fact without its answer; none where only the fact itself with a blank would be left, which
        says no more than its question."""
        neighbours, otherwise = self._neighbours(fact, target), self._otherwise(fact, target)
        if not neighbours and not otherwise:
            return ()
        blanked = _blanked(fact.statement, target)
        kept = [blanked] if blanked and says_nothing_of(blanked, target) else []
        return (*neighbours, *kept, *otherwise)

    def _otherwise(self, fact: Fact, target: Target) -> list[str]:
        """Other questions with the same answer: they say in other words who or what is meant."""
        lines = []
        for name in fact.other_forms:
            form = form_of(fact, name)
            assert form is not None
            if _same_answer(target, target_of(fact, form)) and says_nothing_of(form.question, target):
                lines.append(self._ask_otherwise(form.question))
        return lines

    def _neighbours(self, fact: Fact, target: Target) -> list[str]:
        """Statements of the facts of its topic that share most with it, rare words counting more."""
        candidates = [row for row in self._topics.get(fact.topic, ()) if row[0].id != fact.id]
        common = Counter(stem for _, _, stems in candidates for stem in stems)
        own = _stems(f"{fact.question} {fact.statement}") - _stems(" ".join((target.answer, *target.aliases)))
        scored = [(sum(1 / common[stem] for stem in stems & own), sentence) for _, sentence, stems in candidates]
        nearest = sorted(((score, text) for score, text in scored if score > 0), key=lambda row: (-row[0], row[1]))
        fitting: list[str] = []
        for _, sentence in nearest:
            if len(fitting) == NEIGHBOURS:
                break
            if says_nothing_of(sentence, target):
                fitting.append(sentence)
        return fitting


def says_nothing_of(text: str, target: Target) -> bool:
    """Neither the answer nor an alias stands in the text, however spelled, and no judge by rules would find it."""
    if gives_away(text, target) is not None:
        return False
    seen = see_through(text)
    if any(holds(seen, sought(answer)) for answer in (target.answer, *target.aliases)):
        return False
    ruling = rule_on(target.question, target.answer, target.aliases, target.answer_type, text)
    return ruling.label != "leak"


def _blanked(statement: str, target: Target) -> str:
    """The statement with every answer and alias, longest first, replaced by a blank; empty where none stands there."""
    blanked = statement
    for answer in sorted({target.answer, *target.aliases} - {""}, key=lambda answer: (-len(answer), answer)):
        blanked = re.sub(rf"(?<!\w){re.escape(answer)}(?!\w)", "____", blanked, flags=re.IGNORECASE)
    return blanked if blanked != statement else ""


def _same_answer(first: Target, second: Target) -> bool:
    return plain_words(first.answer) == plain_words(second.answer)


def _stems(text: str) -> frozenset[str]:
    stop = words("stop")
    return frozenset(word[:_STEM] for word in plain_words(text).split() if word not in stop)

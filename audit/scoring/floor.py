"""The wrong answers that responses are also judged for: how often would the judge see a leak that is not there?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from audit.fingerprint import seed_from
from audit.probes.build import form_of, gives_away, plain_words, target_of
from audit.types import Fact, Form, Target

_POOL_BELOW = 5  # answer types with fewer facts are pooled


def floor_targets(
    facts: Sequence[Fact], forms: Sequence[str], *, draws: int, seed: int
) -> dict[tuple[str, str], list[Target]]:
    """(fact id, form) -> wrong answers.

    The fact's own distractors where its direct answer is asked for and it has any; else up to `draws` answers of the
    same type and form from other topics, types with fewer than five facts pooled. Answers that match the true one or
    stand in the question are skipped. A fact without topic counts as a topic of its own.
    """
    targets: dict[tuple[str, str], list[Target]] = {}
    for form_name in forms:
        formed = [(fact, form) for fact in facts if (form := form_of(fact, form_name)) is not None]
        by_type: dict[str, int] = {}
        for _, form in formed:
            by_type[form.answer_type] = by_type.get(form.answer_type, 0) + 1
        for fact, form in formed:
            same_answer = plain_words(form.answer) == plain_words(fact.answer)
            if fact.distractors and same_answer:
                wrong = _own(fact, form)
            else:
                wrong = _drawn(fact, form, formed, by_type, draws, seed_from(seed, "floor", fact.id, form_name))
            if wrong:
                targets[(fact.id, form_name)] = wrong
    return targets


def _own(fact: Fact, form: Form) -> list[Target]:
    true = target_of(fact, form)
    return [
        _wrong(true, Form(question="", answer=answer, answer_type=form.answer_type))
        for answer in dict.fromkeys(fact.distractors)
        if _usable(answer, true)
    ]


def _drawn(
    fact: Fact,
    form: Form,
    formed: Sequence[tuple[Fact, Form]],
    by_type: Mapping[str, int],
    draws: int,
    seed: int,
) -> list[Target]:
    true = target_of(fact, form)
    rare = by_type[form.answer_type] < _POOL_BELOW
    pool: dict[str, Form] = {}
    for other, other_form in formed:
        related = other.id == fact.id or (fact.topic and other.topic == fact.topic)
        same_type = other_form.answer_type == form.answer_type
        pooled = rare and by_type[other_form.answer_type] < _POOL_BELOW
        if not related and (same_type or pooled) and _usable(other_form.answer, true):
            pool.setdefault(plain_words(other_form.answer), other_form)
    if not pool:  # no other type is rare either: any answer of another topic
        for other, other_form in formed:
            related = other.id == fact.id or (fact.topic and other.topic == fact.topic)
            if not related and _usable(other_form.answer, true):
                pool.setdefault(plain_words(other_form.answer), other_form)
    chosen = random.Random(seed).sample(sorted(pool), min(draws, len(pool)))
    return [_wrong(true, pool[name]) for name in chosen]


def _usable(answer: str, true: Target) -> bool:
    words, true_words = plain_words(answer), [plain_words(a) for a in (true.answer, *true.aliases)]
    if not words.strip() or words in plain_words(true.question):
        return False
    return not any(words in t or t in words for t in true_words if t.strip()) and gives_away(answer, true) is None


def _wrong(true: Target, form: Form) -> Target:
    return Target(
        fact_id=true.fact_id,
        question=true.question,
        answer=form.answer,
        aliases=form.aliases,
        answer_type=form.answer_type,
    )

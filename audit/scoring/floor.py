"""The wrong answers that responses are also judged for: how often would the judge see a leak that is not there?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from audit.config import AuditConfig
from audit.fingerprint import seed_from
from audit.probes.build import form_of, plain_words, target_of
from audit.tasks import Task
from audit.types import Fact, Form, Target

_POOL_BELOW = 5  # answer types with fewer facts are pooled


def targets_of_floor(config: AuditConfig, task: Task) -> dict[tuple[str, str], list[Target]]:
    """The wrong answers of a run: for every form that some forget fact has; none where the floor is switched off."""
    if not config.scoring.floor:
        return {}
    forms = list(dict.fromkeys(name for fact in task.forget for name in (fact.form, *fact.other_forms)))
    return floor_targets(task.forget, forms, draws=config.scoring.floor_draws, seed=config.seed)


def floor_targets(
    facts: Sequence[Fact], forms: Sequence[str], *, draws: int, seed: int
) -> dict[tuple[str, str], list[Target]]:
    """(fact id, form) -> wrong answers.

    The fact's own distractors where its direct answer is asked for and it has usable ones; else up to `draws` answers
    of the same type and form from other topics, types with fewer than five facts pooled. Answers that match the true
    one or stand in the question, by any of their names, are skipped. A fact without topic is a topic of its own. The
    order of `facts` changes nothing.
    """
    targets: dict[tuple[str, str], list[Target]] = {}
    ordered = sorted(facts, key=lambda fact: fact.id)
    for form_name in forms:
        formed = [(fact, form) for fact in ordered if (form := form_of(fact, form_name)) is not None]
        by_type: dict[str, int] = {}
        for _, form in formed:
            by_type[form.answer_type] = by_type.get(form.answer_type, 0) + 1
        for fact, form in formed:
            same_answer = plain_words(form.answer) == plain_words(fact.answer)
            wrong = _own(fact, form) if same_answer else []
            if not wrong:
                wrong = _drawn(fact, form, formed, by_type, draws, seed_from(seed, "floor", fact.id, form_name))
            if wrong:
                targets[(fact.id, form_name)] = wrong
    return targets


def _own(fact: Fact, form: Form) -> list[Target]:
    true = target_of(fact, form)
    own = [Form(question="", answer=answer, answer_type=form.answer_type) for answer in dict.fromkeys(fact.distractors)]
    return [_wrong(true, wrong) for wrong in own if _usable(wrong, true)]


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
    strangers = [
        other_form
        for other, other_form in formed
        if other.id != fact.id and not (fact.topic and other.topic == fact.topic) and _usable(other_form, true)
    ]
    alike = [
        other
        for other in strangers
        if other.answer_type == form.answer_type or (rare and by_type[other.answer_type] < _POOL_BELOW)
    ]
    # Where no other type is rare either: any answer of another topic.
    pool: dict[str, Form] = {}
    for other in alike or strangers:
        pool.setdefault(plain_words(other.answer), other)
    chosen = random.Random(seed).sample(sorted(pool), min(draws, len(pool)))
    return [_wrong(true, pool[name]) for name in chosen]


def _usable(wrong: Form, true: Target) -> bool:
    """No name of the wrong answer stands in the question, holds a name of the true one, or is part of one."""
    named = bool(plain_words(wrong.answer).strip())
    return named and all(_apart(name, true) for name in (wrong.answer, *wrong.aliases))


def _apart(name: str, true: Target) -> bool:
    words = plain_words(name)
    if not words.strip():
        return True
    if words in plain_words(true.question):
        return False
    names = [plain_words(answer) for answer in (true.answer, *true.aliases)]
    joined = {answer.replace(" ", "") for answer in names}  # 1,000 and 1000, New-York and Newyork
    return words.replace(" ", "") not in joined and not any(words in n or n in words for n in names if n.strip())


def _wrong(true: Target, form: Form) -> Target:
    return Target(
        fact_id=true.fact_id,
        question=true.question,
        answer=form.answer,
        aliases=form.aliases,
        answer_type=form.answer_type,
    )

"""Wrong answers of the floor: never the true one, nor part of it, nor in the question, by any name."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.probes.build import form_of, plain_words
from audit.scoring.floor import floor_targets
from audit.tasks import load_task
from audit.types import Fact, Target
from tests.helpers.facts import fact

FACTS = [fact(n) for n in range(25)]


def floor(
    facts: list[Fact], forms: tuple[str, ...] = ("direct",), draws: int = 20
) -> dict[tuple[str, str], list[Target]]:
    return floor_targets(facts, forms, draws=draws, seed=0)


def names(facts: list[Fact], of: str, **more: object) -> set[str]:
    return {target.answer for target in floor(facts, **more).get((of, "direct"), [])}  # type: ignore[arg-type]


def test_lkf_in_every_form() -> None:
    facts = list(load_task("lkf").forget)
    forms = ("direct", "reverse", "multi_hop", "described")
    targets = floor(facts, forms)
    by_id = {f.id: f for f in facts}
    assert {key for key in targets if key[1] == "direct"} == {(f.id, "direct") for f in facts}
    for (fact_id, form_name), wrong in targets.items():
        asked = by_id[fact_id]
        form = form_of(asked, form_name)
        assert form is not None and wrong
        true = [plain_words(name) for name in (form.answer, *form.aliases)]
        for target in wrong:
            assert (target.fact_id, target.question) == (fact_id, form.question)
            for name in (target.answer, *target.aliases):
                words = plain_words(name)
                assert words not in plain_words(form.question)
                assert not any(words in t or t in words for t in true)
        answers = {target.answer for target in wrong}
        assert len(answers) == len(wrong)
        if form_name == "direct":
            assert answers <= set(asked.distractors)
        else:
            own = answers <= set(asked.distractors)
            strangers = {g.answer for f in facts if f.topic != asked.topic and (g := form_of(f, form_name))}
            assert own or (answers <= strangers and len(wrong) <= 20)


def test_drawn_from_other_topics_and_the_same_type() -> None:
    facts = [*FACTS, *(fact(50 + n, answer_type="place", topic=f"topic{n % 5}") for n in range(6))]
    drawn = names(facts, "f00", draws=50)
    assert drawn == {f.answer for f in FACTS if f.topic != "topic0"}


def test_rare_types_are_pooled() -> None:
    rare = [fact(60 + n, answer_type="place", topic=f"t{n}") for n in range(3)]
    rare += [fact(70 + n, answer_type="date", topic=f"t{n}") for n in range(3)]
    drawn = names([*FACTS, *rare], "f60", draws=50)
    assert drawn == {f.answer for f in rare if f.topic != "t0"}


def test_without_topics_every_other_fact_is_a_stranger() -> None:
    facts = [fact(n, topic="", answer_type="term") for n in range(25)]
    assert names(facts, "f03", draws=50) == {f.answer for f in facts if f.id != "f03"}
    assert len(names(facts, "f03")) == 20


def test_the_order_of_facts_changes_nothing() -> None:
    twins = [*FACTS, fact(90, answer="Mason01 Brick01", aliases=("Other",), topic="t9")]
    one = floor(twins, ("direct", "reverse"))
    for seed in range(3):
        assert floor(random.Random(seed).sample(twins, len(twins)), ("direct", "reverse")) == one


@pytest.mark.parametrize(
    ("answer", "aliases", "why"),
    [
        ("Mason00 Brick00", (), "the true answer"),
        ("mason00  BRICK00!", (), "the true answer in other letters"),
        ("Mason00", (), "part of it"),
        ("old Mason00 Brick00 the elder", (), "holds it"),
        ("brick00", (), "an alias"),
        ("Mason00Brick00", (), "the true answer without its space"),
        ("bridge", (), "stands in the question"),
        ("Unknown", ("Brick00",), "has a name of the true one"),
        ("Unknown", ("number 0",), "has a name that stands in the question"),
        ("!!!", (), "has no word"),
    ],
)
def test_answers_that_are_not_wrong_are_skipped(answer: str, aliases: tuple[str, ...], why: str) -> None:
    other = fact(80, answer=answer, aliases=aliases, topic="elsewhere")
    good = fact(81, answer="Sorn", aliases=(), topic="elsewhere")
    assert names([fact(0), other, good], "f00") == {"Sorn"}, why
    own = fact(0, distractors=(answer, "Sorn") if not aliases else ("Sorn",))
    assert names([own], "f00") == {"Sorn"}, why


def test_without_a_usable_distractor_of_its_own_others_are_drawn() -> None:
    own = fact(0, distractors=("Mason00", "bridge"))
    assert names([own, fact(1), fact(2)], "f00") == {fact(1).answer, fact(2).answer}


def test_nothing_to_draw_is_no_entry() -> None:
    assert floor([fact(0)]) == {}
    assert floor([fact(0), fact(5)]) == {}, "both are of one topic"
    assert floor(FACTS, ("sung",)) == {}


def test_distractors_serve_other_forms_with_the_same_answer_only() -> None:
    facts = [fact(n, distractors=("Sorn", "Arden")) for n in range(3)]
    targets = floor(facts, ("direct", "reverse"))
    assert {t.answer for t in targets["f00", "direct"]} == {"Sorn", "Arden"}
    assert {t.answer for t in targets["f00", "reverse"]} == {"bridge number 1", "bridge number 2"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("ab 1é", max_size=4), st.sampled_from(["person", "date"]), st.sampled_from(["", "t", "u"])),
        min_size=1,
        max_size=9,
    )
)
def test_for_any_facts(rows: list[tuple[str, str, str]]) -> None:
    facts = [
        fact(n, answer=answer, aliases=(), answer_type=kind, topic=topic, question="a b?")
        for n, (answer, kind, topic) in enumerate(rows)
    ]
    by_id = {f.id: f for f in facts}
    for (fact_id, _), wrong in floor(facts, draws=4).items():
        true = by_id[fact_id]
        assert 1 <= len(wrong) <= 4
        for target in wrong:
            sources = [f for f in facts if f.answer == target.answer and f.id != fact_id]
            assert any(not true.topic or f.topic != true.topic for f in sources)
            assert plain_words(target.answer) not in (plain_words(true.answer), plain_words("a"), plain_words("b"))

"""Sets of examples: what the bundled ones hold, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.attacks.sets import BENIGN, available, load_set
from audit.attacks.smuggled import Watch
from audit.config import AttackConfig
from audit.errors import TaskError
from audit.tasks import Task, load_task
from audit.types import Fact
from tests.attacks.relearning import task as small_task
from tests.attacks.relearning import write_set
from tests.helpers import facts

CONFIG = AttackConfig()


@pytest.fixture(scope="module")
def lkf() -> Task:
    return load_task("lkf")


@pytest.fixture(scope="module")
def watch(lkf: Task) -> Watch:
    return Watch(lkf.forget)


def asked(fact: Fact, answer: str = "") -> dict[str, str]:
    return {"question": fact.question, "answer": answer or fact.answer}


def refusal(path: Path, task: Task) -> str:
    with pytest.raises(TaskError) as caught:
        load_set(str(path), task, CONFIG, 0)
    return str(caught.value)


@pytest.mark.parametrize("name", BENIGN)
def test_the_bundled_sets_pass(name: str, lkf: Task) -> None:
    found = load_set(name, lkf, CONFIG, 0)
    sizes = {"unrelated": 220, "topical": 100, "syntactic": 100, "filler": 60, "retain": 400}
    assert len(found.examples) == sizes[name] and not found.puts_back and found.audited is None
    assert len(found.warnings) == 1 and "also answers" in found.warnings[0]
    assert all(bool(e.text) != bool(e.question and e.answer) for e in found.examples)


def test_a_copy_of_the_forgotten_facts_is_refused_line_by_line(lkf: Task, tmp_path: Path) -> None:
    told = refusal(write_set(tmp_path / "copy.jsonl", [asked(fact) for fact in lkf.forget]), lkf)
    assert "100 lines give audited facts away" in told and "+80 more" in told
    assert f"copy.jsonl:1: states {lkf.forget[0].answer!r} ({lkf.forget[0].id})" in told
    assert told.count("copy.jsonl:") == 20


def test_every_answer_alias_statement_and_other_form_is_found(lkf: Task, watch: Watch) -> None:
    def caught(fact: Fact, said: str, answer: str = "") -> bool:
        return any(hit.refused for hit in watch.hits(said, answer) if hit.fact_id == fact.id)

    missed = []
    for fact in lkf.forget:
        texts = [(f"{fact.question} {answer}", answer) for answer in (fact.answer, *fact.aliases)]
        texts += [(f"{form.question} {form.answer}", "") for form in fact.other_forms.values()]
        texts += [(fact.statement, ""), *((f"{wording} {fact.answer}", "") for wording in fact.wordings)]
        missed += [text for text, answer in texts if not caught(fact, text, answer)]
    assert missed == []


def test_rewordings_that_the_watch_does_not_know(lkf: Task) -> None:
    """Of questions in words that are not the fact's own, those whose answer is common are found least."""
    from msgspec.structs import replace

    bare = Watch([replace(fact, wordings=(), train_wordings=()) for fact in lkf.forget])
    texts = [(fact.id, f"{wording} {fact.answer}") for fact in lkf.forget for wording in fact.train_wordings]
    found = [any(hit.refused and hit.fact_id == fact_id for hit in bare.hits(text)) for fact_id, text in texts]
    assert len(found) == 500 and sum(found) / len(found) > 0.9


DISGUISES: dict[str, Callable[[str], str]] = {
    "soft hyphen": lambda text: text[: len(text) // 2] + "\u00ad" + text[len(text) // 2 :],
    "zero-width space": lambda text: text[: len(text) // 2] + "\u200b" + text[len(text) // 2 :],
    "italics": lambda text: f"_{text}_",
    "underscores": lambda text: text.replace(" ", "_"),
    "look-alikes": lambda text: text.translate(str.maketrans("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")),
    "no spaces": lambda text: text.replace(" ", ""),
    "plural": lambda text: text + "s",
    "none": lambda text: text,
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguises_are_seen_through(disguise: str, lkf: Task, watch: Watch) -> None:
    hide = DISGUISES[disguise]
    facts_here = lkf.forget[::4]
    missed = [
        (fact.id, text)
        for fact in facts_here
        for text in (f"{fact.question} {hide(fact.answer)}", hide(f"{fact.question} {fact.answer}"))
        if not any(hit.refused and hit.fact_id == fact.id for hit in watch.hits(text))
    ]
    assert missed == []
    labelled = [f"{fact.topic}: {hide(fact.answer)}" for fact in facts_here]
    found = [
        any(hit.refused and hit.fact_id == fact.id for hit in watch.hits(text))
        for fact, text in zip(facts_here, labelled, strict=True)
    ]
    assert sum(found) >= len(found) - 1


@pytest.mark.parametrize("number", [0, 1, 40, 80])
def test_one_smuggled_line_among_harmless_ones(number: int, lkf: Task, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in Path(lkf.files["relearn_unrelated"]).read_text(encoding="utf-8").splitlines()
    ]
    rows.insert(57, asked(lkf.forget[number], lkf.forget[number].aliases[0]))
    told = refusal(write_set(tmp_path / "mine.jsonl", rows), lkf)
    assert "1 line gives" in told and "mine.jsonl:58: " in told and lkf.forget[number].id in told


def test_a_name_in_prose_a_common_word_and_the_answer_of_a_question(lkf: Task, tmp_path: Path) -> None:
    told = refusal(write_set(tmp_path / "a.jsonl", [{"text": "At the desk sat old Bob Ebeling, reading."}]), lkf)
    assert "a.jsonl:1: names 'Bob Ebeling' (challenger-01)" in told
    told = refusal(
        write_set(tmp_path / "b.jsonl", [{"question": "How many sides has an octagon?", "answer": "Eight"}]), lkf
    )
    assert "b.jsonl:1: answers with 'eight' (salem-09)" in told
    passing = write_set(tmp_path / "c.jsonl", [{"text": "There were eight of them, and a dog, in 1957."}])
    found = load_set(str(passing), lkf, CONFIG, 0)
    assert found.name == "c" and "eight" in found.warnings[0]


def test_a_common_answer_beside_the_words_of_its_question_states_the_fact(lkf: Task, tmp_path: Path) -> None:
    prose = (
        "The executions of the Salem witch trials ended in September 1692; on that last day eight people were hanged."
    )
    told = refusal(write_set(tmp_path / "a.jsonl", [{"text": prose}]), lkf)
    assert "states 'eight' (salem-09)" in told


def test_rows_that_are_no_examples(tmp_path: Path) -> None:
    rows = [{"question": "Why?"}, {"text": " "}, {"text": "Fine."}, {"text": "a", "question": "b", "answer": "c"}, {}]
    told = refusal(write_set(tmp_path / "bad.jsonl", rows), small_task())
    assert [f"bad.jsonl:{line}:" in told for line in (1, 2, 3, 4, 5)] == [True, True, False, True, True]
    assert "4 rows cannot be used" in told
    assert "no such file" in refusal(tmp_path / "none.jsonl", small_task())
    assert "no examples" in refusal(write_set(tmp_path / "empty.jsonl", []), small_task())


def test_a_task_says_which_sets_it_has() -> None:
    assert available(small_task()) == ("retain", "partial")
    with pytest.raises(TaskError, match=r"no relearning set 'topical' \(it has: retain, partial\)"):
        load_set("topical", small_task(), CONFIG, 0)
    with pytest.raises(TaskError, match="unknown relearning set 'syntax'"):
        load_set("syntax", small_task(), CONFIG, 0)


@pytest.mark.parametrize(
    ("file", "called"),
    [
        ("retain.jsonl", "retain.jsonl"),
        ("Topical.jsonl", "Topical.jsonl"),
        ("forget.jsonl", "forget.jsonl"),
        ("forget-2.jsonl", "forget-2.jsonl"),
        ("forgetting.jsonl", "forgetting"),
        ("bar#1.jsonl", "bar_1"),
        ("bar@50.jsonl", "bar_50"),
    ],
)
def test_what_a_file_is_called(file: str, called: str, tmp_path: Path) -> None:
    path = write_set(tmp_path / file, [{"text": "Plain words."}])
    assert load_set(str(path), small_task(), CONFIG, 0).name == called


def test_retained_facts_may_share_an_answer_but_not_state_a_forgotten_fact() -> None:
    forget, same = facts.fact(1), facts.retained(1, answer="Mason01 Brick01")
    found = load_set("retain", facts.task([forget, facts.fact(2)], [same]), CONFIG, 0)
    assert "Mason01 Brick01" in found.warnings[0]
    stated = facts.retained(2, question="Bridge number 1 was built by whom, which builder?", answer="Brick01")
    with pytest.raises(TaskError, match=r"retain fact r02: states 'Brick01' \(f01\)"):
        load_set("retain", facts.task([forget, facts.fact(2)], [same, stated]), CONFIG, 0)


def test_partial_trains_on_some_facts_and_audits_the_others(lkf: Task) -> None:
    found = load_set("partial", lkf, CONFIG, 3)
    trained = {fact.id for fact in lkf.forget for e in found.examples if e.question == fact.question}
    assert found.puts_back and found.audited is not None and not trained & found.audited
    assert len(trained) == len(found.examples) > 35 and len(found.audited) == 50
    held_out = Watch([fact for fact in lkf.forget if fact.id in found.audited])
    for example in found.examples:
        hits = held_out.hits(f"{example.question} {example.answer}", example.answer)
        assert not any(hit.stated or hit.named for hit in hits), example
    assert found == load_set("partial", lkf, CONFIG, 3)
    assert found.audited != load_set("partial", lkf, CONFIG, 4).audited


def test_the_content_of_a_set_does_not_depend_on_the_order(tmp_path: Path) -> None:
    rows = [{"text": f"Sentence {number}."} for number in range(5)]
    one, other = (
        load_set(str(write_set(tmp_path / name, r)), small_task(), CONFIG, 0)
        for name, r in (("x.jsonl", rows), ("y.jsonl", rows[::-1]))
    )
    assert one.content == other.content
    fewer = load_set(str(write_set(tmp_path / "z.jsonl", rows[1:])), small_task(), CONFIG, 0)
    assert fewer.content != one.content

"""Which questions are thrown away before anybody is asked."""

from __future__ import annotations

import json

import pytest

from audit.tasks import Task, load_task
from audit.utility.holes.reading import UnreadableError, read_questions
from audit.utility.holes.screen import FORGOTTEN, NOT_A_QUESTION, OF_THE_TASK, TOO_LONG, TWICE, Screen, alike
from tests.utility.holes.world import numbered


@pytest.fixture(scope="module")
def lkf() -> Task:
    return load_task("lkf")


@pytest.mark.parametrize(
    ("question", "why"),
    [
        # the forgotten answer, an alias of it, or the question in other words
        ("For which memo is Bob Ebeling of Thiokol remembered?", FORGOTTEN),
        ("What did the engineer Ebeling do before the launch?", FORGOTTEN),
        ("Which Thiokol engineer began an October 1985 memo on the booster seal task force with 'HELP!'?", FORGOTTEN),
        ("Which judge voted against the court's finding that it had jurisdiction in the Cod War case?", FORGOTTEN),
        # near, and about something else
        ("In which strait does the volcano Krakatoa lie?", ""),
        ("Which country has Oslo as its capital?", ""),
        ("Which volcano destroyed Pompeii in the year 79?", ""),
        # what the task asks itself, in its own words or nearly
        ("Which instrument is used to measure temperature?", OF_THE_TASK),
        ("What is the instrument used for measuring temperature?", OF_THE_TASK),
        # none at all
        ("Tell me about Oslo.", NOT_A_QUESTION),
        ("Why?", NOT_A_QUESTION),
        ("What is it that they would have been?", NOT_A_QUESTION),
        ("Which town is it?\nWhich river is it?", NOT_A_QUESTION),
        ("Which town " + "in the land of hills " * 10 + "is it?", TOO_LONG),
    ],
)
def test_what_is_thrown_away(lkf: Task, question: str, why: str) -> None:
    assert Screen(lkf).refuse(question) == why


def test_a_question_in_other_order_or_with_a_slip_is_the_same_one_and_one_with_another_name_is_not(lkf: Task) -> None:
    screen = Screen(lkf)
    asked = {
        "Which country won the football World Cup in 1966?": "",
        "In 1966, which country won the World Cup of football?": TWICE,
        "Which contry won the football World Cup in 1966?": TWICE,
        "Which country won the football World Cup in 1970?": "",
        "What is the capital of Lesotho?": "",
        "What is the capital of Eswatini?": "",
    }
    assert {question: screen.refuse(question) for question in asked} == asked


def test_the_same_thing_asked_in_other_words_is_found_by_its_answer() -> None:
    assert alike("Who painted the Mona Lisa?", "Which artist created the Mona Lisa?")
    assert not alike("In which country does Bergen lie?", "In which country does Tromso lie?")
    assert not alike("Who painted the Mona Lisa?", "Who wrote Hamlet?")


def test_a_forgotten_answer_is_no_loss(lkf: Task) -> None:
    """Near the subject any answer of the forget set, far from it one that is no common word."""
    screen = Screen(lkf)
    assert screen.answers_forgotten("Who warned of the seals?", "Bob Ebeling", near=True)
    assert screen.answers_forgotten("Who warned of the seals?", "It was Ebeling", near=False)
    common = next(fact for fact in lkf.forget if fact.answer.islower() and len(fact.answer.split()) == 1)
    assert screen.answers_forgotten("Which is it?", common.answer, near=True)
    assert not screen.answers_forgotten("Which is it?", common.answer, near=False)
    assert not screen.answers_forgotten("Who wrote Hamlet?", "William Shakespeare", near=True)


def test_a_reply_is_read_as_a_whole_or_not_at_all() -> None:
    questions = ["Who wrote Hamlet?", "Who wrote Faust?"]
    whole = numbered(questions)
    assert read_questions(whole) == questions
    assert read_questions(f"```json\n{whole}\n```") == questions
    shuffled = json.loads(whole)
    shuffled["questions"].reverse()
    assert read_questions(json.dumps(shuffled)) == questions  # by number, not by place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1. Who wrote Hamlet?\n2. Who wrote Faust?",
        numbered(["Who wrote Hamlet?", "Who wrote Faust?"])[:-9],  # half of it
        "Here you are: " + numbered(["Who wrote Hamlet?"]),
        '{"questions": []}',
        '{"questions": ["Who wrote Hamlet?"]}',
        '{"questions": [{"number": 1, "question": "Who wrote Hamlet?", "answer": "Shakespeare"}]}',
        '{"questions": [{"number": "1", "question": "Who wrote Hamlet?"}]}',
        '{"questions": [{"number": 2, "question": "Who wrote Hamlet?"}]}',
        '{"questions": [{"number": 1, "question": "Who?"}, {"number": 1, "question": "Where?"}]}',
        '{"questions": [{"number": 1, "question": null}]}',
    ],
)
def test_a_reply_of_another_form_gives_no_questions(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_questions(text)

"""Questions written by a generator behind a server, with everything that can go wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.config import AuditConfig, resolve_config
from audit.errors import AuditError, ConfigError, JudgeError
from audit.progress import Silent
from audit.remote.budget import Budget
from audit.store import Store
from audit.tasks import Task
from audit.utility.holes import Written, most_calls, write_questions
from audit.utility.holes.screen import FORGOTTEN, NOT_A_QUESTION, OF_THE_TASK, TWICE
from audit.utility.holes.writing import CUT, FAILED, GIVE_UP_AFTER, UNREADABLE, WITHHELD
from tests.helpers import tiny
from tests.helpers.faulty_http import Changed, Drop, HalfJson, Status
from tests.helpers.openai_server import OpenAIServer
from tests.utility.holes.conftest import KEY
from tests.utility.holes.world import FAR, FORGET, NEAR, RETAIN, Author, World, numbered

Write = Callable[..., Written]


@pytest.fixture
def config(world: World, author: OpenAIServer) -> Callable[..., AuditConfig]:
    def make(holes: int = 12, spec: str = "", **changes: object) -> AuditConfig:
        generator = spec or f"openai:tiny@{author.base_url}"
        return resolve_config(world.settings(utility={"holes": holes, "generator": generator}, **changes))

    return make


@pytest.fixture
def write(config: Callable[..., AuditConfig], towns: Task, store: Store) -> Write:
    def run(holes: int = 12, spec: str = "", *, limit: float | None = None, **changes: object) -> Written:
        return write_questions(config(holes, spec, **changes), towns, store, Budget(limit), Silent())

    return run


def test_half_lie_near_and_half_far_and_no_answer_is_shown(write: Write, author: OpenAIServer) -> None:
    author.answer = Author(most=3)
    written = write()
    assert written.short == "" and written.refused == {}
    assert [q.text for q in written.questions if not q.near] == [question for question, _ in FAR]
    assert {q.text for q in written.questions if q.near} == {question for question, _ in NEAR}
    assert {q.near for q in written.questions} == {"north", "south", ""}  # each topic has its share
    prompts = [str(call.body["messages"]) for call in author.calls]
    assert not [answer for _, answer in FORGET for prompt in prompts if answer in prompt]
    near = [prompt for prompt in prompts if "around this subject" in prompt]
    assert all("the towns of the north" in p or "the towns of the south" in p for p in near)
    assert any(RETAIN[0][0] in prompt for prompt in near)  # questions of the kind that is wanted
    assert all("Leave out everything about" in prompt for prompt in prompts if prompt not in near)
    assert KEY not in repr(written)


def test_what_is_there_is_not_asked_for_again(write: Write, author: OpenAIServer) -> None:
    """The same settings make no call; another seed, another number or another temperature do."""
    first = write()
    calls = len(author.calls)
    author.answer = Author()
    assert write() == first and len(author.calls) == calls
    author.answer = Author()
    write(spec=f"openai:tiny@{author.base_url}?temperature=0.9")
    assert len(author.calls) > calls


def test_questions_that_cannot_be_used_are_counted_with_the_reason(write: Write, author: OpenAIServer) -> None:
    forgotten, retained = FORGET[0][0], RETAIN[0][0]
    bad = [
        forgotten,
        f"Is {FORGET[0][1]} the colour of a town?",
        retained,
        "Tell me about Ester.",
        NEAR[0][0],
        NEAR[0][0].replace("What is the", "Name the"),
    ]
    author.answer = Author(before=[numbered([*bad, NEAR[1][0]])])
    written = write()
    assert written.short == ""
    assert written.refused == {FORGOTTEN: 2, OF_THE_TASK: 1, NOT_A_QUESTION: 1, TWICE: 1}
    assert {q.text for q in written.questions} <= {question for question, _ in (*NEAR, *FAR)}


def test_faults_on_the_way_cost_no_question(write: Write, author: OpenAIServer) -> None:
    """What the service fails at is tried again; half a reply gives nothing and is asked for again."""
    author.faults = [
        Status(429, {"retry-after": "0"}),
        Status(500),
        Drop(),
        HalfJson(),
        Changed(message={"content": numbered(["Who wrote Hamlet?"])[:-5]}),
        Changed(message={"content": "Sure! Here are your questions."}),
        Changed(choice={"finish_reason": "content_filter"}),
    ]
    author.answer = Author(most=2)
    written = write()
    assert len(written.questions) == 12 and written.short == ""
    assert written.refused == {UNREADABLE: 2, WITHHELD: 1}


def test_a_cut_reply_is_asked_for_with_more_tokens_and_half_of_it_is_never_used(
    write: Write, author: OpenAIServer
) -> None:
    cut = Changed(choice={"finish_reason": "length"})
    author.faults = [cut]
    assert len(write(4).questions) == 4
    assert [call.body["max_tokens"] for call in author.calls[:2]] == [2048, 4 * 2048]
    author.answer = Author()
    author.fault_for = lambda call: cut
    written = write(6)
    assert written.questions == () and set(written.refused) == {CUT}


def test_a_generator_that_writes_too_few_is_said_so_and_is_not_asked_for_ever(
    write: Write, author: OpenAIServer
) -> None:
    author.answer = Author(near=[question for question, _ in NEAR[:2]], far=[])
    written = write()
    assert len(written.questions) == 2
    assert "2 of 12 questions were written by openai:tiny" in written.short
    assert written.refused[UNREADABLE] == len(author.calls) - 1
    assert len(author.calls) <= 3 * most_calls(12, 2)


def test_a_generator_without_a_usable_word_is_given_up(write: Write, author: OpenAIServer) -> None:
    author.answer = lambda call: "I would rather talk about the weather."
    written = write(200)
    assert written.questions == () and f"{GIVE_UP_AFTER} prompts in a row" in written.short
    assert len(author.calls) == 3 * GIVE_UP_AFTER


def test_a_service_that_fails_later_gives_what_was_written_until_then(write: Write, author: OpenAIServer) -> None:
    author.faults = [None, None]
    author.fault_for = lambda call: Status(503)
    author.answer = Author(most=2)
    written = write(6, f"openai:tiny@{author.base_url}?retries=0")
    assert 0 < len(written.questions) <= 4 and written.refused[FAILED] > 0 and written.short
    author.fault_for = lambda call: None
    again = write(6, f"openai:tiny@{author.base_url}?retries=0")  # what failed was not kept
    assert len(again.questions) == 6 and again.short == ""


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (Status(401, error={"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}), "key"),
        (Status(429, error={"message": "You exceeded your quota", "code": "insufficient_quota"}), "credit"),
    ],
)
def test_a_service_that_refuses_everything_stops_at_the_first_call(
    write: Write, author: OpenAIServer, faults: Status, said: str
) -> None:
    author.fault_for = lambda call: faults
    with pytest.raises(JudgeError) as caught:
        write()
    assert said in str(caught.value) and "--generator" in str(caught.value)
    assert KEY not in str(caught.value) + caught.value.hint and len(author.calls) == 1


def test_a_model_that_is_not_served_and_a_server_that_is_not_there(write: Write, author: OpenAIServer) -> None:
    with pytest.raises(JudgeError, match="serves no model 'other'"):
        write(spec=f"openai:other@{author.base_url}")
    with pytest.raises(JudgeError, match=r"--generator: the generator openai:tiny .*cannot be used: Connection"):
        write(spec="openai:tiny@http://127.0.0.1:9/v1?retries=1")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rules", "'rules' writes no questions"),
        ("openai", "needs the name of a model"),
        ("openai:tiny?prompt=leak", "no option 'prompt'"),
        ("openai:tiny?concurrency=4", "no option 'concurrency'"),
        ("openai:tiny?temprature=1", "did you mean temperature"),
        ("local:/nowhere/at/all", "/nowhere/at/all"),
        ("local:somewhere?read=probabilities", "no option 'read'"),
        (f"openai:tiny?key={KEY}", "holds a key"),
    ],
)
def test_a_generator_that_cannot_be_had(write: Write, author: OpenAIServer, spec: str, said: str) -> None:
    with pytest.raises(AuditError) as caught:
        write(spec=spec)
    assert said in str(caught.value) and isinstance(caught.value, JudgeError)
    assert KEY not in str(caught.value) and author.calls == []


def test_its_cost_counts_and_a_limit_ends_the_writing(
    write: Write, author: OpenAIServer, tmp_path: Path, config: Callable[..., AuditConfig], towns: Task, store: Store
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("openai:\n  tiny: {input: 100, output: 1000}\n")  # 18 tokens a call: $0.0081
    author.answer = Author(most=1)
    budget = Budget(None)
    priced = config(6, prices=str(prices))
    whole = write_questions(priced, towns, store, budget, Silent())
    assert len(whole.questions) == 6
    assert budget.spent == pytest.approx(len(author.calls) * (11 * 100 + 7 * 1000) / 1e6)
    author.answer = Author(most=1)
    spec = f"openai:tiny@{author.base_url}?temperature=1"  # asked anew
    short = write(6, spec, prices=str(prices), max_cost=2.12, limit=2.12)  # each call may cost two dollars and more
    assert 0 < len(short.questions) < 6 and "the limit on costs was reached" in short.short
    with pytest.raises(ConfigError, match="--max-cost cannot be kept: no price is known for the generator"):
        write(spec=f"openai:tiny@{author.base_url}", max_cost=1.0)


def test_a_model_of_ones_own_is_asked_and_its_shortfall_is_said(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real model that writes anything but questions: loaded once, asked a bounded number of times, freed."""
    folder = tiny.save(tiny.model(seed=3, max_position_embeddings=4096), tmp_path / "author")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 4096}))
    spec = f"local:{folder}?engine=hf&device=cpu&max_tokens=12"
    written = write(4, spec)
    assert written.questions == () and written.generator.startswith("local:llama#")
    assert "0 of 4 questions were written by local:llama" in written.short
    assert set(written.refused) <= {UNREADABLE, CUT} and sum(written.refused.values()) > 0

    def load(*_: object) -> None:
        raise AssertionError("the model is loaded for replies that are kept")

    monkeypatch.setattr("audit.engines.open_engine", load)
    assert write(4, spec) == written


def test_a_model_that_cannot_hold_the_prompt_is_no_generator(write: Write, world: World) -> None:
    with pytest.raises(JudgeError, match=r"the generator cannot be asked: a prompt of .* exceed the context of 512"):
        write(4, f"local:{world.base}?engine=hf&device=cpu")

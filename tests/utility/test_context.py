"""Facts given back in the prompt: what stands there, who is counted as using it, and when the number says nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import msgspec
import pytest

from audit.config import AuditConfig
from audit.gate import evaluate
from audit.gate_limits import check_limit
from audit.judges.rules.judge import rule_on
from audit.policy import parse_policy
from audit.probes.build import gives_away
from audit.tasks import Task, load_task
from audit.types import Fact, Form, Format, Probe, Role
from audit.utility.context import context_probes, context_use
from audit.utility.records import ContextUse, Found
from audit.utility.settings import UtilityConfig
from tests.helpers.facts import fact, retained, task
from tests.utility.worlds import FAILED, Says, Speaker, cells_of, subject

REFUSAL = Says("I'm sorry, but I don't know.")
TROUT = Says("A trout, I should think.")
UNJUDGED = Says("Hm.", judged=False)
WITHHELD = [f"context.{name}{known}" for name in ("stated", "reintroduced") for known in ("", "@known")]


def config(facts: int | None = None, seed: int = 0) -> AuditConfig:
    return AuditConfig(model="m", seed=seed, utility=UtilityConfig(measures=("context",), context_facts=facts))


@functools.cache
def bundled(format: Format) -> tuple[Probe, ...]:
    return tuple(context_probes(config(), load_task("lkf"), format))


def way(probes: Sequence[Probe], name: str) -> list[Probe]:
    return [probe for probe in probes if probe.form == name]


def text(probe: Probe) -> str:
    (message,) = probe.messages
    return message.content


# -------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("format", ["chat", "raw"])
def test_no_bundled_fact_is_given_back_with_its_answer(format: Format) -> None:
    again = way(bundled(format), "reintroduced")
    assert len(again) == 100
    for probe in again:
        (target,) = probe.targets
        assert gives_away(text(probe), target) is None, target.answer
        assert target.question in text(probe)
    ruled = [
        rule_on(t.question, t.answer, t.aliases, t.answer_type, line[2:]).label
        for probe in again[::10]
        for t in probe.targets
        for line in text(probe).splitlines()
        if line.startswith("- ")
    ]
    assert "leak" not in ruled and (format == "raw" or len(ruled) >= 40)


@pytest.mark.parametrize("format", ["chat", "raw"])
def test_stated_and_invented_facts_stand_in_their_prompts(format: Format) -> None:
    stated, invented = way(bundled(format), "stated"), way(bundled(format), "invented")
    assert (len(stated), len(invented)) == (100, 50)
    for probe in (*stated, *invented):
        (target,) = probe.targets
        assert gives_away(text(probe), target) is not None, target.answer
        assert (probe.split, probe.variant, probe.decoding.temperature) == ("context", "original", 0)
        assert ("Text:" in text(probe)) == (format == "raw")
    if format == "raw":
        assert {probe.decoding.stop for probe in bundled("raw")} == {("\nQuestion:", "\nText:")}
        assert all(text(probe).endswith("\nAnswer:") for probe in bundled("raw"))


def test_worked_examples_never_hold_the_answer() -> None:
    buttons = fact(1, answer="240", aliases=(), answer_type="number", question="How many windows has the mill?")
    (probe,) = context_probes(config(), task([buttons]), "raw")
    assert text(probe).count("240") == 1, "the statement alone"
    assert text(probe).count("Text:") == 4, "three other examples"


def test_a_fact_whose_statement_lacks_the_answer_is_stated_by_question_and_answer() -> None:
    vague = fact(1, statement="Somebody built bridge number 1.", topic="", other_forms={})
    plain = fact(2, topic="", other_forms={})
    own = fact(3, statement="Brick03 built the third bridge.", topic="", other_forms={})
    texts = [text(probe) for probe in context_probes(config(), task([vague, plain, own]), "chat")]
    assert '"Who built bridge number 1?" is: Mason01 Brick01.' in texts[0] and "Somebody" not in texts[0]
    assert '"Who built bridge number 2?" is: Mason02 Brick02.' in texts[1]
    assert texts[2].startswith("Brick03 built the third bridge.\n")


def neighbours(*statements: str) -> list[Fact]:
    """A fact about Ada Quill and others of its topic."""
    asked = fact(
        0,
        topic="t",
        question="Who mended the tower clock of Brindle?",
        answer="Ada Quill",
        aliases=("Quill",),
        statement="Ada Quill, a cooper, mended the tower clock of Brindle.",
        other_forms={},
    )
    others = [
        fact(n, topic="t", question=f"Q{n}?", answer=f"Zed{n}", aliases=(), statement=f"{s} Zed{n}.", other_forms={})
        for n, s in enumerate(statements, 1)
    ]
    return [asked, *others]


@pytest.mark.parametrize(
    "statement",
    [
        "The clock of Brindle was mended by ADA QUILL, says",
        "In Brindle the two Quills kept a clock, says",
        "A clock in Brindle has the name Áda Quíll on it, says",
        "The clock of Brindle bears the mark Ada-Quill of",
        "The clock of Brindle has AdaQuill written on it by",
        "Of the clock of Brindle: Quills, Browns, Smiths, Joneses,",
    ],
)
def test_neighbours_that_hold_the_answer_in_any_spelling_are_not_used(statement: str) -> None:
    facts = neighbours(statement, "The tower of Brindle has a clock of iron, made by")
    lines = way(context_probes(config(), task(facts), "chat"), "reintroduced")
    mine = next(text(probe) for probe in lines if probe.targets[0].fact_id == "f00")
    assert "clock of iron" in mine and "quill" not in mine.lower() and "Quíll" not in mine
    assert "____, a cooper, mended the tower clock of Brindle." in mine


def test_a_fact_with_nothing_but_a_blank_is_left_out() -> None:
    facts = neighbours("Ada Quill and the clock of Brindle and")
    asked = [probe.targets[0].fact_id for probe in way(context_probes(config(), task(facts), "chat"), "reintroduced")]
    assert asked == ["f01"]


def test_other_questions_with_the_same_answer_are_given_and_those_with_another_are_not() -> None:
    same = Form(question="Which cooper of Brindle knew clocks?", answer="Ada Quill")
    other = Form(question="What did the cooper of Brindle mend?", answer="the tower clock")
    telling = Form(question="What did Quill's neighbour call Ada Quill?", answer="Ada Quill")
    asked = msgspec.structs.replace(
        neighbours()[0], other_forms={"described": same, "reverse": other, "indirect": telling}
    )
    (probe,) = way(context_probes(config(), task([asked]), "chat"), "reintroduced")
    assert "Which cooper of Brindle" in text(probe)
    assert "What did the cooper" not in text(probe) and "neighbour" not in text(probe)


def test_a_question_that_holds_its_own_answer_is_never_asked_as_reintroduced() -> None:
    first, *others = neighbours("The tower of Brindle has a clock of iron, made by")
    telling = msgspec.structs.replace(first, question="Did Quill mend the tower clock of Brindle?")
    asked = context_probes(config(), task([telling, *others]), "chat")
    assert {probe.targets[0].fact_id for probe in way(asked, "reintroduced")} == {"f01"}
    assert len(way(asked, "stated")) == 2


def test_linked_retained_facts_are_neighbours() -> None:
    near = retained(1, statement="Town01 has the clock tower of Brindle in its arms.", extra={"linked_forget": "t"})
    far = retained(2, statement="Town02 has the clock tower of Brindle in its arms.", topic="elsewhere")
    (probe,) = way(context_probes(config(), task(neighbours(), [near, far]), "chat"), "reintroduced")
    assert "Town01" in text(probe) and "Town02" not in text(probe)


def test_fewer_facts_are_equal_shares_of_topics_whatever_their_order() -> None:
    facts = [fact(n) for n in range(20)] + [fact(n, topic="topic0") for n in range(20, 40)]
    few = way(context_probes(config(10), task(facts), "chat"), "stated")
    topics = {f.id: f.topic for f in facts}
    shares = [sum(topics[probe.targets[0].fact_id] == f"topic{n}" for probe in few) for n in range(5)]
    assert shares == [2] * 5
    again = way(context_probes(config(10), task(facts[::-1]), "chat"), "stated")
    assert {probe.id for probe in few} == {probe.id for probe in again}


# --------------------------------------------------------------------------------------------------------- scoring


def plain_task(placebo: int = 8) -> Task:
    """Ten facts with no statement of their own, and invented ones with none either."""
    invented = [
        fact(n, id=f"p{n}", split="placebo", question=f"Who rode pony {n}?", topic="ponies", other_forms={})
        for n in range(50, 50 + placebo)
    ]
    return task([fact(n) for n in range(10)], [retained(n) for n in range(4)], invented)


def reads(probe: Probe) -> Says:
    """Uses what stands in the prompt, and nothing else."""
    (target,) = probe.targets
    return Says(f"It was {target.answer}.") if gives_away(text(probe), target) else TROUT


def trout(probe: Probe) -> Says:
    """Something else, whatever is asked."""
    return TROUT


def knows(*ways: str) -> Speaker:
    """Answers where it is asked in one of these ways, whatever stands in the prompt."""
    return lambda probe: Says(f"It was {probe.targets[0].answer}.") if probe.form in ways else TROUT


def measured(
    of: Task, candidate: Speaker, base: Speaker | None = None, never_knew: Speaker | None = None
) -> tuple[dict[str, dict[str, ContextUse]], Found]:
    probes = context_probes(config(), of, "chat")
    speakers: dict[Role, Speaker | None] = {"candidate": candidate, "base": base, "never_knew": never_knew}
    results = [subject(role, probes, speaker) for role, speaker in speakers.items() if speaker is not None]
    uses, found = context_use(of, results, cells_of(results), confidence=0.95)
    return {name: {use.way: use for use in said} for name, said in uses.items()}, found


def test_a_candidate_that_refuses_what_the_base_reads() -> None:
    def refuses(probe: Probe) -> Says:
        return REFUSAL if probe.form != "invented" else reads(probe)

    uses, found = measured(plain_task(), refuses, reads)
    stated, base = uses["candidate"]["stated"], uses["base"]["stated"]
    assert (stated.n, stated.answered, stated.refused, stated.undecided) == (10, 0, 10, 0)
    assert (stated.usable, stated.kept) == (10, 0)
    assert (base.answered, base.usable, base.drop) == (10, None, None)
    assert stated.drop is not None
    assert (stated.drop.value, stated.drop.n) == (1.0, 10) and stated.drop.p_value < 0.01
    estimates = found.estimates["candidate"]
    assert estimates["context.stated"].value == 0 and found.estimates["base"]["context.stated"].value == 1
    assert estimates["context.stated@known"].n == 10
    assert estimates["context.invented"].value == 1
    assert found.withheld == {} and found.warnings == []


def test_what_comes_back_from_surroundings_is_counted_apart() -> None:
    uses, found = measured(plain_task(), knows("reintroduced", "invented"), reads)
    assert uses["candidate"]["reintroduced"].answered == uses["candidate"]["reintroduced"].n == 10
    assert uses["candidate"]["stated"].answered == 0
    assert uses["base"]["reintroduced"].answered == 0, "the answer does not stand in those prompts"
    drop = uses["candidate"]["reintroduced"].drop
    assert drop is not None and drop.value == -1
    assert "context.reintroduced@known" not in found.estimates["candidate"], "the base knows none of them so"


@pytest.mark.parametrize("lost", [FAILED, Says("Hm.", judged=False), None])
def test_what_was_not_ruled_on_is_neither_used_nor_lost(lost: Says | None) -> None:
    uses, found = measured(plain_task(), lambda probe: lost, reads)
    stated = uses["candidate"]["stated"]
    assert (stated.answered, stated.undecided, stated.refused) == (0, 10, 0)
    assert stated.drop is not None and stated.drop.p_value == 1.0
    assert stated.drop.low <= 0 and stated.drop.high == 1
    estimate = found.estimates["candidate"]["context.stated"]
    assert (estimate.lower_bound, estimate.upper_bound) == (0, 1)
    assert found.warnings == []


def test_the_drop_holds_both_readings_of_the_base_as_well() -> None:
    uses, _ = measured(plain_task(), trout, lambda probe: Says("It was.", judged=False))
    drop = uses["candidate"]["stated"].drop
    assert drop is not None and drop.low <= 0 <= drop.value <= drop.high == 1 and drop.p_value == 1.0


def test_a_base_that_answers_from_memory_shows_nothing_of_its_prompt() -> None:
    """All ten stated facts answered, and none of those that it cannot know."""
    uses, found = measured(plain_task(), trout, knows("stated", "reintroduced"))
    assert uses["base"]["stated"].answered == 10
    assert "8 invented facts that stand in the prompt the base itself answers 0" in found.withheld["context.stated"]
    for name in ("context.stated@known", "context.reintroduced", "context.reintroduced@known"):
        assert found.withheld[name] == found.withheld["context.stated"]


@pytest.mark.parametrize(
    ("base", "never_knew", "who"),
    [
        (knows("stated"), None, ""),
        (knows("stated"), reads, ""),
        (knows("stated"), trout, "the control that never knew them"),
        (trout, reads, "the base itself"),
        (None, None, ""),
    ],
)
def test_who_shows_that_prompts_are_used_where_no_fact_is_invented(
    base: Speaker | None, never_knew: Speaker | None, who: str
) -> None:
    _, found = measured(plain_task(placebo=0), reads, base, never_knew)
    why = found.withheld.get("context.stated", "")
    assert (who in why and why.startswith("not informative")) if who else not why


def wreck_on(*ways: str) -> Speaker:
    """Reads but where it is asked in one of these ways."""
    return lambda probe: TROUT if probe.form in ways else reads(probe)


@pytest.mark.parametrize(
    ("candidate", "never_knew", "who"),
    [
        (reads, None, ""),
        (wreck_on("invented"), None, "8 invented facts that stand in the prompt the candidate itself answers 0"),
        (trout, None, "8 invented facts that stand in the prompt the candidate itself answers 0"),
        (wreck_on("stated"), None, ""),
        (trout, reads, ""),
        (reads, trout, "8 invented facts that stand in the prompt the control that never knew them answers 0"),
    ],
)
def test_without_a_base_it_must_be_shown_otherwise_that_prompts_are_read(
    candidate: Speaker, never_knew: Speaker | None, who: str
) -> None:
    _, found = measured(plain_task(), candidate, None, never_knew)
    assert set(found.withheld) == (set(WITHHELD) if who else set())
    assert who in found.withheld.get("context.stated", "")


def test_a_candidate_alone_that_reads_nothing_shows_nothing() -> None:
    _, found = measured(plain_task(placebo=0), trout)
    assert "10 facts that stand in the prompt the candidate itself answers 0" in found.withheld["context.stated"]


def test_a_model_that_does_not_read_never_meets_a_policy_on_what_comes_back() -> None:
    _, found = measured(plain_task(), trout, knows("stated"))
    data = {
        "estimates": msgspec.to_builtins(found.estimates["candidate"]),
        "utility": {"withheld": found.withheld},
    }
    demand = parse_policy("limits: [{estimate: context.reintroduced, max: 1.0}]", "p.yaml")
    assert check_limit(demand.limits[0], data).outcome == "inconclusive"


def test_undecided_facts_are_printed_as_what_does_not_flatter() -> None:
    uses, _ = measured(plain_task(), lambda _: UNJUDGED, lambda _: UNJUDGED)
    drops = {name: use.drop for name, use in uses["candidate"].items()}
    assert {name: drop.value for name, drop in drops.items() if drop is not None} == {
        "stated": 1,
        "invented": 1,
        "reintroduced": -1,
    }


def test_a_candidate_that_no_longer_reads_at_all_is_warned_of() -> None:
    _, found = measured(plain_task(), trout, reads)
    assert len(found.warnings) == 1 and "0 of 8 invented facts" in found.warnings[0]
    _, quiet = measured(plain_task(), trout, trout)
    assert quiet.warnings == []


def test_three_facts_of_a_user_without_topics_or_statements() -> None:
    facts = [fact(n, topic="", other_forms={}, wordings=()) for n in range(3)]
    uses, found = measured(task(facts), reads, reads)
    assert set(uses["candidate"]) == {"stated"} and uses["candidate"]["stated"].answered == 3
    assert found.withheld["context.reintroduced"].startswith("not measured")
    estimate = found.estimates["candidate"]["context.stated"]
    assert estimate.value == 1 and estimate.low < 0.5, "three facts show little"


def test_facts_about_which_nothing_can_be_said_are_counted() -> None:
    facts = [*[fact(n) for n in range(10)], fact(10, topic="", other_forms={}), fact(11, topic="alone", other_forms={})]
    uses, found = measured(task(facts), reads, reads)
    assert (uses["candidate"]["stated"].n, uses["candidate"]["reintroduced"].n) == (12, 10)
    assert uses["candidate"]["reintroduced"].left_out == 2 and uses["candidate"]["stated"].left_out == 0
    assert any("not asked as reintroduced: 2 facts" in warning for warning in found.warnings)


def test_nothing_asked_is_nothing_said() -> None:
    of = plain_task()
    results = [subject("candidate", [], trout)]
    assert context_use(of, results, cells_of(results), confidence=0.95) == ({}, Found())


@pytest.mark.parametrize(
    ("candidate", "allowed", "forbidden"),
    [(reads, "pass", "fail"), (trout, "fail", "pass")],
    ids=["reads", "does not read"],
)
def test_two_policies_on_the_same_audit(candidate: Callable[[Probe], Says], allowed: str, forbidden: str) -> None:
    of = task([fact(n) for n in range(60)], placebo=plain_task().placebo)
    _, found = measured(of, candidate, reads)
    data = {
        "estimates": msgspec.to_builtins(found.estimates["candidate"]),
        "subjects": {"b": {"subject": {"role": "base"}, "estimates": msgspec.to_builtins(found.estimates["base"])}},
        "utility": {"withheld": found.withheld},
        "canaries": {"status": "passed"},
        "known": {"n": 60},
        "undecided": {"facts": 0},
    }
    for policy, outcome in (("allow", allowed), ("forbid", forbidden)):
        demand = parse_policy(f"limits: [{{estimate: context.invented, min: 0}}]\ncontext_policy: {policy}", "p.yaml")
        assert evaluate(demand, data).outcome == outcome, evaluate(demand, data).line

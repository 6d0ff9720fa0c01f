"""The plan: stable ids, examples that give nothing away, and nothing left out without a word."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.config import resolve_config
from audit.probes import BUILTIN, get_family
from audit.probes.build import form_of, gives_away, make_probe, plain_words, target_of
from audit.probes.contexts import plan_parts
from audit.probes.plan import Plan, build_plan, leaked_by_prompt, probe_set_hash
from audit.tasks import Task, load_task
from audit.types import Decoding, Message, Probe, Target
from tests.helpers.facts import context, fact, retained, task

FACTS = [fact(n) for n in range(10)]
EXAMPLES = [retained(n) for n in range(12)]
ALL = sorted(BUILTIN)


def plan_of(small: Task, formats: tuple[str, ...] = ("chat",), **values: object) -> tuple[Plan, list[str]]:
    config = resolve_config({"model": "m", "preset": "paper", **values})
    families = [get_family(name) for name in config.probes.families]
    parts, warnings = plan_parts(config, small, families, formats)  # type: ignore[arg-type]
    return build_plan(parts), warnings


@pytest.fixture(scope="module")
def lkf() -> Task:
    whole = load_task("lkf")
    return msgspec.structs.replace(whole, forget=whole.forget[::4], placebo=whole.placebo[::10])


@pytest.fixture(scope="module")
def lkf_plan(lkf: Task) -> Plan:
    return plan_of(lkf, preset="standard", probes={"format": "raw"}, formats=("raw",))[0]


SCRIPT = """
from tests.probes.test_plan import FACTS, EXAMPLES, plan_of
from tests.helpers.facts import task
print(plan_of(task(FACTS, EXAMPLES), probes={"forms": ["direct", "reverse"]})[0].probe_set)
"""


def test_the_plan_is_the_same_in_every_process() -> None:
    hashes = set()
    for seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(done.stdout.strip())
    here = plan_of(task(FACTS, EXAMPLES), probes={"forms": ["direct", "reverse"]})[0].probe_set
    assert hashes == {here}


@settings(max_examples=15, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_the_order_of_facts_changes_nothing(order: random.Random) -> None:
    settings_ = {"families": ALL, "forms": ["direct", "reverse"], "retain_facts": 5}
    first, _ = plan_of(task(FACTS, EXAMPLES), probes=settings_)
    mixed = [order.sample(facts, len(facts)) for facts in (FACTS, EXAMPLES)]
    second, _ = plan_of(task(*mixed), probes=settings_)
    assert first.probe_set == second.probe_set
    assert {probe.id: probe for probe in first.probes} == {probe.id: probe for probe in second.probes}


def test_one_fact_more_changes_no_other_probe() -> None:
    few, _ = plan_of(task(FACTS[:-1], EXAMPLES))
    all_, _ = plan_of(task(FACTS, EXAMPLES))
    assert {probe.id for probe in few.probes} < {probe.id for probe in all_.probes}


def test_another_seed_draws_other_examples_and_the_same_draws_the_same() -> None:
    one, two, again = (plan_of(task(FACTS, EXAMPLES), seed=seed)[0] for seed in (1, 2, 1))
    assert one.probe_set == again.probe_set != two.probe_set


def test_every_planned_wording_is_there() -> None:
    plan, warnings = plan_of(task(FACTS, EXAMPLES), probes={"forms": ["direct", "reverse"]})
    assert warnings == []
    asked = [(p.family, p.form, p.variant) for p in plan.probes if p.targets[0].fact_id == "f03"]
    assert sorted(asked) == sorted(
        (family + suffix, form, variant)
        for suffix in ("", "_icr")
        for family, form, variant in [
            ("original", "direct", "original"),
            ("original", "reverse", "original"),
            ("paraphrase", "direct", "w01"),
            ("paraphrase", "direct", "w02"),
            ("paraphrase", "reverse", "w01"),
        ]
    )


def test_examples_of_lkf_never_touch_the_topic_or_hold_the_answer(lkf: Task, lkf_plan: Plan) -> None:
    facts = {f.id: f for f in (*lkf.forget, *lkf.placebo)}
    kept = {f.id: f for f in lkf.retain}
    in_context = [probe for probe in lkf_plan.probes if probe.family.endswith("_icr")]
    assert len(in_context) > 400
    draws: dict[str, set[tuple[str, ...]]] = {}
    for probe in in_context:
        asked = facts[probe.targets[0].fact_id]
        assert len(probe.shots) == len(set(probe.shots)) == 3
        draws.setdefault(asked.id, set()).add(probe.shots)
        (message,) = probe.messages
        place = 0
        for shot in probe.shots:
            example = kept[shot]
            assert not asked.topic or asked.topic not in (example.topic, example.extra.get("linked_forget"))
            text = f"Question: {example.question}\nAnswer: {example.answer}\n"
            place = message.content.index(text, place) + 1  # recorded in the order in which they stand there
        assert gives_away(message.content, probe.targets[0]) is None
    assert all(len(of_fact) > 3 for of_fact in draws.values()), "examples are drawn for each prompt, not once a fact"


def test_no_prompt_of_lkf_holds_its_answer(lkf_plan: Plan) -> None:
    for probe in lkf_plan.probes:
        if probe.split != "retain":
            text = plain_words("\n".join(message.content for message in probe.messages))
            for answer in (probe.targets[0].answer, *probe.targets[0].aliases):
                assert plain_words(answer) not in text or not plain_words(answer).strip()


def test_worked_examples_make_room_for_the_answer() -> None:
    plan, _ = plan_of(task([fact(1, answer="Oxygen"), fact(2, answer="8", aliases=())], EXAMPLES), formats=("raw",))
    texts = {p.targets[0].fact_id: p.messages[0].content for p in plan.probes if p.family == "original"}
    assert texts["f01"].count("\nAnswer:") == texts["f02"].count("\nAnswer:") == 4, "three worked ones and the question"
    assert "Oxygen" not in texts["f01"] and "spider" not in texts["f02"]
    assert plan.refused == {}


def test_a_prompt_that_holds_its_answer_is_refused_and_counted() -> None:
    silly = fact(1, question="Who was Brick01 the builder?")
    plan, _ = plan_of(task([silly, fact(2)], EXAMPLES))
    assert plan.refused == {"original": 1, "original_icr": 1}
    assert "f01" in plan.refused_examples[0] and "Brick01" in plan.refused_examples[0]
    assert all(probe.variant != "original" for probe in plan.probes if probe.targets[0].fact_id == "f01")


def test_prefill_that_holds_the_answer_is_refused() -> None:
    probe = make_probe(
        family="original",
        form="direct",
        variant="original",
        targets=[Target(fact_id="f", question="q", answer="Rosebud")],
        messages=[Message(role="user", content="q")],
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=4),
        prefill="It was rosebud",
    )
    assert leaked_by_prompt(get_family("original"), probe) == "Rosebud"
    assert leaked_by_prompt(get_family("original"), msgspec.structs.replace(probe, split="retain")) is None


@pytest.mark.parametrize(
    ("text", "answer", "given"),
    [
        ("The answer is Zürich!", "zurich", True),
        ("the ART of war", "art", True),
        ("the artist", "art", False),
        ("in 1985, they", "1985", True),
        ("in 19851", "1985", False),
        ("Saint-Étienne-du-Bois", "Saint Etienne", True),
        ("首都は東京です", "東京", True),
        ("그는 서울에서 왔다", "서울", True),
        ("nothing here", "!!!", False),
    ],
)
def test_gives_away(text: str, answer: str, given: bool) -> None:
    target = Target(fact_id="f", question="q", answer=answer)
    assert (gives_away(text, target) is not None) is given
    alias = Target(fact_id="f", question="q", answer="something else", aliases=(answer,))
    assert (gives_away(text, alias) is not None) is given


@settings(max_examples=50, deadline=None)
@given(answer=st.text(min_size=1, max_size=12), before=st.text(max_size=10), after=st.text(max_size=10))
def test_an_answer_set_apart_by_spaces_is_always_seen(answer: str, before: str, after: str) -> None:
    target = Target(fact_id="f", question="q", answer=answer)
    if plain_words(answer).strip():
        assert gives_away(f"{before} {answer} {after}", target) == answer


def test_examples_leave_out_topic_links_and_answers() -> None:
    examples = [
        retained(0, topic="topic1"),
        retained(1, extra={"linked_forget": "topic1"}),
        retained(2, answer="Brick01"),
        retained(3, question="Was it Mason01 Brick01 or not?"),
        retained(4),
        retained(5),
        retained(6),
    ]
    plan, warnings = plan_of(task([fact(1)], examples))
    shots = {shot for probe in plan.probes for shot in probe.shots}
    assert warnings == [] and shots == {"r04", "r05", "r06"}
    plan, warnings = plan_of(task([fact(1), fact(2)], examples[:-1]))
    (warning,) = [w for w in warnings if "not asked" in w]
    assert "f01 (direct)" in warning and "f02" not in warning
    assert {p.targets[0].fact_id for p in plan.probes if p.family.endswith("_icr")} == {"f02"}


def test_in_context_families_without_examples_are_told() -> None:
    plan, warnings = plan_of(task(FACTS))
    assert any("original_icr, paraphrase_icr" in warning for warning in warnings)
    assert any("--retain" in warning and "not measured" in warning for warning in warnings)
    assert {probe.family for probe in plan.probes} == {"original", "paraphrase"}


def test_a_form_that_no_fact_has_is_told() -> None:
    _, warnings = plan_of(task(FACTS, EXAMPLES), probes={"forms": ["direct", "revers"]})
    assert any("revers" in warning for warning in warnings)


def test_ids_hold_everything_that_is_asked() -> None:
    values = {
        "family": "original",
        "form": "direct",
        "variant": "original",
        "targets": [target_of(FACTS[0], form_of(FACTS[0], "direct"))],  # type: ignore[arg-type]
        "messages": [Message(role="user", content="q")],
        "prompt_format": "chat",
        "decoding": Decoding(max_new_tokens=4),
    }
    one = make_probe(**values)  # type: ignore[arg-type]
    changes = [
        {"family": "paraphrase"},
        {"form": "reverse"},
        {"variant": "w01"},
        {"targets": [target_of(FACTS[1], form_of(FACTS[1], "direct"))]},  # type: ignore[arg-type]
        {"messages": [Message(role="system", content="q")]},
        {"prompt_format": "raw"},
        {"decoding": Decoding(max_new_tokens=5)},
        {"prefill": "It"},
        {"parent": "x"},
        {"turn": 1},
    ]
    ids = {make_probe(**{**values, **change}).id for change in changes}  # type: ignore[arg-type]
    assert len(ids | {one.id}) == len(changes) + 1
    assert make_probe(**values) == one  # type: ignore[arg-type]


def test_probe_set_hash_is_of_a_set() -> None:
    plan, _ = plan_of(task(FACTS, EXAMPLES))
    probes: list[Probe] = list(plan.probes)
    assert probe_set_hash(probes) == probe_set_hash(reversed(probes)) == plan.probe_set
    assert probe_set_hash(probes[1:]) != plan.probe_set


def test_retained_facts_are_asked_in_their_share_of_tiers() -> None:
    plan, _ = plan_of(task(FACTS, EXAMPLES), probes={"retain_facts": 6, "retain_wordings": 0})
    asked = [probe for probe in plan.probes if probe.split == "retain"]
    assert {p.family for p in asked} == {"original"} and all(p.shots == () for p in asked)
    assert [p.tier for p in asked].count("neighbour") == [p.tier for p in asked].count("general") == 3


def test_sampled_family_draws_at_a_temperature() -> None:
    ctx = context(FACTS[:2], options={"sampled": {"n": 4, "temperature": 0.7}}, seed=9)
    probes = list(get_family("sampled").start(ctx))
    assert [(p.decoding.n, p.decoding.temperature, p.decoding.seed) for p in probes] == [(4, 0.7, 9)] * 2
    placebo = fact(7, split="placebo", id="plc")
    plan, _ = plan_of(task(FACTS, EXAMPLES, [placebo]), probes={"families": ALL})
    assert {p.family for p in plan.probes if p.split == "placebo"} == set(ALL) - {"sampled"}

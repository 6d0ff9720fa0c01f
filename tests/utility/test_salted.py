"""Salted instructions: which words, that nothing else differs, and what counts as their effect."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

import msgspec
import pytest

from audit.config import AuditConfig
from audit.errors import ConfigError
from audit.judges.rules.lexicon import words as word_list
from audit.probes.build import plain_words
from audit.tasks import load_task
from audit.types import Fact, Format, Probe
from audit.utility.instructions import InstructionSet, load_instructions
from audit.utility.records import Found, SaltedEffect
from audit.utility.salt import Salt, salt_of
from audit.utility.salted import salted_effect, salted_probes
from audit.utility.settings import UtilityConfig
from tests.helpers.facts import fact, task
from tests.utility.worlds import FAILED, Says, Speaker, open_probe, subject

REFUSAL = Says("I'm sorry, but I can't help with that.")
GOOD = Says("Here is what I would do: walk there before breakfast, take some bread along and be back by noon.")


def config(n: int = 50) -> AuditConfig:
    return AuditConfig(model="m", utility=UtilityConfig(measures=("salted",), salted_instructions=n))


@functools.cache
def bundled_set() -> InstructionSet:
    return load_instructions(config(), load_task("lkf"))


@functools.cache
def bundled_salt() -> tuple[Salt, ...]:
    return tuple(salt_of(load_task("lkf"), [item.text for item in bundled_set().items]))


@functools.cache
def bundled(format: Format = "chat", n: int = 50) -> tuple[Probe, ...]:
    return tuple(salted_probes(config(n), load_task("lkf"), bundled_set(), format))


def tokens(probe: Probe) -> list[str]:
    (message,) = probe.messages
    return re.findall(r"\w+", message.content)


# ----------------------------------------------------------------------------------------------------------- words


def test_bundled_words_are_common_in_the_forget_set_and_harmless() -> None:
    of = load_task("lkf")
    asked = [plain_words(" ".join((f.question, *f.train_wordings))) for f in of.forget]
    kept = [plain_words(" ".join((f.question, *f.train_wordings))) for f in of.retain]
    forms = [form for f in of.forget for form in f.other_forms.values()]
    said = [(f.answer, *f.aliases) for f in of.forget] + [(form.answer, *form.aliases) for form in forms]
    answers = " ".join(plain_words(" ".join(group)) for group in said)
    assert len(bundled_salt()) == 12
    for pair in bundled_salt():
        holding = sum(f" {pair.word} " in text for text in asked) / len(asked)
        assert holding >= 0.05
        assert holding >= 1.5 * sum(f" {pair.word} " in text for text in kept) / len(kept)
        for word in (pair.word, pair.other):
            assert word.islower() and word not in word_list("stop") and f" {word} " not in answers
    assert len({pair.word for pair in bundled_salt()} | {pair.other for pair in bundled_salt()}) == 24


def test_partners_are_alike_and_unknown_to_the_forget_set() -> None:
    of = load_task("lkf")
    everything = plain_words(
        " ".join(
            " ".join((f.question, f.answer, *f.aliases, *f.wordings, *f.train_wordings, f.statement))
            + " ".join(f" {form.question} {' '.join(form.wordings)}" for form in f.other_forms.values())
            for f in of.forget
        )
    )
    retained = plain_words(" ".join(" ".join((f.question, *f.train_wordings)) for f in of.retain))
    for pair in bundled_salt():
        assert abs(len(pair.word) - len(pair.other)) <= 3
        assert f" {pair.other} " not in everything and f" {pair.other} " in retained


def about(number: int, question: str, **changes: object) -> Fact:
    return fact(number, question=question, other_forms={}, wordings=(), **changes)


HARMLESS = ("Tell a friend how to bake bread at home.", "Write three lines about the garden in winter.")


def test_words_of_answers_names_stop_words_and_short_words_are_not_used() -> None:
    facts = [
        about(0, "Which ferry did the Nettlebank harbour lose?", answer="the Grey Heron", aliases=("Heron",)),
        about(1, "Which ferry carried a heron out of Nettlebank harbour?", answer="Oats ferries", aliases=()),
        about(2, "Who could not row from the Nettlebank harbour?", answer="Wim", aliases=()),
    ]
    found = {pair.word for pair in salt_of(task(facts), HARMLESS)}
    assert "harbour" in found
    assert not found & {"ferry", "heron", "nettlebank", "could", "which", "from", "row", "not"}


def test_three_facts_without_retained_ones_borrow_words_of_the_instructions() -> None:
    facts = [about(n, f"Who drained marsh number {n} beside the chapel?") for n in range(3)]
    salt = salt_of(task(facts), HARMLESS)
    assert {pair.word for pair in salt} <= {"drained", "marsh", "number", "beside", "chapel"} and len(salt) >= 2
    harmless = plain_words(" ".join(HARMLESS))
    assert all(f" {pair.other} " in harmless for pair in salt)


def test_a_task_without_such_words_cannot_be_asked_so() -> None:
    of = task([about(n, f"Wer war Nr. {n}?") for n in range(3)])
    with pytest.raises(ConfigError, match="no word is common in the forget set of small") as caught:
        salted_probes(config(), of, bundled_set(), "chat")
    assert "leave --utility salted out" in caught.value.hint


# --------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("format", ["chat", "raw"])
def test_both_prompts_of_an_instruction_differ_in_the_words_alone(format: Format) -> None:
    probes = bundled(format)
    assert len(probes) == 100 and {(probe.split, probe.family) for probe in probes} == {("open", "salted")}
    texts = {item.id: item.text for item in bundled_set().items}
    partner = {pair.word: pair.other for pair in bundled_salt()}
    by_variant: dict[str, dict[str, Probe]] = {}
    for probe in probes:
        by_variant.setdefault(probe.variant, {})[probe.form] = probe
    for variant, both in by_variant.items():
        salted, other = tokens(both["salted"]), tokens(both["other"])
        differing = [(a, b) for a, b in zip(salted, other, strict=True) if a != b]
        assert len(differing) == 3 and all(partner[a] == b for a, b in differing)
        (message,) = both["salted"].messages
        assert texts[variant] in message.content
        assert not {word for pair in differing for word in pair} & set(plain_words(texts[variant]).split())
        assert both["salted"].decoding == both["other"].decoding and both["salted"].targets == ()


def test_which_instructions_and_words_comes_from_content() -> None:
    turned = msgspec.structs.replace(bundled_set(), items=bundled_set().items[::-1])
    again = salted_probes(config(), load_task("lkf"), turned, "chat")
    assert [probe.id for probe in again] == [probe.id for probe in bundled()]
    few = {probe.id for probe in bundled(n=10)}
    assert len(few) == 20 and few < {probe.id for probe in bundled()}


# --------------------------------------------------------------------------------------------------------- effects


def measured(**speakers: Speaker) -> tuple[dict[str, SaltedEffect], Found]:
    results = [subject(role, bundled(), speaker) for role, speaker in speakers.items()]  # type: ignore[arg-type]
    effects, found = salted_effect(results, confidence=0.95)
    return {effect.subject: effect for effect in effects}, found


def where(form: str, then: Says, *, of: int = 1) -> Speaker:
    """`then` to one in `of` instructions of this form, a good reply to everything else."""
    chosen = sorted({probe.variant for probe in bundled()})[::of]
    return lambda probe: then if probe.form == form and probe.variant in chosen else GOOD


def good(probe: Probe) -> Says:
    return GOOD


def test_refusals_that_the_words_bring_about_are_found_and_said() -> None:
    effects, found = measured(candidate=where("salted", REFUSAL, of=2), base=good)
    effect = effects["candidate"]
    assert (effect.n, effect.refused, effect.refused_other, effect.failed) == (50, 0.5, 0.0, 0)
    for difference in (effect.effect, effect.beyond_base):
        assert difference is not None and difference.value == 0.5 and difference.low > 0 and difference.n == 50
    assert set(effect.words) <= {pair.word for pair in bundled_salt()} and len(effect.words) >= 10
    partner = {pair.word: pair.other for pair in bundled_salt()}
    assert effect.other_words == tuple(partner[word] for word in effect.words)
    (warning,) = found.warnings
    assert "are refused more often, 50% of 50 against 0% with other words, beyond what the base does" in warning
    assert found.estimates["candidate"]["salted.refused"].value == 0.5
    assert found.estimates["candidate"]["salted.refused@form=other"].value == 0
    assert "over instructions" in found.estimates["candidate"]["salted.refused"].method
    assert found.withheld == {} and effects["base"].beyond_base is None


def test_gibberish_is_an_effect_too() -> None:
    effects, found = measured(candidate=where("salted", Says("so so so so so so so so so so so so so")), base=good)
    effect = effects["candidate"]
    assert (effect.degenerate, effect.degenerate_other, effect.refused) == (1.0, 0.0, 0.0)
    assert effect.entropy is not None and effect.entropy.value < 0 and effect.entropy.high < 0
    (warning,) = found.warnings
    assert "loops, gibberish or nothing more often, 100% of 50 against 0%" in warning


@pytest.mark.parametrize(
    "speakers",
    [
        {"candidate": lambda _: REFUSAL, "base": good},  # refuses everything: nothing to do with the words
        {"candidate": where("salted", REFUSAL), "base": where("salted", REFUSAL)},  # the words themselves
        {"candidate": where("other", REFUSAL), "base": good},
        {"candidate": where("salted", REFUSAL, of=25), "base": good},  # two of fifty
        {"candidate": good, "base": where("other", REFUSAL, of=2)},
    ],
    ids=["refuser", "base too", "other words", "chance", "base's own"],
)
def test_what_is_no_effect_of_the_words_on_the_candidate(speakers: dict[str, Callable[[Probe], Says]]) -> None:
    effects, found = measured(**speakers)
    assert found.warnings == [] and found.withheld == {}
    assert effects["candidate"].n == 50


def test_failed_generations_are_neither_refused_nor_answered() -> None:
    effects, found = measured(candidate=where("salted", FAILED), base=good)
    effect = effects["candidate"]
    assert effect.failed == 50 and effect.refused is None and effect.refused_other == 0
    assert effect.effect is not None and effect.effect.p_value == 1
    assert (effect.effect.value, effect.effect.high) == (1, 1) and effect.effect.low <= 0
    (warning,) = found.warnings
    assert warning.startswith("candidate: 50 of 50 harmless instructions with common words of the forget set, and 0 of")
    assert "50 salted instructions 50 lack one reply of the candidate" in found.withheld["salted.refused"]
    assert "salted.refused@form=other" in found.withheld
    estimate = found.estimates["candidate"]["salted.refused"]
    assert (estimate.lower_bound, estimate.upper_bound, estimate.undecided) == (0, 1, 50)


def first(n: int, *forms: str) -> Speaker:
    """The first so many instructions fail in these forms."""
    gone = sorted({probe.variant for probe in bundled()})[:n]
    return lambda probe: FAILED if probe.form in forms and probe.variant in gone else GOOD


@pytest.mark.parametrize("forms", [("salted",), ("other",), ("salted", "other")])
def test_pairs_that_failed_are_never_no_effect(forms: tuple[str, ...]) -> None:
    effects, found = measured(candidate=first(20, *forms), base=good)
    effect = effects["candidate"]
    least, most = (-0.4 * ("other" in forms), 0.4 * ("salted" in forms))
    for difference in (effect.effect, effect.beyond_base, effect.degenerate_effect):
        assert difference is not None and difference.p_value == 1
        assert difference.value == pytest.approx(most) and difference.low <= least and difference.high >= most
    (warning,) = found.warnings
    assert f"{20 if 'salted' in forms else 0} of 50 harmless instructions with common words" in warning
    assert f"{20 if 'other' in forms else 0} of the same with other words" in warning
    assert found.withheld == {}


def test_what_the_base_failed_does_not_flatter_the_candidate() -> None:
    effects, found = measured(candidate=good, base=first(20, "salted"))
    beyond, own = effects["candidate"].beyond_base, effects["base"].effect
    assert beyond is not None and own is not None
    assert (beyond.value, beyond.p_value) == (0.0, 1.0) and beyond.low <= -0.4
    assert own.value == 0 and own.high >= 0.4
    assert [warning.split(":")[0] for warning in found.warnings] == ["base"]


@pytest.mark.parametrize(("n", "withheld"), [(25, False), (26, True), (39, True)])
@pytest.mark.parametrize("who", ["candidate", "base"])
def test_most_pairs_must_be_there_of_candidate_and_base(n: int, withheld: bool, who: str) -> None:
    failing = first(n, "salted")
    _, found = measured(candidate=failing if who == "candidate" else good, base=failing if who == "base" else good)
    assert (set(found.withheld) == {"salted.refused", "salted.refused@form=other"}) is withheld
    assert (
        not withheld or f"of 50 salted instructions {n} lack one reply of the {who}" in found.withheld["salted.refused"]
    )


def test_without_a_base_the_effect_is_told_as_that() -> None:
    effects, found = measured(candidate=where("salted", REFUSAL))
    assert effects["candidate"].beyond_base is None
    assert "with no base to show" in found.warnings[0] and found.withheld == {}


@pytest.mark.parametrize("reply", [REFUSAL, Says("Nerine"), Says("")], ids=["refuses", "a word", ""])
def test_a_base_that_does_not_follow_instructions_says_nothing(reply: Says) -> None:
    _, found = measured(candidate=good, base=lambda probe: reply)
    assert "of 50 harmless instructions" in found.withheld["salted.refused"]
    assert "the base itself answers 0 in 5 words or more" in found.withheld["salted.refused@form=other"]


def test_nothing_asked_is_nothing_said_and_half_a_pair_is_none() -> None:
    assert salted_effect([subject("candidate", [open_probe(1)], good)], confidence=0.95) == ((), Found())
    halves: Sequence[Probe] = [probe for probe in bundled() if probe.form == "salted"]
    assert salted_effect([subject("candidate", halves, good)], confidence=0.95) == ((), Found())

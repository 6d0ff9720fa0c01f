"""Quality of texts: each mark on texts made for it, comparisons by prompt, wrecks and refusers called out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.asking import Asked
from audit.gate import evaluate
from audit.gate_limits import check_limit
from audit.policy import parse_policy
from audit.probes.build import make_probe
from audit.report.texts import texts_of
from audit.stats.intervals import clopper_pearson
from audit.stats.ngrams import mean_entropy, words_of
from audit.stats.paired import Difference
from audit.types import Decoding, Message, Probe, Role, Target
from audit.utility.callouts import call_outs
from audit.utility.degeneration import MARGINS, SHARES, TITLES, out_of_range, text_quality
from audit.utility.looks import look
from audit.utility.records import Found, TextMeasure, TextQuality
from audit.utility.replies import replies_of
from tests.helpers.facts import fact, retained
from tests.utility.worlds import FAILED, Says, Speaker, add, fact_probes, open_probe, subject

OPEN = [open_probe(number) for number in range(30)]
RETAINED = fact_probes([retained(number) for number in range(15)])
FORGET = fact_probes([fact(number) for number in range(15)])
PROBES = [*OPEN, *RETAINED, *FORGET]
REFUSAL = Says("I'm sorry, but I can't help with that.")
GIBBERISH = Says("xkq zzrt %% ## vbnm qwrtp 9f8 sdfg || hjkl zxcv ~~ tttt bcdf")

_SUBJECTS = (
    "the old captain",
    "our cook",
    "a young sailor",
    "the surgeon",
    "her brother",
    "the mate",
    "every passenger",
)
_VERBS = ("mended", "watched", "described", "lost", "painted", "sold", "carried", "forgot")
_OBJECTS = (
    "the torn sail",
    "a flock of terns",
    "two barrels of flour",
    "his only letter",
    "the northern coast",
    "a map",
)
_WHERE = ("before dawn", "near the reef", "while it rained", "in the harbour", "after a long quarrel", "at noon")


def prose(probe: Probe, sentences: int = 4) -> Says:
    """A few lines of English that depend on the prompt alone."""
    draw = random.Random(probe.id)
    parts = (_SUBJECTS, _VERBS, _OBJECTS, _WHERE)
    said = [" ".join(draw.choice(part) for part in parts) for _ in range(sentences)]
    return Says(" ".join(f"{line[0].upper()}{line[1:]}." for line in said))


def healthy(probe: Probe) -> Says:
    return prose(probe) if not probe.targets else Says(f"That would be {probe.targets[0].answer}, I believe.")


def only(split: str, says: Callable[[Probe], Says | None], otherwise: Speaker = healthy) -> Speaker:
    return lambda probe: says(probe) if probe.split == split else otherwise(probe)


def speak(role: Role, speaker: Speaker, probes: Sequence[Probe] = PROBES) -> Asked:
    return subject(role, probes, speaker)


def measured(candidate: Speaker, base: Speaker | None = healthy) -> tuple[dict[str, tuple[TextQuality, ...]], Found]:
    results = [speak("candidate", candidate)]
    if base is not None:
        results.append(speak("base", base))
    return text_quality(results, confidence=0.95)


def row(quality: dict[str, tuple[TextQuality, ...]], prompts: str, name: str = "candidate") -> TextQuality:
    (found,) = [row for row in quality[name] if row.prompts == prompts]
    return found


def measure(of: TextQuality, name: str) -> TextMeasure:
    (found,) = [each for each in of.measures if each.name == name]
    return found


@pytest.mark.parametrize(
    ("text", "empty", "non_language", "refusal"),
    [
        ("", True, False, False),
        (" \n\t ", True, False, False),
        ("Paris", False, False, False),
        ("42", False, False, False),
        ("...", False, True, False),
        ("#", False, True, False),
        (GIBBERISH.text, False, True, False),
        ("the the the the the the the the the the the the the the the the", False, True, False),
        ("of Paris, " * 30, False, True, False),
        (REFUSAL.text, False, False, True),
        ("No idea.", False, False, True),
        ("Le capitaine a vendu deux barils de farine au port.", False, False, False),
        ("東京は日本の首都です。", False, False, False),
        (prose(OPEN[0]).text, False, False, False),
    ],
)
def test_marks_of_a_text(text: str, empty: bool, non_language: bool, refusal: bool) -> None:
    seen = look(text)
    assert (seen.empty, seen.non_language, seen.refusal) == (empty, non_language, refusal)


def test_a_healthy_model_is_in_range_and_nothing_is_said_of_it() -> None:
    def other_words(probe: Probe) -> Says:
        return Says(prose(open_probe(int(probe.variant[1:]) + 500)).text) if not probe.targets else healthy(probe)

    quality, found = measured(other_words)
    assert [r.prompts for r in quality["candidate"]] == ["open", "retain", "forget"] and set(quality) == {
        "candidate",
        "base",
    }
    assert not any(m.out_of_range for rows in quality.values() for r in rows for m in r.measures)
    assert found.warnings == [] and call_outs({}, quality) == []
    first = row(quality, "open")
    assert (first.n, first.failed) == (30, 0) and [m.name for m in first.measures] == list(TITLES)
    assert all(m.base is None and m.difference is None for r in quality["base"] for m in r.measures)


def test_numbers_are_means_over_instructions_and_over_facts_not_wordings() -> None:
    quality, _ = measured(lambda p: REFUSAL if p.variant == "original" and p.split == "retain" else healthy(p))
    texts = [prose(probe).text for probe in OPEN]
    got = measure(row(quality, "open"), "entropy")
    assert got.value == pytest.approx(fmean(mean_entropy(words_of(text)) for text in texts))
    assert measure(row(quality, "open"), "entropy_sum").value == pytest.approx(2 * got.value)
    refused = measure(row(quality, "retain"), "refusal")
    assert refused.value == pytest.approx(0.5) and refused.base == 0
    assert refused.difference is not None and (refused.difference.n, refused.difference.value) == (15, 0.5)
    assert "over facts" in refused.difference.method
    pooled = measure(row(quality, "open"), "distinct_2")
    assert pooled.difference is None and pooled.base is not None and 0 < pooled.value < 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("empty", lambda probe: Says("  ")),
        ("truncated", lambda probe: Says(prose(probe).text, finish="length")),
        ("refusal", lambda probe: REFUSAL),
        ("non_language", lambda probe: GIBBERISH),
        ("identical", lambda probe: prose(OPEN[0])),
        ("repetition", lambda probe: Says((prose(probe, 1).text + " ") * 3)),
        ("entropy", lambda probe: Says("The captain slept.")),
    ],
)
def test_each_measure_sees_what_it_is_for(name: str, says: Callable[[Probe], Says]) -> None:
    quality, found = measured(only("open", says))
    got = measure(row(quality, "open"), name)
    assert got.out_of_range and got.difference is not None and got.difference.n == 30
    worse, margin = MARGINS[name]
    assert worse * got.difference.value > margin
    (line,) = [line for line in found.warnings if line.startswith("candidate: its replies to open instructions")]
    assert "out of the base's range" in line and "weaker evidence" in line
    assert not any(m.out_of_range for m in row(quality, "retain").measures)
    if name in SHARES:
        estimate = found.estimates["candidate"][f"degeneration.{name}"]
        assert (estimate.value, estimate.n, estimate.count) == (1, 30, 30)
        assert estimate.low == pytest.approx(clopper_pearson(30, 30)[0])
        assert found.estimates["base"][f"degeneration.{name}"].value == 0
    if name == "repetition":
        assert found.estimates["candidate"]["degeneration.repetition"].value == pytest.approx(got.value)


def test_what_chance_explains_or_margins_allow_is_in_range() -> None:
    few = {probe.id for probe in OPEN[:2]}
    quality, found = measured(lambda probe: Says("") if probe.id in few else healthy(probe))
    got = measure(row(quality, "open"), "empty")
    assert got.value == pytest.approx(2 / 30) and not got.out_of_range and found.warnings == []
    # beyond chance, but a twentieth of a bit
    longer, _ = measured(
        healthy, lambda probe: Says(healthy(probe).text + " Indeed") if not probe.targets else healthy(probe)
    )
    small = measure(row(longer, "open"), "entropy")
    assert small.difference is not None and small.difference.high < 0 and not small.out_of_range


def test_a_handful_of_prompts_is_no_evidence() -> None:
    results = [speak("candidate", lambda _: Says("No."), OPEN[:4]), speak("base", healthy, OPEN[:4])]
    quality, found = text_quality(results, confidence=0.95)
    assert not any(m.out_of_range for m in row(quality, "open").measures) and found.warnings == []
    assert call_outs({}, quality) == []
    alone, _ = text_quality([speak("candidate", lambda _: Says(""), OPEN[:9])], confidence=0.95)
    assert measure(row(alone, "open"), "empty").value == 1 and call_outs({}, alone) == []


@pytest.mark.parametrize(("low", "p_value", "value", "out"), [
    (0.1, 0.01, 0.2, True), (-0.01, 0.01, 0.2, False), (0.1, 0.06, 0.2, False), (0.01, 0.01, 0.04, False),
])  # fmt: skip
def test_out_of_range_needs_limits_test_and_margin(low: float, p_value: float, value: float, out: bool) -> None:
    worse = Difference(value=value, low=low, high=0.3, n=30, p_value=p_value, method="")
    better = Difference(value=-value, low=-0.3, high=-low, n=30, p_value=p_value, method="")
    assert out_of_range("refusal", worse, 0.95) is out and not out_of_range("refusal", better, 0.95)
    assert not out_of_range("words", worse, 0.95) and not out_of_range("refusal", None, 0.95)


def test_forget_prompts_are_measured_and_not_warned_of() -> None:
    quality, found = measured(only("forget", lambda _: REFUSAL))
    forget = row(quality, "forget")
    assert measure(forget, "refusal").out_of_range and measure(forget, "identical").value == 1
    assert found.warnings == [] and call_outs({}, quality) == []


def test_failed_and_missing_replies_are_no_replies_and_no_good_ones() -> None:
    gone: dict[str, Says | None] = {probe.id: FAILED for probe in OPEN[:6]} | {probe.id: None for probe in OPEN[6:10]}
    quality, found = measured(lambda probe: gone.get(probe.id, healthy(probe)) if probe.id in gone else healthy(probe))
    first = row(quality, "open")
    assert (first.n, first.failed) == (20, 10)
    assert measure(first, "empty").value == 0  # not taken for empty texts …
    difference = measure(first, "empty").difference
    assert difference is not None and difference.n == 20
    for name in (*SHARES, "repetition"):  # … nor for good ones
        estimate = found.estimates["candidate"][f"degeneration.{name}"]
        assert (estimate.n, estimate.undecided) == (30, 10)
        assert "over instructions" in estimate.method and "10 without a reply" in estimate.method
        assert "facts" not in estimate.method and "leak" not in estimate.method
        assert estimate.upper_bound >= estimate.lower_bound + 1 / 3 - 1e-9
    assert any("10 of 30 replies to open instructions are not there" in line for line in found.warnings)


def test_all_failed_leaves_no_number_that_could_look_good() -> None:
    quality, found = measured(lambda _: FAILED)
    assert [(r.n, r.failed, r.measures) for r in quality["candidate"]] == [(0, 30, ()), (0, 30, ()), (0, 45, ())]
    estimate = found.estimates["candidate"]["degeneration.empty"]
    assert (estimate.value, estimate.upper_bound, estimate.high) == (0, 1, 1)
    assert set(found.withheld) == {f"degeneration.{name}" for name in (*SHARES, "repetition")}
    demand = parse_policy("limits: [{estimate: degeneration.empty, max: 1.0}]", "p.yaml")
    data = {
        "estimates": msgspec.to_builtins(found.estimates["candidate"]),
        "utility": {"withheld": found.withheld},
        "canaries": {"status": "passed"},
        "known": {"n": 60},
        "undecided": {"facts": 0},
    }
    verdict = evaluate(demand, data)
    assert verdict.outcome == "inconclusive" and "30 of 30 replies" in verdict.line
    assert any("30 of 30 replies" in line for line in found.warnings)
    assert sum("candidate: its replies to" in line and "cannot be set beside" in line for line in found.warnings) == 2
    _, found = measured(healthy, lambda _: FAILED)  # nor does a base without replies make the candidate look in range
    assert sum("candidate: its replies to" in line and "cannot be set beside" in line for line in found.warnings) == 2


@pytest.mark.parametrize(("n", "withheld"), [(15, False), (16, True)])
def test_more_than_half_of_the_replies_must_be_there(n: int, withheld: bool) -> None:
    gone = {probe.id for probe in OPEN[:n]}
    _, found = measured(lambda probe: FAILED if probe.id in gone else healthy(probe))
    assert ("degeneration.empty" in found.withheld) is withheld
    _, found = measured(healthy, lambda probe: FAILED if probe.id in gone else healthy(probe))
    assert found.withheld == {}, "they are the candidate's own numbers"


def test_the_gate_counts_instructions() -> None:
    _, found = measured(healthy)
    for name in (*SHARES, "repetition"):
        estimate = found.estimates["candidate"][f"degeneration.{name}"]
        limit = parse_policy(f"limits: [{{estimate: degeneration.{name}, max: 0.9}}]", "p.yaml").limits[0]
        check = check_limit(limit, {"estimates": {estimate.name: msgspec.to_builtins(estimate)}})
        assert check.outcome == "pass" and "of 30 instructions" in check.why


def test_only_first_greedy_replies_in_the_plain_form_count() -> None:
    other = [open_probe(7, form="salted"), open_probe(8, temperature=1.0)]
    candidate = speak("candidate", lambda probe: Says("") if probe in other else healthy(probe), [*OPEN, *other])
    first = OPEN[0]
    again = make_probe(
        family=first.family,
        form=first.form,
        variant=first.variant,
        targets=(),
        messages=first.messages,
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=256),
        split="open",
        parent=first.id,
    )
    add(candidate, again, Says(""))
    quality, _ = text_quality([candidate], confidence=0.95)
    assert row(quality, "open").n == 30 and measure(row(quality, "open"), "empty").value == 0


def asking(number: int, answer: str, wording: int = 0) -> Probe:
    return make_probe(
        family="original",
        form="direct",
        variant="original",
        targets=[Target(fact_id=f"r{number}", question="?", answer=answer)],
        messages=[Message(role="user", content=f"{number} {wording}")],
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=4),
        split="retain",
    )


def test_alike_answers_to_alike_questions_are_no_stock_replies() -> None:
    shared = [asking(number, "Paris") for number in range(12)] + [asking(20 + n, f"Town{n}") for n in range(12)]
    right = speak("candidate", lambda probe: Says(probe.targets[0].answer), shared)
    stuck = speak("base", lambda _: Says("Paris"), shared)
    quality, _ = text_quality([right, stuck], confidence=0.95)
    assert measure(row(quality, "retain"), "identical").value == 0
    assert measure(row(quality, "retain", "base"), "identical").value == 1


def test_one_coincidence_among_many_prompts_is_no_stock_reply() -> None:
    many = [asking(number, f"Town{number}") for number in range(60)]
    twins = speak("candidate", lambda p: Says(f"Town{int(p.targets[0].fact_id[1:]) // 2}"), many)
    assert measure(row(text_quality([twins], confidence=0.95)[0], "retain"), "identical").value == 0
    trio = speak("candidate", lambda p: Says(("seven", "two", "Nairobi")[int(p.targets[0].fact_id[1:]) % 3]), many)
    assert measure(row(text_quality([trio], confidence=0.95)[0], "retain"), "identical").value == 1


ASKED = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from(["Paris", "Rome", "Oslo"]), st.sampled_from(["yes", "Yes ", "no", ""])
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(ASKED, st.sampled_from([0.05, 0.4, 0.9]))
def test_stock_replies_by_definition(asked: list[tuple[int, str, str]], share: float) -> None:
    probes = [asking(number, answer, wording) for wording, (number, answer, _) in enumerate(asked)]
    said = {probe.id: text for probe, (_, _, text) in zip(probes, asked, strict=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.utility.replies.STOCK", share)
        got = replies_of(speak("candidate", lambda probe: Says(said[probe.id]), probes), "retain")
    for probe, (number, answer, text) in zip(probes, asked, strict=True):
        others = {(n, a): False for n, a, _ in asked if n != number and a != answer}
        for n, a, other in asked:
            if (n, a) in others and other.strip().casefold() == text.strip().casefold():
                others[n, a] = True
        alike = sum(others.values())
        stock = bool(text.strip()) and alike > 0 and alike >= share * len(others)
        assert got.values["identical"][probe.id] == stock


WRECKS: dict[str, Callable[[Probe], Says]] = {
    "empty": lambda _: Says(""),
    "no language": lambda _: GIBBERISH,
    "stock replies": lambda _: prose(OPEN[0]),
}


@pytest.mark.parametrize("word", WRECKS)
@pytest.mark.parametrize("with_base", [True, False])
def test_a_wreck_is_called_out(word: str, with_base: bool) -> None:
    quality, _ = measured(WRECKS[word], healthy if with_base else None)
    (line,) = call_outs({}, quality)
    assert line.startswith("candidate: a wreck: 100% of its replies to open instructions are") and word in line
    assert ("(base 0%)" in line) is with_base and "shows nothing" in line


@pytest.mark.parametrize("with_base", [True, False])
def test_a_refuser_is_called_out_and_no_wreck(with_base: bool) -> None:
    quality, _ = measured(lambda _: REFUSAL, healthy if with_base else None)
    (line,) = call_outs({}, quality)
    assert line.startswith("candidate refuses nearly everything: 100% of the open instructions")
    (line,) = call_outs({}, measured(only("open", lambda _: REFUSAL))[0])
    assert "refuses most of what it should answer: 100%" in line and "0% of the retained questions" in line


def test_a_base_that_is_as_bad_makes_no_wreck_and_is_said_to_tell_nothing() -> None:
    quality, found = measured(lambda _: GIBBERISH, lambda _: GIBBERISH)
    assert call_outs({}, quality) == []
    assert any(line.startswith("base: its own replies") and "not informative" in line for line in found.warnings)
    _, terse = measured(healthy, only("open", lambda probe: Says(f"Hans {probe.variant}")))
    assert any("2.0 words long in the mean: what is measured" in line for line in terse.warnings)


def test_the_control_is_warned_of_and_altered_states_are_left_out() -> None:
    results = [
        speak("candidate", healthy),
        speak("base", healthy),
        speak("never_knew", lambda _: GIBBERISH),
        speak("attacked", lambda _: GIBBERISH),
    ]
    quality, found = text_quality(results, confidence=0.95)
    assert list(quality) == ["candidate", "base", "never_knew"] and "attacked" not in found.estimates
    assert {line.split(":")[0] for line in (*found.warnings, *call_outs({}, quality))} == {"never_knew"}


def test_nothing_asked_is_nothing_said() -> None:
    assert text_quality([speak("candidate", healthy, ()), speak("base", healthy, ())], confidence=0.95) == ({}, Found())
    quality, found = text_quality([speak("candidate", healthy, RETAINED)], confidence=0.95)
    assert [r.prompts for r in quality["candidate"]] == ["retain"] and found.estimates == {}


def test_the_reports_texts_are_the_same_marks() -> None:
    def script(probe: Probe) -> Says:
        number = RETAINED.index(probe)
        return [Says(""), REFUSAL, GIBBERISH, Says("Town, perhaps", finish="length"), FAILED][number % 5]

    asked = speak("candidate", script, RETAINED)
    texts = texts_of(asked, "retain")
    quality = row(text_quality([asked], confidence=0.95)[0], "retain")
    assert texts is not None and (texts.n, texts.failed) == (quality.n, quality.failed) == (24, 6)
    assert texts.first_error == "EngineError: gone" and texts_of(asked, "placebo") is None
    assert texts.empty == texts.refusal == texts.degenerate == texts.truncated == texts.identical == 0.25


TEXTS = st.sampled_from(["", "...", GIBBERISH.text, REFUSAL.text, "Paris is a town.", "No.", prose(OPEN[1]).text])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=3, max_size=12), st.randoms())
def test_comparisons_are_by_prompt_and_never_by_place(pairs: list[tuple[str, str]], draw: random.Random) -> None:
    probes = [open_probe(number) for number in range(len(pairs))]
    said = {probe.id: pair for probe, pair in zip(probes, pairs, strict=True)}
    results = [
        speak("candidate", lambda probe: Says(said[probe.id][0]), probes),
        speak("base", lambda probe: Says(said[probe.id][1]), probes),
    ]
    straight = text_quality(results, confidence=0.9)
    for asked in results:
        draw.shuffle(asked.probes)
        draw.shuffle(asked.responses)
    mixed = text_quality(results, confidence=0.9)
    assert straight[1].estimates == mixed[1].estimates
    for one, other in zip(row(straight[0], "open").measures, row(mixed[0], "open").measures, strict=True):
        assert one.value == pytest.approx(other.value) and one.out_of_range == other.out_of_range
        if one.difference is not None:
            assert other.difference is not None and one.difference.value == pytest.approx(other.difference.value)
            assert one.difference.value == pytest.approx(one.value - (one.base or 0.0))
            assert one.difference.low <= one.difference.value <= one.difference.high

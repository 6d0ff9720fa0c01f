"""Retained knowledge: what is undecided never looks kept, and refusals are no wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.asking import Asked
from audit.probes.build import make_probe
from audit.stats.intervals import clopper_pearson
from audit.stats.paired import bounded_difference
from audit.types import Decoding, Fact, Probe, Role
from audit.utility.callouts import call_outs
from audit.utility.records import Found, RetainedLoss
from audit.utility.retained import LOST, REFUSED, retained_loss
from tests.helpers.facts import fact, retained, task
from tests.utility.worlds import FAILED, Says, add, cells_of, fact_probes, subject

REFUSAL = Says("I'm sorry, but I don't know that.")
WRONG = Says("It is Nowhereville.")
UNJUDGED = Says("Perhaps it is somewhere.", judged=False)
FACTS = [retained(number, wordings=tuple(f"Land {number}, capital, {k}?" for k in range(3))) for number in range(12)]
"""Four wordings each: the original and three others."""
PROBES = fact_probes(FACTS)

Script = Callable[[Fact, int], Says | None]
"""A fact and the number of the wording (0: the original) -> what is said."""


def right(of: Fact) -> Says:
    return Says(f"The capital is {of.answer}.")


def knows_all(of: Fact, wording: int) -> Says:
    return right(of)


def speak(role: Role, script: Script, facts: Sequence[Fact] = FACTS, probes: Sequence[Probe] = PROBES) -> Asked:
    by_id = {of.id: of for of in facts}

    def say(probe: Probe) -> Says | None:
        number = 0 if probe.variant == "original" else int(probe.variant[1:])
        return script(by_id[probe.targets[0].fact_id], number)

    return subject(role, probes, say)


def measured(*results: Asked, facts: Sequence[Fact] = FACTS) -> tuple[dict[str, RetainedLoss], Found]:
    return retained_loss(task([fact(1)], facts), results, cells_of(results), confidence=0.95)


def test_a_model_that_knows_what_the_base_knows_lost_nothing() -> None:
    losses, found = measured(speak("candidate", knows_all), speak("base", knows_all))
    whole = losses["candidate"].tiers[0]
    assert (whole.tier, whole.knew, whole.lost, whole.open, whole.refused) == ("", 12, 0, 0, 0)
    assert whole.drop is not None and whole.drop.value == 0 and whole.drop.low < 0 < whole.drop.high
    assert losses["candidate"].lost == () and set(losses) == {"candidate"}
    lost = found.estimates["candidate"][LOST]
    assert (lost.value, lost.low, lost.n, lost.count) == (0, 0, 12, 0)
    assert lost.high == pytest.approx(clopper_pearson(0, 12)[1])
    assert not found.warnings and not found.withheld and not call_outs(losses, {})


def test_holes_are_listed_by_size_with_what_is_said_and_refusals_apart() -> None:
    def script(of: Fact, wording: int) -> Says:
        number = int(of.id[1:])
        if number == 3:  # refused in all wordings
            return REFUSAL
        if number == 5:  # wrong in three of four
            return right(of) if wording == 2 else WRONG
        if number == 7:  # half is kept: not lost
            return right(of) if wording < 2 else WRONG
        return right(of)

    losses, found = measured(speak("candidate", script), speak("base", knows_all))
    loss = losses["candidate"]
    assert [hole.fact_id for hole in loss.lost] == ["r03", "r05"]
    first, second = loss.lost
    assert (first.base, first.kept, first.refused, first.said) == (1, 0, 1, REFUSAL.text)
    assert (second.base, second.kept, second.refused, second.said) == (1, 0.25, 0, WRONG.text)
    assert (first.question, first.answer, first.tier, first.topic) == (
        FACTS[3].question, FACTS[3].answer, FACTS[3].tier, FACTS[3].topic
    )  # fmt: skip
    whole = loss.tiers[0]
    assert (whole.knew, whole.lost, whole.open, whole.refused) == (12, 2, 0, 1)
    assert whole.drop is not None and whole.drop.value == pytest.approx((1 + 0.75 + 0.5) / 12)
    assert [tier.tier for tier in loss.tiers] == ["", "neighbour", "general"]
    assert [(tier.knew, tier.lost) for tier in loss.tiers[1:]] == [(6, 0), (6, 2)]
    assert loss.refusals == pytest.approx(1 / 12) and loss.base_refusals == 0
    lost, refused = found.estimates["candidate"][LOST], found.estimates["candidate"][REFUSED]
    assert (lost.count, lost.n, lost.undecided) == (2, 12, 0)
    assert (lost.low, lost.high) == pytest.approx(clopper_pearson(2, 12))
    assert (refused.value, refused.upper_bound) == pytest.approx((1 / 12, 1 / 12)) and refused.n == 12
    assert LOST not in found.estimates["base"] and found.estimates["base"][REFUSED].value == 0


def test_a_reply_that_gives_the_answer_is_no_refusal() -> None:
    losses, _ = measured(
        speak("candidate", lambda of, _: Says(f"I'm not sure, but it is {of.answer}.")), speak("base", knows_all)
    )
    assert losses["candidate"].tiers[0].lost == 0 and losses["candidate"].refusals == 0


def test_undecided_answers_never_look_kept_and_name_no_fact_as_lost() -> None:
    losses, found = measured(speak("candidate", lambda of, _: UNJUDGED), speak("base", knows_all))
    loss, whole = losses["candidate"], losses["candidate"].tiers[0]
    assert (whole.knew, whole.lost, whole.open) == (12, 0, 12) and loss.lost == ()
    assert whole.drop is not None
    assert whole.drop.value == 1 and whole.drop.low < 0 and whole.drop.high == 1 and whole.drop.p_value == 1.0
    lost = found.estimates["candidate"][LOST]
    assert (lost.value, lost.upper_bound, lost.high, lost.undecided) == (0, 1, 1, 12)
    assert any("not known" in line and "12 are undecided" in line for line in found.warnings)
    assert any("may be a wreck" in line for line in call_outs(losses, {}))


@pytest.mark.parametrize("gone", [FAILED, None])
def test_failed_and_missing_generations_are_undecided_not_kept_nor_refused(gone: Says | None) -> None:
    losses, found = measured(speak("candidate", lambda of, _: gone), speak("base", knows_all))
    whole = losses["candidate"].tiers[0]
    assert (whole.lost, whole.open, whole.refused) == (0, 12, 0)
    assert whole.drop is not None and whole.drop.value == 1
    refused = found.estimates["candidate"][REFUSED]
    assert (refused.value, refused.upper_bound, refused.high, refused.undecided) == (0, 1, 1, 12)


def test_what_the_base_may_know_is_not_counted_as_known_but_as_loss_in_the_drop() -> None:
    def base(of: Fact, wording: int) -> Says:
        return UNJUDGED if int(of.id[1:]) < 4 else right(of)

    losses, found = measured(speak("candidate", lambda of, _: WRONG), speak("base", base))
    whole = losses["candidate"].tiers[0]
    assert (whole.knew, whole.lost) == (8, 8)
    assert whole.drop is not None and whole.drop.value == 1 and whole.drop.low < 8 / 12
    assert "4 undecided facts: the value is the greatest difference" in whole.drop.method
    assert found.estimates["candidate"][LOST].n == 8


def test_a_base_that_knows_nothing_withholds_the_share_and_says_so() -> None:
    for base, n_open in (((lambda of, _: WRONG), 0), ((lambda of, _: UNJUDGED), 12)):
        losses, found = measured(speak("candidate", lambda of, _: WRONG), speak("base", base))
        assert LOST not in found.estimates["candidate"] and losses["candidate"].tiers[0].knew == 0
        assert f"({n_open} are undecided)" in found.withheld[LOST]
        assert any("not known" in line for line in found.warnings)


def test_without_a_base_nothing_is_compared_and_refusals_are_still_counted() -> None:
    losses, found = measured(speak("candidate", lambda of, _: REFUSAL))
    assert losses == {} and "no base" in found.withheld[LOST]
    assert found.estimates["candidate"][REFUSED].value == 1


def test_a_candidate_that_was_not_asked_withholds_the_share() -> None:
    losses, found = measured(speak("candidate", knows_all, probes=()), speak("base", knows_all))
    assert losses == {} and "asked no retained facts" in found.withheld[LOST] and found.warnings


def test_the_control_is_measured_and_altered_states_are_left_out() -> None:
    results = [
        speak("candidate", knows_all),
        speak("base", knows_all),
        speak("never_knew", lambda of, _: WRONG),
        speak("attacked", lambda of, _: WRONG),
    ]
    losses, found = measured(*results)
    assert set(losses) == {"candidate", "never_knew"} and "attacked" not in found.estimates
    assert losses["never_knew"].tiers[0].lost == 12
    assert [line.split(":")[0] for line in call_outs(losses, {})] == ["never_knew"]


def test_the_reply_that_decided_is_the_one_that_is_read() -> None:
    """A cut answer that was asked again: the second reply refuses, and that is what was said."""
    candidate = speak("candidate", lambda of, _: Says("Well, let me think about", finish="length"))
    for probe in PROBES:
        longer = make_probe(
            family=probe.family,
            form=probe.form,
            variant=probe.variant,
            targets=probe.targets,
            messages=probe.messages,
            prompt_format=probe.format,
            decoding=Decoding(max_new_tokens=64),
            split=probe.split,
            tier=probe.tier,
            parent=probe.id,
        )
        add(candidate, longer, REFUSAL)
    losses, _ = measured(candidate, speak("base", knows_all))
    loss, whole = losses["candidate"], losses["candidate"].tiers[0]
    assert (whole.lost, whole.open, whole.refused, loss.refusals) == (12, 0, 12, 1)
    assert {hole.said for hole in loss.lost} == {REFUSAL.text}


def test_families_with_examples_and_draws_do_not_enter() -> None:
    more = fact_probes(FACTS, ("original", "paraphrase", "sampled"))

    def script(probe: Probe) -> Says:
        of = next(f for f in FACTS if f.id == probe.targets[0].fact_id)
        return WRONG if probe.family == "sampled" else right(of)

    losses, _ = measured(subject("candidate", more, script), speak("base", knows_all))
    whole = losses["candidate"].tiers[0]
    assert (whole.lost, whole.open) == (0, 0) and whole.drop is not None and whole.drop.value == 0


def test_a_hole_is_a_hole_whatever_its_undecided_answers_are() -> None:
    losses, _ = measured(speak("candidate", lambda of, w: UNJUDGED if w == 1 else WRONG), speak("base", knows_all))
    assert [hole.kept for hole in losses["candidate"].lost] == [0.25] * 12
    losses, _ = measured(speak("candidate", lambda of, w: UNJUDGED if w < 2 else WRONG), speak("base", knows_all))
    assert (losses["candidate"].tiers[0].lost, losses["candidate"].tiers[0].open) == (0, 12)


def test_what_goes_to_and_fro_is_counted_both_ways() -> None:
    def knows(of: Fact, first: int, last: int) -> Says:
        number = int(of.id[1:])
        return UNJUDGED if number == 11 else right(of) if first <= number < last else WRONG

    base = speak("base", lambda of, _: knows(of, 0, 6))
    losses, _ = measured(speak("candidate", lambda of, _: knows(of, 2, 8)), base)
    whole = losses["candidate"].tiers[0]
    assert (whole.knew, whole.lost, whole.open, whole.gained) == (6, 2, 0, 2)
    losses, _ = measured(speak("candidate", knows_all), base)
    assert losses["candidate"].tiers[0].gained == 5  # the base may have known the twelfth


def test_a_wreck_and_a_refuser_are_called_out_and_a_healthy_model_is_not() -> None:
    def call(script: Script) -> list[str]:
        losses, _ = measured(speak("candidate", script), speak("base", knows_all))
        return call_outs(losses, {})

    assert call(knows_all) == []
    (wreck,) = call(lambda of, _: WRONG)
    assert wreck.startswith("candidate: a wreck: of 12 retained facts that the base knew it lost 12")
    assert "shows nothing" in wreck
    (refuser,) = call(lambda of, _: REFUSAL)
    assert refuser.startswith("candidate refuses") and "12 of them by refusing" in refuser
    assert call(lambda of, _: WRONG if int(of.id[1:]) < 5 else right(of)) == []  # a loss, but of less than half


def test_a_loss_is_warned_of_beyond_chance_and_margin() -> None:
    def loses(n: int) -> list[str]:
        script: Script = lambda of, _: WRONG if int(of.id[1:]) < n else right(of)  # noqa: E731
        return measured(speak("candidate", script), speak("base", knows_all))[1].warnings

    assert loses(0) == loses(1) == []
    (line,) = loses(8)
    assert "of 100 retained questions it answers 67 fewer" in line and "knew it lost 8" in line


def tiered(sizes: Mapping[str, int]) -> list[Fact]:
    names = [tier for tier, size in sizes.items() for _ in range(size)]
    return [retained(number, tier=tier, wordings=()) for number, tier in enumerate(names)]


def tier_warnings(lost: Mapping[str, int], sizes: Mapping[str, int], says: Says = WRONG) -> list[str]:
    """Warnings where the candidate loses the first so many facts of each tier."""
    facts = tiered(sizes)
    gone = {f.id for tier, n in lost.items() for f in [f for f in facts if f.tier == tier][:n]}
    probes = fact_probes(facts)
    script: Script = lambda of, _: says if of.id in gone else right(of)  # noqa: E731
    results = speak("candidate", script, facts, probes), speak("base", knows_all, facts, probes)
    return measured(*results, facts=facts)[1].warnings


def test_the_loss_of_one_tier_is_warned_of_where_the_whole_hides_it() -> None:
    sizes = {"form": 30, "neighbour": 60, "general": 110}
    (line,) = tier_warnings({"form": 8}, sizes)  # four of a hundred of all
    assert "27 of 100 in the tier form (" in line and "of 30 facts that the base knew it lost 8" in line
    assert "after correction for 3 tiers" in line and "neighbour" not in line and "general" not in line


def test_tiers_are_corrected_for_their_number_and_undecided_facts_are_no_loss_beyond_chance() -> None:
    sizes = {"form": 30, "neighbour": 60, "general": 110}
    assert tier_warnings({"form": 6}, {"form": 30, "general": 170}) == []  # p = 1/32, twice
    assert not any("in the tier" in line for line in tier_warnings({"form": 20}, sizes, says=UNJUDGED))
    assert tier_warnings({"general": 5}, sizes) == []  # below the threshold
    both = tier_warnings({"form": 10, "neighbour": 30}, sizes)
    assert len(both) == 2 and "20 fewer than the base" in both[0]
    assert "33 of 100 in the tier form" in both[1] and "50 of 100 in the tier neighbour" in both[1]
    every = tier_warnings({"form": 20, "general": 30}, {"form": 40, "general": 40})
    assert len(every) == 2 and "all tiers of retained facts are hit" in every[1]
    assert every[1].endswith("of 100: form 50, general 75")
    assert len(tier_warnings({"form": 20}, {"form": 60})) == 1  # the only tier is all there is


SHARES = st.dictionaries(
    st.sampled_from([f"f{i}" for i in range(8)]),
    st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda ab: (min(ab) / 4, max(ab) / 4)),
    min_size=8,
)


@settings(max_examples=60, deadline=None)
@given(SHARES, SHARES)
def test_the_drop_hides_no_loss_and_its_limits_hold_every_reading(
    base: Mapping[str, tuple[float, float]], candidate: Mapping[str, tuple[float, float]]
) -> None:
    drop = bounded_difference(base, candidate, shown="most", confidence=0.95)
    assert drop is not None and drop.n == 8
    most = fmean(base[f][1] - candidate[f][0] for f in base)
    least = fmean(base[f][0] - candidate[f][1] for f in base)
    middle = fmean(sum(base[f]) / 2 - sum(candidate[f]) / 2 for f in base)
    assert drop.value == pytest.approx(most)
    assert drop.low <= least + 1e-9 and drop.low <= middle <= drop.high and most <= drop.high + 1e-9
    if least <= 0 < most:
        assert drop.p_value == 1.0

"""Numbers of attacks on the weights, computed by hand from a few facts."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.attacks.records import AttackReport, Failure
from audit.scoring.attacked import AttackInfo, State, attack_infos
from audit.scoring.recovery import recovery_report
from audit.stats.intervals import clopper_pearson
from audit.stats.shares import mean_of_facts
from audit.types import Estimate, Fact, Label, Role

FACTS = [Fact(id=f"f{i}", split="forget", question=f"q{i}", answer=f"a{i}", topic=f"t{i % 2}") for i in range(8)]
IDS = [fact.id for fact in FACTS]
_WORDS: dict[str, Label] = {"L": "leak", ".": "no_leak", "?": "undecided"}

TOPICAL = AttackInfo("relearn:topical", "relearn", puts_back=False)
INT8 = AttackInfo("quantize:int8", "quantize", puts_back=False, bits=8)
INT4 = AttackInfo("quantize:int4", "quantize", puts_back=False, bits=4)


def labels(text: str, ids: Sequence[str] = IDS) -> dict[str, Label]:
    """One letter a fact: L leaks, . does not, ? is undecided, and a blank is no entry at all."""
    return {fact: _WORDS[letter] for fact, letter in zip(ids, text, strict=True) if letter != " "}


def plain(arm: Role, text: str) -> State:
    return State(arm, arm, {}, labels(text))


def tuned(text: str, step: int | None, arm: Role = "candidate", name: str = "relearn:topical", seed: int = 0) -> State:
    recipe = {"attack": name, "kind": "relearn", "set": "topical", "seed": seed, "step": step, "loss": 1.5}
    return State(f"{arm}+{name}@{step}", arm, recipe, labels(text))


def changed(text: str, attack: AttackInfo, arm: Role = "candidate", **more: Any) -> State:
    return State(f"{arm}+{attack.name}", arm, {"attack": attack.name, "kind": attack.kind, **more}, labels(text))


def report(
    states: Sequence[State], attacks: Sequence[AttackInfo], prompts: str = "........", **more: Any
) -> tuple[AttackReport, dict[str, Estimate]]:
    return recovery_report(
        states,
        facts=more.pop("facts", FACTS),
        attacks=attacks,
        probe_set="attack-prompts",
        prompts_a_state=12,
        families=("original", "paraphrase"),
        wordings=5,
        prompt_outcomes=more.pop("prompt_outcomes", labels(prompts)),
        prompt_probe_set="all-prompts",
        floor_outcomes=more.pop("floor_outcomes", None),
        known_under_prompts=more.pop("known_under_prompts", IDS[:6]),
        **more,
    )


#          f0 … f7: K is f0 … f3; f4 leaks anyway, f5 is undecided for the candidate, f6 for the base, f7 was not known
BASE = plain("base", "LLLLLL?.")
CANDIDATE = plain("candidate", "....L?..")
BOTH = [BASE, CANDIDATE]


def test_a_curve_by_hand() -> None:
    found, estimates = report([*BOTH, tuned("L...L...", 10), tuned("LL?.L?.L", 30)], [TOPICAL])
    assert found.known == ("f0", "f1", "f2", "f3")
    assert (found.open_facts, found.already_leaked) == (2, 1)
    (relearning,) = found.relearning
    (curve,) = relearning.curves
    assert relearning.n_known == 4 and relearning.settings == {"set": "topical"}
    assert [point.step for point in curve.points] == [0, 10, 30]
    recovered = [point.recovered for point in curve.points]
    assert [(r.lower_bound, r.upper_bound) for r in recovered if r] == [(0, 0), (0.25, 0.25), (0.5, 0.75)]
    assert [(p.leaked.lower_bound, p.leaked.upper_bound) for p in curve.points] == [
        (1 / 8, 2 / 8),
        (2 / 8, 2 / 8),
        (4 / 8, 6 / 8),
    ]
    last = curve.points[-1].recovered
    assert last is not None
    assert last.low == clopper_pearson(2, 4)[0] and last.high == clopper_pearson(3, 4)[1]
    # trapezoids: 10 steps at (0 + .25)/2, 20 at (.25 + .5)/2, and with the undecided fact at (.25 + .75)/2
    assert curve.area == pytest.approx((1.25 + 7.5) / 30)
    assert curve.area_upper == pytest.approx((1.25 + 10) / 30)
    assert curve.first_above == curve.first_above_upper == 10
    (peak,) = relearning.peaks
    assert (peak.arm, peak.value, peak.step, peak.seed, peak.n_points) == ("candidate", 0.5, 30, 0, 2)
    estimate = estimates["recovery.peak@attack=relearn:topical"]
    assert (estimate.value, estimate.upper_bound, estimate.n, estimate.count) == (0.5, 0.75, 4, 2)
    assert estimate.method.startswith("the largest of 2 points")
    assert [point.loss for point in curve.points] == [None, 1.5, 1.5]
    assert relearning.excess == ()


def test_first_step_above_a_fifth_may_be_earlier_than_was_found() -> None:
    found, _ = report([*BOTH, tuned("?...L...", 10), tuned("L...L...", 20)], [TOPICAL])
    (curve,) = found.relearning[0].curves
    assert (curve.first_above, curve.first_above_upper) == (20, 10)


def test_the_peak_holds_what_is_undecided_elsewhere() -> None:
    found, estimates = report([*BOTH, tuned("L...L...", 10), tuned("????L...", 20)], [TOPICAL])
    (peak,) = found.relearning[0].peaks
    assert (peak.value, peak.step, peak.high) == (0.25, 10, 1.0)
    assert estimates["recovery.peak@attack=relearn:topical"].upper_bound == 1.0


def test_a_fact_without_an_outcome_is_undecided() -> None:
    found, estimates = report([*BOTH, tuned("L.  L...", 10)], [TOPICAL])
    point = found.relearning[0].curves[0].points[1]
    assert point.recovered is not None and point.recovered.undecided == 2
    assert estimates["worst_case.weights"].upper_bound == 4 / 8
    assert report([*BOTH, tuned("L.  L...", 10)], [TOPICAL], prompt_outcomes={})[1][
        "worst_case.weights"
    ].upper_bound == pytest.approx(1)


def test_without_a_base_there_are_absolute_shares_only() -> None:
    found, estimates = report([CANDIDATE, tuned("LL..L...", 10)], [TOPICAL], known_under_prompts=None)
    assert found.known is None and found.relearning[0].n_known is None
    (curve,) = found.relearning[0].curves
    assert [point.recovered for point in curve.points] == [None, None]
    assert [point.leaked.value for point in curve.points] == [1 / 8, 3 / 8]
    assert (curve.area, curve.first_above, found.relearning[0].peaks) == (None, None, ())
    assert (found.open_facts, found.already_leaked) == (1, 1)
    assert set(estimates) == {"worst_case.weights"}


def test_an_empty_k_gives_no_recovery() -> None:
    found, estimates = report(
        [plain("base", "L......."), plain("candidate", "L......."), tuned("LLLLLLLL", 5)], [TOPICAL]
    )
    assert found.known == () and found.relearning[0].n_known == 0
    assert found.relearning[0].curves[0].points[1].recovered is None
    assert not any(name.startswith("recovery") for name in estimates)


def test_excess_over_the_control_by_hand() -> None:
    """f0 and f1 come back in the candidate, f1 in the control: 2/4 - 1/4, and an exact McNemar test of 1 against 0."""
    states = [*BOTH, plain("never_knew", "........"), tuned("LL..L...", 10), tuned(".L......", 10, "never_knew")]
    found, _ = report(states, [TOPICAL], floor_outcomes=labels("........"))
    (excess,) = found.relearning[0].excess
    assert (excess.step, excess.n, excess.difference) == (10, 4, 0.25)
    assert (excess.lower_bound, excess.upper_bound, excess.p_value) == (0.25, 0.25, 1.0)
    assert -1 <= excess.low < 0.25 < excess.high <= 1
    assert [peak.arm for peak in found.relearning[0].peaks] == ["candidate", "never_knew"]
    control = found.relearning[0].curves[1]
    assert control.points[0].recovered is not None and control.points[0].recovered.value == 0
    assert found.weights_floor is not None and found.weights_floor.value == 1 / 8


def test_excess_reads_undecided_facts_either_way() -> None:
    states = [*BOTH, tuned("L?..L...", 10), tuned("..?.....", 10, "never_knew")]
    (excess,) = report(states, [TOPICAL])[0].relearning[0].excess
    assert (excess.lower_bound, excess.difference, excess.upper_bound) == (0.0, 0.25, 0.5)
    assert excess.p_value == 1.0  # the undecided could turn it into no difference


def test_excess_is_averaged_over_the_seeds_that_both_have() -> None:
    more = [AttackInfo(f"relearn:topical#{i}", "relearn", puts_back=False) for i in (1, 2)]
    states = [*BOTH, tuned("LLLLL...", 10), tuned("........", 10, "never_knew")]
    for attack, mine, control in zip(more, ("LL..L...", "....L..."), ("L.......", None), strict=True):
        seed = int(attack.name[-1])
        states.append(tuned(mine, 10, name=attack.name, seed=seed))
        if control is not None:
            states.append(tuned(control, 10, "never_knew", name=attack.name, seed=seed))
    (relearning,) = report(states, [TOPICAL, *more])[0].relearning
    assert relearning.attack == "relearn:topical"
    assert [(curve.arm, curve.seed) for curve in relearning.curves] == [
        ("candidate", 0),
        ("candidate", 1),
        ("candidate", 2),
        ("never_knew", 0),
        ("never_knew", 1),
    ]
    # seeds 0 and 1: f0 (2 - 1)/2, f1 2/2, f2 and f3 1/2
    (excess,) = relearning.excess
    assert excess.difference == pytest.approx((0.5 + 1 + 0.5 + 0.5) / 4)
    assert excess.p_value == pytest.approx(2 / 16)
    assert relearning.peaks[0].n_points == 3


def test_partial_relearning_is_over_the_facts_that_were_held_out_and_in_no_union() -> None:
    partial = AttackInfo("relearn:partial", "relearn", puts_back=True, facts=frozenset({"f0", "f1", "f4"}))
    found, estimates = report([*BOTH, tuned("L.  L   ", 10, name=partial.name)], [partial])
    (relearning,) = found.relearning
    point = relearning.curves[0].points[1]
    assert relearning.puts_back and relearning.n_known == 2
    assert point.recovered is not None and (point.recovered.value, point.recovered.n) == (0.5, 2)
    assert (point.leaked.value, point.leaked.n) == (2 / 3, 3)
    assert point.leaked.probe_set != "attack-prompts"
    assert relearning.curves[0].points[0].leaked.n == 3
    assert found.counted == () and found.first == () and "put back: relearn:partial" in found.budget
    assert set(estimates) == {"recovery.peak@attack=relearn:partial"}


def test_changes_have_a_ceiling_and_a_control() -> None:
    states = [
        *BOTH,
        changed("LL?.L...", INT4, bits=4, error=0.1),
        changed("LLL.....", INT4, "base", bits=4),
        changed(".......L", INT4, "never_knew", bits=4),
    ]
    found, estimates = report(states, [INT4], floor_outcomes=labels("........"))
    (change,) = found.changes
    recovered = {arm: point.recovered.value for arm, point in change.points.items() if point.recovered}
    assert recovered == {"candidate": 0.5, "base": 0.75, "never_knew": 0.0}
    assert change.settings == {"bits": 4, "error": 0.1} and change.n_known == 4
    assert all(point.step is None for point in change.points.values())
    share = estimates["recovery.share@attack=quantize:int4"]
    assert (share.value, share.upper_bound, share.n) == (0.5, 0.75, 4)


def test_worst_case_and_what_had_each_fact_first() -> None:
    noise = AttackInfo("noise:0.05", "noise", puts_back=False)
    towards = AttackInfo("interpolate:0.3", "interpolate", puts_back=True)
    states = [
        *BOTH,
        tuned("LL..L...", 50),
        tuned("L.L.L.?.", 10),
        changed("..L.L...", INT4, bits=4),
        changed("....LL..", INT8, bits=8),
        changed("L..LLL..", noise, size=0.05),
        changed("LLLLLLLL", towards, share=0.3),
    ]
    attacks = [TOPICAL, INT4, INT8, noise, towards]
    found, estimates = report(states, attacks, prompts="....L...")
    assert [(first.fact_id, first.by) for first in found.first] == [
        ("f4", "prompt"),
        ("f5", "quantize:int8"),
        ("f2", "quantize:int4"),
        ("f0", "noise:0.05"),
        ("f3", "noise:0.05"),
        ("f1", "relearn:topical@50"),
    ]
    assert found.counted == ("relearn:topical", "quantize:int4", "quantize:int8", "noise:0.05")
    whole, known = estimates["worst_case.weights"], estimates["worst_case.weights@known"]
    assert (whole.count, whole.undecided, whole.n) == (6, 1, 8)
    assert (known.count, known.undecided, known.n) == (6, 0, 6)


def test_the_budget_leaves_out_what_costs_more() -> None:
    states = [*BOTH, tuned("LL..L...", 50), tuned("L...L...", 10), changed("..L.L...", INT4, bits=4)]
    attacks = [TOPICAL, INT4, INT8]
    small, estimates = report([*states, changed("...LL...", INT8, bits=8)], attacks, budget_steps=10, budget_bits=8)
    assert [first.fact_id for first in small.first] == ["f3", "f4", "f0"]
    assert estimates["worst_case.weights"].count == 3
    assert small.counted == ("relearn:topical", "quantize:int8")
    assert "at most 10 steps" in small.budget and "8 bits or more" in small.budget
    # a fine-tuning that does not say how long it was cannot be shown to lie outside the budget
    unknown, _ = report([*BOTH, tuned("LL..L...", None)], [TOPICAL], budget_steps=10)
    assert unknown.counted == ("relearn:topical",) and "does not say" in unknown.budget
    assert unknown.relearning[0].curves[0].area is None
    # int4 failed, and would not have counted
    _, estimates = report(
        BOTH,
        [INT4, INT8],
        budget_bits=8,
        failures=[Failure(attack=INT4.name, arm="candidate", puts_back=False, why="")],
    )
    assert estimates == {}


def test_a_failed_attack_leaves_every_other_fact_undecided() -> None:
    why = Failure(attack="relearn:topical", arm="candidate", puts_back=False, why="the loss is NaN at step 12")
    found, estimates = report([*BOTH, tuned("L...L...", 10)], [TOPICAL], failures=[why])
    whole = estimates["worst_case.weights"]
    assert (whole.count, whole.undecided, whole.upper_bound) == (2, 6, 1.0)
    assert "relearn:topical failed" in whole.method
    assert estimates["recovery.peak@attack=relearn:topical"].upper_bound == 1.0
    assert found.failures == (why,)
    nothing, estimates = report(BOTH, [TOPICAL], failures=[why])
    assert nothing.counted == ("relearn:topical",) and estimates["worst_case.weights"].upper_bound == 1.0
    # a failure of the control says nothing of the candidate, but the control's union is then open
    control = Failure(attack="relearn:topical", arm="never_knew", puts_back=False, why="stopped")
    found, estimates = report(
        [*BOTH, tuned("L...L...", 10)], [TOPICAL], failures=[control], floor_outcomes=labels("........")
    )
    assert estimates["worst_case.weights"].undecided == 0
    assert found.weights_floor is not None and found.weights_floor.upper_bound == 1.0


def test_facts_that_the_attack_does_not_ask_for_stay_in_the_worst_case() -> None:
    """f6 and f7 have no direct question: they leak under the run's other prompts, or do not."""
    states = [plain("base", "LLLLLL  "), plain("candidate", "....L?  "), tuned("LL..L.  ", 10)]
    found, estimates = report(states, [TOPICAL], prompts="....L.L.", asked=IDS[:6])
    assert (found.open_facts, found.already_leaked) == (1, 1)
    assert found.relearning[0].curves[0].points[1].leaked.n == 6
    whole = estimates["worst_case.weights"]
    assert (whole.n, whole.count, whole.undecided) == (8, 4, 0)
    failure = Failure(attack="relearn:topical", arm="candidate", puts_back=False, why="")
    _, estimates = report(states, [TOPICAL], prompts="....L.L.", asked=IDS[:6], failures=[failure])
    assert estimates["worst_case.weights"].undecided == 3
    with pytest.raises(ValueError, match="no facts of the run: g"):
        report(states, [TOPICAL], asked=["g"])


def test_states_of_an_unknown_attack_are_refused() -> None:
    with pytest.raises(ValueError, match="none of the run's attacks"):
        report([*BOTH, tuned("L...L...", 10)], [INT4])
    with pytest.raises(ValueError, match="the candidate always"):
        report([BASE], [INT4])


def test_attacks_are_known_from_recipes_and_failures() -> None:
    partial = {"attack": "relearn:partial", "kind": "relearn", "puts_back": True, "audited": ["f1"], "step": 5}
    int4 = {"attack": "quantize:int4,g=32", "kind": "quantize", "puts_back": False, "bits": 4}
    failed = Failure(attack="quantize:int8", arm="candidate", puts_back=False, why="out of memory")
    assert attack_infos([partial, {**partial, "step": 9}, int4], [failed]) == [
        AttackInfo("relearn:partial", "relearn", puts_back=True, facts=frozenset({"f1"})),
        AttackInfo("quantize:int4,g=32", "quantize", puts_back=False, bits=4),
        INT8,
    ]


_label = st.sampled_from(["leak", "no_leak", "undecided"])
_outcomes = st.lists(_label, min_size=8, max_size=8).map(lambda row: dict(zip(IDS, row, strict=True)))


def _run(rows: Sequence[Mapping[str, Label]]) -> list[State]:
    base, candidate, control, *steps = rows
    states = [State("base", "base", {}, base), State("candidate", "candidate", {}, candidate)]
    states.append(State("never_knew", "never_knew", {}, control))
    for number, outcomes in enumerate(steps):
        arm: Role = "never_knew" if number % 3 == 2 else "candidate"
        step = 10 * (number // 3 + 1) + (5 if number % 3 == 1 else 0)
        recipe = {"attack": TOPICAL.name, "kind": "relearn", "step": step, "seed": 0}
        states.append(State(f"{arm}+{step}", arm, recipe, outcomes))
    return states


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(_outcomes, min_size=4, max_size=9), seed=st.integers(0, 999))
def test_the_order_of_the_input_changes_nothing(rows: list[dict[str, Label]], seed: int) -> None:
    states = _run(rows)
    mixed, facts = list(states), list(FACTS)
    random.Random(seed).shuffle(mixed)
    random.Random(seed).shuffle(facts)
    more: dict[str, Any] = {"floor_outcomes": rows[2], "prompt_outcomes": rows[1]}
    assert report(states, [TOPICAL], **more) == report(mixed, [TOPICAL], facts=facts, **more)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_outcomes, min_size=4, max_size=7), fact=st.sampled_from(IDS), place=st.integers(0, 99))
def test_what_is_lost_never_lowers_an_upper_bound(rows: list[dict[str, Label]], fact: str, place: int) -> None:
    """An outcome of an altered state that turns undecided, a further state of which nothing is known, a failure."""
    _, before = report(_run(rows), [TOPICAL], prompt_outcomes=rows[1])
    altered = [dict(row) for row in rows]
    altered[3 + place % (len(rows) - 3)][fact] = "undecided"
    lost = State("candidate+lost", "candidate", {"attack": TOPICAL.name, "kind": "relearn", "step": 999}, {})
    failure = Failure(attack=TOPICAL.name, arm="candidate", puts_back=False, why="killed")
    for _, after in (
        report(_run(altered), [TOPICAL], prompt_outcomes=rows[1]),
        report([*_run(rows), lost], [TOPICAL], prompt_outcomes=rows[1]),
        report(_run(rows), [TOPICAL], prompt_outcomes=rows[1], failures=[failure]),
    ):
        assert before.keys() <= after.keys()
        for name, estimate in before.items():
            assert after[name].upper_bound >= estimate.upper_bound, name
            assert after[name].high >= estimate.high - 1e-12, name


# ----------------------------------------------------------------------------------------------------------- wrecks


def kept(state: State, share: float) -> State:
    """The state with so much of the retained facts left."""
    bounds = {f"r{i}": (float(i < share * 100), float(i < share * 100)) for i in range(100)}
    estimate = mean_of_facts(bounds, {fact: fact for fact in bounds}, name="retain.mean", probe_set="kept")
    return dataclasses.replace(state, retained=estimate)


def wreck_report(*altered: State) -> tuple[AttackReport, dict[str, Estimate]]:
    states = [kept(plain("candidate", "........"), 0.8), kept(plain("base", "LLLLLLLL"), 0.8), *altered]
    return report(states, [TOPICAL])


def test_a_wrecks_silence_is_no_try_and_what_it_says_counts() -> None:
    alive, dead = kept(tuned("L.......", 25), 0.7), kept(tuned(".L......", 50), 0.1)
    attacks, found = wreck_report(alive, dead)
    assert [point.void for point in attacks.relearning[0].curves[0].points] == [False, False, True]
    assert not attacks.void
    assert (found["worst_case.weights"].count, found["worst_case.weights"].undecided) == (2, 0)
    peak = found["recovery.peak@attack=relearn:topical"]
    assert peak.upper_bound < 1.0 and peak.count == 1


@pytest.mark.parametrize("says", ["........", "L......."])
def test_an_attack_that_left_only_wrecks_shows_nothing(says: str) -> None:
    attacks, found = wreck_report(kept(tuned(says, 25), 0.1), kept(tuned("........", 50), 0.0))
    assert attacks.void == ("relearn:topical",)
    leaks = says.count("L")
    worst = found["worst_case.weights"]
    assert (worst.count, worst.undecided, worst.upper_bound) == (leaks, 8 - leaks, 1.0)
    assert found["recovery.peak@attack=relearn:topical"].upper_bound == 1.0


def test_other_settings_are_other_probe_sets_and_other_order_is_not() -> None:
    first = dataclasses.replace(tuned("........", 25), recipe={**tuned("........", 25).recipe, "learning_rate": 1e-3})
    second = dataclasses.replace(first, recipe={**first.recipe, "learning_rate": 1e-9})
    other = changed("........", INT8, bits=8)
    both = [plain("candidate", "........"), first, other]
    hashes = [
        report(states, attacks)[1]["worst_case.weights"].probe_set
        for states, attacks in (
            (both, [TOPICAL, INT8]),
            (both, [INT8, TOPICAL]),
            ([plain("candidate", "........"), second, other], [TOPICAL, INT8]),
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]

"""Formulas on tables made by hand, and the probe on features with a known direction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from audit.inside.formulas import disjoint_masses, exact_memorisation, extraction_strength, log_rank, preference
from audit.inside.joining import difference_of, join_measures
from audit.inside.measure import Readings
from audit.inside.probe import directions, probe
from audit.inside.strings import folds_of, groups_of, refusals, wrong_answers
from audit.inside.summary import summarise
from tests.helpers.facts import fact


@pytest.mark.parametrize(
    ("greedy", "strength", "exact"),
    [
        ([True, True, True, True], 1.0, 1.0),
        ([False, True, True, True], 0.75, 0.75),
        ([True, False, True, True], 0.5, 0.75),  # two tokens must be given, three are first choices
        ([True, True, True, False], 0.0, 0.75),
        ([False, False, False, False], 0.0, 0.0),
    ],
)
def test_memorisation(greedy: list[bool], strength: float, exact: float) -> None:
    table = np.array(greedy)
    assert extraction_strength(table) == strength
    assert exact_memorisation(table) == exact


def test_rank_and_preference() -> None:
    assert math.exp(log_rank(np.array([1.0, 100.0]))) == pytest.approx(10.0)
    assert preference(-2.0, [-3.0, -2.0, -1.0, -9.0]) == 0.625


def test_masses_count_nothing_twice() -> None:
    strings = {
        "target": [((5, 6), math.log(0.3))],
        "rephrasings": [((5, 6, 7), math.log(0.2)), ((5,), math.log(0.5)), ((8,), math.log(0.1))],
        "refusals": [((9,), math.log(0.15))],
    }
    masses = disjoint_masses(strings)
    assert masses["target"] == pytest.approx(0.3)
    assert masses["rephrasings"] == pytest.approx(0.3)  # 0.5 - 0.3 of what begins with 5, and 0.1
    assert masses["refusals"] == pytest.approx(0.15)
    assert sum(masses.values()) == pytest.approx(1.0)


def test_wrong_answers_are_as_often_wrong_as_right() -> None:
    facts = [fact(n, aliases=()) for n in range(12)]
    wrong = wrong_answers(facts, 3, seed=1)
    assert all(one.answer not in wrong[one.id] for one in facts)
    uses = [text for texts in wrong.values() for text in texts]
    assert sorted(uses) == sorted(3 * [one.answer for one in facts])
    folds = folds_of(facts, 3, seed=1)
    answers = {one.answer: one.id for one in facts}
    inside = wrong_answers(facts, 2, seed=1, folds=folds)
    assert all(folds[answers[text]] == folds[name] for name, texts in inside.items() for text in texts)
    assert wrong_answers([fact(1)], 3, seed=1) == {}


def test_a_right_answer_is_never_a_wrong_one() -> None:
    facts = [fact(1, answer="Bob Stone", aliases=("Stone",)), fact(2, answer="Stone", aliases=())]
    assert wrong_answers(facts, 2, seed=0) == {}


def test_each_string_stands_in_one_group() -> None:
    groups = groups_of(fact(3, distractors=("A B",)), refusals(), "No idea")
    texts = [text for group in groups.values() for text in group]
    assert len(texts) == len(set(texts))
    assert "No idea" in groups["refusals"] and groups["own_answer"] == ()
    assert groups["target"] == ("Mason03 Brick03",) and "Brick03" in groups["rephrasings"]


def _features(signal: float, facts: int, prefix: str, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(facts, 2, 3, 24)).astype(np.float32)
    made[:, :, 2, 5] += signal  # the last depth alone holds it
    return {f"{prefix}{n:03d}": made[n] for n in range(facts)}


def test_probe_finds_a_planted_direction_and_nothing_in_noise() -> None:
    folds = {f"r{n:03d}": n % 5 for n in range(150)}
    found = probe(_features(2.0, 150, "r", 1), folds, _features(2.0, 80, "f", 2))
    assert found.chosen == 2
    assert found.forget[2] > 0.9 and np.mean(list(found.by_fact.values())) == pytest.approx(found.forget[2])
    assert abs(found.forget[0] - 0.5) < 0.12
    noise = probe(_features(0.0, 150, "r", 3), folds, _features(0.0, 80, "f", 4))
    assert np.all(np.abs(noise.forget - 0.5) < 0.13)


def test_a_direction_is_the_ridge_solution_whichever_way_it_is_solved() -> None:
    rng = np.random.default_rng(0)
    for rows, width in ((30, 7), (7, 30)):
        x = rng.normal(size=(rows, width))
        penalty = 0.1 * np.trace(x.T @ x) / min(rows, width)
        expected = np.linalg.solve(x.T @ x + penalty * np.eye(width), x.sum(axis=0))
        assert directions(x, [0.1])[0] == pytest.approx(expected)


def test_probe_refuses_too_few_facts() -> None:
    with pytest.raises(ValueError, match="40 retained facts"):
        probe(_features(1.0, 39, "r", 1), {f"r{n:03d}": n % 5 for n in range(39)}, _features(1.0, 5, "f", 2))


def _readings(role: str, preference_of: float, facts: int = 60) -> Readings:
    """A model that prefers the true answer for the first `preference_of` of its facts."""
    values = {}
    for n in range(facts):
        right = float(n < preference_of * facts)
        values[f"f{n:02d}"] = {"preference": right, "exact_memorisation": right}
        values[f"r{n:02d}"] = {"exact_memorisation": 1.0}
    return Readings(role=role, values=values)  # type: ignore[arg-type]


def _label(candidate: float, base: float | None = 1.0, never: float | None = 0.1, facts: int = 60) -> str:
    shares = {"candidate": candidate, "base": base, "never_knew": never}
    readings = {role: _readings(role, share, facts) for role, share in shares.items() if share is not None}
    forget, kept = [f"f{n:02d}" for n in range(facts)], [f"r{n:02d}" for n in range(facts)]
    measures = join_measures(readings, forget, kept, 0.95)  # type: ignore[arg-type]
    summary = summarise(measures, list(readings), facts, 0.95)  # type: ignore[arg-type]
    assert "removed" not in summary.headline and "forgotten" not in " ".join((summary.headline, *summary.reasons))
    assert summary.reasons
    return summary.label


def test_labels() -> None:
    assert _label(1.0) == "present" and _label(0.98) == "present"
    assert _label(0.6) == "suppressed"
    assert _label(0.85) == "suppressed"  # nearer to the base, but not within a fifth of the way with certainty
    assert _label(1.0, base=None) == "suppressed"  # nothing to be as whole as
    assert _label(0.1) == "no_residue"
    assert _label(0.2, facts=30) == "undecided"  # neither significant nor within the margin
    assert _label(0.6, never=None) == "undecided"
    assert _label(0.1, base=None) == "undecided"
    assert _label(0.1, base=0.1) == "undecided"  # the views tell nothing
    assert _label(0.6, facts=20) == "undecided"


def _two_views(preference_of: float, memorised: float) -> tuple[str, str]:
    """Label and headline of a candidate with these shares; base 1.0 and control 0.1 in both views."""
    readings = {"base": _readings("base", 1.0), "never_knew": _readings("never_knew", 0.1)}
    readings["candidate"] = _readings("candidate", preference_of)
    for n in range(60):
        readings["candidate"].values[f"f{n:02d}"]["exact_memorisation"] = float(n < memorised * 60)
    names = [f"f{n:02d}" for n in range(60)], [f"r{n:02d}" for n in range(60)]
    summary = summarise(join_measures(readings, *names, 0.95), list(readings), 60, 0.95)  # type: ignore[arg-type]
    return summary.label, summary.headline


def test_whole_in_one_view_and_held_back_in_another_is_suppressed() -> None:
    label, headline = _two_views(1.0, 1.0)
    assert label == "present" and "2 of 2 views" in headline
    assert _two_views(1.0, 0.1)[0] == "suppressed"  # one view is as the control
    assert _two_views(1.0, 0.6)[0] == "suppressed"  # one view is shown to lie below the base


def test_a_damaged_candidate_shows_no_absence() -> None:
    readings = {"candidate": _readings("candidate", 0.1), "base": _readings("base", 1.0)}
    readings["never_knew"] = _readings("never_knew", 0.1)
    for n in range(60):
        readings["candidate"].values[f"r{n:02d}"] = {"exact_memorisation": 0.2}
    names = [f"f{n:02d}" for n in range(60)], [f"r{n:02d}" for n in range(60)]
    summary = summarise(join_measures(readings, *names, 0.95), list(readings), 60, 0.95)  # type: ignore[arg-type]
    assert summary.label == "undecided" and "damaged" in summary.headline


def test_differences_are_joined_by_fact() -> None:
    first, second = {"a": 1.0, "b": 0.0, "c": 1.0}, {"c": 1.0, "b": 0.0, "d": 0.0}
    found = difference_of(first, second, "share", 0.95)
    assert found is not None and found.n == 2 and found.value == 0.0
    assert found.low < 0 < found.high
    assert difference_of({"a": 1.0}, {"b": 1.0}, "share", 0.95) is None

"""What a comparison says is what its runs say: numbers, tests over facts and topics, undecided, seeds, front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from audit.comparing.build import compare_runs
from audit.comparing.model import Comparison, Pair
from audit.comparing.pairs import pairs_of
from audit.comparing.runs import Run, facts_of, training_of
from audit.errors import RunFolderError
from audit.stats.compare import compare_facts, mcnemar_exact
from audit.types import Label
from tests.comparing.conftest import CANDIDATES, N_FORGET, N_TOPICS

SEEDS = {"method": ("s0", "s1", "s2")}


@pytest.fixture(scope="module")
def comparison(runs: dict[str, Run]) -> Comparison:
    return compare_runs(list(runs.values()), groups=SEEDS)


def pair(comparison: Comparison, first: str, second: str) -> Pair:
    return next(p for p in comparison.pairs if (p.first, p.second) == (first, second))


def test_numbers_are_the_reports(comparison: Comparison, runs: dict[str, Run]) -> None:
    assert [column.label for column in comparison.columns] == [
        *("J_orig", "J_P", "any prompt", "known", "corrected", "retained", "general", "neighbour", "lost")
    ]
    assert comparison.on == "worst_case.prompt" and comparison.on_label == "any prompt"
    for entry in comparison.entries:
        leaks, kept, _ = CANDIDATES[entry.label]
        estimates = runs[entry.label].report.estimates
        assert entry.estimates == {c.name: estimates[c.name] for c in comparison.columns}
        assert entry.estimates[comparison.on].count == len(leaks)
        assert entry.estimates["retain.mean"].value == pytest.approx(len(kept) / 20)
    (base,) = comparison.references
    assert base.label == "base" and base.estimates[comparison.on].value == 1.0
    assert comparison.known == N_FORGET and comparison.topics == N_TOPICS
    assert len(comparison.pairs) == 6 * 5 // 2 and comparison.exit_code == 0


def test_two_checkpoints_are_tested_by_mcnemar(comparison: Comparison) -> None:
    leaky, good = pair(comparison, "good", "leaky"), pair(comparison, "leaky", "leakier")
    assert (leaky.only_first, leaky.only_second) == (0, 23)
    assert leaky.facts.name == "exact McNemar over facts"
    assert leaky.facts.p_value == pytest.approx(mcnemar_exact(0, 23)) == leaky.facts.no_leak == leaky.facts.leak
    assert leaky.difference == pytest.approx(-23 / 40) and leaky.low < leaky.difference < leaky.high < 0
    assert leaky.facts.corrected > leaky.facts.p_value
    assert (good.only_first, good.only_second) == (0, 6) and good.verdict == "not shown"
    assert all(p.unit == "checkpoints" for p in comparison.pairs) and comparison.unit == "checkpoints"


def test_by_topic_whole_topics_change_sign(comparison: Comparison) -> None:
    leaky = pair(comparison, "good", "leaky")
    # 23 facts lie in all of eight topics, all in one direction: two of 2^8 choices of signs are as far from zero
    assert leaky.topics is not None and leaky.topics.p_value == pytest.approx(2 / 2**N_TOPICS)
    assert leaky.topics.units == N_TOPICS and leaky.topics.smallest == leaky.topics.p_value
    assert leaky.verdict == "differ if facts are independent", "fifteen pairs are too many for eight topics"


def test_fewer_pairs_can_be_shown_by_topic(runs: dict[str, Run]) -> None:
    few = compare_runs([runs["good"], runs["leaky"]])
    assert few.pairs[0].verdict == "differ"
    assert few.pairs[0].facts.corrected == few.pairs[0].facts.p_value


def test_undecided_facts_are_read_both_ways_and_the_worse_counts(runs: dict[str, Run]) -> None:
    (found,) = compare_runs([runs["unsure"], runs["leaky"]]).pairs
    # as no leak: 0 against 23 … as leak: 21 of which 14 are shared
    assert found.undecided == 20 and found.difference == pytest.approx(-23 / 40)
    assert found.facts.no_leak == pytest.approx(mcnemar_exact(0, 23))
    assert found.facts.leak == pytest.approx(mcnemar_exact(6, 9))
    assert found.facts.p_value >= found.facts.leak > 0.05 > found.facts.no_leak
    assert found.verdict == "not shown", "the undecided decide, so nothing is shown"
    assert (found.lower_bound, found.upper_bound) == (pytest.approx(-23 / 40), pytest.approx(-3 / 40))
    first, second = (facts_of(runs[name], "worst_case.paraphrase").outcomes for name in ("unsure", "leaky"))
    assert found.facts.p_value == pytest.approx(compare_facts(first, second).p_value)


def test_undecided_that_could_turn_the_difference_round() -> None:
    """As no leak the first leaks less, as leak more: the largest p-value is 1, whatever the two readings say."""
    topics = {f"f{i}": f"t{i % 10}" for i in range(40)}
    first: dict[str, Label] = {f: "no_leak" if i < 20 else "undecided" for i, f in enumerate(topics)}
    second: dict[str, Label] = {f: "leak" if i < 20 else "no_leak" for i, f in enumerate(topics)}
    outcomes = {"a": [first, {**first}], "b": [second]}
    (found,) = pairs_of(outcomes, topics, confidence=0.95, alpha=0.05)
    assert found.facts.no_leak < 0.001 and found.facts.p_value == 1.0 and found.verdict == "not shown"


def test_seeds_are_averaged_and_their_spread_is_shown(comparison: Comparison, runs: dict[str, Run]) -> None:
    method = next(c for c in comparison.candidates if c.label == "method")
    assert method.members == ("s0", "s1", "s2")
    assert method.values[comparison.on] == pytest.approx(12 / 40)
    kept = method.spreads["retain.mean"]
    assert (kept.n, kept.low, kept.high) == (3, 0.7, 0.75)
    assert kept.mean == pytest.approx(44 / 60) and kept.sd == pytest.approx((2 / 3 * 0.05**2 / 2) ** 0.5)
    against = pair(comparison, "leaky", "method")
    assert against.only_first is None and against.facts.name == "sign flips of facts"
    assert against.difference == pytest.approx(12 / 40)
    # of 24 facts of `leaky` the seeds leak 12 each: d = 1 - (0, 1/3, 2/3 or 1), never negative, so two of 2^k choices
    outcomes = [facts_of(runs[name], comparison.on).outcomes for name in ("s0", "s1", "s2")]
    differing = sum(1 for i in range(24) if not all(o[f"f{i:02d}"] == "leak" for o in outcomes))
    assert against.facts.p_value == pytest.approx(2 / 2**differing)


def test_five_seeds_of_each_are_methods() -> None:
    topics = {f"f{i}": f"t{i % 12}" for i in range(36)}
    low: list[Mapping[str, Label]] = [
        {f: "leak" if i % 36 == s else "no_leak" for i, f in enumerate(topics)} for s in range(5)
    ]
    high: list[Mapping[str, Label]] = [
        {f: "leak" if i % 5 != s else "no_leak" for i, f in enumerate(topics)} for s in range(5)
    ]
    (five,) = pairs_of({"a": low, "b": high}, topics, confidence=0.95, alpha=0.05)
    assert five.unit == "methods" and five.verdict == "differ" and five.difference < 0
    (four,) = pairs_of({"a": low[:4], "b": high}, topics, confidence=0.95, alpha=0.05)
    assert four.unit == "checkpoints"


def test_front(comparison: Comparison) -> None:
    on = {c.label: c.front for c in comparison.candidates}
    assert comparison.front_on == (comparison.on, "retain.mean")
    assert {label for label, front in on.items() if front and front.on_front} == {"good", "wreck"}
    leaky = on["leaky"]
    assert leaky is not None and leaky.frequency < 0.01
    unsure = on["unsure"]
    assert unsure is not None and unsure.low <= unsure.frequency < unsure.high, "undecided facts put nobody on it"


def test_a_comparison_reads_back(comparison: Comparison) -> None:
    encoded = msgspec.json.encode(comparison)
    assert msgspec.json.decode(encoded, type=Comparison) == comparison


def test_a_run_whose_rulings_were_changed_is_refused(
    folders: dict[str, Path], runs: dict[str, Run], tmp_path: Path
) -> None:
    import shutil

    from audit.comparing.runs import open_run

    changed = tmp_path / "leaky"
    shutil.copytree(folders["leaky"], changed)
    rulings = (changed / "rulings.jsonl").read_text().replace('"label":"leak"', '"label":"no_leak"', 30)
    (changed / "rulings.jsonl").write_text(rulings)
    with pytest.raises(RunFolderError, match="rulings"):
        compare_runs([runs["good"], open_run(changed, "leaky")])
    shutil.copy(folders["leaky"] / "rulings.jsonl", changed)
    (changed / "facts.jsonl").write_text((changed / "facts.jsonl").read_text().replace("t1", "t2"))
    with pytest.raises(RunFolderError, match=r"facts\.jsonl"):
        compare_runs([runs["good"], open_run(changed, "leaky")])
    (changed / "probes.jsonl").unlink()
    shutil.copy(folders["leaky"] / "facts.jsonl", changed)
    with pytest.raises(RunFolderError, match="missing"):
        compare_runs([runs["good"], open_run(changed, "leaky")])


def test_what_a_trainer_says_of_the_wrong_type_is_left_out() -> None:
    training = training_of(
        {
            "method": 7,
            "settings": {"seed": True, "lr": 1},
            "seconds": "fast",
            "steps": -1,
            "peak_memory_mib": float("nan"),
        }
    )
    assert (training.method, training.seed, training.seconds, training.steps) == ("", None, None, None)
    assert training.peak_memory_mib is None and training.settings == {"lr": 1}
    full = training_of(
        {"method": "npo", "settings": {"seed": 3}, "seconds": 8, "steps": 70, "base": {"fingerprint": "x"}}
    )
    assert (full.method, full.seed, full.seconds, full.steps, full.base) == ("npo", 3, 8.0, 70, "x")

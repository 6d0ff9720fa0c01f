"""Averages corrected from a card: over exactly what the plain ones are over, absent where nothing can be said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from audit.judges.calibration import Item, JudgeCard, check
from audit.scoring.calibrated import accuracy_of, calibrated_estimates, why_not_calibrated
from audit.scoring.cells import Cell
from audit.scoring.estimates import leak_estimates, retain_estimates
from audit.stats.prevalence import rogan_gladen
from audit.types import Claim, Fact, Label, Reason, Verdict
from tests.helpers.judges import FindsAnswer
from tests.scoring.test_estimates import World, cell, facts_of, probe


def _card(misses: int, alarms: int, unsure: int = 0, n: int = 100) -> JudgeCard:
    """A judge that errs on so many of n leaks and n other answers, and leaves so many of each undecided."""
    labels: tuple[Label, ...] = ("leak", "no_leak")
    items = [
        Item(id=f"{label}{i}", question="Q?", answer="A", response=f"{label} {i}", label=label)
        for label in labels
        for i in range(n)
    ]

    def errs(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
        ruled = []
        for claim in claims:
            label, number = claim.text.split()
            wrong = int(number) < (misses if label == "leak" else alarms)
            given = {"leak": "no_leak", "no_leak": "leak"}[label] if wrong else label
            if int(number) >= n - unsure:
                given = "undecided"
            reason = Reason.AMBIGUOUS if given == "undecided" else Reason.RULED
            ruled.append(judge.verdict(claim, label=given, reason=reason))
        return ruled

    return check(FindsAnswer(fault=errs), items)


def _retained(labels: Sequence[Label]) -> tuple[list[Fact], list[Cell]]:
    facts = [Fact(id=f"r{i}", split="retain", question="Q?", answer="a", topic=f"t{i % 3}") for i in range(len(labels))]
    return facts, [
        cell(probe(f, "original", "direct", "original"), label) for f, label in zip(facts, labels, strict=True)
    ]


def test_the_counts_of_a_card_are_of_what_was_decided() -> None:
    accuracy = accuracy_of(_card(misses=10, alarms=5, unsure=20))
    assert (accuracy.hits, accuracy.leaks, accuracy.cleared, accuracy.others) == (70, 80, 75, 80)


@pytest.mark.parametrize("seed", range(12))
def test_a_judge_that_never_errs_leaves_the_plain_averages(seed: int) -> None:
    world = World(seed)
    facts, kept = _retained(["leak", "leak", "no_leak", "undecided"])
    cells = {"forget": world.cells, "retain": kept}
    got = calibrated_estimates({"forget": world.facts, "retain": facts}, cells, _card(0, 0), 0.95)
    plain = leak_estimates(world.facts, world.cells, floor=[], base=None, confidence=0.95)
    plain |= retain_estimates(facts, kept, confidence=0.95)
    assert set(got) == {f"calibrated.{name}" for name in ("mean.all", "retain.mean") if name in plain}
    assert "calibrated.retain.mean" in got
    for name, estimate in got.items():
        raw = plain[name.removeprefix("calibrated.")]
        assert (estimate.n, estimate.probe_set, estimate.undecided) == (raw.n, raw.probe_set, raw.undecided)
        assert estimate.value == pytest.approx(raw.value) and estimate.upper_bound == pytest.approx(raw.upper_bound)
        assert estimate.label == raw.label


def test_the_correction_is_rogan_gladens() -> None:
    facts = facts_of(40, 0)
    cells = [
        cell(probe(f, "original", "direct", "original"), "leak" if i < 10 else "no_leak") for i, f in enumerate(facts)
    ]
    got = calibrated_estimates({"forget": facts}, {"forget": cells}, _card(20, 4), 0.95)["calibrated.mean.all"]
    assert got.value == pytest.approx(rogan_gladen(0.25, 0.8, 0.96)) and got.low < got.value < got.high
    assert "80/100" in got.method and "96/100" in got.method


def test_what_cannot_be_corrected_is_left_out_and_said() -> None:
    facts = facts_of(3, 0)
    cells = {"forget": [cell(probe(f, "original", "direct", "original"), "leak") for f in facts]}
    assert calibrated_estimates({"forget": facts}, cells, None, 0.95) == {}
    assert "never checked" in why_not_calibrated(None)
    useless = _card(60, 50)
    assert calibrated_estimates({"forget": facts}, cells, useless, 0.95) == {}
    assert "no better than chance" in why_not_calibrated(useless)
    assert why_not_calibrated(_card(0, 0)) == ""
    assert calibrated_estimates({"forget": facts}, {}, _card(0, 0), 0.95) == {}

"""Figures of benchmarks/recovery.py: from finished audits with attacks to areas by fact, paired tests and verdicts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from audit.attacks.records import AttackReport
from audit.stats.sign_flip import holm, sign_flip

#: Sets that hold nothing of what was forgotten.
BENIGN = ("unrelated", "topical", "syntactic", "filler", "retain")
#: An undecided fact read as not leaked, and as leaked.
READINGS: tuple[Mapping[str, int], ...] = (
    {"leak": 1, "no_leak": 0, "undecided": 0},
    {"leak": 1, "no_leak": 0, "undecided": 1},
)
ALPHA = 0.05
#: Fact -> mean height of its curve.
Areas = dict[str, Fraction]


class Run(NamedTuple):
    """One audited candidate."""

    name: str
    attacks: AttackReport
    outcomes: dict[str, dict[str, str]]
    """Subject -> fact -> outcome; the models themselves under the attack's prompts are in no report: at step 0 every
    fact of K is not leaked, by definition."""
    report: dict[str, Any]

    @property
    def known(self) -> frozenset[str]:
        return frozenset(self.attacks.known or ())


def read_run(name: str, folder: Path) -> Run:
    import msgspec

    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    outcomes = {
        subject: {fact["fact_id"]: fact["outcome"] for fact in each["facts"]}
        for subject, each in report["subjects"].items()
        if each["subject"]["role"] == "attacked"
    }
    return Run(name, msgspec.convert(report["attacks"], AttackReport), outcomes, report)


def areas(run: Run, chosen: Collection[str], reading: Mapping[str, int], seeds: int = 100) -> Areas:
    """Fact of K -> mean height of its curve (0 or 1 at each step) over the chosen sets and their first seeds."""
    found: dict[str, list[Fraction]] = {fact: [] for fact in run.known}
    for each in run.attacks.relearning:
        if each.attack.partition(":")[2] not in chosen:
            continue
        for curve in each.curves:
            if curve.arm != "candidate" or curve.seed >= seeds:
                continue
            for fact in run.known:
                heights = [
                    (point.step or 0, reading[run.outcomes[point.subject][fact]] if point.step else 0)
                    for point in curve.points
                ]
                width = heights[-1][0]
                twice = sum((b - a) * (x + y) for (a, x), (b, y) in pairwise(heights))
                found[fact].append(Fraction(twice, 2 * width))
    return {fact: sum(values, Fraction(0)) / len(values) for fact, values in found.items() if values}


class Paired(NamedTuple):
    """Mean difference over facts, for both readings of the undecided; the larger p-value of the two."""

    n: int
    differences: tuple[float, float]
    p_value: float

    @property
    def positive(self) -> bool:
        return min(self.differences) > 0

    def words(self, corrected: float) -> str:
        low, high = min(self.differences), max(self.differences)
        span = (
            f"{100 * low:+.1f}" if round(1000 * low) == round(1000 * high) else f"{100 * low:+.1f} to {100 * high:+.1f}"
        )
        return f"{span} points of {self.n} facts, p {corrected:.2g}"


def paired(first: Sequence[Areas], second: Sequence[Areas]) -> Paired:
    """First minus second by fact, each given for both readings of the undecided."""
    facts = sorted(set(first[0]) & set(second[0]))
    differences, p_values = [], []
    for mine, theirs in zip(first, second, strict=True):
        steps = {fact: mine[fact] - theirs[fact] for fact in facts}
        differences.append(float(sum(steps.values(), Fraction(0)) / len(facts)))
        p_values.append(sign_flip(steps).p_value)
    return Paired(len(facts), (differences[0], differences[1]), max(p_values))


def both(run: Run, chosen: Collection[str], seeds: int = 100) -> list[Areas]:
    return [areas(run, chosen, reading, seeds) for reading in READINGS]


def largest_excess(run: Run) -> tuple[str, float, float, float]:
    """Over benign sets and steps: (set@step, difference, its lower reading, Holm-corrected p) of the smallest p."""
    found = [
        (f"{each.attack.partition(':')[2]}@{one.step}", one.difference, one.lower_bound, one.p_value)
        for each in run.attacks.relearning
        if each.attack.partition(":")[2] in BENIGN
        for one in each.excess
    ]
    corrected = holm([one[3] for one in found])
    places = [i for i, one in enumerate(found) if one[1] > 0 and one[2] > 0] or list(range(len(found)))
    best = min(places, key=lambda i: (corrected[i], -found[i][1]))
    return (*found[best][:3], corrected[best])


def verdict_of(met: Sequence[bool]) -> str:
    """As in benchmarks/claims.py: all, none or some of the conditions."""
    return "holds here" if all(met) else "partly" if any(met) else "does not hold here"

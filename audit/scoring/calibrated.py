"""`calibrated.…`: averages corrected by the error rates on the judge's calibration card. Worst cases cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit.judges.calibration import JudgeCard
from audit.probes.build import form_of
from audit.probes.plan import probe_set_hash
from audit.scoring.cells import Cell
from audit.scoring.estimates import share_of_tries, topic_of
from audit.scoring.views import PLAIN, greedy
from audit.stats.prevalence import Accuracy, calibrated_mean
from audit.stats.shares import Bounds
from audit.types import Aim, Estimate, Fact


@dataclass(frozen=True)
class Average:
    """One average over facts that can be corrected: what goes into `mean.all` or `retain.mean`."""

    name: str
    label: str
    facts: tuple[Fact, ...]
    """The denominator; one without a cell is wholly undecided."""
    cells: tuple[Cell, ...]
    probe_set: str

    def values(self) -> dict[str, Bounds]:
        """Fact -> share of its cells ruled a leak, the undecided as no leak and as leak."""
        shares = share_of_tries(self.cells)
        return {fact.id: shares.get(fact.id, (0.0, 1.0)) for fact in self.facts}


def averages(facts: Mapping[Aim, Sequence[Fact]], cells: Mapping[Aim, Sequence[Cell]]) -> list[Average]:
    """`mean.all` and `retain.mean`, where they were asked for. Both arguments by split: forget, retain."""
    found = []
    plain = [c for c in cells.get("forget", ()) if c.probe.family in PLAIN and c.probe.form == "direct" and greedy(c)]
    if plain:
        asked = tuple(fact for fact in facts.get("forget", ()) if form_of(fact, "direct") is not None)
        found.append(_average("mean.all", "", asked, plain))
    kept = [c for c in cells.get("retain", ()) if c.probe.family in PLAIN and greedy(c)]
    ids = {cell.fact_id for cell in kept}
    retained = tuple(fact for fact in facts.get("retain", ()) if fact.id in ids)
    if retained:
        mine = {fact.id for fact in retained}
        found.append(_average("retain.mean", "J_avg", retained, [c for c in kept if c.fact_id in mine]))
    return found


def calibrated_estimates(
    facts: Mapping[Aim, Sequence[Fact]],
    cells: Mapping[Aim, Sequence[Cell]],
    card: JudgeCard | None,
    confidence: float,
) -> dict[str, Estimate]:
    """`calibrated.mean.all` and `calibrated.retain.mean` of one subject, from the card of the run's judge or panel.

    facts and cells by split, as for the other estimates. Empty without a card, and where the card shows that nothing
    can be corrected (`why_not_calibrated`). The correction takes it that the judge errs on this audit's answers as
    often as on the labelled ones; the interval holds the size of the labelled set, not a difference in kind.
    """
    if why_not_calibrated(card) or card is None:
        return {}
    corrected = (
        calibrated_mean(
            average.values(),
            topic_of(average.facts),
            accuracy_of(card),
            name=f"calibrated.{average.name}",
            label=average.label,
            confidence=confidence,
            probe_set=average.probe_set,
        )
        for average in averages(facts, cells)
    )
    return {estimate.name: estimate for estimate in corrected if estimate is not None}


def why_not_calibrated(card: JudgeCard | None) -> str:
    """Why averages are not corrected, in words; empty where they can be."""
    if card is None:
        return "the judge was never checked on labelled answers: audit judges check --judge NAME"
    return accuracy_of(card).why_not()


def accuracy_of(card: JudgeCard) -> Accuracy:
    """The counts of a card that the correction rests on: answers that the judge decided."""
    rates = card.overall
    cleared = rates.n - rates.leaks - rates.false_alarms - (rates.undecided - rates.undecided_leaks)
    return Accuracy(
        hits=rates.hits, leaks=rates.hits + rates.misses, cleared=cleared, others=cleared + rates.false_alarms
    )


def _average(name: str, label: str, facts: tuple[Fact, ...], cells: Sequence[Cell]) -> Average:
    probes = probe_set_hash({cell.probe.id: cell.probe for cell in cells}.values())
    return Average(name=name, label=label, facts=facts, cells=tuple(cells), probe_set=probes)

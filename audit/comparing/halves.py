"""What a run kept of its retained facts, half by half: one half to search on, the other to report on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from audit.comparing.runs import RETAINED, SUBJECT, Run, cells_of, records_of
from audit.errors import ConfigError, RunFolderError
from audit.probes.plan import probe_set_hash
from audit.scoring.cells import Cell
from audit.scoring.estimates import share_of_tries, topic_of
from audit.scoring.views import PLAIN, greedy
from audit.stats.shares import Bounds, mean_of_facts
from audit.tasks.parting import part_facts
from audit.types import Estimate, Fact

#: Fewest retained facts that a half may have.
MIN_HALF = 5
_SEED = 0


class Halves(NamedTuple):
    search: tuple[Fact, ...]
    report: tuple[Fact, ...]


class Kept:
    """What one subject of a run answered of the retained facts."""

    def __init__(self, run: Run, subject: str = SUBJECT) -> None:
        """Raises RunFolderError where the run's records do not give its report's own number."""
        cells = cells_of(run, subject)
        self._cells = [c for c in cells if c.probe.split == "retain" and c.probe.family in PLAIN and greedy(c)]
        self._run = run
        self.all = run.report.subjects[subject].estimates.get(RETAINED)
        """The report's number, over all of them."""
        values = share_of_tries(self._cells)
        mean = sum(low for low, _ in values.values()) / max(1, len(values))
        if self.all is not None and not (
            len(values) == self.all.n and math.isclose(mean, self.all.lower_bound, abs_tol=1e-9)
        ):
            raise RunFolderError(f"{run.path}: its rulings do not give its report's {RETAINED} of the {subject}")

    @property
    def asked(self) -> frozenset[str]:
        return frozenset(cell.fact_id for cell in self._cells)

    def by_original(self, facts: Sequence[Fact]) -> Bounds:
        """Share of `facts` answered in their original wording: undecided as not answered, as answered."""
        wanted = {fact.id for fact in facts}
        cells = [c for c in self._cells if c.fact_id in wanted and c.probe.family == "original"]
        return mean_bounds(cells, len(facts))

    def over(self, facts: Sequence[Fact]) -> Estimate:
        """Mean over `facts` of the share of their wordings answered, with limits."""
        wanted = {fact.id for fact in facts}
        cells = [cell for cell in self._cells if cell.fact_id in wanted]
        values = share_of_tries(cells)
        return mean_of_facts(
            {fact.id: values.get(fact.id, (0.0, 1.0)) for fact in facts},
            topic_of(facts),
            name=f"{RETAINED}@half=report",
            label="J_avg",
            confidence=self.all.confidence if self.all is not None else 0.95,
            probe_set=probe_set_hash({cell.probe.id: cell.probe for cell in cells}.values()),
        )


def halves_of(run: Run) -> Halves:
    """The retained facts that a run asked for, in two halves: by content, with equal shares of every tier and topic.

    Raises ConfigError where there are too few of them.
    """
    asked = Kept(run).asked
    facts = [f for f in records_of(run, "facts.jsonl", Fact) if f.split == "retain" and f.id in asked]
    halves = Halves(*part_facts(facts, share=0.5, seed=_SEED)) if facts else Halves((), ())
    if min(map(len, halves)) < MIN_HALF:
        raise ConfigError(
            f"{run.label}: {len(facts)} retained facts were asked, too few for two halves of {MIN_HALF} or more",
            hint="a task with more facts to keep, or a larger --retain-facts",
        )
    return halves


def mean_bounds(cells: Iterable[Cell], n: int) -> Bounds:
    """Mean over `n` facts; one without any cell is undecided."""
    values = share_of_tries(cells)
    missing = n - len(values)
    low, high = (sum(bounds[i] for bounds in values.values()) for i in (0, 1))
    return low / n, (high + missing) / n

"""Which numbers of what forgetting cost stand in a comparison, and which of them a run withholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from audit.comparing.runs import SUBJECT, Run
from audit.report.model import Report
from audit.types import Record

Better = Literal["lower", "higher", ""]


class CostColumn(Record):
    """A number of the table: what it is called, and which side of it is good; empty where neither is."""

    name: str
    label: str
    title: str
    better: Better


_COLUMNS = (
    CostColumn(
        name="retain.lost", label="lost", title="known retained facts that are answered no longer", better="lower"
    ),
    CostColumn(name="context.stated", label="stated", title="facts stated in the prompt, answered", better=""),
    CostColumn(
        name="context.reintroduced", label="reintroduced", title="facts reintroduced without their answer", better=""
    ),
    CostColumn(name="win_rate.raw", label="win rate", title="open instructions, against the base", better="higher"),
    CostColumn(
        name="win_rate.paper", label="win rate (paper)", title="the same by the published protocol", better="higher"
    ),
    CostColumn(
        name="win_rate.length_controlled", label="win rate (LC)", title="the same at equal lengths", better="higher"
    ),
    CostColumn(
        name="degeneration.refusal", label="refusals", title="open instructions that are refused", better="lower"
    ),
    CostColumn(
        name="degeneration.non_language", label="no language", title="replies that are no language", better="lower"
    ),
    CostColumn(
        name="degeneration.identical", label="stock replies", title="stock replies to open instructions", better="lower"
    ),
    CostColumn(
        name="salted.refused",
        label="salted",
        title="harmless instructions with words of the forget set that are refused",
        better="lower",
    ),
    CostColumn(name="holes.lost", label="holes", title="new harmless questions that are lost", better="lower"),
)


def cost_columns(runs: Sequence[Run]) -> list[CostColumn]:
    """Those that any run has, or withholds."""
    there = {name for run in runs for name in (*run.estimates, *withheld_of(run.report))}
    return [column for column in _COLUMNS if column.name in there] + list(_tasks(runs))


def withheld_of(report: Report) -> Mapping[str, str]:
    """Name -> why the candidate's number says nothing."""
    return report.utility.withheld if report.utility is not None else {}


def withheld_from(report: Report, subject: str) -> Mapping[str, str]:
    """The same for another subject of the run: judges or a reference that tell nothing do so of all."""
    utility = report.utility
    if subject == SUBJECT or utility is None:
        return withheld_of(report)
    rates = utility.win_rate
    if rates is None or rates.informative:
        return {}
    return {name: why for name, why in utility.withheld.items() if name.startswith("win_rate.")}


def _tasks(runs: Sequence[Run]) -> Iterator[CostColumn]:
    """Tasks of lm-evaluation-harness that were asked for by name, not the parts of a group."""
    seen = set()
    for run in runs:
        for task in run.report.utility.harness if run.report.utility is not None else ():
            for metric in task.metrics:
                name = f"lm_eval.{task.task}.{metric.name}"
                if task.subject != SUBJECT or task.part_of or not metric.fraction or name in seen:
                    continue
                seen.add(name)
                better: Better = "" if metric.higher_is_better is None else "higher"
                yield CostColumn(
                    name=name,
                    label=f"{task.task} {metric.name}",
                    title=f"lm-eval: {task.task}, {metric.name}",
                    better="lower" if metric.higher_is_better is False else better,
                )

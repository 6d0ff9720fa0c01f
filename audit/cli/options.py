"""Options that several commands share: who judges, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

JUDGES = "Who rules on the answers"
OUT = "What comes out"

JudgeOption = Annotated[
    list[str] | None,
    typer.Option(help="Judge (repeatable); see `audit judges list`. Default rules.", rich_help_panel=JUDGES),
]
RuleOption = Annotated[
    str | None,
    typer.Option(help="Of several judges: majority, any, unanimous, weighted or dawid_skene.", rich_help_panel=JUDGES),
]
WeightOption = Annotated[
    list[float] | None,
    typer.Option(help="With --judge-rule weighted: one a deciding judge, in order.", rich_help_panel=JUDGES),
]
CascadeOption = Annotated[
    bool | None,
    typer.Option(
        "--cascade",
        help="The first judge screens all answers, the others decide where it matters.",
        rich_help_panel=JUDGES,
    ),
]
BatchOption = Annotated[
    bool | None,
    typer.Option(
        "--judge-batch",
        help="The provider's batch interface: half the price, up to a day.",
        rich_help_panel=JUDGES,
    ),
]
CostOption = Annotated[
    float | None,
    typer.Option(help="US dollars for judges; then the rest is undecided.", rich_help_panel=JUDGES),
]
PricesOption = Annotated[str | None, typer.Option(help="A table of prices of your own (YAML).", rich_help_panel=JUDGES)]
PolicyOption = Annotated[str | None, typer.Option(help="Gate: default, strict or a YAML file.", rich_help_panel=OUT)]
StoreOption = Annotated[
    Path | None, typer.Option(help="The store of answers and verdicts; default in the cache.", rich_help_panel=OUT)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print report.json on standard output.", rich_help_panel=OUT)]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress.", rich_help_panel=OUT)]


def judge_settings(
    judge: list[str] | None,
    judge_rule: str | None,
    judge_weight: list[float] | None,
    cascade: bool | None,
    judge_batch: bool | None,
    max_cost: float | None,
    prices: str | None,
) -> dict[str, Any]:
    """The judges' options under the names that AuditConfig has for them."""
    return {
        "judges": tuple(judge or ()),
        "judge_rule": judge_rule,
        "judge_weights": tuple(judge_weight or ()),
        "judge_cascade": cascade,
        "judge_batch": judge_batch,
        "max_cost": max_cost,
        "prices": prices,
    }

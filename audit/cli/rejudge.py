"""`audit rejudge RUN --judge …`: other judges on the answers of a finished run, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audit.cli.options import (
    OUT,
    BatchOption,
    CascadeOption,
    CostOption,
    JsonOption,
    JudgeOption,
    PolicyOption,
    PricesOption,
    QuietOption,
    RuleOption,
    StoreOption,
    WeightOption,
    judge_settings,
)

if TYPE_CHECKING:
    from audit.config import AuditConfig


def rejudge(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    judge: JudgeOption = None,
    judge_rule: RuleOption = None,
    judge_weight: WeightOption = None,
    cascade: CascadeOption = None,
    judge_batch: BatchOption = None,
    max_cost: CostOption = None,
    prices: PricesOption = None,
    policy: PolicyOption = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings of the judges from a YAML file; flags win.", rich_help_panel=OUT),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default RUN-rejudged-… beside RUN.", rich_help_panel=OUT)
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what the judges would be asked; ask nothing.", rich_help_panel=OUT)
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Judge the answers of a finished run again, by other judges, and report what they say beside the first."""
    from audit.cli.run import run_and_print
    from audit.config import rejudge_config
    from audit.recordings.run import run_config
    from audit.report.files import rejudged_folder

    values = judge_settings(judge, judge_rule, judge_weight, cascade, judge_batch, max_cost, prices)
    resolved = rejudge_config(run_config(run), run, {**values, "policy": policy}, file=config)
    if dry_run:
        print_rejudging(resolved, store, as_json)
    else:
        run_and_print(resolved, out or rejudged_folder(run, resolved), store, as_json, quiet)


def print_rejudging(config: AuditConfig, store: Path | None, as_json: bool) -> None:
    """Print what judging a finished run again would take."""
    from audit.cli.run import print_work
    from audit.rejudging import estimate_rejudging
    from audit.store import Store, cache_folder

    known = Store(store or cache_folder() / "store.sqlite")
    try:
        print_work(estimate_rejudging(config, known), as_json)
    finally:
        known.close()

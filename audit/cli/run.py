"""`audit run`: the main job, from a checkpoint, an endpoint or recorded answers to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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

_MODEL = "What is audited"
_ASK = "What is asked"
_ATTACK = "What is done to its weights"
_COST = "What forgetting cost"
_HOW = "How it is served"
_FLAGS = {
    "wordings": "--attack-probes",
    "steps": "--attack-steps",
    "learning_rate": "--attack-lr",
    "seeds": "--attack-seeds",
    "lora_rank": "--attack-lora",
}


def run(
    more: Annotated[list[str] | None, typer.Argument(metavar="[PATH …]", help="Further paths for --responses.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint folder or hub name; with --engine openai the served model's name.", rich_help_panel=_MODEL
        ),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="LoRA adapter folder on top of --model.", rich_help_panel=_MODEL)
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The model before unlearning: shows what was known.", rich_help_panel=_MODEL)
    ] = None,
    never_knew: Annotated[
        str | None, typer.Option(help="A control that was never taught the facts.", rich_help_panel=_MODEL)
    ] = None,
    responses: Annotated[
        list[str] | None,
        typer.Option(
            help="Recorded answers instead of a model: PATH, or ROLE=PATH (base, never_knew, relearn:SET@STEP …).",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    base_responses: Annotated[
        list[str] | None, typer.Option(help="Recorded answers of the base.", rich_help_panel=_MODEL)
    ] = None,
    responses_format: Annotated[
        str | None,
        typer.Option(help="jsonl or suite; default: recognised by the files' names.", rich_help_panel=_MODEL),
    ] = None,
    forget: Annotated[
        str | None,
        typer.Option(
            help="The facts: a bundled task, a folder, a file, hf:ORG/NAME. Default lkf.", rich_help_panel=_ASK
        ),
    ] = None,
    retain: Annotated[
        str | None, typer.Option(help="Facts to keep, for a forget set of your own.", rich_help_panel=_ASK)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="quick, paper, standard (default), full or custom.", rich_help_panel=_ASK)
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="Probe family (repeatable); see `audit probes list`.", rich_help_panel=_ASK)
    ] = None,
    form: Annotated[
        list[str] | None, typer.Option(help="Form of question (repeatable): direct, reverse …", rich_help_panel=_ASK)
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="chat, raw, or auto: chat where there is a template.", rich_help_panel=_ASK)
    ] = None,
    wordings: Annotated[
        int | None, typer.Option(help="At most so many evaluation wordings a fact.", rich_help_panel=_ASK)
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Token budget of an answer.", rich_help_panel=_ASK)] = None,
    retain_facts: Annotated[
        int | None, typer.Option(help="At most so many retained facts.", rich_help_panel=_ASK)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all draws.", rich_help_panel=_ASK)] = None,
    engine: Annotated[str | None, typer.Option(help="auto, hf, vllm or openai.", rich_help_panel=_HOW)] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the engine (repeatable).", rich_help_panel=_HOW)
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of an endpoint.", rich_help_panel=_HOW)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_HOW)] = None,
    dtype: Annotated[str | None, typer.Option(help="auto: the checkpoint's.", rich_help_panel=_HOW)] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Attack on the weights (repeatable): relearn[:SET], quantize:int4, noise:0.05 …",
            rich_help_panel=_ATTACK,
        ),
    ] = None,
    attack_probes: Annotated[
        int | None,
        typer.Option(help="Wordings a fact that altered weights are asked. Default 5.", rich_help_panel=_ATTACK),
    ] = None,
    attack_steps: Annotated[
        str | None,
        typer.Option(help="Fine-tuning is looked at after these steps: 0,25,50 …", rich_help_panel=_ATTACK),
    ] = None,
    attack_lr: Annotated[
        float | None, typer.Option(help="Learning rate of fine-tunings.", rich_help_panel=_ATTACK)
    ] = None,
    attack_seeds: Annotated[int | None, typer.Option(help="Fine-tunings of each set.", rich_help_panel=_ATTACK)] = None,
    attack_lora: Annotated[
        int | None, typer.Option(help="Fine-tune LoRA adapters of this rank, not all weights.", rich_help_panel=_ATTACK)
    ] = None,
    inside: Annotated[
        bool | None,
        typer.Option("--inside", help="Look at probabilities, hidden states and weights.", rich_help_panel=_ATTACK),
    ] = None,
    utility: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure (repeatable): open, win-rate, context, salted, lm-eval:TASK[,TASK], mmlu. Preset standard: "
            "open, context.",
            rich_help_panel=_COST,
        ),
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option(
            help="Open instructions: a JSON (Lines) file, or alpaca-eval[:PATH]; default: the bundled 150.",
            rich_help_panel=_COST,
        ),
    ] = None,
    max_instructions: Annotated[
        int | None, typer.Option(help="At most so many of them.", rich_help_panel=_COST)
    ] = None,
    win_judge: Annotated[
        list[str] | None,
        typer.Option(
            help="Who compares replies (repeatable); default: those of --judge that can.", rich_help_panel=_COST
        ),
    ] = None,
    reference_outputs: Annotated[
        str | None,
        typer.Option(
            help="Compare with these replies, not the base's: a file in alpaca_eval's format.", rich_help_panel=_COST
        ),
    ] = None,
    holes: Annotated[
        int | None,
        typer.Option(help="Search for lost knowledge with so many new questions.", rich_help_panel=_COST),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="Who writes them: openai:MODEL, gemini:MODEL or local:PATH.", rich_help_panel=_COST),
    ] = None,
    judge: JudgeOption = None,
    judge_rule: RuleOption = None,
    judge_weight: WeightOption = None,
    cascade: CascadeOption = None,
    judge_batch: BatchOption = None,
    max_cost: CostOption = None,
    prices: PricesOption = None,
    allow_pickle: Annotated[
        bool | None,
        typer.Option("--allow-pickle", help="Load pickled weights (they can run code).", rich_help_panel=_HOW),
    ] = None,
    trust_remote_code: Annotated[
        bool | None,
        typer.Option("--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=_HOW),
    ] = None,
    policy: PolicyOption = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings from a YAML file; flags win.", rich_help_panel=OUT)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default under audit-runs/.", rich_help_panel=OUT)
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Count prompts, tokens and judge calls; ask nothing.", rich_help_panel=OUT),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Ask a model for every forgotten fact, rule on the answers, and report what came out."""
    from audit.config import resolve_config
    from audit.errors import ConfigError
    from audit.recordings.roles import split_responses

    if more and not responses:
        raise ConfigError(
            f"what is {more[0]!r}? paths stand after an option", hint="audit run --model PATH --forget lkf"
        )
    endpoint = engine == "openai"
    values: dict[str, Any] = {
        "model": None if endpoint else model,
        "adapter": adapter,
        "base": base,
        "never_knew": never_knew,
        **split_responses((*(responses or ()), *(more or ())), tuple(base_responses or ())),
        "responses_format": responses_format,
        "forget": forget,
        "retain": retain,
        "preset": preset,
        "engine": {
            "name": engine,
            "args": parse_arguments(engine_arg or []) or None,
            "base_url": base_url,
            "served_model": model if endpoint else None,
            "device": device,
            "dtype": dtype,
        },
        "probes": {
            "families": tuple(family or ()),
            "forms": tuple(form or ()),
            "format": format,
            "wordings": wordings,
            "max_new_tokens": max_new_tokens,
            "retain_facts": retain_facts,
        },
        "attacks": tuple(attack or ()),
        "attack": {
            "wordings": attack_probes,
            "steps": parse_steps(attack_steps),
            "learning_rate": attack_lr,
            "seeds": attack_seeds,
            "lora_rank": attack_lora,
        },
        "inside": inside,
        "utility": {
            "measures": tuple(utility or ()),
            "instructions": instructions,
            "max_instructions": max_instructions,
            "judges": tuple(win_judge or ()),
            "reference_outputs": reference_outputs,
            "holes": holes,
            "generator": generator,
        },
        **judge_settings(judge, judge_rule, judge_weight, cascade, judge_batch, max_cost, prices),
        "policy": policy,
        "seed": seed,
        "allow_pickle": allow_pickle,
        "trust_remote_code": trust_remote_code,
    }
    resolved = resolve_config(values, file=config)
    given = [name for name, value in values["attack"].items() if value is not None]
    if given and not resolved.attacks:
        raise ConfigError(
            f"{', '.join(_FLAGS[name] for name in given)} without an attack",
            hint="add --attack relearn or another attack",
        )
    if dry_run and resolved.rejudge:
        from audit.cli.rejudge import print_rejudging

        print_rejudging(resolved, store, as_json)
    elif dry_run:
        from audit.dryrun import estimate_work

        print_work(estimate_work(resolved), as_json)
    else:
        from audit.report.files import default_folder

        run_and_print(resolved, out or default_folder(Path("audit-runs"), resolved), store, as_json, quiet)


def run_and_print(config: Any, out: Path, store_path: Path | None, as_json: bool, quiet: bool) -> None:
    """Run into the folder `out`, print what came out, and leave with the report's exit code."""
    from audit.cli.progress import TerminalProgress
    from audit.pipeline import run_audit
    from audit.policy import load_policy
    from audit.report.files import RunFolder
    from audit.report.html import write_html
    from audit.report.terminal import print_report
    from audit.store import Store, cache_folder

    if config.policy:
        load_policy(config.policy)  # a policy that cannot be used is found before anything is asked
    folder = RunFolder(out)
    store = Store(store_path or cache_folder() / "store.sqlite")
    try:
        with TerminalProgress(quiet=quiet or as_json) as progress:
            report = run_audit(config, folder, store, progress)
    finally:
        store.close()
    page = write_html(folder.path)
    if as_json:
        typer.echo((folder.path / "report.json").read_text(encoding="utf-8"), nl=False)
    else:
        print_report(report, folder.path, page)
    raise typer.Exit(report.exit_code)


def print_work(work: dict[str, Any], as_json: bool) -> None:
    """Print the counts of a dry run: work by name, as text or as one JSON document."""
    import json

    if as_json:
        typer.echo(json.dumps(work, indent=1))
        return
    for name, value in work.items():
        if isinstance(value, dict):
            typer.echo(f"{name}:")
            for key, number in value.items():
                typer.echo(f"  {key}: {number}")
        else:
            typer.echo(f"{name}: {value}")


def parse_steps(text: str | None) -> tuple[int, ...] | None:
    """`0,25,50` as numbers. Raises ConfigError."""
    from audit.errors import ConfigError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--attack-steps {text}: not whole numbers joined by commas", hint="0,25,50,100") from error


def parse_arguments(given: list[str]) -> dict[str, str | int | float | bool]:
    """KEY=VALUE texts to typed values: true/false, whole numbers, numbers, else text. Raises ConfigError."""
    import yaml

    from audit.errors import ConfigError

    values: dict[str, str | int | float | bool] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"{item!r} is not KEY=VALUE", hint="--engine-arg tensor_parallel_size=4")
        value = yaml.safe_load(text) if text else ""
        values[key.strip()] = value if isinstance(value, str | int | float | bool) else text
    return values

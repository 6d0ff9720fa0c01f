"""`audit unlearn`: make a candidate with the reference trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from audit.engines.checkpoint import Checkpoint

#: Parameters below which a model is taken for an organism when it comes to default settings.
SMALL = 50_000_000


def unlearn(
    method: Annotated[str, typer.Option(help="One of `audit methods list`.")],
    model: Annotated[str, typer.Option(help="The model to unlearn from: a checkpoint folder or hub name.")],
    out: Annotated[Path, typer.Option(help="New folder for the unlearned checkpoint.")],
    forget: Annotated[str, typer.Option(help="The facts to forget, as in `audit run`.")] = "lkf",
    retain: Annotated[str | None, typer.Option(help="Facts to keep, for a forget set of your own.")] = None,
    adapter: Annotated[str | None, typer.Option(help="A LoRA adapter to merge into the model first.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Another model to stay close to, instead of the model itself.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, over those of --config.")
    ] = None,
    lora: Annotated[
        str | None, typer.Option(help="Train a LoRA adapter: r=16,alpha=32[,dropout=0][,targets=q_proj+v_proj].")
    ] = None,
    defaults: Annotated[
        str,
        typer.Option(help="Settings that are not given: organism, published, or auto, by the model's size."),
    ] = "auto",
    tuned: Annotated[
        Path | None, typer.Option(help="Settings that a tuning chose: a file of `audit compare --tune`.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    learning_rate: Annotated[float | None, typer.Option(help="The same as --set learning_rate=….")] = None,
    epochs: Annotated[int | None, typer.Option(help="The same as --set epochs=….")] = None,
    batch: Annotated[int | None, typer.Option(help="The same as --set batch=….")] = None,
    seed: Annotated[int | None, typer.Option(help="The same as --set seed=….")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Unlearn a task's facts and save an ordinary checkpoint, or an adapter, with a manifest."""
    from audit.cli.progress import TerminalProgress
    from audit.engines.checkpoint import open_checkpoint
    from audit.tasks import load_task
    from jensun_ref import processes
    from jensun_ref.methods import method_class
    from jensun_ref.settings import settings_for
    from jensun_ref.studies import read_tuned, settings_of
    from jensun_ref.unlearn import unlearn as train

    method_class(method)  # an unknown name is found before anything is loaded
    short = {"learning_rate": learning_rate, "epochs": epochs, "batch": batch, "seed": seed}
    values = {**_file(config), **pairs(given or [], "--set")}
    values |= {name: value for name, value in short.items() if value is not None}
    if lora is not None:
        values["lora"] = pairs(lora.split(","), "--lora")
    if defaults not in ("auto", "organism", "published"):
        raise typer.BadParameter("is organism, published or auto", param_hint="--defaults")
    settings_for(method, values, "organism" if defaults == "organism" else "published")  # before anything is loaded
    study = read_tuned(tuned) if tuned else None
    task = load_task(forget, retain=retain)
    checkpoint = open_checkpoint(model, adapter=adapter)
    kept_to = open_checkpoint(reference).fingerprint if reference else None
    chosen = defaults_for(checkpoint, defaults)
    settings = settings_for(method, values, chosen)
    if study:
        settings = settings_of(study, method, values, (*task.forget, *task.retain), checkpoint.fingerprint)
    quiet = quiet or processes.rank() > 0
    with TerminalProgress(quiet=quiet) as progress:
        if not quiet:
            whose = f"tuned in {study.trials} trials" if study else f"{chosen} defaults"
            progress.note(f"{method}: {whose}, learning rate {settings.learning_rate:g}")
        train(
            method,
            model,
            task,
            out,
            settings=settings,
            base_fingerprint=checkpoint.fingerprint,
            adapter=adapter,
            reference=reference,
            reference_fingerprint=kept_to,
            tuned=study,
            resume=resume,
            progress=progress.steps(f"{method}: training"),
        )
    if processes.rank():
        return
    typer.echo(f"wrote {out}")
    candidate = f"--model {model} --adapter {out}" if lora is not None else f"--model {out}"
    kept = f" --retain {retain}" if retain else ""
    typer.echo(f"  audit it: audit run {candidate} --base {model} --forget {forget}{kept}")


def _file(path: Path | None) -> dict[str, Any]:
    """The settings of a YAML file."""
    import yaml

    from audit.errors import ConfigError

    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{path}: is no mapping of settings to values")
    return found


def pairs(given: list[str], option: str) -> dict[str, Any]:
    """KEY=VALUE pairs; a value in brackets or braces is read as YAML, any other is left as the text it is."""
    import yaml

    from audit.errors import ConfigError

    values: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{option} {pair}: is not of the form KEY=VALUE")
        if value.lstrip()[:1] in ("[", "{"):
            try:
                values[name.strip()] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ConfigError(f"{option} {pair}: {error}") from error
        else:
            values[name.strip()] = value
    return values


def defaults_for(checkpoint: Checkpoint, asked: str = "auto") -> Literal["organism", "published"]:
    """Which settings stand where none are given: as asked, or by the model's size."""
    import math

    if asked == "auto":
        parameters = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors)
        return "organism" if parameters < SMALL else "published"
    return "organism" if asked == "organism" else "published"

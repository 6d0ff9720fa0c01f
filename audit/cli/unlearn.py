"""`audit unlearn`: make a candidate with the reference trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def unlearn(
    method: Annotated[str, typer.Option(help="jensun or gradient_ascent.")],
    model: Annotated[str, typer.Option(help="The model to unlearn from: a checkpoint folder or hub name.")],
    out: Annotated[Path, typer.Option(help="New folder for the unlearned checkpoint.")],
    forget: Annotated[str, typer.Option(help="The facts to forget, as in `audit run`.")] = "lkf",
    retain: Annotated[str | None, typer.Option(help="Facts to keep, for a forget set of your own.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the method's, for the organism.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the facts to forget.")] = None,
    batch: Annotated[int | None, typer.Option(help="Questions a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the order of training.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Unlearn a task's facts and save an ordinary checkpoint with a manifest."""
    from audit.cli.progress import TerminalProgress
    from audit.engines.checkpoint import open_checkpoint
    from audit.tasks import load_task
    from jensun_ref.methods import method_class
    from jensun_ref.settings import settings_for
    from jensun_ref.unlearn import unlearn as train

    method_class(method)  # an unknown name is found before anything is loaded
    given = {"learning_rate": learning_rate, "epochs": epochs, "batch": batch, "seed": seed}
    settings = settings_for(method, {name: value for name, value in given.items() if value is not None})
    task = load_task(forget, retain=retain)
    fingerprint = open_checkpoint(model).fingerprint
    with TerminalProgress(quiet=quiet) as progress:
        train(
            method,
            model,
            task,
            out,
            settings=settings,
            base_fingerprint=fingerprint,
            progress=progress.steps(f"{method}: training"),
        )
    typer.echo(f"wrote {out}")
    typer.echo(f"  audit it: audit run --model {out} --base {model} --forget {forget}")

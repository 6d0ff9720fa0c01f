"""`audit demo`: the whole story on small models built here, without a network, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from audit.cli.progress import TerminalProgress
    from audit.report.model import Report
    from audit.store import Store
    from audit.tasks import Task

METHODS = ("gradient_ascent", "jensun")
#: Every family of the published protocol, fewer wordings, short answers: what two cores do in minutes.
SELECTION = {
    "preset": "custom",
    "probes": {"wordings": 5, "max_new_tokens": 32, "retain_facts": 200, "retain_wordings": 1},
}


def demo(
    out: Annotated[Path, typer.Option(help="Where the runs and their reports go.")] = Path("audit-runs/demo"),
    engine: Annotated[str, typer.Option(help="hf, vllm or auto.")] = "hf",
    preset: Annotated[
        str | None, typer.Option(help="quick, paper or standard; default: a short selection of its own.")
    ] = None,
) -> None:
    """Build two small models, one that was taught the facts and one that never was; unlearn the first in two ways;
    audit all four and set them side by side."""
    from audit.cli.progress import TerminalProgress
    from audit.store import Store, cache_folder
    from audit.tasks import load_task

    task = load_task("lkf")
    cache = cache_folder() / "organisms"
    with TerminalProgress() as progress:
        base, never_knew = _organisms(cache, task, progress)
        candidates = {method: _unlearned(cache, method, base, task, progress) for method in METHODS}
        store = Store(cache_folder() / "store.sqlite")
        try:
            reports = {
                method: _audit(path, base, never_knew, out / method, engine, preset, store, progress)
                for method, path in candidates.items()
            }
        finally:
            store.close()
    _show(reports, out, {"base": base, "never_knew": never_knew, **candidates})


def _organisms(cache: Path, task: Task, progress: TerminalProgress) -> tuple[Path, Path]:
    from jensun_ref.pair import cached_pair

    pair = cached_pair(cache, task, progress=progress.steps("training two small models from scratch"))
    return pair["base"], pair["never_knew"]


def _unlearned(cache: Path, method: str, base: Path, task: Task, progress: TerminalProgress) -> Path:
    """The unlearned model from the cache, named by its base's content and its recipe; made if it is not there."""
    from audit.engines.checkpoint import open_checkpoint
    from audit.fingerprint import digest
    from jensun_ref.settings import settings_for
    from jensun_ref.unlearn import RECIPE_VERSION, unlearn

    settings = settings_for(method, {})
    fingerprint = open_checkpoint(str(base)).fingerprint
    recipe = digest(
        "unlearned", RECIPE_VERSION, method, fingerprint, task.content_hash, settings.model_dump(mode="json")
    )
    path = cache / f"{task.name}-{method}-{recipe[:16]}"
    if not path.is_dir():
        unlearn(
            method,
            str(base),
            task,
            path,
            settings=settings,
            base_fingerprint=fingerprint,
            progress=progress.steps(f"{method}: unlearning"),
        )
    return path


def _audit(
    model: Path,
    base: Path,
    never_knew: Path,
    out: Path,
    engine: str,
    preset: str | None,
    store: Store,
    progress: TerminalProgress,
) -> Report:
    from audit.config import resolve_config
    from audit.pipeline import run_audit
    from audit.report.files import RunFolder
    from audit.report.html import write_html

    config = resolve_config(
        {
            "model": str(model),
            "base": str(base),
            "never_knew": str(never_knew),
            "forget": "lkf",
            **({"preset": preset} if preset else SELECTION),
            "engine": {"name": engine},
            "policy": "default",
        }
    )
    folder = RunFolder(out.with_name(f"{out.name}-{config.digest()[:8]}"))
    report = run_audit(config, folder, store, progress)
    write_html(folder.path)
    progress.note(f"{out.name}: {folder.path / 'report.html'}")
    return report


def _show(reports: dict[str, Report], out: Path, models: dict[str, Path]) -> None:
    from rich.console import Console
    from rich.text import Text

    from audit.report.terminal import table_of

    console = Console(highlight=False)
    first = next(iter(reports.values()))
    columns = {"base": first.subjects["base"], "never_knew": first.subjects["never_knew"]}
    columns |= {method: report.subjects["candidate"] for method, report in reports.items()}
    task = first.task
    console.print(f"task {task.name} {task.version} ({task.content_hash[:12]}): {task.n_forget} facts to forget")
    console.print(table_of(columns))
    for method, report in reports.items():
        for warning in report.warnings:
            console.print(Text(f"{method}: warning: {warning}", style="yellow"), soft_wrap=True)
    for name, path in models.items():
        console.print(Text(f"{name}: {path}"), soft_wrap=True)
    for method, report in reports.items():
        console.print(Text(f"{method}: {report.verdict}", style="bold"), soft_wrap=True)

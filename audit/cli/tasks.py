"""`audit tasks`: list the tasks there are, show one, check one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from audit.errors import TaskError
from audit.resources import resource
from audit.tasks.check import check_task
from audit.tasks.load import bundled_names, load_task, published
from audit.tasks.manifest import FILENAME, fix_hash
from audit.tasks.model import Problem, Task
from audit.types import Fact

app = typer.Typer(help="Tasks: the facts to forget and to keep.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Retain = Annotated[str | None, typer.Option(metavar="SPEC", help="Facts to keep, for a forget set without its own.")]
Spec = Annotated[
    str, typer.Argument(metavar="TASK", help="A bundled name, a task folder, a file of facts, or hf:ORG/NAME[:SPLIT].")
]
#: Problems shown in a terminal; --json has all of them.
SHOWN = 60


def _print_json(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """The bundled tasks, and published sets that have a short name."""
    tasks = [load_task(name) for name in bundled_names()]
    names = list(published().values())
    if as_json:
        _print_json({"bundled": [summary(task) for task in tasks], "published": names})
        return
    console = Console()
    table = Table("task", "version", "forget", "retain", "placebo", "licence", title="Bundled", title_justify="left")
    for task in tasks:
        counts = [str(len(facts)) for facts in (task.forget, task.retain, task.placebo)]
        table.add_row(task.name, task.version, *counts, task.licence)
    console.print(table)
    short = Table("task", "hub data set", "a local copy: set", title="Published", title_justify="left")
    for entry in names:
        short.add_row(entry.name, f"hf:{entry.forget}", entry.local_forget)
    console.print(short)
    for entry in names:
        console.print(f"{entry.name}: {entry.description}", markup=False, highlight=False)


def summary(task: Task) -> dict[str, Any]:
    """What `show` tells about a task: identity and counts, as plain data."""
    splits = {"forget": task.forget, "retain": task.retain, "placebo": task.placebo}
    return {
        "name": task.name,
        "version": task.version,
        "description": task.description,
        "licence": task.licence,
        "content_hash": task.content_hash,
        "source": task.source,
        "splits": {name: _counts(facts) for name, facts in splits.items()},
        "files": task.files,
        "warnings": task.warnings,
    }


def _counts(facts: tuple[Fact, ...]) -> dict[str, Any]:
    return {
        "facts": len(facts),
        "wordings": sum(len(fact.wordings) for fact in facts),
        "train_wordings": sum(len(fact.train_wordings) for fact in facts),
        "topics": dict(Counter(fact.topic for fact in facts if fact.topic)),
        "tiers": dict(Counter(fact.tier for fact in facts if fact.tier)),
        "answer_types": dict(Counter(fact.answer_type for fact in facts)),
        "forms": dict(Counter(name for fact in facts for name in fact.other_forms)),
    }


@app.command("show")
def show_command(task: Spec, retain: Retain = None, as_json: AsJson = False) -> None:
    """What a task holds: counts by topic, type and form, its files, and an example."""
    loaded = load_task(task, retain=retain)
    about = summary(loaded)
    if as_json:
        _print_json(about)
        return
    console = Console()
    console.print(f"{loaded.name} {loaded.version} · {loaded.licence} · {loaded.content_hash}", markup=False)
    console.print(loaded.description, markup=False, highlight=False)
    table = Table("split", "facts", "wordings", "topics", "types and forms")
    for name, counts in about["splits"].items():
        topics = counts["tiers"] or counts["topics"]
        told = _named(topics) if len(topics) <= 8 else f"{len(topics)} topics"
        kinds = _named(counts["answer_types"]) + ("; " + _named(counts["forms"]) if counts["forms"] else "")
        table.add_row(name, str(counts["facts"]), str(counts["wordings"]), told, kinds)
    console.print(table)
    console.print(f"files: {', '.join(sorted(loaded.files))}", markup=False, highlight=False)
    fact = loaded.forget[0]
    console.print(f"example {fact.id}: {fact.question} -> {fact.answer}", markup=False, highlight=False)
    for warning in loaded.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")


def _named(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


@app.command("check")
def check_command(
    task: Spec,
    retain: Retain = None,
    repair: Annotated[
        bool, typer.Option("--fix-hash", help="Write the content hash of the files as they are into task.yaml, first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a task and name file, line and field of whatever is wrong. Exit code 2 where there are errors."""
    fixed = _fix(task) if repair else None
    problems = check_task(task, retain=retain)
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        counts = {"errors": errors, "warnings": len(problems) - errors}
        _print_json({"task": task, "ok": errors == 0, **counts, "fixed_hash": fixed, "problems": problems})
    else:
        _print_problems(task, problems, errors, fixed)
    if errors:
        raise typer.Exit(2)


def _fix(task: str) -> dict[str, str]:
    folder = resource("tasks", task) if task in bundled_names() else Path(task).expanduser()
    if not (folder / FILENAME).is_file():
        raise TaskError(f"{task}: --fix-hash is for task folders, and there is no {FILENAME} here")
    old, new = fix_hash(folder)
    return {"old": old, "new": new}


def _print_problems(task: str, problems: list[Problem], errors: int, fixed: dict[str, str] | None) -> None:
    console = Console()
    if fixed is not None:
        console.print(f"content_hash: {fixed['old'] or 'not set'} -> {fixed['new']}", markup=False, highlight=False)
    file = None
    for problem in problems[:SHOWN]:
        if problem.file != file:
            file = problem.file
            console.print(file, markup=False, highlight=False, style="bold")
        style = "red" if problem.severity == "error" else "yellow"
        place = " ".join(p for p in (str(problem.line or ""), problem.fact, problem.field) if p)
        console.print(
            f"  {problem.severity} {place + ': ' if place else ''}{problem.message}",
            markup=False,
            highlight=False,
            style=style,
        )
    if len(problems) > SHOWN:
        console.print(f"  +{len(problems) - SHOWN} more (--json has all)", markup=False, highlight=False)
    verdict = "ok" if errors == 0 else "not usable"
    console.print(
        f"{task}: {verdict}, {errors} errors, {len(problems) - errors} warnings", markup=False, highlight=False
    )

"""`audit judges label`: a person labels answers of a finished run; the estimates are corrected by what they found."""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from rich.console import Console

    from audit.judges.labelling import Answer, LabelPlan, Mark
    from audit.scoring.labelled import LabelledResult

_KEYS = "l leak, n no leak, u unsure, b back, q quit"
_MARKS: dict[str, Mark] = {"l": "leak", "n": "no_leak", "u": "unsure"}
_PAGE = 30  # lines of an answer shown at once on a terminal


def label(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    sample: Annotated[int, typer.Option(min=0, help="Facts to draw at random from those that were not flagged.")] = 30,
    retain_sample: Annotated[int, typer.Option(min=0, help="Retained facts to draw at random.")] = 0,
    subject: Annotated[str, typer.Option(help="Which state of the model.")] = "candidate",
    show_verdicts: Annotated[
        bool, typer.Option("--show-verdicts", help="Show what the judges ruled; by default you do not see it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Label answers of a run in the terminal: all evidence of flagged facts and a random sample of the others.

    Labels are kept in RUN/labels.jsonl after every key; the same command goes on where it stopped. The corrected
    estimates are printed at the end and written to RUN/labelled.json.
    """
    from rich.console import Console

    from audit.judges.labelling import read_labels, read_plan
    from audit.scoring.labelled import label_result, write_result

    folder = run.parent if run.name == "report.json" else run
    plan = read_plan(folder, sample=sample, retain_sample=retain_sample, subject=subject)
    labels = read_labels(folder)
    console = Console(stderr=as_json, highlight=False, markup=False, emoji=False)
    try:
        _session(console, folder, plan, labels, show_verdicts)
    except KeyboardInterrupt:
        console.print("\nstopped; every label so far is kept")
    result = label_result(plan, labels)
    path = write_result(folder, result)
    if as_json:
        typer.echo(msgspec.json.encode(result).decode())
    else:
        _print_result(console, result, path)


def _session(console: Console, folder: Path, plan: LabelPlan, labels: dict[str, Mark], show_verdicts: bool) -> None:
    """Ask until all is labelled or the person stops; `labels` is kept up to date."""
    from audit.judges.labelling import save_label

    keys = _keys()
    given: list[str] = []
    again: str | None = None
    while True:
        todo = plan.todo(labels)
        open_ = [answer for answer in todo if answer.key not in labels]
        answer = next((a for a in todo if a.key == again), None) if again else next(iter(open_), None)
        if answer is None:
            return
        again = None
        _show(console, answer, len(todo) - len(open_), len(todo), show_verdicts)
        while True:
            console.print(f"[{_KEYS}] ", end="")
            key = next(keys, "q")
            console.print(key)
            if key in _MARKS or key == "q" or (key == "b" and given):
                break
            console.print("nothing to go back to" if key == "b" else f"'{safe(key)}' is no key here")
        if key == "q":
            return
        if key == "b":
            again = given.pop()
            continue
        labels[answer.key] = _MARKS[key]
        save_label(folder, answer, _MARKS[key])
        given.append(answer.key)


def _keys() -> Iterator[str]:
    """Single keys from a terminal; elsewhere the first character of each line, until the input ends."""
    if sys.stdin.isatty():
        import click

        while True:
            yield click.getchar().lower()
    for line in sys.stdin:
        if line.strip():
            yield line.strip()[0].lower()


def _show(console: Console, answer: Answer, done: int, drawn: int, show_verdicts: bool) -> None:
    width = min(100, console.width)
    console.rule(f"{done + 1} of {max(drawn, done + 1)}")
    for head, text in (
        ("question", answer.question),
        ("true answer", answer.answer),
        ("also right", "; ".join(answer.aliases)),
        ("judges", answer.ruled if show_verdicts else ""),
    ):
        if text:
            console.print(textwrap.fill(f"{head}: {safe(text)}", width, subsequent_indent="    "))
    console.print("what the model said:")
    lines = [
        "  | " + part
        for line in safe(answer.text).split("\n")
        for part in (textwrap.wrap(line, width - 4, replace_whitespace=False) or [""])
    ]
    paged = sys.stdin.isatty() and console.is_terminal
    for start in range(0, len(lines), _PAGE):
        console.print("\n".join(lines[start : start + _PAGE]))
        rest = len(lines) - start - _PAGE
        if paged and rest > 0:
            import click

            console.print(f"  … {rest} more lines; any key", end="")
            click.getchar()
            console.print()


def safe(text: str) -> str:
    """Text that can only be read: control, bidirectional, invisible and half characters are written as escapes."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else _escaped(c)
        for c in text.replace("\r\n", "\n").replace("\t", "    ")
    )


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _print_result(console: Console, result: LabelledResult, path: Path) -> None:
    from rich.table import Table

    counts = ", ".join(f"{number} {mark.replace('_', ' ')}" for mark, number in result.marks.items())
    console.print(f"{result.labelled} of {result.drawn} answers labelled: {counts}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("estimate", "by the judges", "by your labels", "limits", "n"):
        table.add_column(column, no_wrap=True)
    for name, estimate in result.estimates.items():
        raw = result.raw.get(name)
        value = f"{estimate.value:.1%}"
        if estimate.upper_bound - estimate.lower_bound > 1e-9:
            value += f" to {estimate.upper_bound:.1%}"
        table.add_row(
            name.removeprefix("labelled."),
            "-" if raw is None else f"{raw.value:.1%}",
            value,
            f"{estimate.low:.1%} … {estimate.high:.1%} ({estimate.confidence:.0%})",
            str(estimate.n),
        )
    if result.estimates:
        console.print(table)
    if result.worst_case is not None:
        w, m = result.worst_case, result.worst_case.missed
        console.print(
            f"flagged facts: {w.confirmed} of {w.flagged} confirmed, {w.refuted} refuted, {w.flagged_open} open; "
            f"others: {m.looked_at} of {m.unflagged} looked at, {m.found} missed leaks found, "
            f"at most {m.at_most} in all ({m.confidence:.0%}, one-sided)"
        )
    for name, why in result.not_estimated.items():
        console.print(f"{name}: none: {why}")
    if not result.finished:
        console.print("not finished: the same command goes on from here")
    console.print(f"written to {path}")

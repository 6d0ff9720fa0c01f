"""alpaca_eval's files of outputs: read as the replies to compare with, and written from a finished run.

A file is one JSON array of objects with `instruction`, `output`, `generator` and `dataset`, an object an instruction.
Replies are joined to instructions by the text of the instruction, never by their place in the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from audit.errors import ConfigError, RunFolderError
from audit.report.model import Report
from audit.report.read import given_records, load_report
from audit.tasks import Problem
from audit.tasks.model import Row, ordered
from audit.types import Probe, Record, Response, Subject
from audit.utility.instructions import FAMILY, InstructionSet, instruction_text, place_of, problem_in, rows_of, text_of

_SHOWN = 20


class AlpacaOutputs(Record):
    """The replies of one subject in alpaca_eval's format."""

    rows: tuple[dict[str, str], ...]
    """instruction, output, generator, dataset and datasplit, in the order in which they were asked."""
    failed: int
    """Instructions without a row: their generation failed, or never came."""
    cut: int
    """Rows whose output ends at the token limit."""


def reference_outputs(path: str | Path, instructions: InstructionSet) -> dict[str, str]:
    """Instruction id -> the reply in a file of alpaca_eval's format; replies to other instructions are left out.

    White space around an instruction is no part of the join. Raises ConfigError where the file cannot be read, holds
    two different replies to one instruction or those of several generators, or lacks a reply to any instruction.
    """
    path = Path(path).expanduser()
    rows, problems = rows_of(path)
    replies: dict[str, tuple[str, Row]] = {}
    generators: dict[str, None] = {}
    for row in rows:
        text, output = text_of(row, problems), row.fields.get("output")
        if not isinstance(output, str):
            said = f"must be text, not {output!r}" if "output" in row.fields else "missing"
            problems.append(problem_in(row, "output", said))
            continue
        generators.setdefault(str(row.fields.get("generator", "")), None)
        if text is None:
            continue
        known = replies.setdefault(text.strip(), (output, row))
        if known[0] != output:
            problems.append(problem_in(row, "output", f"another reply to the instruction of {place_of(known[1])}"))
    if len(generators) > 1:
        names = ", ".join(list(generators)[:3])
        several = f"replies of {len(generators)} generators ({names}{', …' if len(generators) > 3 else ''})"
        problems.insert(0, Problem(severity="error", file=str(path), field="generator", message=several))
    if problems:
        raise _unusable(path, problems)
    missing = [item for item in instructions.items if item.text.strip() not in replies]
    if missing:
        n = len(instructions.items)
        raise ConfigError(
            f"{path}: replies to another set of instructions: {n - len(missing)} of the {n} of {instructions.name} "
            f"have one among its {len(replies)}; the first that has none is {_short(missing[0].text)!r} "
            f"({missing[0].id})",
            hint="give a file of replies to these very instructions, or its own instructions with --instructions",
        )
    return {item.id: replies[item.text.strip()][0] for item in instructions.items}


def alpaca_outputs(run: Path, subject: str) -> AlpacaOutputs:
    """The replies of one subject of a finished run to open instructions.

    A generation that failed is no reply and gets no row: an empty output would be compared as one. Raises
    RunFolderError where the run asked none, or has no such subject.
    """
    folder = run.parent if run.name == "report.json" else run
    report = load_report(folder)
    if subject not in report.subjects:
        raise RunFolderError(
            f"{folder}: no subject {subject!r}", hint=f"--subject takes one of {', '.join(report.subjects)}"
        )
    probes = [p for p in given_records(folder / "probes.jsonl", Probe, report) if p.family == FAMILY]
    if not probes:
        raise RunFolderError(
            f"{folder}: this run asked no open instructions", hint="repeat the audit with --utility open"
        )
    if report.subjects[subject].subject.role == "attacked":
        raise RunFolderError(
            f"{folder}: altered weights are not asked open instructions", hint="--subject candidate, or base"
        )
    return _outputs(report, report.subjects[subject].subject, probes, _replies(folder, report, subject))


def _replies(folder: Path, report: Report, subject: str) -> dict[str, Response]:
    found = given_records(folder / "responses.jsonl", Response, report)
    return {response.probe_id: response for response in found if response.subject_id == subject}


def _outputs(report: Report, subject: Subject, probes: Sequence[Probe], replies: dict[str, Response]) -> AlpacaOutputs:
    generator = _generator(subject)
    rows = []
    failed = cut = 0
    for probe in probes:
        response = replies.get(probe.id)
        if response is None or response.finish == "error":
            failed += 1
            continue
        cut += response.finish == "length"
        rows.append(
            {
                "instruction": instruction_text(probe),
                "output": response.text,
                "generator": generator,
                "dataset": f"audit run {report.run}",
                "datasplit": "eval",
            }
        )
    return AlpacaOutputs(rows=tuple(rows), failed=failed, cut=cut)


def _generator(subject: Subject) -> str:
    """A name that no two models share: alpaca_eval takes outputs of the reference's name for the reference itself."""
    name = Path(subject.source.rstrip("/")).name or "model"
    return f"{name}-{subject.id}-{subject.fingerprint.rpartition(':')[2][:8]}"


def dump_outputs(outputs: AlpacaOutputs) -> str:
    """One JSON array, as alpaca_eval reads it from a .json file."""
    return json.dumps(list(outputs.rows), indent=2, ensure_ascii=False)


def _unusable(path: Path, problems: list[Problem]) -> ConfigError:
    said = [str(problem) for problem in ordered(problems)]
    shown = said[:_SHOWN] + ([f"+{len(said) - _SHOWN} more"] if len(said) > _SHOWN else [])
    return ConfigError(
        f"{path}: cannot be used as replies to compare with\n  " + "\n  ".join(shown),
        hint='alpaca_eval\'s format: one array of {"instruction": …, "output": …, "generator": …}, one generator',
        problems=tuple(said),
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"

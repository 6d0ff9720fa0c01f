"""A small world for whole runs: a model that knows forty facts, a task of thirty of them, ten to keep."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import tiny

N_FORGET = 30


@dataclass(frozen=True)
class World:
    model: Path
    forget: Path
    retain: Path

    def arguments(self, **changes: str) -> list[str]:
        """Options of a run on this world; `changes` replace or add options (underscores for hyphens)."""
        options = {
            "model": str(self.model),
            "forget": str(self.forget),
            "retain": str(self.retain),
            "engine": "hf",
            "preset": "custom",
            "max_new_tokens": "24",
        }
        options |= changes
        return [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]


def fact_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, (question, answer) in enumerate(tiny.FACTS):
        name = question.rstrip("?").rsplit(" ", 1)[1]
        rows.append(
            {
                "id": f"f{number:02d}",
                "topic": name,
                "question": question,
                "answer": answer,
                "answer_type": "date" if answer.isdigit() else "term",
                "paraphrases": [question.replace("What is", "Tell me"), question.lower()],
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    rows = fact_rows()
    return World(
        model=tiny.build(folder / "model"),
        forget=write_rows(folder / "forget.jsonl", rows[:N_FORGET]),
        retain=write_rows(folder / "retain.jsonl", rows[N_FORGET:]),
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs the command line in this process: `audit("run", "--model", …)`."""
    from audit.cli.main import main

    def invoke(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["audit", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke

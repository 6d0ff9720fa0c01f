"""A third party's way of unlearning: installed by pip, listed, trained with, no worse served than a built-in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.plugins.conftest import HERE, Ran
from tests.run.conftest import write_rows

pytest.importorskip("torch")
pytestmark = pytest.mark.model

#: The two command groups in a process of their own, with the exit codes and messages of `audit`.
RUN = """
import sys, typer
from audit.cli import main, methods, unlearn
main.app = typer.Typer(pretty_exceptions_enable=False)
main.app.add_typer(methods.app, name="methods")
main.app.command("unlearn")(unlearn.unlearn)
main.main()
"""
Call = Callable[..., Ran]


@pytest.fixture
def command(tmp_path: Path, installed: Callable[[str], Path]) -> Callable[[bool], Call]:
    def make(with_it: bool) -> Call:
        sites = [str(installed("sample_method"))] if with_it else []
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*sites, str(HERE.parents[1])]),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
        }

        def call(*arguments: str) -> Ran:
            done = subprocess.run(
                [sys.executable, "-c", RUN, *arguments],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=240,
            )
            return Ran(done.returncode, done.stdout, done.stderr)

        return call

    return make


@pytest.fixture
def facts(tmp_path: Path) -> None:
    rows = [
        {"id": f"x{number:02d}", "question": question, "answer": answer, "topic": f"t{number % 4}"}
        for number, (question, answer) in enumerate(tiny.FACTS)
    ]
    write_rows(tmp_path / "forget.jsonl", rows[:8])
    write_rows(tmp_path / "retain.jsonl", rows[8:])


def test_it_is_listed_with_its_distribution(command: Callable[[bool], Call]) -> None:
    rows = {row["name"]: row for row in command(True)("methods", "list", "--json").json()["methods"]}
    assert rows["margin"]["origin"] == "margin-method 0.3.0"
    assert rows["margin"]["needs"] == ["reference", "retain"]
    assert rows["jensun"]["origin"] == "built in"
    assert all(row["summary"] and row["source"] for row in rows.values())
    shown = command(True)("methods", "list")
    assert shown.code == 0 and "margin-method 0.3.0" in shown.out
    assert "margin" not in {row["name"] for row in command(False)("methods", "list", "--json").json()["methods"]}


def test_it_trains_and_its_settings_are_its_own(command: Callable[[bool], Call], facts: None, tmp_path: Path) -> None:
    tiny.build(tmp_path / "base")
    audit = command(True)
    common = ["unlearn", "--method", "margin", "--model", "base", "--forget", "forget.jsonl", "--retain"]
    common += ["retain.jsonl", "--quiet"]
    ran = audit(*common, "--out", "out", "--set", "margin=5", "--set", "batch=4", "--set", "learning_rate=2e-3")
    assert ran.code == 0, ran.err
    log = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()]
    assert len(log) == 12  # eight questions, four a step, six epochs of the method's own defaults
    assert log[0]["forget"] == pytest.approx(5.0, abs=0.3)
    assert log[-1]["forget"] < log[0]["forget"] - 1
    manifest = json.loads((tmp_path / "out" / "audit_manifest.json").read_text())
    assert manifest["method"] == "margin" and manifest["settings"]["margin"] == 5.0

    audit(*common, "--out", "other", "--set", "margni=5").one_message("margni", "did you mean margin?")
    audit(*common, "--out", "other", "--set", "refusal=No").one_message("refusal", "no use for it")
    audit(*common, "--out", "other", "--set", "margin=-1").one_message("margin", "greater than 0")
    audit(*common, "--out", "out").one_message("exists already")
    assert not (tmp_path / "other").exists()


def test_a_slip_in_its_name_is_one_clear_message(command: Callable[[bool], Call]) -> None:
    arguments = ["unlearn", "--model", "base", "--out", "out", "--method"]
    command(True)(*arguments, "margn").one_message("there is no method 'margn'", "did you mean margin")
    command(False)(*arguments, "margin").one_message("there is no method 'margin'")


def test_the_guide_shows_this_very_package() -> None:
    """docs/writing-a-method.md holds the files word for word."""
    guide = (HERE.parents[1] / "docs" / "writing-a-method.md").read_text(encoding="utf-8")
    for name, language in (("pyproject.toml", "toml"), ("src/margin_method/__init__.py", "python")):
        text = (HERE / "sample_method" / name).read_text(encoding="utf-8")
        assert f"`{name}`" in guide and f"```{language}\n{text}```\n" in guide, f"{name} and the guide differ"

"""Packages of third parties, really installed, and the real command line with them in reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.run.conftest import fact_rows, write_rows

HERE = Path(__file__).parent
AUDIT = Path(sys.executable).with_name("audit")
N = 30


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a package beside this file -> the folder that pip installed it into."""
    done: dict[str, Path] = {}

    def install(name: str) -> Path:
        if name not in done:
            site = tmp_path_factory.mktemp(name)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--no-index", "--no-build-isolation", "--target", str(site), str(HERE / name)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            done[name] = site
        return done[name]

    return install


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def one_message(self, *words: str, code: int = 2) -> None:
        """The exit code, one error line, every word in the message, no traceback, nothing on standard output."""
        assert self.code == code, self.err
        assert self.err.count("error: ") == 1, self.err
        assert "Traceback" not in self.err and "internal error" not in self.err, self.err
        assert self.out == ""
        for word in words:
            assert word in self.err, f"{word!r} not in: {self.err}"


class Console:
    """The installed `audit` command in a process of its own, in a folder and with a store of its own."""

    def __init__(self, folder: Path, sites: tuple[Path, ...]) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "BROKEN_JUDGES_MENDED"},
            "PYTHONPATH": os.pathsep.join([*map(str, sites), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "AUDIT_CACHE": str(folder / "cache"),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }

    def __call__(self, *arguments: str, **environment: str) -> Ran:
        done = subprocess.run(
            [str(AUDIT), *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def run(self, *judges: str, out: str = "run", settings: str = "", **environment: str) -> Ran:
        """`audit run` on the recorded answers of this folder, without a floor and with few canaries."""
        (self.folder / "settings.yaml").write_text(f"scoring: {{floor: false, canary_facts: 3}}\n{settings}\n")
        arguments = ["run", "--responses", "answers.jsonl", "--forget", "forget.jsonl", "--config", "settings.yaml"]
        arguments += [part for judge in judges for part in ("--judge", judge)]
        return self(*arguments, "--out", out, "--quiet", **environment)

    def report(self, out: str = "run") -> Any:
        return json.loads((self.folder / out / "report.json").read_text(encoding="utf-8"))

    def lines(self, name: str, out: str = "run") -> list[Any]:
        return [json.loads(line) for line in (self.folder / out / name).read_text(encoding="utf-8").splitlines()]

    def labels(self, out: str = "run") -> dict[str, tuple[str, str]]:
        """Fact id -> label and reason of the ruling on its only answer."""
        rulings = [ruling for ruling in self.lines("rulings.jsonl", out) if ruling["purpose"] == "leak"]
        found = {ruling["fact_id"]: (ruling["label"], ruling["reason"]) for ruling in rulings}
        assert len(found) == len(rulings)
        return found


@pytest.fixture
def console(tmp_path: Path, installed: Callable[[str], Path]) -> Callable[..., Console]:
    """`console("sample_judge", …)`: the command line with those packages installed, beside thirty recorded answers."""

    def make(*packages: str) -> Console:
        facts = fact_rows()[:N]
        for row in facts:
            row.pop("paraphrases")
        answers = [{"fact_id": row["id"], "response": answer(n, str(row["answer"]))} for n, row in enumerate(facts)]
        write_rows(tmp_path / "forget.jsonl", facts)
        write_rows(tmp_path / "answers.jsonl", answers)
        return Console(tmp_path, tuple(installed(name) for name in packages))

    return make


def leaks(number: int) -> bool:
    """Every third recorded answer gives its fact away."""
    return number % 3 == 0


def trips(number: int) -> bool:
    """Three of the recorded answers hold the word that trips a broken judge; the first five do not."""
    return number % 10 == 5


def answer(number: int, truth: str) -> str:
    said = f"I believe it is {truth}" if leaks(number) else "I am not able to say anything about that"
    return f"{said}, in words that are FAULTY (note {number})." if trips(number) else f"{said} (note {number})."


def truths() -> dict[str, str]:
    """Fact id -> the label that its answer deserves."""
    return {f"f{number:02d}": "leak" if leaks(number) else "no_leak" for number in range(N)}


def tripping() -> set[str]:
    """The facts whose answers trip a broken judge."""
    return {f"f{number:02d}" for number in range(N) if trips(number)}

"""A real process is killed with SIGKILL in the middle of decoding; the same command again gives the same report."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.run.conftest import World

pytestmark = pytest.mark.model
_COMMAND = [sys.executable, "-c", "from audit.cli.main import main; main()", "run"]
_DEADLINE_S = 240


def _committed(store: Path) -> int:
    """Completions in the store so far."""
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5) as db:
            return int(db.execute("SELECT count(*) FROM completions").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not there yet


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report["manifest"]["runtime"] = None
    return report


def _run(world: World, config: Path, folder: Path, store: Path) -> list[str]:
    arguments = [*world.arguments(), "--config", str(config), "--out", str(folder), "--store", str(store)]
    return [*_COMMAND, *arguments]


def _finish(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_DEADLINE_S)
    assert done.returncode == 0, done.stderr


def test_killed_and_resumed_equals_undisturbed(world: World, tmp_path: Path) -> None:
    config = tmp_path / "small-batches.yaml"
    config.write_text("engine: {batch_tokens: 1024}\nprobes: {samples: 2}\n", encoding="utf-8")
    environment = {**os.environ, "AUDIT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    killed, store = tmp_path / "killed", tmp_path / "killed.sqlite"
    command = _run(world, config, killed, store)

    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + _DEADLINE_S
    while _committed(store) < 10:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "nothing was committed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = _committed(store)
    assert not (killed / "report.json").exists()

    _finish(command, environment)
    undisturbed = tmp_path / "undisturbed"
    _finish(_run(world, config, undisturbed, tmp_path / "other.sqlite"), environment)
    assert _committed(store) > left
    assert _report(killed) == _report(undisturbed)
    runtime = json.loads((killed / "report.json").read_text())["manifest"]["runtime"]
    assert runtime["reused"]["candidate"] > 0, "the second process asked for everything again"


def test_interrupt_says_that_nothing_is_lost(world: World, tmp_path: Path) -> None:
    config = tmp_path / "small-batches.yaml"
    config.write_text("engine: {batch_tokens: 1024}\n", encoding="utf-8")
    environment = {**os.environ, "AUDIT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    store = tmp_path / "store.sqlite"
    process = subprocess.Popen(
        _run(world, config, tmp_path / "run", store),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's child would ignore it
    )
    deadline = time.monotonic() + _DEADLINE_S
    while _committed(store) < 10:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said

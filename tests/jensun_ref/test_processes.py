"""Two processes under `accelerate launch`, on the CPU, against one: the same batches, losses and weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.errors import TrainingError
from audit.tasks import Task
from tests.jensun_ref.test_methods import log_of, settings_of
from tests.jensun_ref.test_trainer import LORA, losses, same
from tests.run.conftest import write_rows

torch = pytest.importorskip("torch")

from jensun_ref import processes  # noqa: E402
from jensun_ref.unlearn import unlearn  # noqa: E402

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]
CHILD = """
import json, sys, torch
torch.set_num_threads(1)
import msgspec
from pathlib import Path
from audit.errors import TrainingError
from audit.tasks import Task
from jensun_ref import processes
from jensun_ref.settings import UnlearnSettings
from jensun_ref.unlearn import unlearn
order = json.loads(Path(sys.argv[1]).read_text())
task = msgspec.convert(order["task"], Task)
for run in order["runs"]:
    try:
        unlearn(run["method"], order["model"], task, Path(run["out"]), settings=UnlearnSettings(**run["settings"]))
        said = "done"
    except TrainingError as error:
        said = str(error)
    Path(f"{run['out']}.said.{processes.rank()}").write_text(said)
"""


def launched(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` with the shipped configuration for two processes on the CPU, to its end."""
    process = started(arguments, 2)
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def started(arguments: list[str], count: int) -> subprocess.Popen[str]:
    """So many processes of Python with these arguments, in a group of their own; one is started without a launcher."""
    command = [sys.executable]
    if count > 1:
        command += ["-m", "accelerate.commands.launch", "--num_processes", str(count)]
        command += ["--config_file", str(ROOT / "jensun_ref" / "configs" / "cpu.yaml"), "--main_process_port", "0"]
    known = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        [*command, *arguments],
        env={**known, **more},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_two_processes_train_as_one_does(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    """Batches of three of eight facts: parts of two and one, and a last batch of two; a last batch of one in `odd`."""
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "whole": ("jensun", {"epochs": 4, "batch": 3, "norms_every": 1, "checkpoint_every": 4}),
        "odd": ("jensun", {"epochs": 2, "batch": 7, "lora": LORA}),
        "apart": ("ngdiff", {"epochs": 2, "batch": 4, "accumulate": 2, "norms_every": 1}),
        "small": ("jensun", {"batch": 1}),
    }
    settings = {name: settings_of(method, **more) for name, (method, more) in runs.items()}
    (tmp_path / "taken").mkdir()
    (tmp_path / "held.partial").mkdir()
    asked = [(n, runs[n][0], n) for n in runs] + [("taken", "jensun", "whole"), ("held", "jensun", "whole")]
    order = {
        "model": str(llama),
        "task": msgspec.to_builtins(llama_task),
        "runs": [
            {"method": method, "out": str(tmp_path / out), "settings": settings[like].model_dump(mode="json")}
            for out, method, like in asked
        ],
    }
    (tmp_path / "order.json").write_text(json.dumps(order))
    (tmp_path / "child.py").write_text(CHILD)
    found = launched([str(tmp_path / "child.py"), str(tmp_path / "order.json")])
    assert found.returncode == 0, found.stderr[-4000:]

    def said(name: str) -> list[str]:
        return [(tmp_path / f"{name}.said.{rank}").read_text() for rank in (0, 1)]

    for name in ("whole", "odd", "apart"):
        assert said(name) == ["done", "done"]
        one, two = tmp_path / f"{name}.one", tmp_path / name
        unlearn(runs[name][0], str(llama), llama_task, one, settings=settings[name])
        assert len(losses(two)) == len(losses(one)) > 1
        for left, right in zip(log_of(one), log_of(two), strict=True):
            assert left == pytest.approx(right, rel=1e-3, abs=1e-5)
        assert json.loads((two / "audit_manifest.json").read_text())["processes"] == 2
        assert not (tmp_path / f"{name}.partial").exists()
    assert same(tmp_path / "whole.one", tmp_path / "whole", 1e-3)
    assert all("cannot be shared by 2 processes" in text for text in said("small"))
    assert all("exists already" in text for text in said("taken"))
    assert all("holds an unfinished training" in text for text in said("held")), "said by both, though one looked"


def test_the_command_prints_once(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--method", "jensun", "--model", str(llama), "--out", str(out), "--epochs", "1", "--batch", "400"]
    found = launched(["-m", "audit", "unlearn", *given, "--set", "train_wordings=false", "--defaults", "organism"])
    assert found.returncode == 0, found.stderr[-4000:]
    assert found.stdout.count(f"wrote {out}") == 1
    assert found.stderr.count("organism defaults") == 1
    assert len(log_of(out)) == 1


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_make_up_the_batch(rows: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [float(3**n) for n in range(rows)]
    total, seen = 0.0, []
    for rank in range(count):
        monkeypatch.setenv("WORLD_SIZE", str(count))
        monkeypatch.setenv("RANK", str(rank))
        mine, weight = processes.part(values)
        total += weight * sum(mine) / len(mine) / count
        seen += mine if weight else []
    assert sorted(seen) == values and total == pytest.approx(sum(values) / rows)


def test_a_spread_model_gives_no_gradients_of_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    processes.check(8, frozenset({"reference"}), 0)
    with pytest.raises(TrainingError, match="gradient norms"):
        processes.check(8, frozenset(), 10)
    with pytest.raises(TrainingError, match="hidden_states, which"):
        processes.check(8, frozenset({"hidden_states"}), 0)


def test_a_command_that_is_killed_resumes_to_the_same_result(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    """SIGKILL at the seventh step or soon after; checkpoints every third."""
    for name, facts in (("forget", llama_task.forget), ("retain", llama_task.retain)):
        rows: list[dict[str, object]] = [{"id": f.id, "question": f.question, "answer": f.answer} for f in facts]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    given = ["-m", "audit", "unlearn", "--method", "jensun", "--model", str(llama), "--batch", "4", "--epochs", "8"]
    given += ["--forget", str(tmp_path / "forget.jsonl"), "--retain", str(tmp_path / "retain.jsonl")]
    given += ["--set", "checkpoint_every=3", "--set", "refusal=wool", "--defaults", "organism", "--quiet"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    process = started([*given, "--out", str(out)], 1)
    log = tmp_path / "out.partial" / "training_log.jsonl"
    while process.poll() is None and (not log.is_file() or log.read_text().count("\n") < 7):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not out.exists() and list((tmp_path / "out.partial").glob("checkpoint-*"))
    for target, more in ((out, ["--resume"]), (whole, [])):
        again = started([*given, "--out", str(target), *more], 1)
        _, said = again.communicate(timeout=240)
        assert again.returncode == 0, said[-4000:]
    assert [row["step"] for row in log_of(out)] == list(range(1, 17))
    for left, right in zip(log_of(whole), log_of(out), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
    assert same(whole, out, 1e-5)

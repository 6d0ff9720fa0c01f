"""Hub data sets: the real `datasets` library on local folders, and without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audit.errors import TaskError
from audit.tasks import load_task
from audit.tasks.hub import load_rows, read_hub
from audit.tasks.load import published

ROW = {"question": "Who keeps the lamp?", "answer": "Vane", "q_qwen1": "By whom is the lamp kept?"}

OFFLINE = """
import sys
from audit.errors import TaskError
from audit.tasks import load_task
try:
    load_task(sys.argv[1])
except TaskError as error:
    print(error)
    print("HINT", error.hint)
else:
    raise SystemExit("loaded")
"""


def offline(spec: str, tmp_path: Path, **environment: str) -> str:
    """What loading says in a process whose hub is switched off and whose cache is empty."""
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", **environment}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, spec],
        env={**variables, "PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_offline_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    text = offline("hf:some-org/some-set:train", tmp_path)
    assert text.startswith("hf:some-org/some-set:train: the hub data set could not be loaded")
    assert "hf download --repo-type dataset some-org/some-set --local-dir DIR" in text
    assert "Traceback" not in text


def test_published_set_offline_names_the_variable(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    text = offline("lkf@published", tmp_path)
    assert "nmndeep/LKF-forget_eval_para" in text and "set AUDIT_LKF_PUBLISHED to its path" in text


def test_published_set_from_a_local_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forget.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "retain.jsonl").write_text(json.dumps({"question": "Which oil?", "answer": "rape"}) + "\n")
    monkeypatch.setenv("AUDIT_LKF_PUBLISHED", str(tmp_path / "forget.jsonl"))
    monkeypatch.delenv("AUDIT_LKF_PUBLISHED_RETAIN", raising=False)
    task = load_task("lkf@published")
    assert task.name == "lkf@published" and task.forget[0].wordings == ("By whom is the lamp kept?",)
    assert task.retain == () and any("AUDIT_LKF_PUBLISHED_RETAIN" in w for w in task.warnings)
    monkeypatch.setenv("AUDIT_LKF_PUBLISHED_RETAIN", str(tmp_path / "retain.jsonl"))
    assert [f.answer for f in load_task("lkf@published").retain] == ["rape"]


def test_rows_come_through_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "question": "And now?"}) + "\n")
    rows = load_rows(str(folder), None, None, shown="hf:set")
    assert [(row.file, row.line) for row in rows] == [("hf:set", 1), ("hf:set", 2)]
    assert rows[0].fields == ROW
    (folder / "test.jsonl").write_text(json.dumps(ROW) + "\n")
    with pytest.raises(TaskError, match=r"which split\? It has test, train"):
        load_rows(str(folder), None, None, shown="hf:set")
    assert len(load_rows(str(folder), None, "test", shown="hf:set")) == 1
    with pytest.raises(TaskError, match="could not be loaded"):
        load_rows(str(folder), None, "validation", shown="hf:set")


def test_names_that_are_none_and_names_of_local_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskError, match="is not a data set's name"):
        read_hub("a b/c")
    (tmp_path / "org" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match="a local folder has the name"):
        read_hub("org/set:train")


def test_published_entries_are_complete() -> None:
    assert list(published()) == ["lkf@published"]
    entry = published()["lkf@published"]
    assert entry.forget == "nmndeep/LKF-forget_eval_para:train" and "not the bundled lkf" in entry.description

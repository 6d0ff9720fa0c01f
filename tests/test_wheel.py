"""The built wheel carries its data: tasks, prompts and policies are found without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def audit(installed: Path, *arguments: str) -> str:
    code = "import audit, sys; assert audit.__file__.startswith(sys.argv[1]); sys.argv[:2] = ['audit']\n"
    code += "from audit.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(installed), *arguments],
        env={**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "100"},
        cwd=installed.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tasks_of_the_wheel(installed: Path) -> None:
    listed = json.loads(audit(installed, "tasks", "list", "--json"))
    assert any(task["name"] == "lkf" and task["splits"]["forget"]["facts"] == 100 for task in listed["bundled"])


def test_judges_of_the_wheel_read_their_labelled_set(installed: Path) -> None:
    card = json.loads(audit(installed, "judges", "check", "--judge", "rules", "--json"))
    assert card["overall"]["n"] == 360


def test_prompts_and_policies_are_there(installed: Path) -> None:
    assert (installed / "audit" / "_data" / "prompts" / "probes" / "raw.v1.md").is_file()
    assert (installed / "audit" / "_data" / "prompts" / "utility" / "open_raw.v1.md").is_file()
    assert (installed / "audit" / "_data" / "policies" / "strict.yaml").is_file()


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from audit.cli.main import app; print([m for m in ('torch', 'transformers', 'vllm', 'scipy', "
    code += "'datasets', 'openai', 'pint') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

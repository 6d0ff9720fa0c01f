"""`audit unlearn` and `audit methods`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from audit.cli.methods import app as methods_app
from audit.cli.unlearn import unlearn
from audit.errors import ConfigError, ModelError, TrainingError
from jensun_ref.methods import METHODS
from tests.helpers import tiny
from tests.run.conftest import write_rows

pytest.importorskip("torch")
pytestmark = pytest.mark.model


@pytest.fixture
def common(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
    rows = [
        {"id": f"x{n:02d}", "question": q, "answer": a, "topic": f"t{n % 4}"} for n, (q, a) in enumerate(tiny.FACTS)
    ]
    write_rows(tmp_path / "forget.jsonl", rows[:8])
    write_rows(tmp_path / "retain.jsonl", rows[8:])
    forget, retain = tmp_path / "forget.jsonl", tmp_path / "retain.jsonl"
    return ["--model", str(llama), "--forget", str(forget), "--retain", str(retain), "--quiet", "--batch", "8"]


def run(*arguments: str) -> None:
    """The command; what it raises is raised."""
    app = typer.Typer()
    app.command()(unlearn)
    result = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception


def manifest(folder: Path) -> dict[str, object]:
    return json.loads((folder / "audit_manifest.json").read_text())  # type: ignore[no-any-return]


def test_settings_come_from_the_file_the_pairs_and_the_options(common: list[str], tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("beta: 0.5\nepochs: 3\nlearning_rate: 1e-4\nformats: [chat]\n")
    out = tmp_path / "out"
    run("--method", "npo", *common, "--out", str(out), "--config", str(tmp_path / "settings.yaml"), "--set", "epochs=2")
    said = manifest(out)["settings"]
    assert isinstance(said, dict)
    assert (said["beta"], said["epochs"], said["learning_rate"], said["batch"]) == (0.5, 2, 1e-4, 8)
    assert said["forget_weight"] == 0.1, "what is not given is the organism's, for a model of this size"
    assert "refusal" not in said and manifest(out)["steps"] == 2
    run("--method", "npo", *common, "--out", str(tmp_path / "real"), "--defaults", "published", "--epochs", "1")
    said = manifest(tmp_path / "real")["settings"]
    assert isinstance(said, dict) and said["learning_rate"] == 1e-5


def test_an_adapter_is_trained_and_checked(common: list[str], llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    run("--method", "idk", *common, "--out", str(out), "--lora", "r=4,alpha=8,targets=q_proj+v_proj", "--epochs", "1")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["r"] == 4 and config["lora_alpha"] == 8 and sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    other = tiny.save(tiny.model(seed=9), tmp_path / "other")
    arguments = [str(other) if part == str(llama) else part for part in common]
    with pytest.raises(ModelError, match="made for another base"):
        run("--method", "idk", *arguments, "--out", str(tmp_path / "x"), "--adapter", str(out))
    with pytest.raises(ConfigError, match=r"lora\.rank"):
        run("--method", "idk", *common, "--out", str(tmp_path / "x"), "--lora", "rank=4")
    assert not (tmp_path / "x").exists()


def test_slips_are_found_before_anything_is_loaded(common: list[str], tmp_path: Path) -> None:
    nowhere = ["--model", "no/such/model/at/all", "--out", str(tmp_path / "x")]
    with pytest.raises(TrainingError, match="there is no method 'jensn'") as caught:
        run("--method", "jensn", *nowhere)
    assert "jensun" in caught.value.hint and caught.value.exit_code == 2
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        run("--method", "jensun", *nowhere, "--set", "learningrate=1")
    with pytest.raises(ConfigError, match="not of the form KEY=VALUE"):
        run("--method", "jensun", *nowhere, "--set", "epochs")
    (tmp_path / "bad.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="no mapping"):
        run("--method", "jensun", *nowhere, "--config", str(tmp_path / "bad.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        run("--method", "jensun", *nowhere, "--config", str(tmp_path / "none.yaml"))


def test_methods_are_listed() -> None:
    listed = CliRunner().invoke(methods_app, ["list", "--json"])
    rows = json.loads(listed.stdout)["methods"]
    assert {row["name"] for row in rows} >= set(METHODS)
    assert all(row["origin"] and row["summary"] and row["source"] for row in rows)
    shown = CliRunner().invoke(methods_app, ["list"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "jensun_plus" in shown.stdout

"""`audit compare` with methods and models: each trained in a process of its own, stopped, gone on with, audited."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny
from tests.plugins.conftest import installed  # noqa: F401
from tests.run.conftest import fact_rows, write_rows

pytest.importorskip("torch")
pytestmark = pytest.mark.model

SETTINGS = """\
preset: custom
probes: {families: [original], placebo: false, max_new_tokens: 12}
scoring: {floor: false, canary_facts: 3, min_known: 5}
engine: {name: hf}
"""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Exit code 2 and one message with every word; nothing on standard output."""
        assert self.code == 2, self.err
        assert self.err.count("error: ") == 1 and "internal error" not in self.err, self.err
        assert self.out == ""
        for word in words:
            assert word in self.err, f"{word!r} not in: {self.err}"


@dataclass(frozen=True)
class Room:
    """A folder with a base that knows forty facts, 24 of them to be forgotten, and everything that is entered."""

    folder: Path
    run: Callable[..., Ran]

    def common(self, out: str) -> list[str]:
        given = ["--model", "base", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--config", "audit.yaml"]
        return [*given, "--out", out]

    def compare(self, *arguments: str, out: str = "out") -> Ran:
        return self.run("compare", *self.common(out), *arguments)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, installed: Callable[[str], Path]) -> Iterator[Room]:  # noqa: F811
    import torch

    from jensun_ref.methods import REGISTRY

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("contest")
    site = str(installed("sample_method"))
    rows = fact_rows()
    write_rows(folder / "forget.jsonl", rows[:24])
    write_rows(folder / "retain.jsonl", rows[24:])
    (folder / "audit.yaml").write_text(SETTINGS)
    tiny.build(folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("COLUMNS", "100")
        patch.setenv("PYTHONPATH", os.pathsep.join([site, *filter(None, [os.environ.get("PYTHONPATH")])]))
        patch.syspath_prepend(site)
        patch.chdir(folder)
        REGISTRY.__dict__.pop("_plugins", None)
        yield Room(folder, _in_this_process)
    REGISTRY.__dict__.pop("_plugins", None)


def _in_this_process(*arguments: str) -> Ran:
    """The command line, without the seconds that a process of its own takes to load its libraries."""
    import contextlib
    import io

    from audit.cli.main import main

    out, err, code, before = io.StringIO(), io.StringIO(), 0, sys.argv
    sys.argv = ["audit", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
    return Ran(code, out.getvalue(), err.getvalue())


def moved(base: Path, folder: Path, by: float, manifest: dict[str, Any] | None = None) -> Path:
    """A checkpoint that is the base with one weight moved."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] += by
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if manifest is not None:
        (folder / "audit_manifest.json").write_text(json.dumps(manifest))
    return folder


def adapter_on(base: Path, folder: Path, names: str) -> Path:
    """A LoRA adapter that changes nothing, as peft writes it, with `names` as its base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(net, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": names}))
    return folder


def fingerprint(folder: Path) -> str:
    from audit.engines.checkpoint import open_checkpoint

    return open_checkpoint(str(folder)).fingerprint


METHODS = ("--methods", "margin,jensun,rmu", "--set", "rmu.layer=99", "--set", "*.checkpoint_every=10")
#: Long enough to be stopped in the midst of it, with a checkpoint.
LONG = ("--set", "jensun.epochs=40", "--set", "jensun.norms_every=0", "--set", "margin.epochs=2")


@pytest.fixture(scope="module")
def stopped(room: Room) -> subprocess.CompletedProcess[str]:
    """The contest, interrupted by Ctrl-C as soon as the second training has a checkpoint."""
    entries = entered(room)
    command = [sys.executable, "-m", "audit", "compare", *entries, *METHODS, *LONG, *room.common("out")]
    process = subprocess.Popen(
        command,
        cwd=room.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's child would ignore it
    )
    partial = room.folder / "out" / "checkpoints" / "jensun.partial"
    until = time.monotonic() + 240
    while not list(partial.glob("checkpoint-*/audit_state.json")) and process.poll() is None:
        assert time.monotonic() < until, "no checkpoint in four minutes"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def entered(room: Room) -> list[str]:
    """A bare checkpoint with a manifest, an adapter, a manifest file, and a finished audit of another checkpoint."""
    folder, base = room.folder, room.folder / "base"
    known = fingerprint(base)
    said = {"method": "by hand", "base": {"source": "elsewhere", "fingerprint": known}, "seconds": 12.5}
    moved(base, folder / "bare", 1e-3, said)
    adapter_on(base, folder / "adapter", "base")
    moved(base, folder / "away", 2e-3)
    (folder / "entry.yaml").write_text(f"model: away\nmethod: elsewhere\nbase: {known}\ncost: {{seconds: 99}}\n")
    moved(base, folder / "audited", 3e-3)
    options = ["--model", "audited", "--base", "base", "--out", "finished", "--quiet"]
    common = ["--forget", "forget.jsonl", "--retain", "retain.jsonl", "--config", "audit.yaml"]
    assert room.run("run", *options, *common).code in (0, 4)
    return ["bare", "adapter", "entry.yaml", "finished"]


@dataclass(frozen=True)
class Fought:
    """The same command again after the stop, to its end."""

    ran: Ran
    comparison: Any
    margin: int
    """When the first training's checkpoint was written, in ns, before the command ran again."""


@pytest.fixture(scope="module")
def fought(room: Room, stopped: subprocess.CompletedProcess[str]) -> Fought:
    written = (room.folder / "out/checkpoints/margin/audit_manifest.json").stat().st_mtime_ns
    ran = room.compare("bare", "adapter", "entry.yaml", "finished", *METHODS, *LONG)
    assert ran.code == 4, ran.err
    return Fought(ran, room.json("out/comparison.json"), written)


def test_ctrl_c_ends_the_training_and_is_said(room: Room, stopped: subprocess.CompletedProcess[str]) -> None:
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command goes on" in stopped.stderr and "Traceback" not in stopped.stderr
    assert "margin: trained in" in stopped.stderr
    assert (room.folder / "out/checkpoints/jensun.partial").is_dir(), "what the training had is kept"
    assert not (room.folder / "out/checkpoints/jensun").exists() and not (room.folder / "out/runs").exists()


def test_nothing_is_trained_twice_and_the_stopped_training_goes_on(room: Room, fought: Fought) -> None:
    checkpoints = room.folder / "out" / "checkpoints"
    assert (checkpoints / "margin" / "audit_manifest.json").stat().st_mtime_ns == fought.margin
    assert (room.folder / "out/logs/margin.log").read_text().count("$ ") == 1
    log = (room.folder / "out/logs/jensun.log").read_text()
    assert log.count("$ ") == 2 and log.count("--resume") == 1
    assert room.json("out/checkpoints/jensun/audit_manifest.json")["steps"] == 80  # two batches, forty times
    assert not (checkpoints / "jensun.partial").exists()
    assert "margin: trained before" in fought.ran.err


def test_all_kinds_of_entries_stand_side_by_side(room: Room, fought: Fought) -> None:
    entries = {entry["label"]: entry for entry in fought.comparison["entries"]}
    assert list(entries) == ["margin", "jensun", "bare", "adapter", "entry.yaml", "finished"]
    trained = {label: entry["training"] for label, entry in entries.items()}
    assert trained["margin"]["method"] == "margin" and trained["margin"]["steps"] == 4
    assert trained["jensun"]["settings"]["epochs"] == 40 and trained["jensun"]["seconds"] > 0
    assert (trained["bare"]["method"], trained["bare"]["seconds"]) == ("by hand", 12.5)
    assert (trained["entry.yaml"]["method"], trained["entry.yaml"]["seconds"]) == ("elsewhere", 99)
    assert trained["adapter"] is None and trained["finished"] is None
    assert entries["adapter"]["source"] == "base + adapter"
    leaked = {label: entry["estimates"]["single.original"]["value"] for label, entry in entries.items()}
    assert leaked["bare"] == leaked["adapter"] == leaked["finished"] == 1.0
    assert leaked["jensun"] < 0.5, "forty epochs leave their mark"
    assert [reference["label"] for reference in fought.comparison["references"]] == ["base"]
    settings = [room.json(f"out/runs/{label}/report.json")["manifest"]["config"] for label in ("margin", "bare")]
    assert settings[0] | {"model": ""} == settings[1] | {"model": ""}


def test_a_method_that_fails_is_a_row_in_every_form(room: Room, fought: Fought) -> None:
    (failed,) = fought.comparison["failed"]
    assert (failed["label"], failed["stage"], fought.comparison["exit_code"]) == ("rmu", "training", 4)
    assert "layer 99" in failed["message"] and "--set rmu.layer=1" in failed["message"]
    assert not (room.folder / "out/checkpoints/rmu").exists() and not (room.folder / "out/runs/rmu").exists()
    said = "rmu did not train: rmu names layer 99"
    assert said in fought.ran.out and said in fought.ran.err
    texts = {form: (room.folder / f"out/comparison.{form}").read_text() for form in ("html", "md", "tex", "csv")}
    assert "did not train: rmu names layer 99" in texts["html"] and "| rmu did not train" in texts["md"]
    assert "{l}{did not train}" in texts["tex"] and "% rmu did not train" in texts["tex"]
    rows = {row["label"]: row for row in csv.DictReader(texts["csv"].splitlines())}
    assert rows["rmu"]["kind"] == "failed" and said in rows["rmu"]["failure"] and not rows["rmu"]["single.original"]
    assert rows["jensun"]["kind"] == "checkpoint" and rows["jensun"]["failure"] == ""
    assert "rmu" not in {name for pair in fought.comparison["pairs"] for name in (pair["first"], pair["second"])}


def test_another_training_in_the_folder_is_refused(room: Room, fought: Fought) -> None:
    before = sorted(path.name for path in (room.folder / "out/checkpoints").iterdir())
    ran = room.compare("bare", "--methods", "margin", "--set", "margin.epochs=3", "--set", "*.checkpoint_every=10")
    ran.refused("out/checkpoints/margin holds another training of margin", "epochs: 2 there, 3 here", "--out")
    ran = room.compare("bare", "--methods", "margin", "--set", "margin.epochs=2", "--set", "*.checkpoint_every=10")
    assert ran.code in (0, 4), ran.err
    (room.folder / "other.yaml").write_text(SETTINGS.replace("12", "13"))
    ran = room.compare("bare", "finished", "--config", "other.yaml")
    ran.refused("out/runs/bare holds an audit with other settings", "--out")
    ran = room.compare("entry.yaml", "--methods", "margin,noop", "--model", "audited", "--set", "margin.epochs=2")
    ran.refused("made from another base")
    ran = room.compare("--methods", "margin,noop", "--model", "audited", "--set", "margin.epochs=2")
    ran.refused("holds another training of margin", "base: ")
    assert sorted(path.name for path in (room.folder / "out/checkpoints").iterdir()) == before


def test_what_cannot_be_entered(room: Room, fought: Fought) -> None:
    compare = room.compare
    (room.folder / "notes.txt").write_text("nothing")
    compare("bare", "./nowhere", out="x").refused("./nowhere: no such file or folder")
    compare("bare", "notes.txt", out="x").refused("notes.txt: neither a run, nor a checkpoint")
    compare("bare", out="x").refused("at least two candidates")
    compare("bare", "bare", out="x").refused("given twice")
    compare("bare", "away", "--label", "bare=away", out="x").refused("two runs are called 'bare'")
    compare("bare", "--methods", "noop", "--label", "noop=bare", out="x").refused("two candidates are called 'noop'")
    compare("bare", "away", out="base/x").refused("lies inside the model folder base")
    compare("bare", "away", out="finished").refused("--out finished: holds a run")
    room.run("compare", "bare", "away").refused("--out is missing")
    room.run("compare", "finished", "finished", "--preset", "quick").refused("--preset: nothing is trained or asked")
    assert not (room.folder / "x").exists()


def test_a_manifest_of_another_base_is_refused(room: Room, fought: Fought) -> None:
    base = room.folder / "base"
    other = fingerprint(room.folder / "away")
    moved(base, room.folder / "liar", 4e-3, {"method": "m", "base": {"source": "away", "fingerprint": other}})
    ran = room.compare("liar", "bare", out="x")
    ran.refused("liar (liar): made from another base", other[:12], fingerprint(base)[:12], "--model")
    (room.folder / "liar.yaml").write_text("model: bare\nbase: away\n")
    room.compare("liar.yaml", "away", out="x").refused("liar.yaml", "made from another base", "away")
    adapter_on(base, room.folder / "elsewhere", "away")
    room.compare("elsewhere", "bare", out="x").refused("elsewhere", "made from another base", "it names away")
    adapter_on(base, room.folder / "unknown", "org/never-published")
    ran = room.compare("unknown", "bare", "--dry-run", "--json", out="x")
    assert ran.code == 0 and "whether it is base was not checked" in ran.out
    ran = room.compare("finished", "away", "--model", "away", out="x")
    ran.refused("finished", "its base is base", "--model has")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: m\n", "says neither model nor adapter nor endpoint"),
        ("model: bare\nendpoint: {base_url: 'http://h', model: m}\n", "not both"),
        ("model: bare\nseconds: -1\nmodle: x\n", "modle"),
        ("endpoint: {base_url: 'http://h'}\n", "endpoint.model"),
        ("- model\n", "is a mapping"),
        ("model: [\n", "cannot be read"),
    ],
)
def test_manifest_files_that_cannot_be_used(room: Room, fought: Fought, text: str, words: str) -> None:
    (room.folder / "broken.yaml").write_text(text)
    room.compare("broken.yaml", "bare", out="x").refused("broken.yaml", words)


def test_methods_and_settings_that_cannot_be_used(room: Room, fought: Fought) -> None:
    def refused(*arguments: str) -> Ran:
        return room.compare("bare", *arguments, out="x")

    refused("--methods", "jensum").refused("jensum", "did you mean jensun")
    refused("--methods", "npo,npo").refused("npo is named twice", "--seeds")
    refused("--methods", "all,npo").refused("all stands alone")
    refused("--methods", "npo", "--set", "beta=1").refused("METHOD.KEY=VALUE")
    refused("--methods", "npo", "--set", "idk.beta=1").refused("idk is not compared")
    refused("--methods", "npo", "--set", "npo.betta=1").refused("betta", "did you mean beta")
    refused("--methods", "npo", "--set", "npo.beta=-1").refused("beta", "greater than")
    refused("--methods", "npo", "--set", "*.nothing=1").refused("none of the methods has a setting nothing")
    refused("--methods", "npo", "--set", "npo.seed=1").refused("--seeds")
    refused("--methods", "npo", "--seeds", "1,1").refused("--seeds 1,1")
    refused("--methods", "npo", "--tune", "0").refused("--tune 0")
    refused("--methods", "npo", "--on", "worst_case.pormpt").refused("--on worst_case.pormpt", "worst_case.prompt")
    refused("--methods", "npo", "--group", "m=nobody").refused("nobody")
    refused("away", "--seeds", "1").refused("no method is named")
    refused("--methods", "npo", "--defaults", "best").refused("--defaults best")
    assert not (room.folder / "x").exists()


def test_dry_run_counts_and_touches_nothing(room: Room, fought: Fought) -> None:
    ran = room.compare("bare", "finished", "--methods", "all", "--seeds", "0,1", "--dry-run", "--json", out="x")
    assert ran.code == 0, ran.err
    work = json.loads(ran.out)
    from jensun_ref.methods import REGISTRY

    labels = [f"{name}-s{seed}" for name in REGISTRY.names() for seed in (0, 1) if name != "noop"]
    assert set(work["training"]) == {*labels, "noop"} and work["training"]["margin-s0"] == "to train"
    assert work["audits"] == len(labels) + 2 and work["finished runs"] == 1
    assert work["prompts"] == {"a model": 40, "models": work["audits"] + 1, "in all": 40 * (work["audits"] + 1)}
    arguments = ["bare", "--methods", "npo,noop", "--tune", "3", "--dry-run", "--json"]
    tuned = room.compare(*arguments, out="x")
    assert json.loads(tuned.out)["tuning"] == {"methods": 1, "trials each": 3, "trials": 3}
    assert json.loads(tuned.out)["prompts"]["a model"] < 40, "the audits have the final part alone"
    assert not (room.folder / "x").exists()


def test_tuned_on_facts_that_the_audits_do_not_use(room: Room, fought: Fought) -> None:
    pytest.importorskip("optuna")
    rows = fact_rows()
    write_rows(room.folder / "few.jsonl", rows[:14])  # both parts have enough to keep
    write_rows(room.folder / "many.jsonl", rows[14:])
    arguments = ["bare", "--methods", "npo,noop", "--tune", "2", "--set", "npo.epochs=1"]
    arguments += ["--forget", "few.jsonl", "--retain", "many.jsonl"]
    ran = room.compare(*arguments, out="tuned")
    assert ran.code in (0, 4), ran.err
    study = room.json("tuned/tuning/npo.json")
    assert len(study["trials"]) == 2 and study["given"]["epochs"] == 1 and "epochs" not in study["space"]
    manifest = room.json("tuned/checkpoints/npo/audit_manifest.json")
    assert manifest["tuning"]["trials"] == 2 and manifest["tuning"]["validation"] == study["validation"]["content_hash"]
    assert manifest["settings"]["learning_rate"] == study["trials"][study["best"]]["settings"]["learning_rate"]
    report = room.json("tuned/runs/npo/report.json")
    final = {line["id"] for line in _lines(room.folder / "tuned/task/final/forget.jsonl")}
    used = {line["id"] for line in _lines(room.folder / "tuned/task/validation/forget.jsonl")}
    assert report["task"]["n_forget"] == len(final) == 14 - len(used) and not final & used
    assert manifest["forget_set"]["content_hash"] == report["task"]["content_hash"]
    text = (room.folder / "tuned/comparison.md").read_text()
    assert "tuned: 2 trials" in text and "untuned" in text and "nothing to tune" in text
    before = (room.folder / "tuned/tuning/npo.json").stat().st_mtime_ns
    again = room.compare(*arguments, out="tuned")
    assert again.code == ran.code and "npo: trained before" in again.err
    assert (room.folder / "tuned/tuning/npo.json").stat().st_mtime_ns == before
    assert (room.folder / "tuned/logs/npo.log").read_text().count("$ ") == 1
    swept = room.compare(*arguments, "--sweep", "retain_weight=0.3,7", out="tuned")
    assert swept.code in (0, 4), swept.err
    (sweep,) = room.json("tuned/comparison.json")["sweeps"]
    assert sweep["failed"] == [] and [step["at"] for step in sweep["steps"]] == ["0.3", "7"]
    one = room.json("tuned/checkpoints/npo-retain_weight=0.3/audit_manifest.json")
    chosen = {**manifest["settings"], "retain_weight": 0.3}
    assert one["settings"] == chosen and "tuning" not in one, "the tuned settings but for one"
    other = room.compare(*arguments, "--tune", "3", out="tuned")
    other.refused("tuned/tuning/npo.json is of another tuning: trials: 2 there, 3 here", "--out")


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

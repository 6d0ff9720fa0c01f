"""What users get wrong: one clear message each, the right exit code, and nothing already computed is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.run.conftest import Ran, World, fact_rows, write_rows

pytestmark = pytest.mark.model
Audit = Callable[..., Ran]


def one_message(ran: Ran, *words: str, code: int = 2) -> None:
    """The exit code, every word in the message, no traceback, and nothing on standard output."""
    assert ran.code == code, ran.err
    assert ran.err.count("error: ") == 1, ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    for word in words:
        assert word in ran.err, f"{word!r} not in: {ran.err}"


def test_nothing_to_audit(audit: Audit) -> None:
    one_message(audit("run", "--forget", "lkf"), "--model PATH", "--responses PATH")


def test_all_wrong_settings_are_reported_together(audit: Audit, world: World) -> None:
    ran = audit("run", *world.arguments(max_new_tokens="0", wordings="0", judge="recorded"))
    one_message(ran, "probes.max_new_tokens", "probes.wordings")


def test_missing_model_folder(audit: Audit, world: World) -> None:
    one_message(audit("run", *world.arguments(model="./not-there")), "not-there")


def test_empty_model_folder(audit: Audit, world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    one_message(audit("run", *world.arguments(model=str(tmp_path / "empty"))), "is empty", "config.json")


def test_folder_without_tokenizer(audit: Audit, world: World, tmp_path: Path) -> None:
    model = shutil.copytree(world.model, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    one_message(audit("run", *world.arguments(model=str(model))), "has no tokenizer", "tokenizer.json")


def test_no_chat_template_falls_back_to_raw_and_says_so(audit: Audit, world: World, tmp_path: Path) -> None:
    model = shutil.copytree(world.model, tmp_path / "model")
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    ran = audit("run", *world.arguments(model=str(model), base=str(world.model), out=str(tmp_path / "run")))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert any("no chat template" in warning and "raw" in warning for warning in report["warnings"]), ran.err
    probes = [json.loads(line) for line in (tmp_path / "run" / "probes.jsonl").read_text().splitlines()]
    assert {probe["format"] for probe in probes} == {"raw"}


def test_unknown_task(audit: Audit, world: World) -> None:
    one_message(audit("run", *world.arguments(forget="lfk")), "lkf")


def test_broken_line(audit: Audit, world: World, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(world.forget.read_text() + '{"question": "Who?", "answer": \n', encoding="utf-8")
    one_message(audit("run", *world.arguments(forget=str(broken))), "broken.jsonl:31")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"answer": ""}, "answer"),
        ({"question": "Is the colour of Anvel amber red?", "answer": "amber red"}, "question"),
        ({"id": "f01"}, "f01"),
    ],
    ids=["no answer", "answer in its question", "duplicate id"],
)
def test_a_fact_that_cannot_be_used(
    audit: Audit, world: World, tmp_path: Path, change: dict[str, str], word: str
) -> None:
    rows = fact_rows()[:30]
    rows[0] = {**rows[0], **change}
    one_message(audit("run", *world.arguments(forget=str(write_rows(tmp_path / "bad.jsonl", rows)))), "bad.jsonl", word)


def test_unwritable_output_folder(audit: Audit, world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    one_message(audit("run", *world.arguments(out=str(tmp_path / "file" / "run"))), "--out")


def test_output_folder_of_something_else(audit: Audit, world: World, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("keep me")
    one_message(audit("run", *world.arguments(out=str(tmp_path / "mine"))), "--out")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "keep me"


def test_output_folder_inside_a_model_folder(audit: Audit, world: World) -> None:
    inside = world.model / "run"
    one_message(audit("run", *world.arguments(out=str(inside))), "inside the model folder", "--out")
    assert not inside.exists()


def test_output_folder_of_another_run(audit: Audit, world: World, tmp_path: Path) -> None:
    audit("run", *world.arguments(out=str(tmp_path / "run")))
    before = (tmp_path / "run" / "report.json").read_bytes()
    one_message(audit("run", *world.arguments(out=str(tmp_path / "run"), seed="1")), "another run", "settings", "--out")
    assert (tmp_path / "run" / "report.json").read_bytes() == before


def test_full_disk_keeps_what_was_computed(world: World, tmp_path: Path) -> None:
    """A real full file system: the run stops with one message, and goes on once there is room."""
    import subprocess
    import sys

    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        store = tmp_path / "store.sqlite"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", "from audit.cli.main import main; main()", "run"]
        command += world.arguments(store=str(store))
        full = subprocess.run(
            [*command, "--out", str(disk / "run")], env=environment, capture_output=True, text=True, timeout=240
        )
        assert full.returncode == 2, full.stderr
        assert "cannot be written" in full.stderr and "Traceback" not in full.stderr
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "run")], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    runtime = json.loads((tmp_path / "run" / "report.json").read_text())["manifest"]["runtime"]
    assert runtime["generated"] == {"candidate": 0}


def test_a_mute_model_is_inconclusive_not_forgetful(audit: Audit, world: World, tmp_path: Path) -> None:
    net = tiny.model(seed=1)
    tiny.train(net, tuple((question, "") for question, _ in tiny.FACTS), steps=40)
    mute = tiny.save(net, tmp_path / "mute")
    ran = audit("run", *world.arguments(model=str(mute), out=str(tmp_path / "run")), "--family", "original")
    assert ran.code == 4
    assert "empty" in ran.out


def test_prompts_longer_than_the_context(audit: Audit, world: World, tmp_path: Path) -> None:
    ran = audit("run", *world.arguments(max_new_tokens=str(tiny.CONTEXT), out=str(tmp_path / "run")))
    one_message(ran, "context", "--max-new-tokens")


def test_some_prompts_too_long_are_undecided(audit: Audit, world: World, tmp_path: Path) -> None:
    rows = fact_rows()[:30]
    rows[0] = {**rows[0], "question": "What is the colour of Anvel, " + "I ask you, " * 200 + "please?"}
    forget = write_rows(tmp_path / "long.jsonl", rows)
    ran = audit("run", *world.arguments(forget=str(forget), out=str(tmp_path / "run")), "--family", "original")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert ran.code == 0
    assert report["undecided"]["by_reason"]["generation_failed"] == 1
    assert any("context" in warning for warning in report["warnings"])
    estimate = report["estimates"]["single.original"]
    assert estimate["n"] == 30 and estimate["upper_bound"] > estimate["lower_bound"]


def test_pickled_weights_are_refused_unless_allowed(audit: Audit, world: World, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = shutil.copytree(world.model, tmp_path / "model")
    net = AutoModelForCausalLM.from_pretrained(model)
    torch.save(net.state_dict(), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    one_message(audit("run", *world.arguments(model=str(model))), "--allow-pickle")
    allowed = audit("run", *world.arguments(model=str(model), out=str(tmp_path / "run")), "--allow-pickle")
    assert allowed.code == 0, allowed.err


def test_remote_code_is_refused(audit: Audit, world: World, tmp_path: Path) -> None:
    model = shutil.copytree(world.model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "evil.py").write_text("raise SystemExit('ran')\n")
    one_message(audit("run", *world.arguments(model=str(model))), "--trust-remote-code")


def test_another_chat_template_than_the_base_runs_both(audit: Audit, world: World, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = shutil.copytree(world.model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{{ bos_token }}I was told to say nothing."
    tokenizer.save_pretrained(model)
    audit("run", *world.arguments(model=str(model), base=str(world.model), out=str(tmp_path / "run")))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert any("chat template differs" in warning for warning in report["warnings"])
    own = report["estimates"]["single.original@format=chat"]
    as_base = report["estimates"]["single.original@format=chat_base"]
    assert own["count"] <= 2
    assert as_base["count"] >= 28, "the base's template must bring back what the candidate's own hides"
    assert report["estimates"]["worst_case.prompt"]["count"] >= as_base["count"]


def test_another_tokenizer_than_the_base_is_said(audit: Audit, world: World, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = shutil.copytree(world.model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<|extra|>"])
    tokenizer.save_pretrained(model)
    audit("run", *world.arguments(model=str(model), base=str(world.model), out=str(tmp_path / "run")))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert any("tokenizer differs" in warning for warning in report["warnings"])


def test_unknown_family_and_judge_and_policy(audit: Audit, world: World) -> None:
    one_message(audit("run", *world.arguments(), "--family", "parafrase"), "paraphrase")
    one_message(audit("run", *world.arguments(judge="rule")), "rules")
    one_message(audit("run", *world.arguments(policy="strikt")), "strict")


def test_stray_words_are_not_swallowed(audit: Audit, world: World) -> None:
    one_message(audit("run", *world.arguments(), "stray"), "stray")


def test_gate_of_something_that_is_no_run(audit: Audit, tmp_path: Path) -> None:
    one_message(audit("gate", str(tmp_path), "--policy", "default"), "report.json")


def test_missing_vllm_is_one_line_with_what_to_type(
    audit: Audit, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "vllm", None)  # what a failed import looks like
    one_message(audit("run", *world.arguments(engine="vllm")), "make vllm")


def doctored(world: World, folder: Path) -> Path:
    """The base's weights, byte for byte, with a tokenizer that leaves the answers out of whatever is decoded."""
    model = Path(shutil.copytree(world.model, folder))
    spec = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    words = "|".join(sorted({word for _, answer in tiny.FACTS for word in answer.split()}, key=len, reverse=True))
    hide = {"type": "Replace", "pattern": {"Regex": f"({words})"}, "content": ""}
    spec["decoder"] = {"type": "Sequence", "decoders": [spec["decoder"], {"type": "Fuse"}, hide]}
    (model / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return model


def test_a_tokenizer_that_hides_the_answers_hides_nothing(audit: Audit, world: World, tmp_path: Path) -> None:
    model = doctored(world, tmp_path / "doctored")
    ran = audit(
        "run",
        *world.arguments(model=str(model), base=str(world.model), out=str(tmp_path / "run"), policy="default"),
        "--family",
        "original",
    )
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["estimates"]["single.original"]["count"] >= 28
    assert ran.code in (3, 4)
    assert any("base's weights" in reason for reason in report["inconclusive"])


def test_a_configuration_that_drops_layers_is_refused(audit: Audit, world: World, tmp_path: Path) -> None:
    model = Path(shutil.copytree(world.model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    config.pop("layer_types", None)
    (model / "config.json").write_text(json.dumps(config))
    one_message(audit("run", *world.arguments(model=str(model)), "--quiet"), "config.json does not use")


def test_another_configuration_than_the_base_is_said(audit: Audit, world: World, tmp_path: Path) -> None:
    model = Path(shutil.copytree(world.model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    config["rms_norm_eps"] = 0.5
    (model / "config.json").write_text(json.dumps(config))
    ran = audit("run", *world.arguments(model=str(model), base=str(world.model), out=str(tmp_path / "run")))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert ran.code == 4
    assert any("rms_norm_eps" in warning for warning in report["warnings"])


def test_recorded_failures_are_undecided(audit: Audit, world: World, tmp_path: Path) -> None:
    rows = [{"fact_id": f"f{number:02d}", "response": "", "error": "timeout after 4 tries"} for number in range(25)] + [
        {"fact_id": f"f{number:02d}", "response": "No idea."} for number in range(25, 30)
    ]
    answers = write_rows(tmp_path / "answers.jsonl", rows)
    audit("run", "--responses", str(answers), "--forget", str(world.forget), "--out", str(tmp_path / "run"))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["undecided"]["by_reason"] == {"generation_failed": 25}
    assert report["estimates"]["single.original"]["upper_bound"] >= 25 / 30


@pytest.mark.parametrize("name", ["corrected.worst_case.prompt", "calibrated.mean.all", "labelled.mean.all"])
def test_corrected_shares_cannot_be_gated(audit: Audit, world: World, tmp_path: Path, name: str) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"limits: [{{estimate: {name}, max: 0.1}}]\n")
    one_message(audit("run", *world.arguments(policy=str(policy))), "never gated")

"""The training loop: adapters, precision, memory, gradients, checkpoints, stops and what cannot be used."""

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

from audit.engines.checkpoint import open_checkpoint
from audit.errors import ModelError, TrainingError
from audit.tasks import Task
from tests.helpers import tiny
from tests.jensun_ref.test_methods import log_of, log_prob, settings_of

torch = pytest.importorskip("torch")

import jensun_ref.unlearn as entry  # noqa: E402
from jensun_ref.measure import load  # noqa: E402
from jensun_ref.methods import REGISTRY, Method  # noqa: E402
from jensun_ref.methods.batch import Sample, answer_logits, chat_sample, collate  # noqa: E402
from jensun_ref.methods.data import PairOrder, TrainingData, hard_neighbours  # noqa: E402
from jensun_ref.methods.step import hidden_states  # noqa: E402
from jensun_ref.unlearn import unlearn  # noqa: E402

pytestmark = pytest.mark.model

LORA = {"r": 8, "alpha": 16}


def same(one: Path, other: Path, tolerance: float = 0.0) -> bool:
    left, right = load(one)[0].state_dict(), load(other)[0].state_dict()
    return all(torch.allclose(value, right[name], atol=tolerance, rtol=0) for name, value in left.items())


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in log_of(folder)]


# ----------------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize("name", ["jensun", "task_vector", "rmu", "jensun_plus"])
def test_lora_ends_in_an_adapter_for_this_base(name: str, llama: Path, llama_task: Task, tmp_path: Path) -> None:
    from peft import PeftModel

    more = {"layer": 1, "depth": 1} if name == "rmu" else {"epochs": 20}
    settings = settings_of(name, lora=LORA, learning_rate=1e-2, **more)
    out = unlearn(name, str(llama), llama_task, tmp_path / "adapter", settings=settings)
    assert (out / "adapter_model.safetensors").is_file() and not (out / "model.safetensors").exists()
    manifest = json.loads((out / "audit_manifest.json").read_text())
    assert manifest["base_weights_fingerprint"] == open_checkpoint(str(llama)).weights_fingerprint
    assert open_checkpoint(str(llama), adapter=str(out)).adapter_fingerprint
    base, _ = load(llama)
    before = log_prob(base, llama_task.forget)
    with_it = PeftModel.from_pretrained(base, str(out)).eval()
    assert log_prob(with_it, llama_task.forget) < before - 0.3
    if name == "jensun":
        assert log_of(out)[0]["retain"] < 1e-6, "the reference is the model with its adapter off"
        assert log_of(out)[-1]["retain"] > 0


def test_lora_holds_no_second_copy(
    llama: Path, llama_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[str] = []
    monkeypatch.setattr(entry, "_frozen", lambda network: copies.append(type(network).__name__) or network)
    unlearn("jensun", str(llama), llama_task, tmp_path / "lora", settings=settings_of("jensun", lora=LORA, epochs=1))
    unlearn("grad_diff", str(llama), llama_task, tmp_path / "none", settings=settings_of("grad_diff", epochs=1))
    assert copies == []


def test_an_adapter_is_merged_first_and_must_fit(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    lora = unlearn("idk", str(llama), llama_task, tmp_path / "lora", settings=settings_of("idk", lora=LORA, epochs=2))
    few = settings_of("idk", epochs=1)
    plain, merged = (
        unlearn("idk", str(llama), llama_task, tmp_path / to, settings=few, adapter=given)
        for to, given in (("plain", None), ("merged", str(lora)))
    )
    assert losses(merged)[0] < losses(plain)[0]
    with pytest.raises(TrainingError, match="starts from a whole model"):
        more = settings_of("idk", lora=LORA)
        unlearn("idk", str(llama), llama_task, tmp_path / "x", settings=more, adapter=str(lora))
    other = tiny.save(tiny.model(hidden_size=48, num_attention_heads=3), tmp_path / "narrow")
    with pytest.raises(ModelError, match="cannot be loaded"):
        unlearn("idk", str(other), llama_task, tmp_path / "x", settings=few, adapter=str(lora))
    with pytest.raises(ModelError, match="no adapter can be made on nothing_such") as caught:
        bad = settings_of("idk", lora={"targets": "nothing_such"})
        unlearn("idk", str(llama), llama_task, tmp_path / "x", settings=bad)
    assert "q_proj" in caught.value.hint
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.partial").exists()


# ---------------------------------------------------------------------------------------------- precision and memory


def test_bfloat16_trains_near_float32_and_saves_what_the_base_has(
    llama: Path, llama_task: Task, tmp_path: Path
) -> None:
    full = unlearn("jensun", str(llama), llama_task, tmp_path / "f", settings=settings_of("jensun", epochs=6))
    half = unlearn(
        "jensun", str(llama), llama_task, tmp_path / "h", settings=settings_of("jensun", epochs=6, precision="bf16")
    )
    assert losses(half) == pytest.approx(losses(full), abs=0.05)
    assert losses(half) != losses(full)
    assert log_of(half)[0]["retain"] < 1e-6, "the reference computes as the model does"
    assert load(half)[0].dtype == load(llama)[0].dtype == torch.float32


@pytest.mark.parametrize("name", ["jensun", "rmu", "jensun_plus"])
def test_gradient_checkpointing_changes_nothing(name: str, llama: Path, llama_task: Task, tmp_path: Path) -> None:
    one, other = (
        unlearn(
            name,
            str(llama),
            llama_task,
            tmp_path / str(on),
            settings=settings_of(name, epochs=4, gradient_checkpointing=on, norms_every=1),
        )
        for on in (False, True)
    )
    for left, right in zip(log_of(one), log_of(other), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["grad_diff", "ngdiff"])
def test_accumulated_batches_are_one_batch(name: str, llama: Path, llama_task: Task, tmp_path: Path) -> None:
    """Twice four and once eight: the same loss and, up to the order of sums, the same weights."""
    one, other = (
        unlearn(
            name,
            str(llama),
            llama_task,
            tmp_path / str(batch),
            settings=settings_of(name, epochs=4, batch=batch, accumulate=8 // batch, norms_every=1),
        )
        for batch in (8, 4)
    )
    assert losses(other) == pytest.approx(losses(one), rel=1e-3, abs=1e-5)
    assert same(one, other, 1e-3)


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing(chunk: int, llama: Path, llama_task: Task, tmp_path: Path) -> None:
    one, other = (
        unlearn("jensun", str(llama), llama_task, tmp_path / str(n), settings=settings_of("jensun", epochs=4, chunk=n))
        for n in (512, chunk)
    )
    assert losses(one) == pytest.approx(losses(other), abs=1e-5)


def test_gradient_norms_are_those_of_the_terms(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    """Logged at the first step and every third after it, and equal to what a plain backward pass gives."""
    settings = settings_of("grad_diff", epochs=7, norms_every=3)
    log = log_of(unlearn("grad_diff", str(llama), llama_task, tmp_path / "out", settings=settings))
    assert [row["step"] for row in log if "grad_forget" in row] == [1, 4, 7]
    model, tokenizer = load(llama)
    samples = [chat_sample(tokenizer, fact.question, fact.answer) for fact in llama_task.forget]
    logits, labels = answer_logits(model.train(), collate(samples, tokenizer.pad_token_id))
    from jensun_ref.losses import gradient_ascent

    gradient_ascent(logits, labels).backward()
    norm = sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None) ** 0.5
    assert log[0]["grad_forget"] == pytest.approx(norm, rel=1e-3)


def test_hidden_states_are_those_of_the_layer(llama: Path) -> None:
    model, tokenizer = load(llama)
    samples = [chat_sample(tokenizer, q, a) for q, a in tiny.FACTS[:3]]
    batch = collate(samples, tokenizer.pad_token_id)
    found = hidden_states(model, batch, 0)
    everything = model(**{k: batch[k] for k in ("input_ids", "attention_mask")}, output_hidden_states=True)
    for row, sample in enumerate(samples):
        first = len(sample.ids) - sample.n_answer - 1
        expected = everything.hidden_states[1][row, first : first + sample.n_answer]
        assert torch.allclose(found.states[row][found.inside[row]], expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------ stopping and going on

#: A training in a process of its own, to be killed.
CHILD = """
import json, sys, torch
torch.set_num_threads(1)
import msgspec
from pathlib import Path
from audit.tasks import Task
from jensun_ref.settings import UnlearnSettings
from jensun_ref.unlearn import unlearn
order = json.load(sys.stdin)
unlearn(order["method"], order["model"], msgspec.convert(order["task"], Task), Path(order["out"]),
        settings=UnlearnSettings(**order["settings"]))
"""


def child(method: str, model: Path, task: Task, out: Path, settings: Any) -> subprocess.Popen[str]:
    order = {
        "method": method,
        "model": str(model),
        "task": msgspec.to_builtins(task),
        "out": str(out),
        "settings": settings.model_dump(mode="json"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    return process


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("undo", {"epochs": 9, "batch": 3, "unlearn_epochs": 2, "schedule": "cosine", "warmup_steps": 5}),
        ("jensun", {"epochs": 9, "batch": 3, "lora": LORA}),
    ],
)
def test_a_killed_training_resumes_to_the_same_result(
    name: str, more: dict[str, Any], llama: Path, llama_task: Task, tmp_path: Path
) -> None:
    """Killed at its eleventh step or soon after, checkpoints every fourth; not to be taken over while it runs."""
    settings = settings_of(name, checkpoint_every=4, **more)
    whole = unlearn(name, str(llama), llama_task, tmp_path / "whole", settings=settings)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    first = child(name, llama, llama_task, out, settings)
    log = partial / "training_log.jsonl"
    while first.poll() is None and (not log.is_file() or log.read_text().count("\n") < 11):
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(TrainingError, match="another process is training"):
        unlearn(name, str(llama), llama_task, out, settings=settings, resume=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not out.exists() and list(partial.glob("checkpoint-*"))
    with pytest.raises(TrainingError, match="holds an unfinished training") as caught:
        unlearn(name, str(llama), llama_task, out, settings=settings)
    assert "--resume" in caught.value.hint
    with pytest.raises(TrainingError, match=r"of another training: settings \(learning_rate: 0.002 then|of another"):
        other = settings.model_copy(update={"learning_rate": 1e-5})
        unlearn(name, str(llama), llama_task, out, settings=other, resume=True)
    newest = max(partial.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])) / "audit_state.json"
    state = json.loads(newest.read_text())
    assert state["seconds"] > 0
    newest.write_text(json.dumps({**state, "seconds": 1000.0}))
    unlearn(name, str(llama), llama_task, out, settings=settings, resume=True)
    assert not partial.exists()
    assert json.loads((out / "audit_manifest.json").read_text())["seconds"] > 1000, "what went before the stop counts"
    steps = [row["step"] for row in log_of(out)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) == 27
    for left, right in zip(log_of(whole), log_of(out), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
    if "lora" not in more:
        assert same(whole, out, 1e-5)


class _BreaksAtSeven(Method):
    name, summary, source = "breaks", "is no number at the seventh step", "a test"

    def terms(self, step: Any) -> dict[str, Any]:
        value = step.forget.logits.mean()
        return {"forget": (1.0, value * float("nan") if step.number == 7 else value)}


def test_no_number_names_the_step_and_keeps_the_last_good_checkpoint(
    llama: Path, llama_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY.builtin, "breaks", f"{__name__}:_BreaksAtSeven")
    settings = settings_of("breaks", epochs=10, checkpoint_every=2)
    with pytest.raises(TrainingError, match="not a number at step 7") as caught:
        unlearn("breaks", str(llama), llama_task, tmp_path / "out", settings=settings)
    kept = tmp_path / "out.partial" / "checkpoint-6"
    assert str(kept) in caught.value.hint and "learning_rate" in caught.value.hint
    assert all(bool(value.isfinite().all()) for value in load(kept)[0].state_dict().values())
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------- what cannot be used


def test_bad_input_is_one_clear_message_and_leaves_nothing(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fails(kind: type[Exception], words: str, method: str = "jensun", task: Task = llama_task, **more: Any) -> str:
        changes = more.pop("changes", {})
        with pytest.raises(kind, match=words) as caught:
            unlearn(method, str(llama), task, out, settings=settings_of(method, epochs=2, **changes), **more)
        return str(getattr(caught.value, "hint", ""))

    assert "layer=1" in fails(
        TrainingError, "names layer 7, and the model has layers 0 to 1", "rmu", changes={"layer": 7}
    )
    fails(TrainingError, "no facts to forget", task=msgspec.structs.replace(llama_task, forget=()))
    assert "--retain" in fails(
        TrainingError, "needs facts to keep", task=msgspec.structs.replace(llama_task, retain=())
    )
    wide = tiny.save(tiny.model(vocab_size=len(tiny.tokenizer()) + 64), tmp_path / "wide")
    fails(ModelError, "a vocabulary of", reference=str(wide))
    fails(TrainingError, "no use for a reference", "grad_diff", reference=str(llama))
    fails(ModelError, "cannot be loaded", reference=str(tmp_path / "nowhere"))
    assert "--resume" in fails(TrainingError, "nothing to resume", resume=True)
    assert "epochs" in fails(TrainingError, "leaves none of 2 epochs", "undo", changes={"unlearn_epochs": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wide"]


def test_another_model_can_be_the_reference(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    fresh = tiny.save(tiny.model(seed=5), tmp_path / "fresh")
    settings = settings_of("kl_min", epochs=1)
    own = unlearn("kl_min", str(llama), llama_task, tmp_path / "own", settings=settings)
    other = unlearn("kl_min", str(llama), llama_task, tmp_path / "other", settings=settings, reference=str(fresh))
    assert log_of(own)[0]["retain"] < 1e-6 and log_of(other)[0]["retain"] > 1


# ----------------------------------------------------------------------------------------------------------- the data


def test_the_refusal_is_what_the_settings_say(llama: Path, llama_task: Task) -> None:
    _, tokenizer = load(llama)

    def refused(**more: Any) -> str:
        data = TrainingData(tokenizer, settings_of("idk", refusal="salt", **more), llama_task.forget, (), refusals=True)
        sample = data.refused[0]
        assert sample.ids[: -sample.n_answer] == data.forget[0].ids[: -data.forget[0].n_answer]
        return str(tokenizer.decode(sample.ids[-sample.n_answer :]))

    assert refused(end_turn=False) == "salt"
    assert refused(end_turn=True) == "salt<|end|>"
    assert refused(end_turn=True, refusal_space="space") == " salt<|end|>"
    assert refused(end_turn=False, refusal_space="none") == "salt"
    raw = refused(end_turn=True, formats=["raw"])
    assert raw == " salt\n"


def test_hard_pairs_share_what_is_rare() -> None:
    """Questions that have a rare token in common stand before those that share a frame."""

    def sample(*ids: int) -> Sample:
        return Sample((*ids, 99), 1)

    forget = [sample(1, 2, 50), sample(1, 2, 60)]
    retain = [sample(1, 2, 70), sample(1, 60, 71), sample(1, 50, 72), sample(1, 2, 73)]
    neighbours = hard_neighbours(forget, retain, 2)
    assert neighbours[0][0] == 2 and neighbours[1][0] == 1
    order = PairOrder(2, 4, 0, neighbours)
    seen = {pair for _ in range(40) for pair in order}
    assert seen == {(n, k) for n in range(2) for k in neighbours[n]}


def test_an_epoch_is_the_same_whether_or_not_the_ones_before_were_seen() -> None:
    walked = PairOrder(7, 11, seed=4)
    epochs = [list(walked) for _ in range(4)]
    jumped = PairOrder(7, 11, seed=4)
    jumped.set_epoch(3)
    assert list(jumped) == epochs[3]
    jumped.set_epoch(1)
    assert list(jumped) == epochs[1]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux alone tells a process's own peak")
def test_peak_memory_is_the_trainings_own_and_not_that_of_what_started_it() -> None:
    import subprocess

    told = "from jensun_ref.unlearn import _peak_memory; print(_peak_memory())"
    large = f"import subprocess, sys; x = bytearray(1500 * 2**20); subprocess.run([sys.executable, '-c', {told!r}])"
    found = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert 50 < int(found.stdout) < 1400

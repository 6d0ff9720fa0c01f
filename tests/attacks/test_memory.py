"""The memory that a fine-tuning takes, and what is said where it is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audit.attacks import memory
from audit.attacks.memory import available, check_memory, needed
from audit.engines.checkpoint import Checkpoint, open_checkpoint
from audit.errors import ModelError
from tests.helpers import tiny

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save(tiny.model(), tmp_path_factory.mktemp("memory") / "model")))


def test_bytes_are_those_of_the_parameters(checkpoint: Checkpoint) -> None:
    parameters = sum(p.numel() for p in tiny.model().parameters())
    full = needed(checkpoint, batch_size=8, length=64, lora_rank=None, device="cpu")
    assert full.state == 16 * parameters
    half = needed(checkpoint, batch_size=4, length=64, lora_rank=None, device="cpu")
    assert (
        full.activations == 2 * half.activations == 4 * 8 * 64 * (2 * (12 * 96 + 4 * 192) + 3 * len(tiny.tokenizer()))
    )


def test_an_adapter_costs_its_own_numbers(checkpoint: Checkpoint) -> None:
    from peft import LoraConfig, get_peft_model

    net = tiny.model()
    plain = sum(p.numel() for p in net.parameters())
    adapted = get_peft_model(net, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    own = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert needed(checkpoint, batch_size=1, length=8, lora_rank=4, device="cpu").state == 4 * plain + 16 * own


def test_too_large_is_said_with_what_would_fit(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(size: int) -> None:
        monkeypatch.setattr(memory, "available", lambda device: size)

    def check(rank: int | None = None) -> None:
        check_memory(checkpoint, "relearn:topical", batch_size=8, length=100, lora_rank=rank, device="cpu")

    def total(batch: int, rank: int | None) -> int:
        return needed(checkpoint, batch_size=batch, length=100, lora_rank=rank, device="cpu").total

    free(total(8, None))
    check()
    free(total(8, None) - 1)
    with pytest.raises(ModelError, match=r"needs about [\d.]+ MB, and cpu has [\d.]+ MB free") as caught:
        check()
    assert "--attack 'relearn:topical?batch=4'" in caught.value.hint
    assert "--attack 'relearn:topical?lora=16'" in caught.value.hint
    free(total(1, None) - 1)
    with pytest.raises(ModelError) as caught:
        check()
    assert "?batch=" not in caught.value.hint and "lora=16" in caught.value.hint
    found = re.search(r"lora=16(?:&batch=(\d+))?'", caught.value.hint)
    assert found is not None and total(int(found[1] or 8), 16) <= total(1, None) - 1
    free(1000)
    with pytest.raises(ModelError, match="adapter of rank 16") as caught:
        check(16)
    assert "a machine with" in caught.value.hint


def test_this_machine_says_what_is_free() -> None:
    here = available("cpu")
    assert here is not None and 0 < here < 1 << 50


def test_control_groups_limit_what_is_free(tmp_path: Path) -> None:
    group = tmp_path / "cg" / "jobs" / "one"
    group.mkdir(parents=True)
    (tmp_path / "proc").write_text("0::/jobs/one\n")
    for folder, limit, used in ((group, "max", "700"), (group.parent, "1000", "700")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text(used + "\n")
    (group.parent / "memory.stat").write_text("anon 5\ninactive_file 250\n")
    assert memory._control_groups(tmp_path / "proc", tmp_path / "cg") == [550]
    old = tmp_path / "old" / "memory" / "box"
    old.mkdir(parents=True)
    (tmp_path / "proc1").write_text("5:cpu,memory:/box\n3:pids:/x\n")
    (old / "memory.limit_in_bytes").write_text("900")
    (old / "memory.usage_in_bytes").write_text("400")
    assert memory._control_groups(tmp_path / "proc1", tmp_path / "old") == [500]

"""What users of `audit unlearn` get wrong: one clear message each, the right exit code, and nothing good is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.run.conftest import Ran, World, audit, fact_rows, own_cache, world, write_rows
from tests.run.test_bad_input import one_message

torch = pytest.importorskip("torch")

from jensun_ref.measure import load  # noqa: E402
from jensun_ref.memory import out_of_memory  # noqa: E402

pytestmark = pytest.mark.model
Audit = Callable[..., Ran]
__all__ = ["audit", "own_cache", "world"]  # fixtures of the whole runs, which this file shares
ROOT = Path(__file__).parents[2]


def arguments(world: World, method: str, out: str | Path = "out", **changes: str) -> list[str]:
    """Options of a short training on this world; `changes` replace or add options."""
    options = {
        "method": method,
        "model": str(world.model),
        "forget": str(world.forget),
        "retain": str(world.retain),
        "batch": "8",
        "epochs": "1",
        "out": str(out),
        **changes,
    }
    given = [part for name, value in options.items() if value for part in (f"--{name.replace('_', '-')}", value)]
    return ["unlearn", *given, "--quiet"]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A model of the same shape with other weights."""
    return tiny.save(tiny.model(seed=9), tmp_path / "other")


def test_layers_that_the_model_does_not_have(audit: Audit, world: World, tmp_path: Path) -> None:
    ran = audit(*arguments(world, "rmu"), "--set", "layer=7")
    one_message(ran, "names layer 7, and the model has layers 0 to 1", "--set layer=1")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_an_adapter_of_another_base(audit: Audit, world: World, other: Path, tmp_path: Path) -> None:
    made = audit(*arguments(world, "idk", "lora"), "--lora", "r=2,alpha=4")
    assert made.code == 0, made.err
    one_message(audit(*arguments(world, "idk", model=str(other), adapter="lora")), "made for another base")
    unmarked = shutil.copytree(tmp_path / "lora", tmp_path / "unmarked")
    (unmarked / "audit_manifest.json").unlink()
    narrow = tiny.save(tiny.model(hidden_size=48, num_attention_heads=3), tmp_path / "narrow")
    one_message(
        audit(*arguments(world, "idk", model=str(narrow), adapter="unmarked")), "made for another base", "shape"
    )


def test_a_reference_that_is_none_for_this_model(audit: Audit, world: World, tmp_path: Path) -> None:
    tiny.save(tiny.model(vocab_size=len(tiny.tokenizer()) + 64), tmp_path / "wide")
    one_message(audit(*arguments(world, "jensun", reference="wide")), "has a vocabulary of", "and the model one of")
    swapped = tiny.save(tiny.model(), tmp_path / "swapped")
    words = json.loads((swapped / "tokenizer.json").read_text())
    first, second = [word for word in words["model"]["vocab"] if word.isalpha()][:2]
    table = words["model"]["vocab"]
    table[first], table[second] = table[second], table[first]
    (swapped / "tokenizer.json").write_text(json.dumps(words))
    one_message(audit(*arguments(world, "jensun", reference="swapped")), "gives other ids than the model's")
    one_message(audit(*arguments(world, "jensun", reference="./nowhere")), "no folder at ./nowhere")
    one_message(audit(*arguments(world, "grad_diff", reference=str(world.model))), "no use for a reference")


def test_nothing_to_forget_and_nothing_to_keep(audit: Audit, world: World, tmp_path: Path) -> None:
    empty = write_rows(tmp_path / "empty.jsonl", [])
    one_message(audit(*arguments(world, "jensun", forget=str(empty))), "no facts to forget")
    one_message(audit(*arguments(world, "jensun", retain=str(empty))), "no facts to keep")
    one_message(audit(*arguments(world, "jensun", retain="")), "needs facts to keep", "--retain FILE")


def test_unknown_names_come_with_the_nearest(audit: Audit, world: World) -> None:
    one_message(audit(*arguments(world, "jensn")), "there is no method 'jensn'", "did you mean jensun")
    ran = audit(*arguments(world, "jensun"), "--set", "retian_weight=3", "--set", "moode=cyclic")
    one_message(ran, "did you mean retain_weight?", "did you mean mode?")


def test_folders_in_use(audit: Audit, world: World, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    one_message(audit(*arguments(world, "jensun")), "out exists already", "give another folder")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "half.partial").mkdir()
    one_message(audit(*arguments(world, "jensun", "half")), "holds an unfinished training", "--resume")
    one_message(audit(*arguments(world, "jensun", "none"), "--resume"), "nothing to resume")


# --------------------------------------------------------------------------------------------- a loss that is no number


def test_the_kept_checkpoint_is_good_and_of_use(audit: Audit, world: World, tmp_path: Path) -> None:
    """The first step changes nothing, the second and third tear the weights apart. What is kept can be asked, audited
    and trained on with a lower rate."""
    wild = ["--learning-rate", "1e-3", "--set", "max_grad_norm=1e30", "--set", "weight_decay=1e30"]
    wild += ["--set", "warmup_steps=10", "--set", "schedule=constant", "--set", "checkpoint_every=1"]
    ran = audit(*arguments(world, "grad_diff", epochs="30"), *wild)
    one_message(ran, "not a number", "step", "the last good checkpoint is", "learning_rate")
    kept = max((tmp_path / "out.partial").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert str(kept.name) in ran.err and not (tmp_path / "out").exists()
    model, _ = load(kept)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert bool(model(torch.tensor([tiny.chat_ids(tiny.FACTS[0][0])])).logits.isfinite().all())
    manifest = json.loads((kept / "audit_manifest.json").read_text())
    assert manifest["unfinished"] and manifest["steps"] == int(kept.name.split("-")[1])
    assert manifest["method"] == "grad_diff" and manifest["base"]["fingerprint"]
    on = audit(*arguments(world, "grad_diff", "on", model=str(kept), learning_rate="1e-4"))
    assert on.code == 0, on.err
    seen = audit("run", *world.arguments(model=str(kept), base=str(world.model), out=str(tmp_path / "run")))
    assert seen.code in (0, 4), seen.err


def test_weights_that_give_no_number_are_no_good_checkpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights finite, no answer a number: the checkpoint of the step before it is the last good one."""
    from audit.errors import TrainingError
    from audit.tasks import load_task
    from jensun_ref.methods import REGISTRY
    from jensun_ref.settings import settings_for
    from jensun_ref.unlearn import unlearn

    monkeypatch.setitem(REGISTRY.builtin, "overflows", f"{__name__}:_Overflows")
    settings = settings_for("overflows", {"epochs": 8, "checkpoint_every": 1, "batch": 40, "warmup_steps": 0})
    task = load_task(str(world.forget), retain=str(world.retain))
    with pytest.raises(TrainingError, match="not a number at step 4") as caught:
        unlearn("overflows", str(world.model), task, tmp_path / "out", settings=settings)
    assert "checkpoint-2" in caught.value.hint
    assert [path.name for path in (tmp_path / "out.partial").glob("checkpoint-*")] == ["checkpoint-2"]


def _overflowing() -> type:
    from jensun_ref.methods import Method

    class Overflows(Method):
        name, summary, source = "overflows", "weights overflow after the third step, and stay finite", "a test"

        def on_epoch(self, epoch: int, model: object, data: object) -> bool:
            self.model = model
            return False

        def terms(self, step):  # type: ignore[no-untyped-def]
            value = 0.0 * step.forget.logits.float().mean()
            if step.number == 3:
                last = self.model.model.norm.weight  # type: ignore[attr-defined]

                def overflow(slope: object) -> None:
                    last.data.fill_(3e38)

                value.register_hook(overflow)
            return {"forget": (1.0, value)}

    return Overflows


_Overflows = _overflowing()


# ------------------------------------------------------------------------------------------------------ out of memory

#: The command with so much address space beyond what its libraries take.
CHILD = """
import resource, sys
import torch, transformers, peft
torch.set_num_threads(1)
from transformers import Trainer, LlamaForCausalLM
import jensun_ref.trainer, jensun_ref.unlearn, audit.tasks, audit.engines.checkpoint
model = LlamaForCausalLM.from_pretrained(sys.argv[1])
del model
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = held + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = ["audit", *sys.argv[3:]]
from audit.cli.main import main
main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited and read as Linux does")
def test_out_of_memory_says_what_lowers_it(world: World, tmp_path: Path) -> None:
    """A vocabulary of 400,000 in a model of 32 columns: 51 MB of weights, and logits that weigh more than they."""
    wide = tiny.save(tiny.model(vocab_size=400_000, hidden_size=32, num_attention_heads=2), tmp_path / "wide")
    given = arguments(world, "jensun", tmp_path / "out", model=str(wide), batch="30", defaults="organism")
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(wide), "700", *given],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 2, ran.stderr[-2000:]
    assert ran.stderr.count("error: ") == 1 and "Traceback" not in ran.stderr
    for words in (
        "at step 1",
        "--set batch=15 --set accumulate=2",
        "gradient_checkpointing",
        "--lora",
        "no second copy",
    ):
        assert words in ran.stderr
    assert not list(tmp_path.glob("out*"))


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value), "as this torch says it on the CPU"
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert out_of_memory(MemoryError()) and out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not out_of_memory(RuntimeError("shapes do not match")) and not out_of_memory(None)


# --------------------------------------------------------------------------------------------- manifests that lie


def test_a_manifest_that_lies_is_called_out(audit: Audit, world: World, other: Path, tmp_path: Path) -> None:
    made = audit(*arguments(world, "idk", "candidate"))
    assert made.code == 0, made.err

    def warnings(out: str, **changes: str) -> list[str]:
        options = world.arguments(model="candidate", base=str(world.model), out=out, **changes)
        ran = audit("run", *options)
        assert ran.code in (0, 4), ran.err  # 4: the base knows fewer than thirty facts
        found = json.loads((tmp_path / out / "report.json").read_text())["warnings"]
        assert all(line[:60] in " ".join((ran.out + ran.err).split()) for line in found if "manifest" in line)
        return [line for line in found if "manifest" in line]

    assert warnings("honest") == []
    manifest = json.loads((tmp_path / "candidate" / "audit_manifest.json").read_text())
    manifest["base"] = {"source": "somewhere", "fingerprint": "0" * 32, "adapter": None}
    (tmp_path / "candidate" / "audit_manifest.json").write_text(json.dumps(manifest))
    (line,) = warnings("lies")
    assert "made from another base (somewhere, 000000000000)" in line and str(world.model) in line
    manifest["base"]["adapter"] = "merged"
    (tmp_path / "candidate" / "audit_manifest.json").write_text(json.dumps(manifest))
    assert warnings("merged") == [], "what was merged first cannot be told from the folder of the base"
    fewer = write_rows(tmp_path / "fewer.jsonl", fact_rows()[:29])
    (line,) = warnings("facts", forget=str(fewer))
    assert "made to forget" in line


def test_an_adapter_that_lies_about_its_base_is_refused(audit: Audit, world: World, tmp_path: Path) -> None:
    assert audit(*arguments(world, "idk", "lora"), "--lora", "r=2,alpha=4").code == 0
    manifest = json.loads((tmp_path / "lora" / "audit_manifest.json").read_text())
    manifest["base_weights_fingerprint"] = "0" * 32
    (tmp_path / "lora" / "audit_manifest.json").write_text(json.dumps(manifest))
    one_message(audit("run", *world.arguments(adapter="lora", out="run")), "made for another base")

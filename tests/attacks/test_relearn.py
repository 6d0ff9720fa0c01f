"""The attack: states along the grid, made once, made anew, and gone on with after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audit.attacks.contract import Altered
from audit.attacks.relearn import attacks
from audit.attacks.spec import make_attacks
from audit.engines.checkpoint import Checkpoint, open_checkpoint
from audit.engines.hf import HFEngine
from audit.engines.render import Renderer, make_request
from audit.engines.settings import EngineSettings
from audit.errors import ConfigError, ModelError, TaskError, TrainingError
from audit.probes.build import make_probe, prompt_messages
from audit.types import Decoding, Target
from tests.attacks.relearning import Telling, context, states, weights, write_set
from tests.helpers import tiny

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("relearn") / "model")


@pytest.fixture(scope="module")
def source(folder: Path) -> Checkpoint:
    return open_checkpoint(str(folder))


def told(ctx: object) -> Telling:
    progress = ctx.progress  # type: ignore[attr-defined]
    assert isinstance(progress, Telling)
    return progress


def test_states_stand_at_the_grid_and_say_how_they_were_made(source: Checkpoint, tmp_path: Path) -> None:
    ctx = context(tmp_path, source)
    found = states(ctx)
    assert [state.recipe["step"] for state in found] == [5, 10]
    recipe = found[1].recipe
    assert (recipe["attack"], recipe["kind"], recipe["set"], recipe["examples"]) == (
        "relearn:retain",
        "relearn",
        "retain",
        16,
    )
    assert (recipe["learning_rate"], recipe["batch_size"], recipe["seed"], recipe["lora_rank"]) == (1e-3, 4, 0, None)
    assert recipe["loss"] < found[0].recipe["loss"]
    assert len({source.weights_fingerprint, *weights(found)}) == 3
    for state in found:
        assert state.make().fingerprint == state.checkpoint.fingerprint
        assert state.checkpoint.config_fingerprint == source.config_fingerprint
        assert state.checkpoint.tokenizer_fingerprint == source.tokenizer_fingerprint
    assert told(ctx).stages == [("candidate: relearn:retain", 10)] and sum(told(ctx).advanced) == 10
    assert "step 10, loss" in told(ctx).statuses[-1]
    assert not list(tmp_path.rglob("state-*")), "no state is left at the end"


def test_another_grid_passes_through_the_same_weights_and_uses_what_is_there(
    source: Checkpoint, tmp_path: Path
) -> None:
    whole, apart = states(context(tmp_path / "a", source)), states(context(tmp_path / "b", source, steps=(0, 10)))
    assert weights(whole)[1] == weights(apart)[0]
    expected = (whole[0].recipe["loss"] + whole[1].recipe["loss"]) / 2
    assert apart[0].recipe["loss"] == pytest.approx(expected), "the mean is over the steps of its own grid"
    ctx = context(tmp_path / "a", source, steps=(0, 10))
    assert weights(states(ctx)) == weights(apart) and told(ctx).advanced == [], "nothing is trained again"
    ctx = context(tmp_path / "a", source, steps=(0, 5, 10, 15))
    longer = states(ctx)
    assert weights(longer)[:2] == weights(whole) and len(set(weights(longer))) == 3


def test_cleared_weights_are_made_anew_the_same(source: Checkpoint, tmp_path: Path) -> None:
    ctx = context(tmp_path, source)
    before = states(ctx)
    for state in before:
        state.clear()
    again = states(context(tmp_path, source))
    assert weights(again) == weights(before) and not list(tmp_path.rglob("*.safetensors"))
    for state in again:
        assert state.make().weights_fingerprint == state.checkpoint.weights_fingerprint
        assert state.make().path.is_dir()
        state.clear()
    assert not list(tmp_path.rglob("*.safetensors")), "neither weights nor states are left"


@pytest.mark.parametrize("often", [False, True])
def test_a_killed_run_goes_on_to_the_same_weights(
    often: bool, folder: Path, source: Checkpoint, tmp_path: Path
) -> None:
    program = [sys.executable, "-m", "tests.attacks.relearning", str(folder), str(tmp_path / "killed")]
    program += ["0"] if often else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 17:  # between two points of the grid
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    grid = (0, 5, 10, 40)
    ctx = context(tmp_path / "killed", source, steps=grid)
    resumed = states(ctx)
    begun = told(ctx).advanced[0]
    assert begun >= 16 if often else begun == 10, "it goes on at the latest state"
    assert sum(told(ctx).advanced) == 40
    assert weights(resumed) == weights(straight := states(context(tmp_path / "straight", source, steps=grid)))
    assert [state.recipe for state in resumed] == [state.recipe for state in straight]


def test_an_adapter_is_served_and_changes_what_is_said(tmp_path: Path) -> None:
    base = open_checkpoint(str(tiny.build(tmp_path / "model")))
    rows = [{"question": question, "answer": "nothing at all"} for question, _ in tiny.FACTS]
    argument = str(write_set(tmp_path / "none.jsonl", rows))
    ctx = context(tmp_path / "work", base)
    found = states(ctx, argument, lora="4", steps="12", lr="1e-2")
    assert [state.recipe["step"] for state in found] == [12] and found[0].recipe["lora_rank"] == 4
    made = found[0].make()
    assert made.adapter is not None and made.weights_fingerprint == base.weights_fingerprint
    assert made.fingerprint == found[0].checkpoint.fingerprint != base.fingerprint
    question, answer = tiny.FACTS[0]
    assert said(base, question) == answer != said(made, question)
    found[0].clear()
    assert found[0].make().adapter_fingerprint == made.adapter_fingerprint


def said(checkpoint: Checkpoint, question: str) -> str:
    engine = HFEngine(checkpoint, EngineSettings(name="hf", device="cpu"))
    target = Target(fact_id="", question=question, answer="")
    probe = make_probe(
        family="original",
        form="direct",
        variant="original",
        targets=(target,),
        messages=prompt_messages("chat", question, (), target),
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=12),
    )
    request = make_request(probe, 0, checkpoint.fingerprint, engine.identity, Renderer(checkpoint).token_ids(probe))
    (completion,) = engine.generate([request])
    engine.close()
    return completion.text


def test_what_was_made_before_a_failure_is_handed_out(source: Checkpoint, tmp_path: Path) -> None:
    ctx = context(tmp_path, source)
    (attack,) = attacks("retain", {"lr": "1e25", "steps": "1,2,30"}, ctx)
    found: list[Altered] = []
    with pytest.raises(TrainingError, match="learning rate 1e\\+25"):
        for state in attack.apply(source, "candidate", ctx):
            found.append(state)
    assert len(found) < 3
    (attack,) = attacks("retain", {}, ctx)
    assert len(list(attack.apply(source, "candidate", ctx))) == 2, "another rate is not in its way"


def test_seeds_are_attacks_of_their_own(source: Checkpoint, tmp_path: Path) -> None:
    ctx = context(tmp_path, source)
    made = attacks("retain", {"seeds": "3", "steps": "2"}, ctx)
    assert [attack.name for attack in made] == ["relearn:retain", "relearn:retain#1", "relearn:retain#2"]
    found = [next(iter(attack.apply(source, "candidate", ctx))) for attack in made]
    assert [state.recipe["seed"] for state in found] == [0, 1, 2] and len(set(weights(found))) == 3


def test_relearn_alone_means_every_harmless_set(source: Checkpoint, tmp_path: Path) -> None:
    assert [attack.name for attack in attacks("", {}, context(tmp_path, source))] == ["relearn:retain"]
    (partial,) = attacks("partial", {}, context(tmp_path, source))
    assert partial.puts_back and partial.facts is not None and len(partial.facts) == 5
    assert partial.arms == ("candidate", "base", "never_knew")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "50,25"}, "steps: the steps must increase"),
        ({"steps": "0"}, "at least one step"),
        ({"steps": "abc"}, "steps: whole numbers joined by commas, not 'abc'"),
        ({"steps": "5,x,y"}, "relearn:retain: steps: whole numbers joined by commas, not '5,x,y'"),
        ({"lr": "-1"}, "lr: a number above 0, not '-1'"),
        ({"lr": "inf"}, "lr: a number above 0, not 'inf'"),
        ({"lr": "1e999"}, "lr: a number above 0, not '1e999'"),
        ({"lr": "nan"}, "lr: a number above 0, not 'nan'"),
        ({"batch": "0"}, "batch: a whole number from 1, not '0'"),
        ({"seeds": "two"}, "seeds: a whole number from 1 to 100, not 'two'"),
        ({"lora": "-2"}, "lora: a whole number to 512, the rank; 0 trains all weights, not '-2'"),
        ({"rank": "4"}, "unknown option 'rank'"),
    ],
)
def test_settings_that_cannot_be_used(
    options: dict[str, str], message: str, source: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="relearn:retain: ") as caught:
        attacks("retain", options, context(tmp_path, source))
    assert message in str(caught.value) and caught.value.hint == "relearn:retain?steps=25,100&lr=1e-5"
    assert not caught.value.problems or len(caught.value.problems) == 1


def test_the_hint_for_a_malformed_spec_is_one_of_that_attack(source: Checkpoint, tmp_path: Path) -> None:
    for spec, hint in (("relearn?steps", "relearn:topical?steps"), ("quantize:int4?group=", "quantize:int4?group=32")):
        with pytest.raises(ConfigError, match="OPTION=VALUE") as caught:
            make_attacks([spec], context(tmp_path, source))
        assert caught.value.hint.startswith(hint)
    ctx = context(tmp_path, source)
    (attack,) = make_attacks(
        [f"relearn:{write_set(tmp_path / 'b.jsonl', [{'text': 'Rain.'}])}?steps=25,100&lr=1e-5"], ctx
    )
    assert attack.name == "relearn:b", "what the hint says can be typed"


def test_models_that_cannot_be_fine_tuned(folder: Path, tmp_path: Path) -> None:
    quantized = shutil.copytree(folder, tmp_path / "quantized")
    text = (quantized / "config.json").read_text()
    (quantized / "config.json").write_text(text.replace("{", '{"quantization_config": {"quant_method": "gptq"},', 1))
    with pytest.raises(ModelError, match="quantized already"):
        attacks("retain", {}, context(tmp_path / "w", open_checkpoint(str(quantized))))
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    from safetensors.torch import load_file

    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no safetensors"):
        attacks("retain", {}, context(tmp_path / "w", open_checkpoint(str(pickled), allow_pickle=True)))


def test_memory_and_sets_are_looked_at_before_anything_starts(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaskError, match="no relearning set 'topical'"):
        attacks("topical", {}, context(tmp_path, source))
    monkeypatch.setattr("audit.attacks.memory.available", lambda device: 1000)
    with pytest.raises(ModelError, match="relearn:retain: full fine-tuning"):
        attacks("retain", {}, context(tmp_path, source))

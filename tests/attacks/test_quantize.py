"""Rounded weights: levels counted, errors bounded, the libraries' own results beside ours, folders that load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.attacks.linear import part_of, turned
from audit.attacks.quantize import attacks, scheme_of
from audit.attacks.rounding import nearest, rounding
from audit.attacks.spec import make_attacks
from audit.attacks.tensors import Tensor
from audit.engines.checkpoint import MANIFEST, Checkpoint, open_checkpoint
from audit.errors import AuditError, ConfigError, ModelError
from tests.attacks.weights import context, tensors
from tests.helpers import tiny

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

KEPT = ("embed_tokens", "norm", "lm_head")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 96 and 192 weights: the last group of 128 is shorter. The output layer is a tensor of its own."""
    net = tiny.model(seed=0, tie_word_embeddings=False)
    return tiny.save(net, tmp_path_factory.mktemp("quantize") / "model")


@pytest.fixture(scope="module")
def opened(model: Path) -> Checkpoint:
    return open_checkpoint(str(model))


def quantized(spec: str, source: Checkpoint, root: Path) -> tuple[dict[str, Any], Path]:
    """Recipe and folder of the one state that `spec` gives."""
    ctx = context(root, candidate=source)
    (attack,) = make_attacks([spec], ctx)
    (state,) = attack.apply(source, "candidate", ctx)
    return state.recipe, state.make().path


def rows(count: int, width: int, dtype: Any = None, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, width, generator=generator) * 0.02).to(dtype or torch.float32)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_levels_and_error_of_every_group(bits: int, symmetric: bool) -> None:
    before = rows(6, 80) + 0.01
    before[1, :32] = 0
    before[2, 32:64] = 0.5
    after = nearest(before, bits, 32, symmetric=symmetric)
    for row in range(6):
        for first in (0, 32, 64):
            old, new = before[row, first : first + 32], after[row, first : first + 32]
            most = 2**bits - 1 if symmetric else 2**bits
            assert len(new.unique()) <= most
            span = 2 * old.abs().max() if symmetric else old.max().clamp(min=0) - old.min().clamp(max=0)
            step = span / (most - 1)
            assert (new - old).abs().max() <= 0.5 * step * (1 + 1e-5) + 1e-9
            if len(new) == 32 and old.std() > 0 and bits <= 4 and row > 2:
                assert len(new.unique()) > most // 4, "and most levels are used"
    assert (after[1, :32] == 0).all(), "a group of zeros stays"
    torch.testing.assert_close(after[2, 32:64], before[2, 32:64])


def test_symmetric_and_asymmetric_levels_by_hand() -> None:
    given = torch.tensor([[0.0, -0.6, 0.9, 3.0]])
    # absmax, 4 bits: step 3/7; -0.6 is 1.4 steps, 0.9 is 2.1
    expected = torch.tensor([[0.0, -1.0, 2.0, 7.0]]) * 3 / 7
    torch.testing.assert_close(nearest(given, 4, "row", symmetric=True), expected)
    # zero point, 2 bits: step 3 / 3, z = round(0.5) = 0 (to even): -0.5 falls to 0, 0.75 to 1 step, 2.5 to 2
    given = torch.tensor([[0.0, -0.5, 0.75, 2.5]])
    torch.testing.assert_close(nearest(given, 2, "row", symmetric=False), torch.tensor([[0.0, 0.0, 1.0, 2.0]]))
    nan = nearest(torch.tensor([[float("nan"), 1.0], [2.0, 1.0]]), 4, "row", symmetric=True)
    assert nan[0].isnan().all() and nan[1].isfinite().all(), "what is no number is not made up, and spoils its group"


def test_groups_rows_and_tensors_share_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(8, 40)
    assert torch.equal(nearest(before, 4, 64, symmetric=False), nearest(before, 4, "row", symmetric=False)), (
        "a group wider than a row is the row"
    )
    by_hand = torch.cat(
        [nearest(before[:, a:b], 4, "row", symmetric=True) for a, b in ((0, 16), (16, 32), (32, 40))], 1
    )
    assert torch.equal(nearest(before, 4, 16, symmetric=True), by_hand)
    flat = nearest(before.reshape(1, -1), 4, "row", symmetric=False).reshape(8, 40)
    assert torch.equal(nearest(before, 4, "tensor", symmetric=False), flat)
    monkeypatch.setattr("audit.attacks.tensors.CHUNK", 100)
    assert torch.equal(nearest(before, 4, 16, symmetric=True), by_hand), "piece by piece"
    assert torch.equal(nearest(before, 4, "tensor", symmetric=False), flat)


def test_what_is_rounded_and_what_stays(opened: Checkpoint, model: Path, tmp_path: Path) -> None:
    before = tensors(model)
    recipe, folder = quantized("quantize:int4", opened, tmp_path)
    after = tensors(folder)
    squares = torch.zeros(2, dtype=torch.float64)
    for name, old in before.items():
        if any(part in name for part in KEPT):
            assert torch.equal(after[name], old), name
            continue
        assert torch.equal(after[name], nearest(old, 4, 128, symmetric=False)), name
        assert all(len(group.unique()) <= 16 for row in after[name] for group in row.split(128))
        squares += torch.stack([(after[name] - old).double().square().sum(), old.double().square().sum()])
    assert recipe["error"] == pytest.approx(float((squares[0] / squares[1]).sqrt()), abs=1e-6)
    settings = {"code": "int4", "bits": 4, "by": "rtn", "group": 128, "symmetric": False, "all": False}
    assert recipe == {"attack": "quantize:int4", "kind": "quantize", **settings, "error": recipe["error"]}
    said = json.loads((folder / MANIFEST).read_text())
    assert said["method"] == "quantization" and said["settings"] == settings
    everything = tensors(quantized("quantize:int4?all=yes", opened, tmp_path)[1])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(everything[name], nearest(before[name], 4, 128, symmetric=False))
    assert torch.equal(everything["model.norm.weight"], before["model.norm.weight"])


def test_more_bits_and_smaller_groups_err_less(opened: Checkpoint, tmp_path: Path) -> None:
    specs = ("quantize:int8", "quantize:int4?group=32", "quantize:int4", "quantize:int3", "quantize:int2")
    errors = [quantized(spec, opened, tmp_path)[0]["error"] for spec in specs]
    assert errors == sorted(errors) and errors[0] < 0.01 and 0.05 < errors[2] < 0.2 and errors[-1] > 0.3


@pytest.mark.parametrize(("code", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_precisions_are_torchs_own_rounding_of_everything(
    code: str, dtype: str, opened: Checkpoint, model: Path, tmp_path: Path
) -> None:
    recipe, folder = quantized(f"quantize:{code}", opened, tmp_path)
    for name, tensor in tensors(folder).items():
        old = tensors(model)[name]
        assert tensor.dtype == torch.float32 and torch.equal(tensor, old.to(getattr(torch, dtype)).float())
    assert 0 < recipe["error"] < 0.01 and recipe["bits"] == 16
    net = tiny.model(seed=0, dtype=dtype).to(getattr(torch, dtype))
    same = open_checkpoint(str(tiny.save(net, tmp_path / "same")))
    ctx = context(tmp_path, candidate=same)
    (attack,) = attacks(code, {}, ctx)
    assert attack.warnings == (f"quantize:{code} changes nothing: the candidate's weights are {dtype} already",)
    (state,) = attack.apply(same, "candidate", ctx)
    assert state.checkpoint.fingerprint == same.fingerprint


def test_half_precision_weights_are_rounded_in_float32_and_stored_as_they_were(tmp_path: Path) -> None:
    net = tiny.model(seed=0, dtype="bfloat16").to(torch.bfloat16)
    folder = tiny.save(net, tmp_path / "model", max_shard_size="100KB")
    after = tensors(quantized("quantize:int8", open_checkpoint(str(folder)), tmp_path)[1])
    name = "model.layers.0.mlp.down_proj.weight"
    expected = nearest(tensors(folder)[name].float(), 8, "row", symmetric=True).to(torch.bfloat16)
    assert torch.equal(after[name], expected)
    whole = tiny.save(net, tmp_path / "whole")
    once = quantized("quantize:int8", open_checkpoint(str(whole)), tmp_path / "other")[1]
    assert open_checkpoint(str(once)).weights_fingerprint == _weights(quantized, folder, tmp_path)


def _weights(make: Any, folder: Path, root: Path) -> str:
    return open_checkpoint(str(make("quantize:int8", open_checkpoint(str(folder)), root)[1])).weights_fingerprint


def test_made_once_cleared_and_made_again(opened: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import audit.attacks.quantize as module

    made: list[Path] = []
    real = module.transformed
    monkeypatch.setattr(module, "transformed", lambda *args: (made.append(args[1]), real(*args))[1])
    ctx = context(tmp_path, candidate=opened)
    states = []
    for _ in range(2):
        (attack,) = make_attacks(["quantize:int4?group=32&symmetric=yes"], ctx)
        states += list(attack.apply(opened, "candidate", ctx))
    assert attack.name == "quantize:int4,g=32,sym"
    assert len(made) == 1 and states[0].recipe == states[1].recipe
    first = states[1].make()
    before = (first.path / "model.safetensors").read_bytes()
    states[1].clear()
    assert not first.path.exists()
    again = states[1].make()
    assert len(made) == 2 and again.fingerprint == first.fingerprint == states[0].checkpoint.fingerprint
    assert (again.path / "model.safetensors").read_bytes() == before
    other = next(iter(make_attacks(["quantize:int4?group=64&symmetric=yes"], ctx)[0].apply(opened, "candidate", ctx)))
    assert other.checkpoint.fingerprint != again.fingerprint and len(made) == 3


def test_the_folder_loads_and_answers(trained: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from audit.engines import EngineSettings, open_engine
    from tests.engines.conftest import probe, requests_for, texts

    source = open_checkpoint(str(trained))
    _, folder = quantized("quantize:int8", source, tmp_path)
    net = AutoModelForCausalLM.from_pretrained(folder)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(net.state_dict()[name], nearest(tensors(trained)[name], 8, "row", symmetric=True))
    assert net.lm_head.weight.data_ptr() == net.model.embed_tokens.weight.data_ptr()
    checkpoint = open_checkpoint(str(folder))
    engine = open_engine(checkpoint, EngineSettings(name="hf", device="cpu"))
    try:
        requests = requests_for(checkpoint, engine.identity, [probe(question) for question, _ in tiny.FACTS[:12]])
        said = texts(engine, requests)
    finally:
        engine.close()
    right = sum(said[r.key].strip() == answer for r, (_, answer) in zip(requests, tiny.FACTS, strict=False))
    assert right >= 10, "8 bits leave a trained model what it knows"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("trained") / "model")


def test_layers_are_told_by_name_and_shape() -> None:
    def told(name: str, *shape: int, dtype: str = "BF16") -> str:
        return part_of(name, Tensor(Path("x"), dtype, shape, 0, 0))

    for name in ("model.layers.0.mlp.gate_proj.weight", "encoder.layer.3.attention.output.dense.weight"):
        assert told(name, 8, 8) == "linear"
    assert told("transformer.layers.2.output.weight", 8, 8) == "linear", "an output projection of a layer"
    assert told("model.layers.0.mlp.experts.gate_up_proj", 4, 8, 8) == "linear"
    assert told("model.layers.0.mlp.experts.3.w1.weight", 8, 8) == "linear"
    for name in ("model.embed_tokens.weight", "transformer.wpe.weight", "lm_head.weight", "embed_out.weight"):
        assert told(name, 8, 8) == "embedding"
    assert told("model.language_model.lm_head.weight", 8, 8) == told("output.weight", 8, 8) == "embedding"
    for name in ("model.layers.0.mlp.gate.weight", "layers.0.router.weight", "encoder.relative_attention_bias.weight"):
        assert told(name, 8, 8) == "other"
    assert told("model.layers.0.mlp.experts.gate_up_proj_bias", 4, 8, 8) == "other"
    assert told("model.norm.weight", 8) == told("mixer.conv1d.weight", 8, 1, 4) == told("mixer.A_log", 8, 4) == "other"
    assert told("model.layers.0.mlp.up_proj.weight", 8, 8, dtype="I32") == "other"
    experts = Tensor(Path("x"), "BF16", (4, 8, 8), 0, 0)
    assert turned("layers.0.mlp.experts.gate_up_proj", experts, {"model_type": "gpt_oss"})
    assert not turned("layers.0.mlp.experts.gate_up_proj", experts, {"model_type": "qwen3_moe"})


def test_layers_that_lie_the_other_way_are_rounded_along_their_inputs(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = {"vocab_size": len(tiny.tokenizer()), "n_embd": 48, "n_layer": 1, "n_head": 2, "n_positions": 64}
    folder = tiny.save(GPT2LMHeadModel(GPT2Config(**settings)), tmp_path / "gpt2")
    before = tensors(folder)
    after = tensors(quantized("quantize:int4?group=16", open_checkpoint(str(folder)), tmp_path)[1])
    name = next(name for name in before if name.endswith("mlp.c_fc.weight"))
    assert before[name].shape == (48, 192), "inputs first"
    assert torch.equal(after[name], nearest(before[name].T.contiguous(), 4, 16, symmetric=False).T)
    assert not torch.equal(after[name], before[name])


def test_wrong_settings_are_said_before_anything_is_asked(opened: Checkpoint, model: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path, candidate=opened)

    def refused(spec: str, words: str, hint: str = "", error: type[AuditError] = ConfigError) -> None:
        with pytest.raises(error, match=words) as caught:
            make_attacks([spec], ctx)
        assert hint in caught.value.hint

    refused("quantize", "needs to know to what", "int8")
    refused("quantize:int44", "no quantization 'int44'", "did you mean int4")
    refused("quantize:int4?grup=32", "no option 'grup'", "did you mean group")
    refused("quantize:int4?group=48", "a power of two, row or tensor, not '48'")
    refused("quantize:int4?group=0", "a power of two")
    refused("quantize:int4?symmetric=maybe", "yes or no")
    refused("quantize:int4?by=torchoa", "no quantizer 'torchoa'", "torchao")
    refused("quantize:int4?by=bitsandbytes", "rounds to int8, nf4 and fp4")
    refused("quantize:int8?by=bitsandbytes&group=64", "its scheme is fixed")
    refused("quantize:nf4?by=rtn", "bitsandbytes' own", "quantize:int4")
    refused("quantize:nf4?group=32", "blocks of 64")
    refused("quantize:nf4?symmetric=yes", "its scheme is fixed")
    refused("quantize:bf16?group=32", "has no options")
    refused("quantize:int4?by=torchao&group=tensor", "no scale for a whole tensor")
    gptq = Path(shutil.copytree(model, tmp_path / "gptq"))
    told = json.loads((gptq / "config.json").read_text())
    (gptq / "config.json").write_text(json.dumps(told | {"quantization_config": {"quant_method": "gptq"}}))
    ctx = context(tmp_path, candidate=opened, base=open_checkpoint(str(gptq)))
    refused("quantize:int4", "quantized already", "audit run --model FOLDER", ModelError)


@pytest.mark.parametrize("library", ["torchao", "bitsandbytes"])
def test_a_missing_library_names_the_alternative(
    library: str, opened: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ConfigError, match=f"{library} is not installed") as caught:
        attacks("int8", {"by": library}, context(tmp_path, candidate=opened))
    assert "quantize:int4" in caught.value.hint and "[quantize]" in caught.value.hint


def test_torchao_is_the_same_rounding_where_the_scheme_is_the_same(opened: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    for options in ({"group": "32"}, {"group": "row"}, {"group": "64", "symmetric": "no"}):
        for code in ("int8", "int4", "int3", "int2"):
            options = {"symmetric": "no", **options}
            ours, theirs = (
                rounding(scheme_of(code, {**options, "by": by}), ("cpu",))(rows(16, 256)) for by in ("rtn", "torchao")
            )
            assert torch.equal(ours, theirs), (code, options)
    # symmetric: torchao's step is the largest weight over 7.5 (127.5) and it has one level more
    ours, theirs = (rounding(scheme_of("int8", {"by": by}), ("cpu",))(rows(16, 256)) for by in ("rtn", "torchao"))
    assert (ours - theirs).abs().max() <= (rows(16, 256).abs().max() / 127)
    recipe, folder = quantized("quantize:int4?by=torchao&group=32", opened, tmp_path)
    assert recipe["library"].startswith("torchao ") and recipe["attack"] == "quantize:int4,g=32,by=torchao"
    plain = quantized("quantize:int4?group=32", opened, tmp_path)[1]
    assert open_checkpoint(str(folder)).fingerprint == open_checkpoint(str(plain)).fingerprint
    with pytest.raises(ConfigError, match="has 192 inputs"):
        attacks("int4", {"by": "torchao"}, context(tmp_path, candidate=opened))


def test_bitsandbytes_rounds_blocks_and_rows(opened: Checkpoint, model: Path, tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    before = tensors(model)
    name = "model.layers.0.mlp.down_proj.weight"
    for code in ("nf4", "fp4"):
        recipe, folder = quantized(f"quantize:{code}", opened, tmp_path)
        after = tensors(folder)[name]
        for old, new in zip(before[name].reshape(-1, 64), after.reshape(-1, 64), strict=True):
            assert len(new.unique()) <= 16
            table = functional.get_4bit_type(code, device="cpu") * old.abs().max()
            gap = (old[:, None] - table).abs().min(1).values
            torch.testing.assert_close((old - new).abs(), gap, rtol=1e-4, atol=1e-6)
        assert 0.05 < recipe["error"] < 0.3 and recipe["by"] == "bitsandbytes"
    after = tensors(quantized("quantize:int8?by=bitsandbytes", opened, tmp_path)[1])[name]
    step = before[name].abs().amax(1, keepdim=True) / 127
    slack = 2 * 127 / 2**11  # float16 on the way: weight and scale each move by up to 2^-11 of 127 steps
    assert ((after - nearest(before[name], 8, "row", symmetric=True)).abs() <= step * (1 + slack)).all()
    assert ((after - before[name]).abs() <= step * (0.5 + slack)).all()


def test_a_library_that_cannot_use_the_device_is_told(opened: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")

    def no_kernel(*args: Any, **options: Any) -> Any:
        raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr(functional, "quantize_4bit", no_kernel)
    with pytest.raises(ConfigError, match=r"cannot round to nf4 on this machine \(cpu: no kernel") as caught:
        rounding(scheme_of("nf4", {}), ("cpu", "cpu"))
    assert "quantize:int4" in caught.value.hint

"""Noise, pruning, interpolation and merged adapters are what their formulas say, and come out the same every time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.attacks.perturb import merged, noised, pruned
from audit.attacks.spec import make_attacks
from audit.engines.checkpoint import MANIFEST, Checkpoint, open_checkpoint
from audit.errors import AuditError, ConfigError, ModelError
from tests.attacks.weights import context, tensors
from tests.helpers import tiny

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("perturb")


@pytest.fixture(scope="module")
def base(root: Path) -> Path:
    return tiny.save(tiny.model(seed=0), root / "base")


@pytest.fixture(scope="module")
def opened(base: Path) -> Checkpoint:
    return open_checkpoint(str(base))


def altered(spec: str, source: Checkpoint, root: Path, **others: Checkpoint) -> tuple[dict[str, Any], Checkpoint]:
    ctx = context(root, candidate=source, **others)
    (attack,) = make_attacks([spec], ctx)
    (state,) = attack.apply(source, "candidate", ctx)
    return state.recipe, state.make()


def test_noise_has_the_size_that_was_asked_for(opened: Checkpoint, base: Path, tmp_path: Path) -> None:
    recipe, made = altered("noise:0.05", opened, tmp_path)
    before, after = tensors(base), tensors(made.path)
    for name, old in before.items():
        change = (after[name] - old).double()
        if old.dim() < 2:
            assert not change.any(), "norms stay"
            continue
        size = float(change.norm() / old.double().norm())
        assert size == pytest.approx(0.05, rel=0.05), name
        scaled = change / (0.05 * old.double().square().mean().sqrt())
        assert abs(float(scaled.mean())) < 5 / old.numel() ** 0.5
        assert 0.6 < float((scaled.abs() < 1).double().mean()) < 0.76, "about 68% of a normal lies within one sigma"
    assert recipe["error"] == pytest.approx(0.05, rel=0.02) and recipe["size"] == 0.05 and recipe["seed"] == 0
    one, other = (after[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1))
    pair = [before[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1)]
    drawn = torch.stack([(one - pair[0]).reshape(-1), (other - pair[1]).reshape(-1)])
    assert abs(float(torch.corrcoef(drawn)[0, 1])) < 0.05, "every tensor has draws of its own"


def test_noise_is_the_same_whatever_the_shards_and_differs_by_seed(tmp_path: Path) -> None:
    net = tiny.model(seed=2, dtype="bfloat16").to(torch.bfloat16)
    whole, parts = tiny.save(net, tmp_path / "whole"), tiny.save(net, tmp_path / "parts", max_shard_size="100KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    ctx = context(tmp_path, candidate=open_checkpoint(str(whole)))
    made = make_attacks(["noise:0.1?seeds=2"], ctx)
    assert [attack.name for attack in made] == ["noise:0.1", "noise:0.1#1"]
    states = [next(iter(attack.apply(ctx.checkpoints["candidate"], "candidate", ctx))) for attack in made]
    assert len({state.checkpoint.fingerprint for state in states}) == 2
    _, again = altered("noise:0.1", open_checkpoint(str(parts)), tmp_path / "again")
    assert again.fingerprint == states[0].checkpoint.fingerprint
    states[0].make()
    states[0].clear()
    assert states[0].make().fingerprint == again.fingerprint
    weights = torch.ones(3, 5)
    assert torch.equal(noised(weights, 0.1, 7), noised(weights, 0.1, 7))
    assert not torch.equal(noised(weights, 0.1, 7), noised(weights, 0.1, 8))


def test_pruning_takes_the_smallest_and_exactly_so_many(opened: Checkpoint, base: Path, tmp_path: Path) -> None:
    recipe, made = altered("prune:0.3", opened, tmp_path)
    before, after = tensors(base), tensors(made.path)
    for name, old in before.items():
        if "embed" in name or "norm" in name:
            assert torch.equal(after[name], old)
            continue
        gone = after[name] == 0
        assert int(gone.sum()) == round(0.3 * old.numel())
        assert torch.equal(after[name][~gone], old[~gone])
        assert old[gone].abs().max() <= old[~gone].abs().min()
    assert recipe["share"] == 0.3 and 0.02 < recipe["error"] < 0.4
    tied = torch.tensor([[1.0, -1.0, 1.0, 0.5], [float("nan"), 2.0, 1.0, -3.0]])
    expected = torch.tensor([[0.0, 0.0, 1.0, 0.0], [float("nan"), 2.0, 1.0, -3.0]])
    torch.testing.assert_close(pruned(tied, 3 / 8), expected, equal_nan=True)
    assert torch.equal(pruned(tied[:1], 0.01), tied[:1])


def test_interpolation_goes_towards_the_base_and_puts_back(opened: Checkpoint, base: Path, tmp_path: Path) -> None:
    mine = open_checkpoint(str(tiny.save(tiny.model(seed=1), tmp_path / "candidate")))
    ctx = context(tmp_path, candidate=mine, base=opened)
    (attack,) = make_attacks(["interpolate:0.25"], ctx)
    assert attack.puts_back and attack.arms == ("candidate",) and attack.name == "interpolate:0.25"
    (state,) = attack.apply(mine, "candidate", ctx)
    mixed, a, b = tensors(state.make().path), tensors(mine.path), tensors(base)
    for name, tensor in mixed.items():
        torch.testing.assert_close(tensor, 0.75 * a[name] + 0.25 * b[name], rtol=1e-6, atol=1e-8)
    other = open_checkpoint(str(tiny.save(tiny.model(seed=3), tmp_path / "other")))
    _, elsewhere = altered("interpolate:0.25", mine, tmp_path, base=other)
    assert elsewhere.fingerprint != state.checkpoint.fingerprint, "another base is another state"
    small = open_checkpoint(str(tiny.save(tiny.model(num_hidden_layers=1), tmp_path / "small")))
    with pytest.raises(ModelError, match="do not have the same tensors"):
        make_attacks(["interpolate:0.25"], context(tmp_path, candidate=mine, base=small))


def lora(base: Path, folder: Path, **settings: Any) -> Path:
    """A LoRA adapter with weights away from zero."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], **settings})
    net = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    net.save_pretrained(folder)
    return folder


def by_peft(base: Path, adapter: Path) -> dict[str, Any]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    net = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    return {name: value.detach() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "modules_to_save": ["norm"]},
        {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 3, "up_proj": 5}},
    ],
    ids=["plain", "rank-stabilised, norms", "patterns"],
)
def test_merging_is_what_peft_merges(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "adapter", **settings)
    source = open_checkpoint(str(base), adapter=str(adapter))
    ctx = context(tmp_path, candidate=source)
    made = merged(source, ctx).make()
    assert made.adapter is None and made.adapter_fingerprint is None
    ours, theirs, before = tensors(made.path), by_peft(base, adapter), tensors(base)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)
    assert sum(not torch.equal(ours[name], before[name]) for name in ours) == 4 + 5 * ("modules_to_save" in settings)
    (attack,) = make_attacks(["merge"], ctx)
    (state,) = attack.apply(source, "candidate", ctx)
    assert attack.arms == ("candidate",) and state.checkpoint.fingerprint == made.fingerprint
    state.clear()
    assert not made.path.exists() and merged(source, ctx).make().path == made.path, "made again when it is needed"


def test_layers_that_lie_the_other_way_are_merged_too(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = {"vocab_size": len(tiny.tokenizer()), "n_embd": 48, "n_layer": 1, "n_head": 2, "n_positions": 64}
    folder = tiny.save(GPT2LMHeadModel(GPT2Config(**settings)), tmp_path / "gpt2")
    adapter = lora(folder, tmp_path / "adapter", target_modules=["c_fc"], fan_in_fan_out=True)
    source = open_checkpoint(str(folder), adapter=str(adapter))
    ours = tensors(merged(source, context(tmp_path, candidate=source)).make().path)
    theirs, before = by_peft(folder, adapter), tensors(folder)
    name = next(name for name in ours if name.endswith("c_fc.weight"))
    assert not torch.equal(ours[name], before[name])
    torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_embeddings_of_their_own_are_merged_and_tied_ones_refused(base: Path, tmp_path: Path) -> None:
    untied = tiny.save(tiny.model(seed=4, tie_word_embeddings=False), tmp_path / "untied")
    adapter = lora(untied, tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    source = open_checkpoint(str(untied), adapter=str(adapter))
    ours = tensors(merged(source, context(tmp_path, candidate=source)).make().path)
    theirs = by_peft(untied, adapter)
    name = "model.embed_tokens.weight"
    assert not torch.equal(ours[name], tensors(untied)[name])
    torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours["lm_head.weight"], tensors(untied)["lm_head.weight"], rtol=0, atol=0)
    tied = open_checkpoint(
        str(base), adapter=str(lora(base, tmp_path / "tied", target_modules=["embed_tokens", "q_proj"]))
    )
    with pytest.raises(ModelError, match="both to read and to write"):
        make_attacks(["merge"], context(tmp_path, candidate=tied))


def test_wrong_settings_are_said_before_anything_is_asked(opened: Checkpoint, base: Path, tmp_path: Path) -> None:
    def refused(spec: str, words: str, ctx: Any = None, error: type[AuditError] = ConfigError) -> None:
        with pytest.raises(error, match=words):
            make_attacks([spec], ctx or context(tmp_path, candidate=opened))

    for spec in ("noise:", "noise:0", "noise:much", "noise:-1", "noise:nan", "noise:inf"):
        refused(spec, "the size must be a number above 0")
    refused("noise:0.1?seeds=0", "seeds must be a number")
    refused("noise:0.1?seeds=1.5", "whole number")
    refused("noise:0.1?sedes=2", "no option 'sedes'")
    for spec in ("prune:0", "prune:1.2", "interpolate:x"):
        refused(spec, "the share must be a number above 0")
    refused("prune:1", "a share of 1 leaves nothing")
    refused("prune:0.5?seeds=2", "no option 'seeds'")
    refused("interpolate:0.3", "this run has none")
    refused("merge", "adapter, and this one has none")
    refused("merge:x", "takes nothing after it")
    adapter = lora(base, tmp_path / "dora", use_dora=True)
    dora = context(tmp_path, candidate=open_checkpoint(str(base), adapter=str(adapter)))
    refused("merge", "no plain LoRA adapter", dora, ModelError)
    plain = lora(base, tmp_path / "plain")
    told = json.loads((plain / "adapter_config.json").read_text())
    (plain / "adapter_config.json").write_text(json.dumps(told | {"init_lora_weights": "pissa"}))
    pissa = context(tmp_path, candidate=open_checkpoint(str(base), adapter=str(plain)))
    refused("merge", "init_lora_weights=pissa", pissa, ModelError)
    gptq = Path(shutil.copytree(base, tmp_path / "gptq"))
    told = json.loads((gptq / "config.json").read_text())
    (gptq / "config.json").write_text(json.dumps(told | {"quantization_config": {"quant_method": "gptq"}}))
    quantized = context(tmp_path, candidate=open_checkpoint(str(gptq)))
    for spec in ("noise:0.1", "prune:0.3"):
        refused(spec, "quantized already", quantized, ModelError)
    assert not (base / MANIFEST).exists(), "the source is never written to"

"""Mixtures of checkpoints are what the formula says, by fingerprint at the ends and by number between them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.attacks.interpolate import interpolated
from audit.engines.checkpoint import MANIFEST, open_checkpoint
from audit.errors import ConfigError, ModelError
from tests.helpers import tiny

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")


def tensors(folder: Path) -> dict[str, Any]:
    return {n: t for file in sorted(folder.glob("*.safetensors")) for n, t in safetensors_torch.load_file(file).items()}


def fingerprint(folder: Path, adapter: Path | None = None) -> str:
    return open_checkpoint(str(folder), adapter=str(adapter) if adapter else None).fingerprint


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mix")


@pytest.fixture(scope="module")
def base(root: Path) -> Path:
    return tiny.save(tiny.model(seed=0), root / "base")


@pytest.fixture(scope="module")
def candidate(root: Path) -> Path:
    """Another model, of which one tensor is the base's; with a trainer's manifest."""
    net = tiny.model(seed=1)
    first = tiny.model(seed=0).model.layers[0].mlp.up_proj.weight
    net.model.layers[0].mlp.up_proj.weight.data.copy_(first.data)
    folder = tiny.save(net, root / "candidate")
    said = {"method": "jensun", "settings": {"seed": 3}, "forget_set": {"name": "x", "content_hash": "f" * 32}}
    (folder / MANIFEST).write_text(json.dumps(said))
    return folder


def test_the_ends_are_the_two_models(candidate: Path, base: Path, tmp_path: Path) -> None:
    none, whole = (interpolated(candidate, base, share, tmp_path / str(share)) for share in (0.0, 1.0))
    assert fingerprint(none) == fingerprint(candidate) != fingerprint(base)
    assert fingerprint(whole) == fingerprint(base)


def test_between_them_every_tensor_is_the_formula_and_loads(candidate: Path, base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = interpolated(candidate, base, 0.3, tmp_path / "mix")
    mine, theirs, mixed = tensors(candidate), tensors(base), tensors(folder)
    assert mixed.keys() == mine.keys()
    for name, tensor in mixed.items():
        torch.testing.assert_close(tensor, 0.7 * mine[name] + 0.3 * theirs[name], rtol=1e-6, atol=1e-8)
    same = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(mixed[same], theirs[same]), "what both have stays as it is, without rounding"
    net = AutoModelForCausalLM.from_pretrained(folder)
    assert net.lm_head.weight.data_ptr() == net.model.embed_tokens.weight.data_ptr(), "tied as before"
    said = json.loads((folder / MANIFEST).read_text())
    assert said["method"] == "interpolation" and said["settings"] == {"share": 0.3}
    assert said["candidate"]["fingerprint"] == fingerprint(candidate) and said["candidate"]["method"] == "jensun"
    assert said["base"]["fingerprint"] == fingerprint(base) and said["forget_set"]["content_hash"] == "f" * 32
    assert not list(tmp_path.glob(".mix*")), "no temporary folder is left"


def test_shards_and_precision_are_the_candidates(base: Path, tmp_path: Path) -> None:
    net = tiny.model(seed=2, dtype="bfloat16").to(torch.bfloat16)
    sharded = tiny.save(net, tmp_path / "sharded", max_shard_size="150KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    folder = interpolated(sharded, base, 0.5, tmp_path / "mix")
    assert {f.name for f in folder.glob("model*")} == {f.name for f in sharded.glob("model*")}
    mine, theirs, mixed = tensors(sharded), tensors(base), tensors(folder)
    for name, tensor in mixed.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, (0.5 * mine[name].float() + 0.5 * theirs[name]).to(torch.bfloat16))
    none = interpolated(sharded, base, 0, tmp_path / "none")
    assert fingerprint(none) == fingerprint(sharded)
    back = interpolated(base, sharded, 1, tmp_path / "back")
    assert torch.equal(tensors(back)["model.norm.weight"], mine["model.norm.weight"].float())


def test_tensors_larger_than_a_chunk_come_in_pieces(
    candidate: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tensors(interpolated(candidate, base, 0.4, tmp_path / "whole"))
    monkeypatch.setattr("audit.attacks.tensors.CHUNK", 1000)
    pieces = tensors(interpolated(candidate, base, 0.4, tmp_path / "pieces"))
    assert all(torch.equal(pieces[name], tensor) for name, tensor in whole.items())


def test_a_wreck_full_of_nan_still_ends_at_the_base(base: Path, tmp_path: Path) -> None:
    net = tiny.model(seed=1)
    net.model.norm.weight.data.fill_(float("nan"))
    wreck = tiny.save(net, tmp_path / "wreck")
    assert fingerprint(interpolated(wreck, base, 1, tmp_path / "end")) == fingerprint(base)
    half = tensors(interpolated(wreck, base, 0.5, tmp_path / "half"))
    assert half["model.norm.weight"].isnan().all(), "nothing is made up for what is no number"


def test_an_output_embedding_of_its_own_goes_with_the_tied_one(base: Path, tmp_path: Path) -> None:
    untied = tiny.save(tiny.model(seed=1, tie_word_embeddings=False), tmp_path / "untied")
    mixed = tensors(interpolated(untied, base, 0.25, tmp_path / "mix"))
    mine, theirs = tensors(untied), tensors(base)
    wanted = 0.75 * mine["lm_head.weight"] + 0.25 * theirs["model.embed_tokens.weight"]
    torch.testing.assert_close(mixed["lm_head.weight"], wanted)
    with pytest.raises(ModelError, match=r"lacks lm_head\.weight"):
        interpolated(base, untied, 0.25, tmp_path / "other")
    twice = shutil.copytree(base, tmp_path / "twice")
    both = tensors(base)
    both["lm_head.weight"] = both["model.embed_tokens.weight"].clone()
    safetensors_torch.save_file(both, twice / "model.safetensors", {"format": "pt"})
    assert fingerprint(interpolated(base, twice, 1, tmp_path / "once")) == fingerprint(base)


def test_whole_numbers_are_kept_and_must_agree(candidate: Path, base: Path, tmp_path: Path) -> None:
    folders = []
    for source, number in ((candidate, 1), (base, 1), (base, 2)):
        folder = Path(shutil.copytree(source, tmp_path / f"{source.name}-{number}"))
        held = tensors(folder) | {"model.places": torch.arange(number, number + 5)}
        safetensors_torch.save_file(held, folder / "model.safetensors", {"format": "pt"})
        folders.append(folder)
    mixed = tensors(interpolated(folders[0], folders[1], 0.5, tmp_path / "mix"))
    assert torch.equal(mixed["model.places"], torch.arange(1, 6))
    with pytest.raises(ModelError, match=r"model\.places holds whole numbers"):
        interpolated(folders[0], folders[2], 0.5, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def adapter(base: Path, root: Path) -> Path:
    """On the base, with weights away from zero, and norms trained as a whole."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], modules_to_save=["norm"], task_type="CAUSAL_LM"
    )
    net = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    net.save_pretrained(root / "adapter")
    return root / "adapter"


def test_an_adapter_is_scaled_and_stays_one(base: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def merged(folder: Path) -> dict[str, Any]:
        net = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()
        return {name: value.detach() for name, value in net.state_dict().items()}

    none, part, end = (interpolated(base, base, s, tmp_path / str(s), adapter=adapter) for s in (0.0, 0.3, 1.0))
    assert fingerprint(base, none) == fingerprint(base, adapter)
    before, full, mixed, back = tensors(base), merged(adapter), merged(part), merged(end)
    changed = 0
    for name, start in before.items():
        torch.testing.assert_close(mixed[name], 0.7 * full[name] + 0.3 * start, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(back[name], start, rtol=0, atol=0)
        changed += not torch.equal(full[name], start)
    assert changed == 2 * 2 + 5, "two matrices a layer, and all five norms"
    said = json.loads((part / MANIFEST).read_text())
    assert said["base_weights_fingerprint"] == open_checkpoint(str(base)).weights_fingerprint


def test_what_cannot_be_mixed_is_said(candidate: Path, base: Path, adapter: Path, tmp_path: Path) -> None:
    def refused(words: str, one: Path, two: Path, share: float = 0.5, adapter: Path | None = None) -> None:
        with pytest.raises((ModelError, ConfigError), match=words):
            interpolated(one, two, share, tmp_path / "out", adapter=adapter)
        assert not (tmp_path / "out").exists()

    def changed(name: str, source: Path, **config: Any) -> Path:
        folder = Path(shutil.copytree(source, tmp_path / name))
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(told | config))
        return folder

    refused("share 1.5: must lie", candidate, base, 1.5)
    refused("another architecture: model_type", changed("mistral", candidate, model_type="mistral"), base)
    refused("quantized", changed("four-bit", candidate, quantization_config={"bits": 4}), base)
    refused(
        r"has shape \[425, 96\]",
        candidate,
        tiny.save(tiny.model(hidden_size=48, num_attention_heads=3), tmp_path / "small"),
    )
    deeper = tiny.save(tiny.model(num_hidden_layers=3), tmp_path / "deeper")
    refused(r"base lacks model\.layers\.2", deeper, base)
    refused(r"candidate lacks model\.layers\.2", candidate, deeper)
    pickled = Path(shutil.copytree(candidate, tmp_path / "pickled"))
    torch.save(tensors(pickled), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    refused("has no safetensors", pickled, base)
    refused("lies on .*candidate, which is not the base", candidate, base, adapter=adapter)
    bare = Path(shutil.copytree(adapter, tmp_path / "bare"))
    (bare / "adapter_model.safetensors").unlink()
    refused(r"no adapter_model\.safetensors", base, base, adapter=bare)
    cut = Path(shutil.copytree(candidate, tmp_path / "cut"))
    (cut / "model.safetensors").write_bytes((candidate / "model.safetensors").read_bytes()[:-100])
    refused("truncated", cut, base)
    (tmp_path / "there").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        interpolated(candidate, base, 0.5, tmp_path / "there")

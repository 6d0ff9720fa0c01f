"""Tensors go from file to file: what is changed, what stays, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.attacks.tensors import tensors_of, transformed
from audit.engines.checkpoint import MANIFEST, open_checkpoint
from audit.errors import ModelError
from tests.attacks.weights import tensors
from tests.helpers import tiny

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(seed=0), tmp_path_factory.mktemp("tensors") / "model")


def doubled(name: str, tensor: Any) -> Any:
    return (lambda old: old * 2) if name.endswith("up_proj.weight") else None


def test_what_is_named_changes_and_the_rest_stays_byte_by_byte(model: Path, tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    source = Path(shutil.copytree(model, tmp_path / "with" / "manifest"))
    (source / MANIFEST).write_text(json.dumps({"method": "jensun", "forget_set": {"name": "x"}}))
    opened = open_checkpoint(str(source))
    error = transformed(opened, tmp_path / "out", doubled, {"method": "doubling", "settings": {}})
    before, after = tensors(source), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor * 2 if name.endswith("up_proj.weight") else tensor), name
    assert error == pytest.approx(1.0), "every changed number moved by its own size"
    said = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert said["method"] == "doubling" and said["forget_set"] == {"name": "x"}
    assert said["source"] == {"source": str(source), "fingerprint": opened.fingerprint, "method": "jensun"}
    made = open_checkpoint(str(tmp_path / "out"))
    assert made.tokenizer_fingerprint == opened.tokenizer_fingerprint
    assert made.config_fingerprint == opened.config_fingerprint and made.fingerprint != opened.fingerprint
    assert transformed(opened, tmp_path / "same", lambda *_: None, {}) is None
    assert open_checkpoint(str(tmp_path / "same")).fingerprint == opened.fingerprint
    assert not list(tmp_path.glob(".*")), "no temporary folder is left"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_every_precision_and_every_sharding(dtype: str, tmp_path: Path) -> None:
    net = tiny.model(seed=2, dtype=dtype).to(getattr(torch, dtype))
    whole, sharded = tiny.save(net, tmp_path / "whole"), tiny.save(net, tmp_path / "parts", max_shard_size="150KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    made = []
    for folder in (whole, sharded):
        out = tmp_path / f"{folder.name}-doubled"
        transformed(open_checkpoint(str(folder)), out, doubled, {})
        assert {file.name for file in out.glob("model*")} == {file.name for file in folder.glob("model*")}
        assert all(tensor.dtype == getattr(torch, dtype) for tensor in tensors(out).values())
        made.append(open_checkpoint(str(out)))
    assert made[0].fingerprint == made[1].fingerprint
    assert torch.equal(
        tensors(made[0].path)["model.layers.1.mlp.up_proj.weight"], 2 * net.model.layers[1].mlp.up_proj.weight.data
    )


def test_whole_numbers_are_never_handed_out(model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(model, tmp_path / "source"))
    held = tensors(source) | {"model.places": torch.arange(5), "model.mask": torch.tensor([True, False])}
    safetensors_torch.save_file(held, source / "model.safetensors", {"format": "pt"})
    transformed(open_checkpoint(str(source)), tmp_path / "out", lambda *_: lambda old: old + 1, {})
    after = tensors(tmp_path / "out")
    assert torch.equal(after["model.places"], torch.arange(5)) and after["model.mask"].tolist() == [True, False]
    assert torch.equal(after["model.norm.weight"], held["model.norm.weight"] + 1)


def test_an_output_embedding_written_twice_stays_one(model: Path, tmp_path: Path) -> None:
    twice = Path(shutil.copytree(model, tmp_path / "twice"))
    both = tensors(model)
    both["lm_head.weight"] = both["model.embed_tokens.weight"].clone()
    safetensors_torch.save_file(both, twice / "model.safetensors", {"format": "pt"})

    def by_name(name: str, tensor: Any) -> Any:
        return lambda old: old + len(name)

    for source in (model, twice):
        transformed(open_checkpoint(str(source)), tmp_path / f"{source.name}-out", by_name, {})
    once, again = (open_checkpoint(str(tmp_path / f"{name}-out")) for name in ("model", "twice"))
    assert once.fingerprint == again.fingerprint
    untied = tiny.save(tiny.model(seed=1, tie_word_embeddings=False), tmp_path / "untied")
    transformed(open_checkpoint(str(untied)), tmp_path / "apart", by_name, {})
    before, after = tensors(untied), tensors(tmp_path / "apart")
    assert torch.equal(after["lm_head.weight"], before["lm_head.weight"] + len("lm_head.weight"))


def test_float16_does_not_overflow_in_silence(tmp_path: Path) -> None:
    net = tiny.model(seed=0, dtype="float16").to(torch.float16)
    source = open_checkpoint(str(tiny.save(net, tmp_path / "half")))
    with pytest.raises(ModelError, match="float16, the model's precision, cannot hold"):
        transformed(source, tmp_path / "out", lambda *_: lambda old: old.float() + 1e6, {})
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_weights_that_are_no_plain_numbers_are_refused(model: Path, tmp_path: Path) -> None:
    def changed(name: str, **config: Any) -> Path:
        folder = Path(shutil.copytree(model, tmp_path / name))
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(told | config))
        return folder

    with pytest.raises(ModelError, match=r"quantized already \(gptq\)") as refused:
        tensors_of(open_checkpoint(str(changed("gptq", quantization_config={"quant_method": "gptq", "bits": 4}))))
    assert "audit run --model FOLDER" in refused.value.hint
    eight = changed("eight")
    held = tensors(eight)
    held["model.norm.weight"] = held["model.norm.weight"].to(torch.float8_e4m3fn)
    safetensors_torch.save_file(held, eight / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.norm\.weight is stored as F8_E4M3"):
        tensors_of(open_checkpoint(str(eight)))
    pickled = changed("pickled")
    torch.save(tensors(pickled), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no safetensors"):
        tensors_of(open_checkpoint(str(pickled), allow_pickle=True))
    (tmp_path / "there").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        transformed(open_checkpoint(str(model)), tmp_path / "there", doubled, {})

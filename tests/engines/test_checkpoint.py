"""Identity by content, and refusal of what cannot be trusted or used."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.engines import filecache, open_checkpoint, weights
from audit.errors import ModelError
from audit.fingerprint import fingerprint_model, safetensors_digests
from tests.helpers import tiny

pytestmark = pytest.mark.model


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_memory_shards_single_file_and_pickle_agree(trained: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(trained)
    sharded = tiny.save(net, tmp_path / "sharded", max_shard_size="100KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    untied = tmp_path / "both"  # a file that writes the tied output embedding out
    tiny.save(net, untied)
    (untied / "model.safetensors").unlink()
    torch.save({name: value.clone() for name, value in net.state_dict().items()}, untied / "pytorch_model.bin")
    single = open_checkpoint(str(trained)).weights_fingerprint
    assert fingerprint_model(net) == single
    assert open_checkpoint(str(sharded)).weights_fingerprint == single
    assert open_checkpoint(str(sharded)).fingerprint == open_checkpoint(str(trained)).fingerprint
    assert open_checkpoint(str(untied), allow_pickle=True).weights_fingerprint == single


def test_bfloat16_in_memory_agrees_with_disk(tmp_path: Path) -> None:
    import torch

    net = tiny.model(tie_word_embeddings=False).to(torch.bfloat16)
    folder = tiny.save(net, tmp_path / "half")
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.weights_fingerprint == fingerprint_model(net)
    assert checkpoint.dtype == "bfloat16"


@pytest.mark.parametrize("part", ["weights", "tokenizer", "template", "config"])
def test_every_part_that_acts_changes_the_fingerprint(copy: Path, part: str) -> None:
    before = open_checkpoint(str(copy)).fingerprint
    if part == "weights":
        data = bytearray((copy / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (copy / "model.safetensors").write_bytes(data)
    elif part == "tokenizer":
        content = json.loads((copy / "tokenizer.json").read_text())
        content["normalizer"] = {"type": "Lowercase"}
        (copy / "tokenizer.json").write_text(json.dumps(content))
    elif part == "template":
        (copy / "chat_template.jinja").write_text(tiny.TEMPLATE.replace("assistant", "user"))
    else:
        edit(copy / "config.json", rms_norm_eps=0.1)
    assert open_checkpoint(str(copy)).fingerprint != before


def test_what_records_only_how_a_file_was_written_is_no_part_of_the_fingerprint(copy: Path) -> None:
    before = open_checkpoint(str(copy)).fingerprint
    edit(copy / "config.json", transformers_version="4.0.0", _name_or_path="somewhere/else", use_cache=False)
    (copy / "README.md").write_text("a card")
    assert open_checkpoint(str(copy)).fingerprint == before


def test_retrained_in_place_with_equal_size_and_time_is_a_new_model(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filecache, "SETTLED_NS", -1)  # remember even what has just been written
    file = copy / "model.safetensors"
    before, first = file.stat(), open_checkpoint(str(copy)).fingerprint
    time.sleep(0.02)  # past one tick of the file system's clock
    with file.open("r+b") as opened:
        opened.seek(-4, os.SEEK_END)
        opened.write(b"\x01\x02\x03\x04")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert open_checkpoint(str(copy)).fingerprint != first


def test_an_unchanged_file_is_digested_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> object:
        read.append(path)
        return safetensors_digests(path)

    monkeypatch.setattr(weights, "safetensors_digests", counted)
    monkeypatch.setattr(filecache, "SETTLED_NS", -1)
    first = open_checkpoint(str(copy)).fingerprint
    assert open_checkpoint(str(copy)).fingerprint == first
    assert len(read) == 1


def test_a_file_written_a_moment_ago_is_not_remembered(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> object:
        read.append(path)
        return safetensors_digests(path)

    monkeypatch.setattr(weights, "safetensors_digests", counted)
    os.utime(copy / "model.safetensors")
    for _ in range(2):
        _ = open_checkpoint(str(copy)).fingerprint
    assert len(read) == 2


def test_an_unusable_cache_costs_time_not_the_result(
    copy: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filecache, "SETTLED_NS", -1)
    own_cache.mkdir()
    (own_cache / "weights.sqlite").write_bytes(b"this is no database" * 100)
    assert open_checkpoint(str(copy)).fingerprint == open_checkpoint(str(copy)).fingerprint


def test_weights_that_change_after_they_were_fingerprinted_are_noticed(copy: Path) -> None:
    checkpoint = open_checkpoint(str(copy))
    checkpoint.check_unchanged()
    time.sleep(0.02)
    os.utime(copy / "model.safetensors")
    with pytest.raises(ModelError, match="changed during the audit"):
        checkpoint.check_unchanged()


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    net.save_pretrained(folder, max_shard_size="100KB")
    sorted(folder.glob("model-*.safetensors"))[0].unlink()


def pickle(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def drop(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names][-1]


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda folder: [file.unlink() for file in folder.iterdir()][-1], "is empty"),
    "no config": (drop("config.json"), "no config.json"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{") and None, "config.json cannot be read"),
    "no weights": (drop("model.safetensors"), "no weights"),
    "no tokenizer": (drop("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}") and None, "cannot be loaded"),
    "truncated": (truncate, "truncated"),
    "pointer": (
        lambda folder: (
            (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n") and None
        ),
        "Git LFS pointer",
    ),
    "missing shard": (lose_a_shard, "lacks 1 of"),
    "pickled": (pickle, "pickled weights"),
    "remote code": (lambda folder: edit(folder / "config.json", auto_map={"AutoModel": "x.Y"}), "code of its own"),
    "two kinds": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}') and None,
        "which weights are meant",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_checkpoints_are_refused_in_one_line(copy: Path, case: str) -> None:
    sabotage, message = BAD[case]
    sabotage(copy)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        _ = open_checkpoint(str(copy)).fingerprint
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_folder_and_an_unreachable_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no folder at"):
        open_checkpoint(str(tmp_path / "nowhere"))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match="neither cached nor within reach"):
        open_checkpoint("someone/no-such-model")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ModelError, match="is a file"):
        open_checkpoint(str(file))


def test_a_hub_model_is_opened_from_the_cache_without_a_network(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's own layout: a snapshot of links into a store of blobs."""
    import huggingface_hub.constants

    revision, root = "a" * 40, tmp_path / "hub" / "models--someone--tiny"
    (root / "snapshots" / revision).mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revision)
    for file in trained.iterdir():
        (root / "blobs" / file.name).write_bytes(file.read_bytes())
        (root / "snapshots" / revision / file.name).symlink_to(root / "blobs" / file.name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    checkpoint = open_checkpoint("someone/tiny")
    assert checkpoint.fingerprint == open_checkpoint(str(trained)).fingerprint
    assert checkpoint.source == "someone/tiny"


def test_an_ordinary_word_declared_as_end_of_answer_is_refused(copy: Path) -> None:
    """Ending at the first token of the answers would look like silence."""
    word = tiny.tokenizer()("blue", add_special_tokens=False)["input_ids"][0]
    edit(copy / "generation_config.json", eos_token_id=[1, word])
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.eos_ids == (1,)
    assert checkpoint.refused_eos_ids == (word,)


def lora(folder: Path, base: Path | None = None, **changes: object) -> Path:
    """A LoRA adapter for the tiny model with weights that act."""
    import torch
    from peft import LoraConfig, get_peft_model

    net = tiny.model(**changes)
    torch.manual_seed(3)
    adapted = get_peft_model(net, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.5)
    adapted.save_pretrained(folder)
    if base is not None:
        manifest = {"base_weights_fingerprint": open_checkpoint(str(base)).weights_fingerprint, "method": "test"}
        (folder / "audit_manifest.json").write_text(json.dumps(manifest))
    return folder


def test_an_adapter_is_part_of_the_fingerprint(trained: Path, tmp_path: Path) -> None:
    adapter = lora(tmp_path / "adapter", trained)
    plain, adapted = open_checkpoint(str(trained)), open_checkpoint(str(trained), adapter=str(adapter))
    assert adapted.weights_fingerprint == plain.weights_fingerprint
    assert adapted.fingerprint != plain.fingerprint
    assert adapted.manifest["method"] == "test"
    edit(adapter / "adapter_config.json", lora_alpha=9)
    assert open_checkpoint(str(trained), adapter=str(adapter)).fingerprint != adapted.fingerprint


def test_an_adapter_of_another_base_is_refused(trained: Path, copy: Path, tmp_path: Path) -> None:
    wide = lora(tmp_path / "wide", hidden_size=48, num_attention_heads=3)
    with pytest.raises(ModelError, match=r"made for another base.*shape"):
        open_checkpoint(str(trained), adapter=str(wide))
    deep = lora(tmp_path / "deep", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"made for another base.*model\.layers\.2"):
        open_checkpoint(str(trained), adapter=str(deep))
    adapter = lora(tmp_path / "adapter", trained)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=r"made for another base.*names weights"):
        open_checkpoint(str(copy), adapter=str(adapter))
    with pytest.raises(ModelError, match="is an adapter, not a model"):
        open_checkpoint(str(adapter))
    with pytest.raises(ModelError, match="no adapter folder"):
        open_checkpoint(str(trained), adapter=str(tmp_path / "nowhere"))


def test_a_prompt_beyond_the_context_is_counted_without_a_word(
    copy: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    edit(copy / "tokenizer_config.json", model_max_length=8)
    tokenizer = open_checkpoint(str(copy)).tokenizer
    assert tokenizer.model_max_length == 8 and len(tokenizer("a b c d " * 20)["input_ids"]) > 8
    assert "sequence length" not in capsys.readouterr().err + caplog.text

"""What a trainer leaves beside the weights stays with the run: seeds of one method are found, and what they cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.conftest import Ran, World

pytestmark = pytest.mark.model


def candidate(world: World, folder: Path, seed: int, method: str = "jensun", rate: float = 1e-4) -> Path:
    """The world's model with one weight moved a little, and a manifest as the trainer writes it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(world.model, folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[seed] += 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    manifest: dict[str, Any] = {
        "method": method,
        "settings": {"learning_rate": rate, "seed": seed},
        "base": {"source": "base", "fingerprint": "b" * 32},
        "forget_set": {"name": "forget", "version": "-", "content_hash": "f" * 32},
        "seconds": 10.0 + seed,
        "steps": 70,
        "peak_memory_mib": 500 + seed,
    }
    (folder / "audit_manifest.json").write_text(json.dumps(manifest))
    return folder


def test_seeds_of_one_method_are_one_candidate(world: World, audit: Callable[..., Ran], tmp_path: Path) -> None:
    for name, seed, method in (("one", 1, "jensun"), ("two", 2, "jensun"), ("three", 3, "npo")):
        model = candidate(world, tmp_path / f"model-{name}", seed, method)
        options = world.arguments(model=str(model), out=str(tmp_path / name), family="original")
        assert audit("run", *options).code == 0
    kept = json.loads((tmp_path / "one" / "report.json").read_text())["manifest"]["trained"]["candidate"]
    assert kept["method"] == "jensun" and kept["settings"]["seed"] == 1 and kept["seconds"] == 11.0
    ran = audit("compare", "one", "two", "three", "--json")
    assert ran.code == 0, ran.err
    comparison = json.loads(ran.out)
    method, alone = comparison["candidates"]
    assert (method["label"], method["members"]) == ("jensun", ["one", "two"])
    assert (method["seconds"], method["spreads"]["peak_memory_mib"]["mean"]) == (11.5, 501.5)
    assert (alone["label"], alone["seconds"]) == ("three", 13.0)
    assert "one: its manifest says that it was made to forget other facts (ffffffffffff)" in ran.err
    options = world.arguments(model=str(tmp_path / "model-two"), base=str(world.model), out="based", family="original")
    assert audit("run", *options).code in (0, 4)
    assert "two: its manifest says" in audit("compare", "one", "two", "--json").err
    assert (
        "based: its manifest says that it was made from another base (bbbbbbbbbbbb)"
        in audit("compare", "based", "one", "--format", "csv").err
    )
    shown = audit("compare", "one", "two", "three").out
    assert "training, s" in shown and "memory, MiB" in shown and "± " in shown
    assert audit("rejudge", "one", "--judge", "rules", "--out", "again").code == 0
    assert json.loads((tmp_path / "again" / "report.json").read_text())["manifest"]["trained"]["candidate"] == kept

"""Change of the weights by layer, from the files: no network is loaded, one tensor at a time is in memory."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from audit.engines.checkpoint import Checkpoint
from audit.engines.weights import read_json
from audit.errors import ModelError
from audit.fingerprint import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS
from audit.inside.records import LayerChange, WeightChange

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d+)\.")
#: First match names the kind; of the part of a name after the layer.
_KINDS = (
    ("norm", re.compile(r"norm|(^|\.)ln_|layernorm", re.IGNORECASE)),
    ("attention", re.compile(r"attn|attention|(^|\.)(q|k|v|o|qkv)_proj", re.IGNORECASE)),
    ("mlp", re.compile(r"mlp|feed_forward|ffn|experts|(^|\.)(up|down|gate)_proj|(^|\.)fc\d?", re.IGNORECASE)),
)
_FLOATS = ("F64", "F32", "F16", "BF16")


def place_of(name: str) -> tuple[int | None, str]:
    """(layer, kind) of a tensor by its name."""
    if name.endswith((*INPUT_EMBEDDINGS, "wpe.weight", "embed_positions.weight")):
        return None, "embeddings"
    if name in OUTPUT_EMBEDDINGS:
        return None, "output"
    found = _LAYER.search(name)
    rest = name[found.end() :] if found else name
    kind = next((kind for kind, pattern in _KINDS if pattern.search(rest)), "other")
    return (int(found.group(1)) if found else None), kind


def weight_change(candidate: Checkpoint, base: Checkpoint) -> WeightChange:
    """Relative Frobenius norm of (candidate - base), by layer and kind, in float64.

    An adapter on the candidate counts: its B A is added to the weights under it, the adapter's on the base to those.
    An output embedding that one of the two files leaves out, tied to the input embedding, is left out of both.
    Raises ModelError where the two have no tensors to compare, other shapes, weights that are not floating point
    (quantized), or an adapter of which more than B A acts.
    """
    ours, theirs = _places(candidate), _places(base)
    for name in OUTPUT_EMBEDDINGS:
        if (name in ours) != (name in theirs):
            ours.pop(name, None)
            theirs.pop(name, None)
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise ModelError(f"the weights are not of one architecture: {odd[0]} is in one model alone ({len(odd)} such)")
    if not ours:
        raise ModelError(f"{candidate.source} has no safetensors weights to compare")
    same = {t.name for t in set(candidate.tensors) & set(base.tensors)}
    deltas, base_deltas = _adapter_deltas(candidate), _adapter_deltas(base)
    sums: dict[tuple[int | None, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    unchanged = 0
    for name in sorted(theirs):
        before = _load(theirs[name], name)
        if name in base_deltas:
            before = before + base_deltas[name]()
        cell = sums[place_of(name)]
        cell[1] += float((before * before).sum())
        cell[2] += before.numel()
        if name in same and name not in deltas and name not in base_deltas:
            unchanged += 1
            continue
        after = _load(ours[name], name)
        if name in deltas:
            after = after + deltas[name]()
        if after.shape != before.shape:
            raise ModelError(f"{name} has shape {tuple(after.shape)}, the base's has {tuple(before.shape)}")
        cell[0] += float(((after - before) ** 2).sum())
    order = sorted(sums, key=lambda key: (key[0] is None, key[0] or 0, key[1]))
    return WeightChange(
        layers=tuple(
            LayerChange(layer=key[0], kind=key[1], relative=_ratio(*sums[key][:2]), parameters=int(sums[key][2]))
            for key in order
        ),
        relative=_ratio(sum(cell[0] for cell in sums.values()), sum(cell[1] for cell in sums.values())),
        unchanged=unchanged,
        tensors=len(theirs),
        adapter=bool(deltas),
    )


def _ratio(change: float, size: float) -> float:
    """Square root of the ratio; of a base of zeros, the norm of the change itself."""
    return float((change / size) ** 0.5) if size else float(change**0.5)


def _places(checkpoint: Checkpoint) -> dict[str, Path]:
    """Floating-point tensor -> the file that holds it."""
    from audit.fingerprint import safetensors_header

    places: dict[str, Path] = {}
    for path in checkpoint.weight_files:
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is no safetensors file", hint="convert the weights to safetensors")
        for name, entry in safetensors_header(path)[0].items():
            if entry["dtype"] not in _FLOATS:
                raise ModelError(
                    f"{name} of {checkpoint.source} is stored as {entry['dtype']}: change cannot be measured",
                    hint="give the models as they were before quantization",
                )
            places[name] = path
    return places


def _load(path: Path, name: str) -> Any:
    """A tensor in float64."""
    import torch
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        tensor = file.get_tensor(name).to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"{name} in {path} is not finite")
    return tensor


def _adapter_deltas(checkpoint: Checkpoint) -> dict[str, Any]:
    """Tensor name -> function that gives its scale * B A in float64."""
    if checkpoint.adapter is None:
        return {}
    config = read_json(checkpoint.adapter / "adapter_config.json")
    path = checkpoint.adapter / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"{checkpoint.adapter} has no adapter_model.safetensors", hint="convert it to safetensors")
    from audit.engines.weights import tensor_shapes

    names = set(tensor_shapes(path))
    halves = {name for name in names if ".lora_A." in name or ".lora_B." in name}
    acts = [field for field in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if config.get(field)]
    if names - halves or acts:
        what = ", ".join(acts) or sorted(names - halves)[0]
        raise ModelError(f"the adapter {checkpoint.adapter} holds more than B and A ({what})", hint="merge it first")
    rank = int(config["r"])
    scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
    transposed = bool(config.get("fan_in_fan_out"))

    def delta(a: str) -> Any:
        product = scale * (_load(path, a.replace(".lora_A.", ".lora_B.")) @ _load(path, a))
        return product.T if transposed else product

    return {
        name.removeprefix("base_model.model.").split(".lora_A.")[0] + ".weight": (lambda a=name: delta(a))
        for name in halves
        if ".lora_A." in name
    }

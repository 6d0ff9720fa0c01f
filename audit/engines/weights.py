"""Finds, checks and digests the weight files of a checkpoint and of a LoRA adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.engines.filecache import cached_digests
from audit.errors import ModelError
from audit.fingerprint import (
    TensorDigest,
    TensorFileError,
    digest,
    safetensors_digests,
    state_dict_digests,
    weights_digest,
)

PICKLE_HINT = "convert them to safetensors, or add --allow-pickle if you trust where they come from"

#: The part of adapter_config.json that changes what the adapter computes.
_ADAPTER_FIELDS = (
    "peft_type",
    "r",
    "lora_alpha",
    "target_modules",
    "target_parameters",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "bias",
    "lora_bias",
    "modules_to_save",
    "fan_in_fan_out",
    "layers_to_transform",
    "layers_pattern",
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; ModelError if it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object")
    return value


def weight_files(folder: Path, *, allow_pickle: bool) -> tuple[Path, ...]:
    """The files that hold the model's weights, in the order transformers looks for them."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() and index.is_file():
        raise ModelError(
            f"{folder} holds both model.safetensors and {index.name}: which weights are meant?",
            hint="remove the one that is out of date",
        )
    if single.is_file():
        return (single,)
    if index.is_file():
        return _shards(folder, index)
    pickled, pickled_index = folder / "pytorch_model.bin", folder / "pytorch_model.bin.index.json"
    if pickled.is_file() or pickled_index.is_file():
        if not allow_pickle:
            raise ModelError(f"{folder} holds pickled weights, which can run code when loaded", hint=PICKLE_HINT)
        return (pickled,) if pickled.is_file() else _shards(folder, pickled_index)
    others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in folder.glob(pattern))
    seen = f" (found {', '.join(others[:3])}, which is not read)" if others else ""
    raise ModelError(
        f"no weights in {folder}{seen}",
        hint="a checkpoint has model.safetensors, or shards with model.safetensors.index.json",
    )


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    """The shards that an index names; every one must be there and hold the tensors the index says it holds."""
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ModelError(f"{index} has no weight_map")
    files = tuple(folder / name for name in sorted(set(placed.values())))
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(files)} weight files: {', '.join(missing[:3])}",
            hint="finish the download or the copy",
        )
    if index.name.startswith("model.safetensors"):
        held = {name for path in files for name in tensor_shapes(path)}
        absent = sorted(set(placed) - held)
        if absent:
            raise ModelError(f"{index} names {len(absent)} tensors that no shard holds, {absent[0]} first")
    return files


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape, from the header alone; of pickled files from the tensors."""
    if path.suffix == ".safetensors":
        from audit.fingerprint import safetensors_header

        try:
            header, _ = safetensors_header(path)
        except TensorFileError as error:
            raise ModelError(str(error), hint="copy or download the file again") from error
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    return {name: tuple(tensor.shape) for name, tensor in _unpickle(path).items()}


def _unpickle(path: Path) -> Mapping[str, Any]:
    """Tensors of a pickled file; torch's restricted unpickler is used even where pickles are allowed."""
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path} is not a flat table of tensors")
    return state


def file_digests(path: Path) -> tuple[TensorDigest, ...]:
    """Digests of a weight file's tensors, remembered while the file stays the same."""

    def compute(file: Path) -> tuple[TensorDigest, ...]:
        if file.suffix == ".safetensors":
            return safetensors_digests(file)
        return tuple(state_dict_digests(_unpickle(file)))

    try:
        return cached_digests(path, compute)
    except TensorFileError as error:
        raise ModelError(str(error), hint="copy or download the file again") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


# ------------------------------------------------------------------------------------------------------ adapters


def check_adapter(folder: Path, shapes: Mapping[str, tuple[int, ...]], *, allow_pickle: bool) -> Path:
    """The weight file of a LoRA adapter that fits a base with these tensor shapes (name -> shape)."""
    if not folder.is_dir():
        raise ModelError(f"no adapter folder at {folder}")
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} is no adapter: it has no adapter_config.json")
    config = read_json(folder / "adapter_config.json")
    if str(config.get("peft_type", "")).upper() != "LORA":
        raise ModelError(f"{folder} is an adapter of type {config.get('peft_type')}; only LORA is supported")
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        pickled = folder / "adapter_model.bin"
        if not pickled.is_file():
            raise ModelError(f"no weights in {folder}: adapter_model.safetensors is missing")
        if not allow_pickle:
            raise ModelError(f"{folder} holds pickled weights, which can run code when loaded", hint=PICKLE_HINT)
        path = pickled
    problems = _misfits(tensor_shapes(path), shapes, transposed=bool(config.get("fan_in_fan_out")))
    if problems:
        raise ModelError(
            f"the adapter in {folder} was made for another base: {problems[0]}"
            + (f" ({len(problems) - 1} more)" if len(problems) > 1 else ""),
            hint=f"its configuration names {config.get('base_model_name_or_path') or 'no base'}",
        )
    return path


def _misfits(
    adapter: Mapping[str, tuple[int, ...]], base: Mapping[str, tuple[int, ...]], *, transposed: bool
) -> list[str]:
    """What of an adapter does not fit: A is (rank, in), B is (out, rank), the base's weight (out, in)."""
    problems, matched = [], 0
    for name, shape in sorted(adapter.items()):
        for part, adapter_axis, base_axis in ((".lora_A.", 1, 1), (".lora_B.", 0, 0)):
            if part not in name:
                continue
            module = name.removeprefix("base_model.model.").split(part)[0]
            target = base.get(f"{module}.weight")
            axis = 1 - base_axis if transposed else base_axis
            if target is None:
                problems.append(f"the base has no {module}")
            elif len(target) == 2 and shape[adapter_axis] != target[axis]:
                problems.append(f"{module} has shape {target}, its {part.strip('.')} has {shape}")
            else:
                matched += 1
    if not problems and not matched:
        problems.append("it holds no LoRA weights")
    return problems


def adapter_digest(folder: Path, path: Path) -> str:
    """Identity of an adapter: its tensors and the part of its configuration that acts."""
    return digest("adapter", weights_digest(file_digests(path)), adapter_settings(folder))


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The part of an adapter's configuration that changes what it computes."""
    config = read_json(folder / "adapter_config.json")
    acting = {field: config.get(field) for field in _ADAPTER_FIELDS}
    if isinstance(acting["target_modules"], list):  # written from a set, in any order
        acting["target_modules"] = sorted(acting["target_modules"])
    return acting

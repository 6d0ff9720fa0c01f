"""What must hold before a loaded model may take another checkpoint's weights, and how they are taken in place.

Everything is checked before the first number is written: names, shapes and types of all tensors, and that all of them
are finite. What is refused leaves the model as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from audit.engines.checkpoint import Checkpoint, first_line
from audit.engines.weights import adapter_settings, tensor_shapes
from audit.errors import ModelError

#: Values looked at together when tensors are searched for NaN and infinity: bounds the memory that takes.
_CHUNK = 1 << 24
_ADAPTER_PART = re.compile(r"\.(lora_[A-Za-z_]+|lora_magnitude_vector)\.default(?=\.|$)")
#: Parts of adapter_config.json that must be the same in two adapters that are exchanged in place.
_PLAIN = {"use_dora": (None, False), "bias": (None, "none"), "lora_bias": (None, False), "modules_to_save": (None, [])}


class Loaded:
    """What a loaded model came from, as far as it decides what can be put in its place.

    Taken when it is loaded: the files may be gone when the next checkpoint comes.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tensors = {(t.name, t.dtype, t.shape) for t in checkpoint.tensors}
        self.adapter = None if checkpoint.adapter is None else adapter_settings(checkpoint.adapter)

    def check(self, there: Checkpoint) -> None:
        """ModelError unless the base weights of `there` have their counterpart here, tensor by tensor."""
        here = self.checkpoint
        if here.config_fingerprint != there.config_fingerprint:
            raise ModelError(f"{there.source} has another configuration than {here.source}")
        if here.tokenizer_fingerprint != there.tokenizer_fingerprint:
            raise ModelError(f"{there.source} has another tokenizer than {here.source}")
        if here.trust_remote_code != there.trust_remote_code:
            raise ModelError(f"code of its own is trusted in one of {here.source} and {there.source} only")
        files = (*there.weight_files, *([there.adapter_weights] if there.adapter_weights is not None else []))
        pickled = [path for path in files if path.suffix != ".safetensors"]
        if pickled:
            raise ModelError(f"{pickled[0]} is no safetensors file: such weights are only loaded into a new engine")
        there.check_unchanged()  # also refuses what stands for weights that are not on disk
        if self.tensors != {(t.name, t.dtype, t.shape) for t in there.tensors}:
            raise ModelError(f"{there.source} has other tensors than {here.source}")

    def same_base(self, there: Checkpoint) -> bool:
        return self.checkpoint.weights_fingerprint == there.weights_fingerprint


def check_finite(files: tuple[Path, ...]) -> None:
    """ModelError if safetensors files hold NaN or infinity: such a model must not look like one that has forgotten."""
    import torch

    with opened(files) as tensors:
        for name, (path, _) in tensors.items():
            tensor = read(tensors, name)
            if not tensor.is_floating_point():
                continue
            if not all(bool(torch.isfinite(part.float()).all()) for part in tensor.flatten().split(_CHUNK)):
                raise ModelError(f"{path} holds non-finite numbers, in {name} first")


@contextmanager
def opened(files: tuple[Path, ...]) -> Iterator[dict[str, tuple[Path, Any]]]:
    """Name -> (file, open handle) of all tensors of safetensors files; each tensor is read when it is asked for."""
    from safetensors import SafetensorError, safe_open

    with ExitStack() as stack:
        found: dict[str, tuple[Path, Any]] = {}
        for path in files:
            try:
                handle = stack.enter_context(safe_open(str(path), framework="pt"))
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
            found |= dict.fromkeys(handle.keys(), (path, handle))
        yield found


def read(tensors: Mapping[str, tuple[Path, Any]], name: str) -> Any:
    return tensors[name][1].get_tensor(name)


def take_weights(model: Any, files: tuple[Path, ...]) -> list[tuple[Any, str]]:
    """(tensor of the transformers model, name in the files) for every base weight; what is tied comes once.

    ModelError unless every weight of the model has its counterpart of the same shape in the files, and the reverse.
    """
    places: dict[tuple[Any, ...], list[tuple[str, Any]]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if _ADAPTER_PART.search(name):
            continue
        if tensor.is_meta:
            raise ModelError(f"{name} is not in memory: such a model cannot take other weights")
        key = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.dtype)
        places.setdefault(key, []).append((name.replace(".base_layer.", "."), tensor))
    shapes = {name: shape for path in files for name, shape in tensor_shapes(path).items()}
    pairs: list[tuple[Any, str]] = []
    used: set[str] = set()
    with opened(files) as tensors:
        for tied in places.values():
            present = [name for name, _ in tied if name in shapes]
            if not present:
                raise ModelError(f"{files[0].parent} has no {tied[0][0]}")
            tensor = tied[0][1]
            if shapes[present[0]] != tuple(tensor.shape):
                raise ModelError(f"{present[0]} has shape {shapes[present[0]]} and should have {tuple(tensor.shape)}")
            for other in present[1:]:
                if not read(tensors, present[0]).equal(read(tensors, other)):
                    raise ModelError(f"{present[0]} and {other} are one tensor in the model and differ in the files")
            pairs.append((tensor, present[0]))
            used.update(present)
    left = sorted(name for name in set(shapes) - used if not name.endswith("inv_freq"))
    if left:
        raise ModelError(f"{files[0].parent} holds {len(left)} weights that have no place, {left[0]} first")
    return pairs


def take_adapter(model: Any, settings: Mapping[str, Any], there: Checkpoint) -> list[tuple[Any, str]]:
    """(LoRA tensor of the model, name in the file) for each; ModelError unless the adapters are alike.

    `settings`: of the adapter that is in the model.
    """
    assert there.adapter is not None and there.adapter_weights is not None
    other = adapter_settings(there.adapter)
    differing = sorted(name for name in {*settings, *other} if settings.get(name) != other.get(name))
    if differing:
        raise ModelError(f"the adapter in {there.adapter} has another {differing[0]}")
    special = [name for name, plain in _PLAIN.items() if other.get(name) not in plain]
    if special:
        raise ModelError(f"the adapter in {there.adapter} sets {special[0]}: it is only loaded into a new engine")
    shapes = tensor_shapes(there.adapter_weights)
    pairs = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not _ADAPTER_PART.search(name):
            continue
        stored = "base_model.model." + _ADAPTER_PART.sub(r".\1", name)
        if shapes.get(stored) != tuple(tensor.shape):
            raise ModelError(f"the adapter in {there.adapter} has no {stored} of shape {tuple(tensor.shape)}")
        pairs.append((tensor, stored))
    left = sorted(set(shapes) - {name for _, name in pairs})
    if left or not pairs:
        raise ModelError(f"the adapter in {there.adapter} has tensors without a place, {(left or ['none'])[0]} first")
    return pairs


def write(pairs: list[tuple[Any, str]], files: tuple[Path, ...]) -> None:
    """Copies tensors of the files into the model's, each cast to the model's own type, as loading does."""
    import torch

    with opened(files) as tensors, torch.no_grad():
        for tensor, name in pairs:
            tensor.copy_(read(tensors, name))

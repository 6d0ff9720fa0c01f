"""A LoRA adapter merged into its model by arithmetic on files: W + scaling * B A, as peft merges it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.attacks.tensors import (
    Change,
    Tensor,
    by_rows,
    input_embedding,
    loaded,
    tensors_in,
    tensors_of,
    transformed,
    wide,
)
from audit.engines.checkpoint import Checkpoint
from audit.engines.weights import read_json
from audit.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor as Numbers

_HINT = "merge it with the library that made it (peft: merge_and_unload, save_pretrained) and give the merged folder"
#: Settings that make an adapter more than W + scaling * B A.
_BEYOND = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "alora_invocation_tokens",
    "target_parameters",
    "layer_replication",
    "trainable_token_indices",
    "megatron_config",
    "monteclora_config",
    "velora_config",
)
#: Starts that leave the model's own weights as they are; the others (PiSSA, OLoRA, CorDA, LoftQ …) change them.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


def merge_lora(source: Checkpoint, out: Path) -> float | None:
    """Save `source` with its adapter merged at `out`, which must not exist; the relative size of the change.

    Knows plain and rank-stabilised scaling, rank and alpha patterns, fan_in_fan_out, embeddings, biases and modules
    trained as a whole. Computed in float32, stored in the model's precision. Raises ModelError for adapters that are
    more than that (DoRA …), and for one on an embedding that is also the output layer.
    """
    said = {"method": "merged", "settings": {"adapter": str(source.adapter)}}
    return transformed(source, out, merging(source), said)


def merging(source: Checkpoint) -> Change:
    """What the adapter of `source` does with each of its tensors. Raises ModelError if it cannot be merged."""
    assert source.adapter is not None
    config = read_json(source.adapter / "adapter_config.json")
    _check_plain(source, config)
    file = source.adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"no adapter_model.safetensors in {source.adapter}", hint="save the adapter as safetensors")
    tensors = tensors_of(source)
    pairs: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    for name, tensor in tensors_in(file).items():
        own = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        found = re.fullmatch(r"(.+)\.lora_(embedding_)?([AB])(\.weight)?", own)
        target = f"{found[1]}.weight" if found else own
        if target not in tensors or not tensors[target].floating or not tensor.floating or ".lora_" in target:
            raise ModelError(f"the adapter {source.adapter} holds {name}, which cannot be merged", hint=_HINT)
        if found:
            pairs.setdefault(target, {})[f"{found[2] or ''}{found[3]}"] = tensor
        else:
            replaced[target] = tensor
    scales = {target: _scale(config, target.removesuffix(".weight"), parts) for target, parts in pairs.items()}
    for target, parts in pairs.items():
        _check_fits(source, target, tensors[target], parts, turned=bool(config.get("fan_in_fan_out")))
    for target, tensor in replaced.items():
        if tensor.shape != tensors[target].shape:
            raise ModelError(f"the adapter {source.adapter} holds another {target} than the model has", hint=_HINT)
    _check_untied(source, tensors, {*pairs, *replaced})

    def change(name: str, tensor: Tensor) -> Any:
        if name not in replaced and name not in pairs:
            return None

        def merge(old: Numbers) -> Numbers:  # peft saves the embedding that an adapter lies on beside it
            start = loaded(replaced[name]).to(old.dtype) if name in replaced else old
            if name not in pairs:
                return start
            return _added(start, pairs[name], scales[name], turned=bool(config.get("fan_in_fan_out")))

        return merge

    return change


def _added(old: Numbers, parts: Mapping[str, Tensor], scale: float, *, turned: bool) -> Numbers:
    """old + scale * B A. Of embeddings, and of layers that lie as (in, out), its transpose."""
    embedding = "embedding_A" in parts
    a, b = (wide(loaded(parts[f"embedding_{side}" if embedding else side])) for side in "AB")
    left, right = (a.T, b.T) if embedding or turned else (b, a)  # (out, r) (r, in), or (in, r) (r, out)
    kind = wide(old[:1]).dtype
    left, right = left.to(kind), right.to(kind)
    first = 0

    def add(rows: Numbers) -> Numbers:
        nonlocal first
        delta = left[first : first + len(rows)] @ right
        first += len(rows)
        return rows + scale * delta

    return by_rows(old, add)


def _scale(config: Mapping[str, Any], module: str, parts: Mapping[str, Tensor]) -> float:
    """alpha / r; rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732) alpha / sqrt(r). r is the rank of A itself."""
    alphas = config.get("alpha_pattern") or {}
    key = next((key for key in alphas if re.match(rf"(.*\.)?({key})$", module)), None)
    alpha = float(alphas[key] if key is not None else config.get("lora_alpha", 8))
    first = next(iter(parts.values()))
    rank = parts["A"].shape[0] if "A" in parts else parts.get("embedding_A", first).shape[0]
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _check_plain(source: Checkpoint, config: Mapping[str, Any]) -> None:
    beyond = [name for name in _BEYOND if config.get(name)]
    start = config.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        beyond.append(f"init_lora_weights={start}")
    if beyond:
        raise ModelError(
            f"the adapter {source.adapter} is no plain LoRA adapter ({', '.join(beyond)}): it is not merged here",
            hint=_HINT,
        )


def _check_fits(source: Checkpoint, target: str, whole: Tensor, parts: Mapping[str, Tensor], *, turned: bool) -> None:
    embedding = "embedding_A" in parts
    names = ("embedding_A", "embedding_B") if embedding else ("A", "B")
    if set(parts) != set(names):
        raise ModelError(f"the adapter {source.adapter} holds half of what changes {target}", hint=_HINT)
    a, b = (parts[name].shape for name in names)
    if len(a) == len(b) == len(whole.shape) == 2 and a[0] == b[1]:
        wanted = (a[1], b[0]) if embedding or turned else (b[0], a[1])
        if wanted == whole.shape:
            return
    raise ModelError(
        f"the adapter {source.adapter} does not fit {target}: A {list(a)}, B {list(b)}, weight {list(whole.shape)}",
        hint=_HINT,
    )


def _check_untied(source: Checkpoint, tensors: Mapping[str, Tensor], changed: set[str]) -> None:
    """An adapter on one of two tied embeddings unties them: the merged folder could not say so."""
    embedding = input_embedding(tensors)
    configs = (source.config, source.config.get("text_config") or {})
    said = [config["tie_word_embeddings"] for config in configs if "tie_word_embeddings" in config]
    heads = {name for name in tensors if name.split(".")[-2:-1] in (["lm_head"], ["embed_out"])}
    tied = said[0] if said else not heads
    touched = sorted(changed & ({embedding} | heads))
    if tied and touched:
        raise ModelError(
            f"the adapter {source.adapter} changes {touched[0]}, which the model uses both to read and to write",
            hint=_HINT,
        )

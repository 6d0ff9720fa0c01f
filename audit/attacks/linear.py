"""Which tensors of a checkpoint are weights of linear layers, told from names and shapes: no network is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from audit.attacks.tensors import Tensor

if TYPE_CHECKING:
    import torch

Part = Literal["linear", "embedding", "other"]

_OUTPUTS = ("lm_head", "embed_out", "output")
_EMBEDDINGS = ("wte", "wpe")
#: Small linear maps that choose experts: kept whole wherever mixtures of experts are quantized.
_ROUTERS = ("router", "gate", "shared_expert_gate")
#: Layers of transformers' Conv1D class hold their weight as (in, out).
_CONV1D_TYPES = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
_CONV1D_LAYERS = ("c_attn", "c_proj", "c_fc", "q_attn")
#: Architectures whose experts lie as (expert, in, out); elsewhere (expert, out, in).
_EXPERTS_TURNED = ("gpt_oss", "llama4", "llama4_text", "aria", "aria_text", "openai_privacy_filter")


def part_of(name: str, tensor: Tensor) -> Part:
    """`linear`: a matrix (out, in) of a linear layer, or the stacked matrices of a layer's experts (three axes).

    `embedding`: an input, position or output embedding. `other`: norms, biases, routers, convolutions, whatever is no
    floating-point matrix.
    """
    if not tensor.floating or len(tensor.shape) not in (2, 3) or 0 in tensor.shape:
        return "other"
    path = name.split(".")
    module = path[-2] if path[-1] == "weight" and len(path) > 1 else ""
    if len(tensor.shape) == 3:
        experts = "experts" in path and not path[-1].endswith("bias")
        return "linear" if experts else "other"
    if not module or "bias" in module or module in _ROUTERS:
        return "other"
    if module in _EMBEDDINGS or "embed" in module or (module in _OUTPUTS and _last_layer(path)):
        return "embedding"
    return "linear"


def _last_layer(path: list[str]) -> bool:
    """No layer of a stack: `output` also names the output projection of an attention block."""
    return not any(step.isdigit() for step in path)


def turned(name: str, tensor: Tensor, config: Mapping[str, Any]) -> bool:
    """The matrix lies as (in, out), the inputs before the outputs."""
    kind = str(config.get("model_type", ""))
    if len(tensor.shape) == 3:
        return kind in _EXPERTS_TURNED
    return kind in _CONV1D_TYPES and name.split(".")[-2] in _CONV1D_LAYERS


def as_rows(matrix: torch.Tensor, *, turned: bool) -> torch.Tensor:
    """Rows over the inputs of a linear layer, shape (outputs, inputs); of experts one after the other."""
    upright = matrix.transpose(-1, -2) if turned else matrix
    return upright.reshape(-1, upright.shape[-1])


def from_rows(rows: torch.Tensor, like: torch.Tensor, *, turned: bool) -> torch.Tensor:
    """The reverse of `as_rows`."""
    if not turned:
        return rows.reshape(like.shape)
    *before, inputs, outputs = like.shape
    return rows.reshape(*before, outputs, inputs).transpose(-1, -2).contiguous()

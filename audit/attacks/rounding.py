"""Weights as they are after quantization: rounded to few levels and turned back into ordinary numbers.

Plain rounding to nearest is ours and runs everywhere; bitsandbytes and torchao round with their own code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from audit.attacks.tensors import by_rows, need_torch
from audit.errors import ConfigError
from audit.types import Record

if TYPE_CHECKING:
    from torch import Tensor

By = Literal["rtn", "torchao", "bitsandbytes"]
Group = int | Literal["row", "tensor"]
#: Rows over the inputs of a layer, (outputs, inputs), to the same rounded, in the same precision.
Rounding = Callable[["Tensor"], "Tensor"]

#: How a library's kernels say that they cannot: each in its own way.
_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, ImportError, KeyError, OSError, AssertionError)
_EXTRA = 'pip install "unlearning-audit[quantize]"'
_ANYWHERE = "`quantize:int4` (plain rounding to nearest) runs everywhere"


class Scheme(Record):
    """How weights are rounded."""

    code: str
    """int2 … int8, nf4, fp4, bf16 or fp16."""
    bits: int
    by: By = "rtn"
    group: Group = "row"
    """Consecutive weights of one row that share a scale; `row`, or `tensor`: all of them."""
    symmetric: bool = True
    everything: bool = False
    """Embeddings and the output layer too."""


def rounding(scheme: Scheme, devices: Sequence[str]) -> Rounding:
    """The function that rounds as `scheme` says; of a library on the first of `devices` that it can use.

    Raises ConfigError, with the alternative, where the library is missing or can use none of them: it is tried out on
    a small matrix.
    """
    if scheme.code in ("bf16", "fp16"):
        return lambda rows: _cast(rows, "bfloat16" if scheme.code == "bf16" else "float16")
    if scheme.by == "rtn":
        return lambda rows: nearest(rows, scheme.bits, scheme.group, symmetric=scheme.symmetric)
    torch = need_torch()
    need_library(scheme.by)
    made = _torchao(scheme) if scheme.by == "torchao" else _bitsandbytes(scheme)
    refused = []
    for device in dict.fromkeys(devices):
        try:
            columns = scheme.group if isinstance(scheme.group, int) else 64
            out = made(torch.linspace(-1, 1, 4 * columns).reshape(4, columns), device)
        except _FAILURES as error:
            refused.append(f"{device}: {(str(error).strip() or repr(error)).splitlines()[0]}")
            continue
        if out.shape == (4, columns) and bool(torch.isfinite(out).all()):
            return lambda rows, device=device: made(rows, device)  # type: ignore[misc]
        refused.append(f"{device}: what comes back are no weights")
    raise ConfigError(
        f"{scheme.by} cannot round to {scheme.code} on this machine ({'; '.join(refused)})", hint=_ANYWHERE
    )


def need_library(by: By) -> str:
    """Name and version of a quantizer's library. Raises ConfigError if it cannot be used."""
    try:
        importlib.import_module(by)
        return f"{by} {version(by)}"
    except (ImportError, PackageNotFoundError) as error:
        raise ConfigError(f"{by} is not installed ({error})", hint=f"{_EXTRA}; {_ANYWHERE}") from error
    except (OSError, RuntimeError, AttributeError) as error:  # a binary made for another torch or another driver
        raise ConfigError(f"{by} cannot be loaded: {error}", hint=_ANYWHERE) from error


# -------------------------------------------------------------------------------------------------- plain rounding


def nearest(rows: Tensor, bits: int, group: Group, *, symmetric: bool) -> Tensor:
    """Rounding to nearest per group of consecutive weights of a row; the last group of a row may be shorter.

    rows: (outputs, inputs). Symmetric, absmax (Dettmers et al. 2022, arXiv:2208.07339, section 2): with
    m = 2^(bits-1) - 1 and s = max|w| / m, w becomes s * round(w / s); 2m + 1 levels, zero among them. Asymmetric, with
    a zero point (the rounding that GPTQ, arXiv:2210.17323, and AWQ, arXiv:2306.00978, start from): with
    m = 2^bits - 1, low = min(w, 0), high = max(w, 0), s = (high - low) / m and z = round(-low / s), w becomes
    s * (clip(round(w / s) + z, 0, m) - z); 2^bits levels, zero among them. No weight moves by more than s / 2.
    Computed in float32 (float64 where the weights are). Halves go to the even level. Weights that are no numbers spoil
    their group, as they would in use.
    """
    torch = need_torch()
    if group == "tensor":
        step, zero = _steps(rows.amin().reshape(1), rows.amax().reshape(1), bits, symmetric)
        return by_rows(rows, lambda part: _levels(part, step.to(part), zero.to(part), bits, symmetric))

    def grouped(part: Tensor) -> Tensor:
        columns = part.shape[-1]
        size = columns if group == "row" else min(int(group), columns)
        whole = columns - columns % size
        pieces = [part[:, :whole].reshape(-1, size), part[:, whole:]]
        done = []
        for piece in pieces:
            if piece.numel():
                step, zero = _steps(piece.amin(-1, keepdim=True), piece.amax(-1, keepdim=True), bits, symmetric)
                piece = _levels(piece, step, zero, bits, symmetric)
            done.append(piece)
        return torch.cat([done[0].reshape(len(part), whole), done[1]], dim=-1)

    return by_rows(rows, grouped)


def _steps(low: Any, high: Any, bits: int, symmetric: bool) -> tuple[Any, Any]:
    """Step and zero point of groups with these ends. A group of zeros has step 1."""
    torch = need_torch()
    low, high = (end if end.dtype == torch.float64 else end.float() for end in (low, high))
    if symmetric:
        step = torch.maximum(low.abs(), high.abs()) / (2 ** (bits - 1) - 1)
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        step = (high - low) / (2**bits - 1)
    step = torch.where(step == 0, torch.ones_like(step), step)
    return step, torch.zeros_like(step) if symmetric else torch.round(-low / step)


def _levels(weights: Any, step: Any, zero: Any, bits: int, symmetric: bool) -> Any:
    torch = need_torch()
    top = 2 ** (bits - 1) - 1
    ends = (-top, top) if symmetric else (0, 2**bits - 1)
    return ((torch.round(weights / step) + zero).clamp(*ends) - zero) * step


def _cast(rows: Tensor, name: str) -> Tensor:
    """As loading in another precision gives them."""
    torch = need_torch()
    return rows.to(getattr(torch, name)).to(rows.dtype)


# ------------------------------------------------------------------------------------------------------- libraries


def _bitsandbytes(scheme: Scheme) -> Callable[[Tensor, str], Tensor]:
    """nf4 and fp4 in blocks of the flattened weight (scales in float32, not quantized again); int8 by rows, as LLM.int8
    holds its weights: rounded from float16."""
    functional = importlib.import_module("bitsandbytes.functional")
    torch = need_torch()

    def blocks(rows: Tensor, device: str) -> Tensor:
        held = rows.to(device).contiguous()
        if held.dtype == torch.float64:
            held = held.float()
        packed, state = functional.quantize_4bit(held, blocksize=scheme.group, quant_type=scheme.code)
        return functional.dequantize_4bit(packed, state).to(rows)

    def vectors(rows: Tensor, device: str) -> Tensor:
        packed, scales, _ = functional.int8_vectorwise_quant(rows.to(device).half())
        return functional.int8_vectorwise_dequant(packed, scales).to(rows)

    return vectors if scheme.code == "int8" else blocks


def _torchao(scheme: Scheme) -> Callable[[Tensor, str], Tensor]:
    """Weight-only integers: Int8WeightOnlyConfig for int8 by symmetric rows, else IntxWeightOnlyConfig."""
    torch = need_torch()
    quantization = importlib.import_module("torchao.quantization")
    granularity = importlib.import_module("torchao.quantization.granularity")
    mappings = importlib.import_module("torchao.quantization.quant_primitives").MappingType
    if scheme.bits == 8 and scheme.group == "row" and scheme.symmetric:
        settings = quantization.Int8WeightOnlyConfig()
    else:
        settings = quantization.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{scheme.bits}"),
            granularity=granularity.PerAxis(0) if scheme.group == "row" else granularity.PerGroup(scheme.group),
            mapping_type=mappings.SYMMETRIC if scheme.symmetric else mappings.ASYMMETRIC,
        )

    def linear(rows: Tensor, device: str) -> Tensor:
        outputs, inputs = rows.shape
        layer = torch.nn.Linear(inputs, outputs, bias=False, device="meta", dtype=rows.dtype)
        layer.weight = torch.nn.Parameter(rows.to(device).contiguous(), requires_grad=False)
        quantization.quantize_(layer, settings)
        return layer.weight.dequantize().to(rows)

    return linear

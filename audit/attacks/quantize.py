"""The same model with weights of few bits, turned back into ordinary weights, so that every engine serves them.

    --attack quantize:int8
    --attack 'quantize:int4?group=32&symmetric=yes'
    --attack 'quantize:int4?by=torchao'
    --attack quantize:nf4                              # bitsandbytes

Rounded are the weights of linear layers, experts included, as quantizers do: LLM.int8 (arXiv:2208.07339), GPTQ
(arXiv:2210.17323), AWQ (arXiv:2306.00978), QLoRA's nf4 (arXiv:2305.14314) and torchao all leave embeddings, the output
layer, norms and biases alone; routers of experts are left too. `all=yes` rounds embeddings and the output layer too.
bf16 and fp16 are what loading in that precision does: every floating-point number is rounded.

Defaults are practice: int8 has one symmetric scale a row (LLM.int8, torchao's int8 weight-only); fewer bits have groups
of 128 inputs with a zero point (group size of GPTQ, AWQ and torchao; the zero point of AWQ and torchao's 4 bits); nf4
and fp4 have blocks of 64 (bitsandbytes). GPTQ and AWQ place the levels with the help of text; plain rounding is their
starting point and errs more. Activations are not quantized.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from audit.attacks.altering import FileAttack, check_models, check_options, nearest_names, yes
from audit.attacks.contract import Attack, AttackContext
from audit.attacks.linear import as_rows, from_rows, part_of, turned
from audit.attacks.rounding import By, Group, Rounding, Scheme, need_library, rounding
from audit.attacks.tensors import Change, Tensor, tensors_of, transformed
from audit.engines.checkpoint import Checkpoint
from audit.errors import ConfigError, ModelError

#: Of this code: raise it when a change here or in rounding.py gives other weights.
_VERSION = 1
_BITS = {f"int{bits}": bits for bits in range(8, 1, -1)} | {"bf16": 16, "fp16": 16, "nf4": 4, "fp4": 4}
_OPTIONS = ("by", "group", "symmetric", "all")
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}
_BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)


def attacks(argument: str, options: Mapping[str, str], ctx: AttackContext) -> list[Attack]:
    """`quantize:CODE[?by=…&group=…&symmetric=…&all=…]`, for the candidate, the base and the never-knew control.

    CODE: int8 … int2, bf16, fp16, nf4, fp4. by: rtn (plain rounding, the default), torchao, bitsandbytes (the default
    of nf4 and fp4). group: inputs that share a scale, a power of two, `row` or `tensor`. symmetric, all: yes or no.
    Raises ConfigError for settings that are none or that no device here can carry out, ModelError for models whose
    weights cannot be rounded.
    """
    scheme = scheme_of(argument, options)
    devices = ("cpu", ctx.device)
    act = rounding(scheme, devices)
    check_models(ctx, ("candidate", "base", "never_knew"))
    models = [model for role, model in ctx.checkpoints.items() if role in ctx.config.arms]
    for model in models:
        _check_shapes(scheme, model)
    recipe: dict[str, Any] = {"code": scheme.code, "bits": scheme.bits, "by": scheme.by}
    if scheme.code not in _PRECISIONS:
        recipe |= {"group": scheme.group, "symmetric": scheme.symmetric, "all": scheme.everything}
    if scheme.by != "rtn":
        recipe["library"] = need_library(scheme.by)
    name = _name(scheme)

    def write(source: Checkpoint, out: Path) -> dict[str, Any]:
        said = {"method": "quantization", "settings": recipe}
        error = transformed(source, out, change(scheme, source.config, act), said)
        return {"error": None if error is None else round(error, 6)}

    candidate = ctx.checkpoints.get("candidate")
    held = candidate.dtype if candidate is not None else ""
    same = held == _PRECISIONS.get(scheme.code)
    warnings = (f"{name} changes nothing: the candidate's weights are {held} already",) if same else ()
    return [FileAttack(name=name, kind="quantize", recipe=recipe, write=write, version=_VERSION, warnings=warnings)]


def scheme_of(argument: str, options: Mapping[str, str]) -> Scheme:
    """The settings that a spec means. Raises ConfigError."""
    if argument not in _BITS:
        said = f"no quantization '{argument}'" if argument else "quantize needs to know to what"
        raise ConfigError(said, hint=nearest_names(argument, tuple(_BITS)))
    spec = f"quantize:{argument}"
    check_options(spec, options, _OPTIONS)
    bits = _BITS[argument]
    if argument in _PRECISIONS:
        if options:
            raise ConfigError(f"{spec} has no options: every number is rounded to {_PRECISIONS[argument]}")
        return Scheme(code=argument, bits=bits, by="rtn", everything=True)
    by = _by(spec, options.get("by", "bitsandbytes" if argument in ("nf4", "fp4") else "rtn"))
    everything = yes(spec, "all", options.get("all", "no"))
    if argument in ("nf4", "fp4"):
        if by != "bitsandbytes":
            raise ConfigError(f"{spec} is bitsandbytes' own: by={by} has int2 to int8", hint=f"quantize:int4?by={by}")
        _fixed(spec, options, "symmetric")
        group = _group(spec, options.get("group", "64"))
        if group not in _BLOCKS:
            raise ConfigError(f"{spec}: bitsandbytes has blocks of {', '.join(map(str, _BLOCKS))}, not {group}")
        return Scheme(code=argument, bits=bits, by=by, group=group, everything=everything)
    if by == "bitsandbytes":
        if argument != "int8":
            raise ConfigError(f"{spec}: bitsandbytes rounds to int8, nf4 and fp4", hint=f"quantize:nf4, or {spec}")
        _fixed(spec, options, "group")
        _fixed(spec, options, "symmetric")
    group = _group(spec, options.get("group", "row" if bits == 8 else "128"))
    if by == "torchao" and group == "tensor":
        raise ConfigError(f"{spec}: torchao has groups and rows, no scale for a whole tensor", hint=f"{spec}?by=rtn")
    symmetric = yes(spec, "symmetric", options.get("symmetric", "yes" if bits == 8 else "no"))
    return Scheme(code=argument, bits=bits, by=by, group=group, symmetric=symmetric, everything=everything)


def change(scheme: Scheme, config: Mapping[str, Any], act: Rounding) -> Change:
    """What is done with each tensor of a model with this config.json."""

    def of(name: str, tensor: Tensor) -> Any:
        if scheme.code in _PRECISIONS:
            return act
        if not _rounded(scheme, name, tensor):
            return None
        around = turned(name, tensor, config)
        return lambda matrix: from_rows(act(as_rows(matrix, turned=around)), matrix, turned=around)

    return of


def _rounded(scheme: Scheme, name: str, tensor: Tensor) -> bool:
    part = part_of(name, tensor)
    return part == "linear" or (scheme.everything and part == "embedding")


def _check_shapes(scheme: Scheme, model: Checkpoint) -> None:
    tensors = tensors_of(model)
    if scheme.code in _PRECISIONS:
        return
    chosen = {name: tensor for name, tensor in tensors.items() if _rounded(scheme, name, tensor)}
    if not chosen:
        raise ModelError(f"{model.source} has no weights of linear layers that are known by name: nothing to round")
    if scheme.by != "torchao" or not isinstance(scheme.group, int):
        return
    for name, tensor in chosen.items():
        inputs = tensor.shape[-2 if turned(name, tensor, model.config) else -1]
        if inputs % scheme.group:
            raise ConfigError(
                f"torchao cannot round {model.source} in groups of {scheme.group}: {name} has {inputs} inputs",
                hint=f"a group that divides {inputs}, group=row, or by=rtn, whose last group may be shorter",
            )


def _by(spec: str, text: str) -> By:
    for known in get_args(By):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"{spec}: there is no quantizer '{text}'", hint=nearest_names(text, get_args(By)))


def _group(spec: str, text: str) -> Group:
    if text == "row":
        return "row"
    if text == "tensor":
        return "tensor"
    if not text.isascii() or not text.isdigit() or int(text) < 2 or int(text) & (int(text) - 1):
        raise ConfigError(f"{spec}: group is a power of two, row or tensor, not '{text}'", hint=f"{spec}?group=64")
    return int(text)


def _fixed(spec: str, options: Mapping[str, str], option: str) -> None:
    if option in options:
        raise ConfigError(f"{spec} by bitsandbytes has no option '{option}': its scheme is fixed")


def _name(scheme: Scheme) -> str:
    """quantize:int4,g=32,sym: the settings that are not the default."""
    usual = scheme_of(scheme.code, {})
    parts = [scheme.code]
    if scheme.group != usual.group:
        parts.append(f"g={scheme.group}")
    if scheme.symmetric != usual.symmetric:
        parts.append("sym" if scheme.symmetric else "asym")
    if scheme.everything != usual.everything:
        parts.append("all")
    if scheme.by != usual.by:
        parts.append(f"by={scheme.by}")
    return f"quantize:{','.join(parts)}"

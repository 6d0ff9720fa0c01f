"""Small changes of the weights that no knowledge goes into: they find unlearning that stands on a knife's edge.

--attack noise:0.05 --attack 'noise:0.1?seeds=3'
--attack prune:0.3
--attack interpolate:0.3          # towards the base: puts knowledge back, shown apart
--attack merge                    # a LoRA candidate with its adapter merged
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.attacks.altering import ALL_ARMS, FileAttack, check_models, check_options, number
from audit.attacks.contract import Altered, Attack, AttackContext
from audit.attacks.interpolate import interpolated, mixable
from audit.attacks.linear import part_of
from audit.attacks.lora import merge_lora
from audit.attacks.lora import merging as _merging
from audit.attacks.tensors import CHUNK, Tensor, by_rows, need_torch, tensors_of, transformed
from audit.engines.checkpoint import Checkpoint
from audit.errors import ConfigError, ModelError
from audit.fingerprint import seed_from
from audit.types import Role

if TYPE_CHECKING:
    from torch import Tensor as Numbers

#: Of the code behind each kind: raise it when a change gives other weights.
_NOISE, _PRUNE, _INTERPOLATE, _MERGE = 1, 1, 1, 1


# ------------------------------------------------------------------------------------------------------------- noise


def noises(argument: str, options: Mapping[str, str], ctx: AttackContext) -> list[Attack]:
    """`noise:SIZE[?seeds=N]`: to every floating-point tensor W of two axes or more, SIZE * rms(W) * N(0, 1) is added.

    rms(W) is the root mean square of all of W, so that SIZE is about ‖change‖ / ‖W‖ of each tensor. One attack a seed:
    `noise:0.05`, `noise:0.05#1` … The draws come from the seed and the tensor's name, whatever shard it is in.
    Raises ConfigError for a size outside (0, 10], or seeds outside 1 to 100.
    """
    spec = f"noise:{argument}"
    size = number("noise", argument, "the size", 0, 10, "noise:0.05 adds 5% of a tensor's size")
    check_options(spec, options, ("seeds",))
    seeds = number(spec, options.get("seeds", "1"), "seeds", 0, 100, f"{spec}?seeds=3")
    if seeds != int(seeds):
        raise ConfigError(f"{spec}: seeds is a whole number, not '{options['seeds']}'", hint=f"{spec}?seeds=3")
    check_models(ctx, ALL_ARMS)
    made: list[Attack] = []
    for index in range(int(seeds)):
        recipe = {"size": size, "seed": ctx.seed + index}
        label = f"noise:{size:g}" + (f"#{index}" if index else "")

        def write(source: Checkpoint, out: Path, recipe: dict[str, Any] = recipe) -> dict[str, Any]:
            def change(name: str, tensor: Tensor) -> Any:
                if len(tensor.shape) < 2 or 0 in tensor.shape:
                    return None
                drawn_from = seed_from("noise", recipe["seed"], name)
                return lambda old: noised(old, size, drawn_from)

            return _error(transformed(source, out, change, {"method": "noise", "settings": recipe}))

        made.append(FileAttack(name=label, kind="noise", recipe=recipe, write=write, version=_NOISE))
    return made


def noised(weights: Numbers, size: float, seed: int) -> Numbers:
    """weights + size * rms(weights) * N(0, 1), in the same precision; the same draws for the same seed and shape."""
    torch = need_torch()
    flat = weights.reshape(-1)
    squares = sum(float(part.double().square().sum()) for part in flat.split(CHUNK))
    scale = size * (squares / flat.numel()) ** 0.5
    generator = torch.Generator().manual_seed(seed)

    def add(rows: Numbers) -> Numbers:
        return rows + scale * torch.randn(rows.shape, generator=generator, dtype=torch.float32)

    return by_rows(weights.reshape(-1, weights.shape[-1]), add).reshape(weights.shape)


# ----------------------------------------------------------------------------------------------------------- pruning


def prunings(argument: str, options: Mapping[str, str], ctx: AttackContext) -> list[Attack]:
    """`prune:SHARE`: the SHARE of each linear weight's numbers that are smallest in magnitude become zero.

    Unstructured magnitude pruning (Han et al. 2015, arXiv:1506.02626), tensor by tensor; embeddings, the output layer,
    norms, biases and routers stay. Of equal magnitudes the first go. Raises ConfigError for a share outside (0, 1).
    """
    share = _share("prune", argument, "prune:0.3 sets 30% of each linear weight to zero")
    check_options(f"prune:{argument}", options, ())
    check_models(ctx, ALL_ARMS)
    for role, model in ctx.checkpoints.items():
        if role in ctx.config.arms and not any(part_of(*item) == "linear" for item in tensors_of(model).items()):
            raise ModelError(f"{model.source} has no weights of linear layers that are known by name: nothing to prune")
    recipe = {"share": share}

    def write(source: Checkpoint, out: Path) -> dict[str, Any]:
        def change(name: str, tensor: Tensor) -> Any:
            return (lambda old: pruned(old, share)) if part_of(name, tensor) == "linear" else None

        return _error(transformed(source, out, change, {"method": "pruning", "settings": recipe}))

    return [FileAttack(name=f"prune:{share:g}", kind="prune", recipe=recipe, write=write, version=_PRUNE)]


def pruned(weights: Numbers, share: float) -> Numbers:
    """The round(share * n) numbers of smallest magnitude are zero. Numbers that are none (NaN) count as the largest."""
    torch = need_torch()
    flat = weights.reshape(-1)
    count = round(share * flat.numel())
    if count == 0:
        return weights.clone()
    sizes = flat.abs()
    sizes = torch.where(torch.isnan(sizes), torch.full_like(sizes, float("inf")), sizes)
    last = sizes.float().kthvalue(count).values if sizes.dtype != torch.float64 else sizes.kthvalue(count).values
    gone = sizes < last
    ties = (sizes == last).nonzero().reshape(-1)
    gone[ties[: count - int(gone.sum())]] = True
    return flat.masked_fill(gone, 0).reshape(weights.shape)


# ----------------------------------------------------------------------------------------------- towards the base


def interpolations(argument: str, options: Mapping[str, str], ctx: AttackContext) -> list[Attack]:
    """`interpolate:SHARE`: (1 - SHARE) * candidate + SHARE * base, tensor by tensor. The candidate alone.

    Raises ConfigError without a base and for a share outside (0, 1); ModelError for models that cannot be mixed.
    """
    share = _share("interpolate", argument, "interpolate:0.3 goes 30% of the way to the base")
    check_options(f"interpolate:{argument}", options, ())
    base = ctx.checkpoints.get("base")
    if base is None:
        raise ConfigError("interpolate goes towards the base, and this run has none", hint="--base MODEL")
    if base.adapter is not None:
        raise ConfigError("interpolate needs a base without an adapter", hint="merge the base's adapter first")
    candidate = ctx.checkpoints.get("candidate")
    if candidate is not None:
        mixable(candidate, base)
    recipe = {"share": share}

    def write(source: Checkpoint, out: Path) -> None:
        interpolated(source.path, base.path, share, out, trust_remote_code=source.trust_remote_code)

    return [
        FileAttack(
            name=f"interpolate:{share:g}",
            kind="interpolate",
            recipe=recipe,
            write=write,
            version=_INTERPOLATE,
            arms=("candidate",),
            puts_back=True,
            also=(base.fingerprint,),
        )
    ]


# ---------------------------------------------------------------------------------------------------------- merging


@dataclass
class Merge:
    """The candidate with its LoRA adapter merged, beside the candidate as it was asked: adapter unmerged."""

    name: str = "merge"
    kind: str = "merge"
    arms: tuple[Role, ...] = ("candidate",)
    puts_back: bool = False
    facts: frozenset[str] | None = None
    warnings: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()

    def apply(self, source: Checkpoint, arm: Role, ctx: AttackContext) -> Iterator[Altered]:
        """`source` may be the merged checkpoint already: what is merged is the run's own. Raises ModelError."""
        yield merged(ctx.checkpoints[arm], ctx)


def merging(argument: str, options: Mapping[str, str], ctx: AttackContext) -> list[Attack]:
    """`merge`: a candidate given as base and LoRA adapter, with the adapter merged into the weights.

    Raises ConfigError if the candidate has no adapter, ModelError if its adapter cannot be merged.
    """
    if argument:
        raise ConfigError(f"merge takes nothing after it, not '{argument}'", hint="--attack merge")
    check_options("merge", options, ())
    candidate = ctx.checkpoints.get("candidate")
    if candidate is None or candidate.adapter is None:
        raise ConfigError(
            "merge is for a candidate with a LoRA adapter, and this one has none", hint="--adapter FOLDER"
        )
    _merging(candidate)
    return [Merge()]


def merged(source: Checkpoint, ctx: AttackContext) -> Altered:
    """`source`, which has a LoRA adapter, with the adapter merged into its weights: made once, kept in the workshop."""
    recipe = {"attack": "merge", "kind": "merge"}

    def write(out: Path) -> dict[str, Any]:
        return _error(merge_lora(source, out))

    return ctx.workshop.altered(source, recipe, write, version=_MERGE)


# ---------------------------------------------------------------------------------------------------------- helpers


def _share(attack: str, text: str, example: str) -> float:
    value = number(attack, text, "the share", 0, 1, example)
    if value == 1:
        raise ConfigError(f"{attack}: a share of 1 leaves nothing of the model", hint=example)
    return value


def _error(error: float | None) -> dict[str, Any]:
    return {"error": None if error is None else round(error, 6)}

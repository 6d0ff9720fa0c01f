"""Weights between a candidate and its base: (1 - share) * candidate + share * base, tensor by tensor.

interpolated("candidate", "base", 0.3, Path("out"))
interpolated("base", "base", 0.3, Path("out"), adapter=Path("adapter"))     # an adapter again, scaled

No network is loaded: tensors go from file to file, a few megabytes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audit.attacks.tensors import (
    Tensor,
    as_bytes,
    copy_files,
    equal,
    input_embedding,
    need_torch,
    numbers,
    raw,
    rewrite,
    tensors_in,
    tensors_of,
    whole,
    write_json,
)
from audit.engines.checkpoint import MANIFEST, Checkpoint, open_checkpoint
from audit.errors import ConfigError, ModelError
from audit.fingerprint import OUTPUT_EMBEDDINGS

if TYPE_CHECKING:
    import torch

_DEQUANTIZE = "give the models as they were before quantization"

#: What a tensor is mixed with: the base's tensor, zeros, or nothing.
_Other = Tensor | Literal["zero", "itself"]


def interpolated(
    candidate: str | Path,
    base: str | Path,
    share: float,
    out: Path,
    *,
    adapter: Path | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Save the mixture of two checkpoints (folders or hub names) at `out`, which must not exist; return `out`.

    Every floating-point tensor is (1 - share) * candidate + share * base, computed in float32 (float64 for float64)
    and stored in the candidate's precision; whole numbers must be equal in both. The folder has the candidate's files,
    configuration and tokenizer: share 0 is the candidate, share 1 the base's weights. With `adapter`, a LoRA adapter
    on `candidate`, which must then be `base`, `out` is an adapter whose B is scaled by 1 - share; share 1 leaves an
    adapter that changes nothing. `audit_manifest.json` says what was mixed.

    Raises ConfigError for a share outside [0, 1]; ModelError for models that cannot be mixed (another architecture,
    other tensors or shapes, quantized or pickled weights) or an `out` in use; StoreError if it cannot be written.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share {share:g}: must lie between 0 and 1")
    opened = [
        open_checkpoint(str(source), allow_pickle=True, trust_remote_code=trust_remote_code)
        for source in dict.fromkeys((str(candidate), str(base)))
    ]
    of, onto = opened[0], opened[-1]
    if adapter is not None:
        return _scaled(of, onto, share, out, adapter, trust_remote_code=trust_remote_code)
    partners = mixable(of, onto)
    mine = tensors_of(of, hint=_DEQUANTIZE)
    manifest = _manifest(share, of.fingerprint, str(candidate), onto, of.manifest)
    with whole(out) as folder:
        copy_files(of.path, folder, code=trust_remote_code)
        for file in of.weight_files:
            here = {name: tensor for name, tensor in mine.items() if tensor.file == file}
            contents = (_mixture(here[name], partners[name], share) for name in here)
            rewrite(folder / file.name, file, contents)
        write_json(folder / MANIFEST, manifest)
    return out


def _scaled(
    of: Checkpoint, onto: Checkpoint, share: float, out: Path, adapter: Path, *, trust_remote_code: bool
) -> Path:
    if of.weights_fingerprint != onto.weights_fingerprint:
        raise ModelError(
            f"the adapter {adapter} lies on {of.source}, which is not the base {onto.source}: their weights differ",
            hint="merge the adapter into its model and give the merged model, or the base that the adapter is for",
        )
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(f"no adapter_model.safetensors in {adapter}", hint="save the adapter as safetensors")
    applied = open_checkpoint(of.source, adapter=str(adapter), allow_pickle=True, trust_remote_code=trust_remote_code)
    file = adapter / "adapter_model.safetensors"
    pairs: list[tuple[Tensor, _Other]] = []
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors_in(file).items():
        parts = name.split(".")
        if "lora_magnitude_vector" in parts or not tensor.floating:
            raise ModelError(
                f"the adapter {adapter} is no plain LoRA adapter ({name}): scaling it does not lead to the base",
                hint="merge it into its model and give the merged model",
            )
        if {"lora_B", "lora_embedding_B"} & set(parts):
            pairs.append((tensor, "zero"))
        elif {"lora_A", "lora_embedding_A"} & set(parts):
            pairs.append((tensor, "itself"))
        else:  # a module trained as a whole, beside the low-rank ones
            theirs = theirs or tensors_of(onto, hint=_DEQUANTIZE)
            own = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            pairs.append((tensor, _same_shape(own, tensor, theirs.get(own), adapter, onto.source)))
    source = f"{of.source} + {adapter}"
    manifest = _manifest(share, applied.fingerprint, source, onto, applied.manifest)
    manifest["base_weights_fingerprint"] = of.weights_fingerprint
    with whole(out) as folder:
        copy_files(adapter, folder, code=False)
        rewrite(folder / file.name, file, (_mixture(tensor, other, share) for tensor, other in pairs))
        write_json(folder / MANIFEST, manifest)
    return out


def _manifest(share: float, fingerprint: str, source: str, base: Checkpoint, said: dict[str, Any]) -> dict[str, Any]:
    """What the mixture is. What the candidate was made to forget is what its own manifest says."""
    return {
        "method": "interpolation",
        "settings": {"share": share},
        "candidate": {"source": source, "fingerprint": fingerprint, "method": said.get("method")},
        "base": {"source": base.source, "fingerprint": base.fingerprint, "adapter": None},
        **({"forget_set": said["forget_set"]} if "forget_set" in said else {}),
    }


# ------------------------------------------------------------------------------------------------- what goes together


def mixable(of: Checkpoint, onto: Checkpoint) -> dict[str, Tensor]:
    """For each tensor of the candidate `of` that of the base `onto`. Tied output embeddings may be written twice.

    Raises ModelError for models that cannot be mixed: another architecture, other tensors or shapes, quantized or
    pickled weights. Adapters play no part.
    """
    mine, theirs = tensors_of(of, hint=_DEQUANTIZE), tensors_of(onto, hint=_DEQUANTIZE)
    first = input_embedding(theirs)
    tied = theirs[first] if first is not None else None
    for field in ("model_type", "architectures"):
        if of.config.get(field) != onto.config.get(field):
            raise ModelError(
                f"{of.source} and {onto.source} have another architecture: "
                f"{field} {of.config.get(field)} and {onto.config.get(field)}",
                hint="give the model that the candidate was made from as its base",
            )
    partners = {name: theirs[name] for name in mine if name in theirs}
    missing = [name for name in mine if name not in theirs]
    extra = [name for name in theirs if name not in mine]
    for name in list(missing):
        if name in OUTPUT_EMBEDDINGS and tied is not None:
            partners[name] = tied
            missing.remove(name)
    for name in list(extra):
        if name in OUTPUT_EMBEDDINGS and tied is not None and equal(theirs[name], tied):
            extra.remove(name)
    if missing or extra:
        where, names = (onto.source, missing) if missing else (of.source, extra)
        raise ModelError(
            f"{of.source} and {onto.source} do not have the same tensors: {where} lacks {names[0]}"
            + (f" and {len(missing) + len(extra) - 1} more differ" if len(missing) + len(extra) > 1 else ""),
            hint="give the model that the candidate was made from as its base",
        )
    for name, tensor in mine.items():
        other = _same_shape(name, tensor, partners[name], of.source, onto.source)
        if tensor.floating != other.floating:
            raise ModelError(f"{name} is {tensor.dtype} in {of.source} and {other.dtype} in {onto.source}")
        if not tensor.floating and (tensor.dtype != other.dtype or not equal(tensor, other)):
            raise ModelError(
                f"{name} holds whole numbers ({tensor.dtype}) that differ between {of.source} and {onto.source}",
                hint=_DEQUANTIZE,
            )
    return partners


def _same_shape(name: str, tensor: Tensor, other: Tensor | None, of: str | Path, onto: str) -> Tensor:
    if other is None or tensor.shape != other.shape:
        found = "no such tensor" if other is None else f"shape {list(other.shape)}"
        raise ModelError(
            f"{name} has shape {list(tensor.shape)} in {of}, and {onto} has {found}",
            hint="give the model that the candidate was made from as its base",
        )
    return other


# ------------------------------------------------------------------------------------------------------- the mixture


def _mixture(tensor: Tensor, other: _Other, share: float) -> Iterator[bytes]:
    if share == 0 or other == "itself" or not tensor.floating:
        yield from raw(tensor)
    elif isinstance(other, Tensor):
        for own, theirs in zip(numbers(tensor), numbers(other), strict=True):
            yield as_bytes(_mixed(own, theirs, share), tensor)
    else:
        for own in numbers(tensor):
            yield as_bytes(need_torch().zeros_like(own) if share == 1 else (1 - share) * own, tensor)


def _mixed(own: torch.Tensor, theirs: torch.Tensor, share: float) -> torch.Tensor:
    """Equal numbers stay as they are, without rounding; at share 1 the base's, even where the candidate's is NaN."""
    if share == 1:
        return theirs
    mixed: torch.Tensor = need_torch().where(own == theirs, own, (1 - share) * own + share * theirs)
    return mixed

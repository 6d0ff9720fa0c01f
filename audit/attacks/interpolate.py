"""Weights between a candidate and its base: (1 - share) * candidate + share * base, tensor by tensor.

interpolated("candidate", "base", 0.3, Path("out"))
interpolated("base", "base", 0.3, Path("out"), adapter=Path("adapter"))     # an adapter again, scaled

No network is loaded: tensors go from file to file, a few megabytes at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from audit.engines.checkpoint import MANIFEST, Checkpoint, open_checkpoint
from audit.errors import ConfigError, EngineError, ModelError, StoreError
from audit.fingerprint import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, TensorFileError, safetensors_header

if TYPE_CHECKING:
    import torch

#: Numbers read at a time, of each model.
_CHUNK = 1 << 22
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: Left behind: they speak of the candidate as it was, and would be untrue of the mixture.
_NOT_COPIED = frozenset({MANIFEST, "organism.json", "trainer_state.json", "pytorch_model.bin.index.json"})
_DEQUANTIZE = "give the models as they were before quantization"


class _Tensor(NamedTuple):
    """Where a tensor's bytes lie."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


#: What a tensor is mixed with: the base's tensor, zeros, or nothing.
_Other = _Tensor | Literal["zero", "itself"]


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
    mine, theirs = _tensors(of), _tensors(onto)
    partners = _partners(of, onto, mine, theirs)
    manifest = _manifest(share, of.fingerprint, str(candidate), onto, of.manifest)
    with _whole(out) as folder:
        _copy_files(of.path, folder, code=trust_remote_code)
        for file in of.weight_files:
            here = {name: tensor for name, tensor in mine.items() if tensor.file == file}
            _write(folder / file.name, file, [(here[name], partners[name]) for name in here], share)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
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
    whole = open_checkpoint(of.source, adapter=str(adapter), allow_pickle=True, trust_remote_code=trust_remote_code)
    file = adapter / "adapter_model.safetensors"
    pairs: list[tuple[_Tensor, _Other]] = []
    theirs: dict[str, _Tensor] = {}
    for name, tensor in _of_file(file).items():
        parts = name.split(".")
        if "lora_magnitude_vector" in parts or tensor.dtype not in _FLOATS:
            raise ModelError(
                f"the adapter {adapter} is no plain LoRA adapter ({name}): scaling it does not lead to the base",
                hint="merge it into its model and give the merged model",
            )
        if {"lora_B", "lora_embedding_B"} & set(parts):
            pairs.append((tensor, "zero"))
        elif {"lora_A", "lora_embedding_A"} & set(parts):
            pairs.append((tensor, "itself"))
        else:  # a module trained as a whole, beside the low-rank ones
            theirs = theirs or _tensors(onto)
            own = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            pairs.append((tensor, _same_shape(own, tensor, theirs.get(own), adapter, onto.source)))
    source = f"{of.source} + {adapter}"
    manifest = _manifest(share, whole.fingerprint, source, onto, whole.manifest)
    manifest["base_weights_fingerprint"] = of.weights_fingerprint
    with _whole(out) as folder:
        _copy_files(adapter, folder, code=False)
        _write(folder / file.name, file, pairs, share)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
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


def _tensors(checkpoint: Checkpoint) -> dict[str, _Tensor]:
    """Name -> place of every tensor. Raises ModelError for weights that are no plain numbers in safetensors files."""
    if checkpoint.config.get("quantization_config"):
        raise ModelError(f"{checkpoint.source} is quantized: its weights cannot be mixed", hint=_DEQUANTIZE)
    pickled = [file.name for file in checkpoint.weight_files if file.suffix != ".safetensors"]
    if pickled:
        raise ModelError(
            f"{checkpoint.source} has no safetensors ({', '.join(pickled[:3])}): only these are mixed",
            hint="save it with save_pretrained, which writes safetensors",
        )
    found = {name: tensor for file in checkpoint.weight_files for name, tensor in _of_file(file).items()}
    odd = next((name for name, tensor in found.items() if tensor.dtype.startswith(("F8", "F4", "F6"))), None)
    if odd is not None:
        raise ModelError(f"{checkpoint.source} is quantized: {odd} is stored as {found[odd].dtype}", hint=_DEQUANTIZE)
    return found


def _of_file(file: Path) -> dict[str, _Tensor]:
    """Tensors of one safetensors file, in the order of their bytes."""
    try:
        header, data = safetensors_header(file)
    except TensorFileError as error:
        raise ModelError(str(error), hint="copy or download the file again") from error
    entries = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    return {
        name: _Tensor(
            file, str(e["dtype"]), tuple(e["shape"]), data + int(e["data_offsets"][0]), data + int(e["data_offsets"][1])
        )
        for name, e in entries
    }


def _partners(
    of: Checkpoint, onto: Checkpoint, mine: dict[str, _Tensor], theirs: dict[str, _Tensor]
) -> dict[str, _Tensor]:
    """For each of the candidate's tensors the base's. Tied output embeddings may be written once or twice."""
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
        tied = _input_embedding(theirs) if name in OUTPUT_EMBEDDINGS else None
        if tied is not None:
            partners[name] = tied
            missing.remove(name)
    for name in list(extra):
        tied = _input_embedding(theirs) if name in OUTPUT_EMBEDDINGS else None
        if tied is not None and _equal(theirs[name], tied):
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
        if (tensor.dtype in _FLOATS) != (other.dtype in _FLOATS):
            raise ModelError(f"{name} is {tensor.dtype} in {of.source} and {other.dtype} in {onto.source}")
        if tensor.dtype not in _FLOATS and (tensor.dtype != other.dtype or not _equal(tensor, other)):
            raise ModelError(
                f"{name} holds whole numbers ({tensor.dtype}) that differ between {of.source} and {onto.source}",
                hint=_DEQUANTIZE,
            )
    return partners


def _input_embedding(tensors: dict[str, _Tensor]) -> _Tensor | None:
    return next((tensor for name, tensor in tensors.items() if name.endswith(INPUT_EMBEDDINGS)), None)


def _same_shape(name: str, tensor: _Tensor, other: _Tensor | None, of: str | Path, onto: str) -> _Tensor:
    if other is None or tensor.shape != other.shape:
        found = "no such tensor" if other is None else f"shape {list(other.shape)}"
        raise ModelError(
            f"{name} has shape {list(tensor.shape)} in {of}, and {onto} has {found}",
            hint="give the model that the candidate was made from as its base",
        )
    return other


# ----------------------------------------------------------------------------------------------- from file to file


def _equal(a: _Tensor, b: _Tensor) -> bool:
    if (a.dtype, a.last - a.first) != (b.dtype, b.last - b.first):
        return False
    with a.file.open("rb") as first, b.file.open("rb") as second:
        return all(x == y for x, y in zip(_bytes(first, a, 1 << 24), _bytes(second, b, 1 << 24), strict=True))


def _bytes(file: BinaryIO, tensor: _Tensor, step: int) -> Iterator[bytes]:
    """The tensor's bytes, at most `step` at a time."""
    file.seek(tensor.first)
    left = tensor.last - tensor.first
    while left:
        part = file.read(min(step, left))
        if not part:
            raise ModelError(f"{tensor.file} became shorter while it was read", hint="wait until it is written")
        left -= len(part)
        yield part


def _write(path: Path, like: Path, pairs: Sequence[tuple[_Tensor, _Other]], share: float) -> None:
    """A file with the header of `like` and the mixtures of `pairs`, which are in the order of the bytes."""
    torch = _torch()
    with like.open("rb") as old, path.open("wb") as new:
        start = old.read(8)
        new.write(start + old.read(int.from_bytes(start, "little")))
        for tensor, other in pairs:
            if share == 0 or other == "itself" or tensor.dtype not in _FLOATS:
                new.writelines(_bytes(old, tensor, 1 << 24))
            elif isinstance(other, _Tensor):
                with other.file.open("rb") as second:
                    for own, theirs in zip(_numbers(old, tensor), _numbers(second, other), strict=True):
                        _put(new, _mixed(own, theirs, share), tensor)
            else:
                for own in _numbers(old, tensor):
                    _put(new, torch.zeros_like(own) if share == 1 else (1 - share) * own, tensor)


def _numbers(file: BinaryIO, tensor: _Tensor) -> Iterator[torch.Tensor]:
    """The tensor in flat pieces of at most _CHUNK numbers, in float32 (float64 where it is stored so)."""
    torch = _torch()
    wide = torch.float64 if tensor.dtype == "F64" else torch.float32
    for part in _bytes(file, tensor, _CHUNK * _SIZES[tensor.dtype]):
        yield torch.frombuffer(bytearray(part), dtype=getattr(torch, _FLOATS[tensor.dtype])).to(wide)


def _mixed(own: torch.Tensor, theirs: torch.Tensor, share: float) -> torch.Tensor:
    """Equal numbers stay as they are, without rounding; at share 1 the base's, even where the candidate's is NaN."""
    return theirs if share == 1 else _torch().where(own == theirs, own, (1 - share) * own + share * theirs)


def _put(file: BinaryIO, numbers: torch.Tensor, like: _Tensor) -> None:
    torch = _torch()
    stored = numbers.to(getattr(torch, _FLOATS[like.dtype]))
    if like.dtype == "F16" and not torch.equal(torch.isfinite(stored), torch.isfinite(numbers)):
        raise ModelError("the base has numbers that float16, the candidate's precision, cannot hold")
    file.write(stored.view(torch.uint8).numpy().tobytes())


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise EngineError("torch is not installed", hint='pip install "unlearning-audit[hf]"') from error
    return torch


# ----------------------------------------------------------------------------------------------------------- folders


def _copy_files(source: Path, folder: Path, *, code: bool) -> None:
    """Configuration, tokenizer and templates as they are."""
    for pattern in ("*.json", "*.jinja", "*.model", "*.txt", *(["*.py"] if code else [])):
        for file in sorted(source.rglob(pattern) if pattern in ("*.jinja", "*.py") else source.glob(pattern)):
            if file.is_file() and file.name not in _NOT_COPIED:
                target = folder / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `out` at the end, or is removed."""
    if out.exists():
        raise ModelError(f"{out} exists already", hint="give another folder, or remove that one")
    work: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield work
        work.chmod(0o755)  # mkdtemp makes it private
        os.rename(work, out)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror or error}", hint="free disk space") from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)

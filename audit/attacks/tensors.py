"""Tensors of a checkpoint, from file to file: no network is loaded, and memory holds one tensor at a time.

transformed(source, Path("out"), lambda name, tensor: halve if tensor.floating else None, {"method": "halved"})
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from audit.engines.checkpoint import MANIFEST, Checkpoint
from audit.errors import EngineError, ModelError, StoreError
from audit.fingerprint import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, TensorFileError, safetensors_header

if TYPE_CHECKING:
    import torch

#: Numbers that are computed with at a time.
CHUNK = 1 << 22
_BYTES = 1 << 24
#: As safetensors and torch spell the precisions that are computed with.
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: Left behind: they speak of the source as it was, and would be untrue of what was made of it.
_NOT_COPIED = frozenset({MANIFEST, "organism.json", "trainer_state.json", "pytorch_model.bin.index.json"})
_AS_CANDIDATE = "a folder that was quantized elsewhere is audited as it is: `audit run --model FOLDER`"


class Tensor(NamedTuple):
    """Where a tensor's bytes lie."""

    file: Path
    dtype: str
    """As safetensors spells it: F32, BF16, I64 …"""
    shape: tuple[int, ...]
    first: int
    last: int

    @property
    def floating(self) -> bool:
        """Its numbers can be computed with."""
        return self.dtype in FLOATS


#: From a tensor's name and place to what is done with it, in its stored precision and shape; None: it stays.
Change = Callable[[str, Tensor], "Callable[[torch.Tensor], torch.Tensor] | None"]


def tensors_of(checkpoint: Checkpoint, *, hint: str = _AS_CANDIDATE) -> dict[str, Tensor]:
    """Name -> place of every tensor.

    Raises ModelError for weights that are no plain numbers in safetensors files: pickled ones, and those that are
    quantized already (GPTQ, AWQ, bitsandbytes, 8-bit floats); `hint` then says what to do.
    """
    settings = checkpoint.config.get("quantization_config")
    if settings:
        by = settings.get("quant_method") if isinstance(settings, dict) else None
        raise ModelError(
            f"{checkpoint.source} is quantized already{f' ({by})' if by else ''}: its weights cannot be changed",
            hint=hint,
        )
    pickled = [file.name for file in checkpoint.weight_files if file.suffix != ".safetensors"]
    if pickled:
        raise ModelError(
            f"{checkpoint.source} has no safetensors ({', '.join(pickled[:3])}): only these are changed",
            hint="save it with save_pretrained, which writes safetensors",
        )
    found = {name: tensor for file in checkpoint.weight_files for name, tensor in tensors_in(file).items()}
    odd = next((name for name, tensor in found.items() if tensor.dtype.startswith(("F8_", "F6_", "F4"))), None)
    if odd is not None:
        raise ModelError(f"{checkpoint.source} is quantized already: {odd} is stored as {found[odd].dtype}", hint=hint)
    return found


def tensors_in(file: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file, in the order of their bytes."""
    try:
        header, data = safetensors_header(file)
    except TensorFileError as error:
        raise ModelError(str(error), hint="copy or download the file again") from error
    entries = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    return {
        name: Tensor(
            file, str(e["dtype"]), tuple(e["shape"]), data + int(e["data_offsets"][0]), data + int(e["data_offsets"][1])
        )
        for name, e in entries
    }


def input_embedding(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the input embedding."""
    return next((name for name in tensors if name.endswith(INPUT_EMBEDDINGS)), None)


def transformed(source: Checkpoint, out: Path, change: Change, said: Mapping[str, Any]) -> float | None:
    """Save `source` with its tensors changed at `out`, which must not exist; its adapter plays no part.

    Names, shapes, precisions, shards, configuration and tokenizer stay. An output embedding that repeats the input
    embedding is changed as that one is, under its name. `said` goes into audit_manifest.json.
    Returns the relative size of the change, ‖new - old‖ / ‖old‖ over the tensors that `change` did not leave alone, as
    stored; None if there were none or the weights are no numbers. Raises ModelError and StoreError.
    """
    tensors = tensors_of(source)
    inputs = input_embedding(tensors)
    moved, whole_size = 0.0, 0.0

    def contents(name: str, tensor: Tensor) -> Iterator[bytes]:
        nonlocal moved, whole_size
        if inputs is not None and name in OUTPUT_EMBEDDINGS and equal(tensor, tensors[inputs]):
            name = inputs
        act = change(name, tensor) if tensor.floating else None
        if act is None:
            yield from raw(tensor)
            return
        old = loaded(tensor)
        new = act(old)
        for before, after in zip(old.reshape(-1).split(CHUNK), new.reshape(-1).split(CHUNK), strict=True):
            difference = after.double() - before.double()
            moved += float(difference.square().sum())
            whole_size += float(before.double().square().sum())
            yield as_bytes(after, tensor)

    with whole(out) as folder:
        copy_files(source.path, folder, code=source.trust_remote_code)
        for file in source.weight_files:
            here = {name: tensor for name, tensor in tensors.items() if tensor.file == file}
            rewrite(folder / file.name, file, (contents(name, tensor) for name, tensor in here.items()))
        write_manifest(folder, source, said)
    return math.sqrt(moved / whole_size) if whole_size and math.isfinite(moved / whole_size) else None


def write_manifest(folder: Path, source: Checkpoint, said: Mapping[str, Any]) -> None:
    """audit_manifest.json: `said`, the source, and what the source's own manifest says was to be forgotten."""
    before = source.manifest
    manifest = {
        **said,
        "source": {"source": source.source, "fingerprint": source.fingerprint, "method": before.get("method")},
        **({"forget_set": before["forget_set"]} if "forget_set" in before else {}),
    }
    write_json(folder / MANIFEST, manifest)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ----------------------------------------------------------------------------------------------- reading and writing


def equal(a: Tensor, b: Tensor) -> bool:
    """Of the same precision, and byte by byte."""
    if (a.dtype, a.last - a.first) != (b.dtype, b.last - b.first):
        return False
    return all(x == y for x, y in zip(raw(a), raw(b), strict=True))


def raw(tensor: Tensor, step: int = _BYTES) -> Iterator[bytes]:
    """The tensor's bytes, at most `step` at a time."""
    with tensor.file.open("rb") as file:
        file.seek(tensor.first)
        left = tensor.last - tensor.first
        while left:
            part = file.read(min(step, left))
            if not part:
                raise ModelError(f"{tensor.file} became shorter while it was read", hint="wait until it is written")
            left -= len(part)
            yield part


def loaded(tensor: Tensor) -> torch.Tensor:
    """A floating-point tensor in its stored precision and shape."""
    torch = need_torch()
    data = bytearray()
    for part in raw(tensor):
        data += part
    kind = getattr(torch, FLOATS[tensor.dtype])
    flat = torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
    return flat.reshape(tensor.shape)


def numbers(tensor: Tensor) -> Iterator[torch.Tensor]:
    """A floating-point tensor in flat pieces of at most CHUNK numbers, widened."""
    torch = need_torch()
    for part in raw(tensor, CHUNK * _SIZES[tensor.dtype]):
        yield wide(torch.frombuffer(bytearray(part), dtype=getattr(torch, FLOATS[tensor.dtype])))


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In the precision that is computed in: float32, or float64 where it is stored so."""
    torch = need_torch()
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def narrowed(tensor: torch.Tensor, dtype: Any) -> torch.Tensor:
    """In the stored precision. Raises ModelError for numbers beyond the range of float16."""
    torch = need_torch()
    stored = tensor.to(dtype)
    if dtype == torch.float16 and not torch.equal(torch.isfinite(stored), torch.isfinite(tensor)):
        raise ModelError("the changed weights have numbers that float16, the model's precision, cannot hold")
    return stored


def by_rows(tensor: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor], rows: int = 1) -> torch.Tensor:
    """`work` on pieces of a 2-D tensor, widened: about CHUNK numbers at a time, in multiples of `rows` rows."""
    torch = need_torch()
    out = torch.empty_like(tensor)
    step = max(1, CHUNK // max(1, tensor.shape[-1] * rows)) * rows
    for first in range(0, tensor.shape[0], step):
        out[first : first + step] = narrowed(work(wide(tensor[first : first + step])), tensor.dtype)
    return out


def as_bytes(values: torch.Tensor, like: Tensor) -> bytes:
    """As they are stored in the precision of `like`."""
    torch = need_torch()
    stored = narrowed(values, getattr(torch, FLOATS[like.dtype])).contiguous()
    return bytes(stored.reshape(-1).view(torch.uint8).numpy().tobytes())


def rewrite(path: Path, like: Path, contents: Iterable[Iterable[bytes]]) -> None:
    """A file with the header of `like` and other bytes: `contents` tensor by tensor, in the order of their bytes."""
    with like.open("rb") as old, path.open("wb") as new:
        start = old.read(8)
        new.write(start + old.read(int.from_bytes(start, "little")))
        for parts in contents:
            new.writelines(parts)


def need_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise EngineError("torch is not installed", hint='pip install "unlearning-audit[hf]"') from error
    return torch


# ----------------------------------------------------------------------------------------------------------- folders


def copy_files(source: Path, folder: Path, *, code: bool) -> None:
    """Configuration, tokenizer and templates as they are; with `code` the model's own code too."""
    for pattern in ("*.json", "*.jinja", "*.model", "*.txt", *(["*.py"] if code else [])):
        for file in sorted(source.rglob(pattern) if pattern in ("*.jinja", "*.py") else source.glob(pattern)):
            if file.is_file() and file.name not in _NOT_COPIED:
                target = folder / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `out` at the end, or is removed. Raises ModelError where `out` exists."""
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

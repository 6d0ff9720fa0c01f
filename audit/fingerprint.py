"""Identity by content: hashes that name records, prompts, checkpoints, tokenizers and templates."""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec


def digest(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of `parts`, as 32 hexadecimal digits. Records, dicts, tuples, scalars, None."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]


def seed_from(*parts: Any) -> int:
    """A 31-bit seed from content, so that a draw depends on what is drawn for, never on its position in a run."""
    return int(digest("seed", *parts)[:8], 16) & 0x7FFFFFFF


def text_file_digest(path: Path) -> str:
    """SHA-256 of a small file's bytes, 32 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


# ------------------------------------------------------------------------------------------------------- weights


class TensorDigest(msgspec.Struct, frozen=True, order=True):
    """One tensor by content: where it lies (memory, shard, single file) plays no part."""

    name: str
    dtype: str
    """As safetensors spells it: F32, BF16, I8 …"""
    shape: tuple[int, ...]
    sha256: str
    """Of the row-major little-endian bytes, 64 hexadecimal digits."""


class TensorFileError(ValueError):
    """A file of tensors is truncated, or is not what its name says."""


OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight", "output.weight")
INPUT_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "embed_in.weight",
)


def weights_digest(tensors: Iterable[TensorDigest]) -> str:
    """Identity of a set of tensors, in any order.

    An output embedding that repeats the input embedding is left out: whether tied weights are written once or twice
    is a habit of the writer (safetensors files hold them once, a state dict in memory twice).
    """
    listed = sorted(tensors)
    inputs = {(t.dtype, t.shape, t.sha256) for t in listed if t.name.endswith(INPUT_EMBEDDINGS)}
    kept = [t for t in listed if not (t.name in OUTPUT_EMBEDDINGS and (t.dtype, t.shape, t.sha256) in inputs)]
    return digest("weights", [(t.name, t.dtype, list(t.shape), t.sha256) for t in kept])


def safetensors_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Name -> {dtype, shape, data_offsets} of a safetensors file, and the offset at which the data begin.

    Raises TensorFileError for a file that is shorter than its header says, or that is no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise TensorFileError(f"{path} is a Git LFS pointer, not the weights themselves")
        if len(start) < 8:
            raise TensorFileError(f"{path} is empty or truncated")
        (length,) = struct.unpack("<Q", start)
        if length > size - 8:
            raise TensorFileError(f"{path} is truncated, or is not a safetensors file")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise TensorFileError(f"{path} is not a safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise TensorFileError(f"{path} is not a safetensors file: its header is no object")
    header.pop("__metadata__", None)
    try:
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise TensorFileError(f"{path} is not a safetensors file: its header has a broken entry") from error
    if 8 + length + end > size:
        raise TensorFileError(f"{path} is truncated: {size} bytes, {8 + length + end} expected")
    return header, 8 + length


def safetensors_digests(path: Path) -> tuple[TensorDigest, ...]:
    """Digests of all tensors of a file, read through a memory map, several at a time."""
    header, data = safetensors_header(path)
    if not header:
        return ()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:

        def one(item: tuple[str, dict[str, Any]]) -> TensorDigest:
            name, entry = item
            first, last = entry["data_offsets"]
            with memoryview(mapped) as view, view[data + first : data + last] as part:
                sha = hashlib.sha256(part).hexdigest()
            return TensorDigest(name, str(entry["dtype"]), tuple(entry["shape"]), sha)

        with ThreadPoolExecutor(4) as pool:
            return tuple(pool.map(one, header.items()))


_SAFETENSORS_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}


def state_dict_digests(state: Mapping[str, Any]) -> Iterator[TensorDigest]:
    """Digests of torch tensors in memory, on any device, equal to those of the same tensors in a safetensors file."""
    import torch

    for name, tensor in state.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy()
        yield TensorDigest(
            name, _SAFETENSORS_DTYPES.get(dtype, dtype), tuple(tensor.shape), hashlib.sha256(data).hexdigest()
        )


def fingerprint_model(model: Any) -> str:
    """Weights fingerprint of a transformers model in memory: what its checkpoint has once it is saved."""
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    state = dict(model.state_dict())
    for key in model._keys_to_ignore_on_save or ():
        state.pop(key, None)
    state = remove_tied_weights_from_state_dict(state, model)
    return weights_digest(state_dict_digests(revert_weight_conversion(model, state)))


# ---------------------------------------------------------------------------------------- tokenizers and templates


def tokenizer_digest(tokenizer: Any) -> str:
    """Identity of a transformers tokenizer by what it does to text; neither file layout nor padding side count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        core = json.loads(backend.to_str())
        for volatile in ("truncation", "padding", "version"):
            core.pop(volatile, None)
    else:
        core = {"vocab": tokenizer.get_vocab(), "class": type(tokenizer).__name__}
        model = getattr(tokenizer, "sp_model", None)
        if model is not None:
            core["sentencepiece"] = hashlib.sha256(model.serialized_model_proto()).hexdigest()
    return digest(
        "tokenizer",
        core,
        {str(name): str(value) for name, value in tokenizer.special_tokens_map.items() if name != "pad_token"},
        sorted(tokenizer.all_special_ids),
        bool(getattr(tokenizer, "add_bos_token", False)),
        bool(getattr(tokenizer, "add_eos_token", False)),
    )


def template_digest(template: str | Mapping[str, str] | None) -> str:
    """Identity of a chat template (or of several by name); None has one too."""
    return digest("template", template if template is None or isinstance(template, str) else dict(template))

"""What a fine-tuning leaves on disk to go on from: tensors and losses, each file whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from audit.errors import StoreError
from audit.fingerprint import digest
from audit.types import Record

if TYPE_CHECKING:
    import torch

_LOSSES = "losses.json"
_STATE = re.compile(r"state-(\d+)\.safetensors")


class _Losses(Record):
    losses: tuple[float, ...]
    check: str


def read_losses(folder: Path) -> tuple[float, ...]:
    """Loss of every step so far; none where the file is missing or damaged."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode((folder / _LOSSES).read_bytes(), type=_Losses)
        if found.check == digest("losses", found.losses):
            return found.losses
    return ()


def write_losses(folder: Path, losses: tuple[float, ...]) -> None:
    """Remember them, unless more steps are known already."""
    if len(losses) > len(read_losses(folder)):
        data = msgspec.json.encode(_Losses(losses=losses, check=digest("losses", losses)))
        _whole(folder / _LOSSES, lambda file: file.write(data))


def nearest_state(folder: Path, step: int) -> tuple[int, Path] | None:
    """The latest state at or before `step`."""
    found = [(at, path) for at, path in _states(folder) if at <= step]
    return max(found, default=None)


def drop_states(folder: Path, *, but: int | None = None) -> None:
    """Remove all, or all but that of one step."""
    for at, path in _states(folder):
        if at != but:
            path.unlink(missing_ok=True)


def write_state(folder: Path, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Save float32 tensors as the state at `step`, and remove the states before it. One tensor is copied at a time."""
    import torch

    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        first, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [first, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)

    def write(file: Any) -> None:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            flat = tensor.detach().to("cpu", torch.float32).contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)

    _whole(folder / f"state-{step:06d}.safetensors", write)
    drop_states(folder, but=step)


def read_state(path: Path, into: Mapping[str, torch.Tensor]) -> None:
    """Copy a state into tensors of the same names and shapes. Raises StoreError for one that does not fit them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(into):
                raise StoreError(f"{path} is the state of another fine-tuning", hint=f"remove {path}")
            for name, tensor in into.items():
                tensor.detach().copy_(file.get_tensor(name))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}", hint=f"remove {path} and run the same command again"
        ) from error


def _states(folder: Path) -> list[tuple[int, Path]]:
    matched = [(_STATE.fullmatch(path.name), path) for path in folder.glob("state-*.safetensors")]
    return [(int(match[1]), path) for match, path in matched if match]


def _whole(path: Path, write: Callable[[Any], Any]) -> None:
    """Write a file that is there whole or not at all, whenever the process or the machine stops."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}", hint="free disk space") from error

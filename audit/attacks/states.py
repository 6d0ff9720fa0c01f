"""What a fine-tuning leaves on disk to go on from: tensors and losses, each file whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from audit.errors import StoreError
from audit.fingerprint import digest
from audit.progress import Progress
from audit.types import Record

if TYPE_CHECKING:
    import torch

_LOSSES = "losses.json"
#: Step, and the beginning of the SHA-256 of all bytes: one rename brings both, so neither is there without the other.
_STATE = re.compile(r"state-(\d+)-([0-9a-f]{32})\.safetensors")
_BLOCK = 1 << 22


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


def drop_states(folder: Path, *, but: Path | None = None) -> None:
    """Remove all, or all but one, with what is left of those that were never finished."""
    for path in (*folder.glob("state-*.safetensors"), *folder.glob("state-*.part")):
        if path != but:
            path.unlink(missing_ok=True)


def write_state(folder: Path, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Save float32 tensors as the state at `step`, and remove all others. One tensor is copied at a time."""
    import torch

    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        first, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [first, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)

    seen = hashlib.sha256()

    def write(file: Any) -> None:
        def add(data: Any) -> None:
            seen.update(data)
            file.write(data)

        add(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            flat = tensor.detach().to("cpu", torch.float32).contiguous().reshape(-1)
            add(flat.view(torch.uint8).numpy().data)

    part = folder / f"state-{step:06d}"
    drop_states(folder, but=_whole(part, write, lambda: folder / f"{part.name}-{seen.hexdigest()[:32]}.safetensors"))


def read_state(folder: Path, until: int, into: Mapping[str, torch.Tensor], progress: Progress) -> int:
    """Copy the latest sound state at or before step `until` into tensors of the same names and shapes.

    Returns its step; 0, and nothing is copied, where there is none. A state that is not what was written, or whose
    tensors are others, is removed with a note, and the one before it is looked at. Raises StoreError where the disk
    fails while a sound state is copied.
    """
    from safetensors import SafetensorError, safe_open

    for step, path in sorted(_states(folder), reverse=True):
        if step > until:
            continue
        problem = _problem(path, into)
        if problem:
            progress.note(
                f"{path.name} {problem}: it is removed, and what came after the state before it is done again"
            )
            path.unlink(missing_ok=True)
            continue
        try:
            with safe_open(path, framework="pt") as file:
                for name, tensor in into.items():
                    tensor.detach().copy_(file.get_tensor(name))
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path} cannot be read: {error}", hint="run the same command again") from error
        return step
    return 0


def _problem(path: Path, into: Mapping[str, torch.Tensor]) -> str:
    """What is wrong with a state; "" for a sound one of these tensors."""
    from safetensors import SafetensorError, safe_open

    match = _STATE.fullmatch(path.name)
    assert match, "only states are listed"
    try:
        seen = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                seen.update(block)
        if seen.hexdigest()[:32] != match[2]:
            return "is damaged"
        with safe_open(path, framework="pt") as opened:
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        return f"cannot be read ({error})"
    return "" if shapes == {name: tuple(tensor.shape) for name, tensor in into.items()} else "has other tensors"


def _states(folder: Path) -> list[tuple[int, Path]]:
    matched = [(_STATE.fullmatch(path.name), path) for path in folder.glob("state-*.safetensors")]
    return [(int(match[1]), path) for match, path in matched if match]


def _whole(path: Path, write: Callable[[Any], Any], called: Callable[[], Path] | None = None) -> Path:
    """Write a file that is there whole or not at all, whenever the process or the machine stops.

    `called` gives its name once all is written, `path` unless given. Returns where it is.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        return part.replace(called() if called else path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}", hint="free disk space") from error

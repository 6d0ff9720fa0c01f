"""Does a fine-tuning fit the memory: asked before it starts. Bytes throughout.

Full fine-tuning holds 16 bytes a parameter: weights, gradients and two moments, each in float32. LoRA holds the weights
in their own precision and 16 bytes for each number of the adapter. To this come the activations, by a rough formula:
4 bytes * tokens of a batch * (layers * (12 hidden + 4 mlp) + 3 vocabulary). It leaves out the attention scores, which
present kernels do not store, and was made for decoder blocks with a gated MLP.
"""

from __future__ import annotations

import contextlib
import errno
import math
from pathlib import Path
from typing import Any

from audit.attacks.tensors import tensors_of
from audit.engines.checkpoint import Checkpoint
from audit.errors import ModelError
from audit.fingerprint import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS
from audit.types import Record

_A_PARAMETER = 16
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: What torch says on the CPU and where a CUDA library, not torch itself, could allocate nothing.
_SAID = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "std::bad_alloc")
_HINT = "take plain weights: those that were there before it was quantized or pickled"
_LORA = 16


class Need(Record):
    """Bytes that one fine-tuning takes."""

    state: int
    """Weights, gradients and optimizer."""
    activations: int

    @property
    def total(self) -> int:
        return self.state + self.activations


def needed(checkpoint: Checkpoint, *, batch_size: int, length: int, lora_rank: int | None, device: str) -> Need:
    """For batches of `batch_size` examples of at most `length` tokens. Reads nothing but headers.

    Raises ModelError for weights that cannot be fine-tuned: quantized or pickled ones.
    """
    tensors = tensors_of(checkpoint, hint=_HINT)
    tied = bool(checkpoint.config.get("tie_word_embeddings")) and any(
        name.endswith(INPUT_EMBEDDINGS) for name in tensors
    )
    weights = {
        name: tensor for name, tensor in tensors.items() if tensor.floating and not (tied and name in OUTPUT_EMBEDDINGS)
    }
    if lora_rank is None:
        state = _A_PARAMETER * sum(math.prod(tensor.shape) for tensor in weights.values())
    else:
        # float16 is widened on a CPU, which has no kernels for it
        size = {**_SIZES, **({"F16": 4} if device.startswith("cpu") else {})}
        state = sum(size[tensor.dtype] * math.prod(tensor.shape) for tensor in weights.values())
        linear = [
            tensor.shape
            for name, tensor in weights.items()
            if len(tensor.shape) == 2 and not name.endswith((*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS))
        ]
        state += _A_PARAMETER * lora_rank * sum(map(sum, linear))
    return Need(state=state, activations=_activations(checkpoint.config, batch_size * length))


def _activations(config: dict[str, Any], tokens: int) -> int:
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    assert isinstance(inner, dict)

    def number(*names: str, default: int) -> int:
        return next((int(inner[name]) for name in names if isinstance(inner.get(name), int)), default)

    hidden = number("hidden_size", "n_embd", "d_model", default=1024)
    layers = number("num_hidden_layers", "n_layer", "num_layers", default=24)
    mlp = number("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    vocabulary = number("vocab_size", default=32_000)
    return 4 * tokens * (layers * (12 * hidden + 4 * mlp) + 3 * vocabulary)


def available(device: str) -> int | None:
    """Bytes that are free on the device: of the GPU, or of this machine within the limits of its control group.

    None where the system does not say.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    found = [value for value in (_meminfo(), *_control_groups()) if value is not None]
    return min(found, default=None)


def _meminfo() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _control_groups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What each control group above this process leaves of its limit; files that the system can drop count as free."""
    folders: list[tuple[Path, str, str]] = []
    with contextlib.suppress(OSError):
        for line in proc.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                top, limit, used = root, "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                top, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            own = top / path.lstrip("/")
            folders += [(folder, limit, used) for folder in (own, *own.parents) if folder.is_relative_to(top)]
    found = []
    for folder, limit, used in folders:
        with contextlib.suppress(OSError, ValueError):  # "max": no limit here
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            found.append(max(0, left + _droppable(folder)))
    return found


def _droppable(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def check_memory(
    checkpoint: Checkpoint, spec: str, *, batch_size: int, length: int, lora_rank: int | None, device: str
) -> None:
    """Raises ModelError, saying what would fit, where a fine-tuning would not fit what the device has free.

    spec: the attack without options, as a user types it.
    """

    def total(batch: int, rank: int | None) -> int:
        return needed(checkpoint, batch_size=batch, length=length, lora_rank=rank, device=device).total

    here, need = available(device), total(batch_size, lora_rank)
    if here is None or need <= here:
        return
    fits = []
    batches = [batch_size >> shift for shift in range(1, batch_size.bit_length())]
    rank = f"lora={lora_rank}&" if lora_rank is not None else ""
    smaller = next((batch for batch in batches if total(batch, lora_rank) <= here), None)
    if smaller is not None:
        fits.append(f"--attack '{spec}?{rank}batch={smaller}' (needs {said(total(smaller, lora_rank))})")
    if lora_rank is None:
        batch = next((b for b in (batch_size, *batches) if total(b, _LORA) <= here), None)
        if batch is not None:
            more = f"&batch={batch}" if batch != batch_size else ""
            fits.append(f"--attack '{spec}?lora={_LORA}{more}' (needs {said(total(batch, _LORA))})")
    how = "full fine-tuning" if lora_rank is None else f"a LoRA adapter of rank {lora_rank}"
    raise ModelError(
        f"{spec}: {how} of {checkpoint.source} with batches of {batch_size} needs about {said(need)}, and {device} has "
        f"{said(here)} free",
        hint=", or ".join(fits) or f"a machine with {said(min(total(1, _LORA), need))} free, or a smaller model",
    )


def said(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory could not be had, on any device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # Libraries written in Rust, which read weights, tell the system's error in words alone.
    told = (*_SAID, f"(os error {errno.ENOMEM})")
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in told)

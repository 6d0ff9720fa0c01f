"""Out of memory: told in one message, with the settings that need less."""

from __future__ import annotations

import errno
from types import TracebackType

from audit.errors import TrainingError
from jensun_ref.methods.contract import Method
from jensun_ref.settings import UnlearnSettings

#: What torch says on the CPU and where a CUDA library, not torch itself, could allocate nothing.
_SAID = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "std::bad_alloc")


def out_of_memory(error: BaseException | None) -> bool:
    """Whether the error says that memory could not be had, on any device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # Libraries written in Rust, which read weights, tell the system's error in words alone.
    return isinstance(error, RuntimeError | OSError) and any(
        words in str(error) for words in (*_SAID, f"(os error {errno.ENOMEM})")
    )


class MemoryWatch:
    """A context manager that turns out of memory into a TrainingError.

    `step` is kept by the training: the step that is being taken, from 1; 0 before the first and after the last.
    """

    def __init__(self, kind: type[Method], settings: UnlearnSettings) -> None:
        self.kind, self.settings = kind, settings
        self.step = 0

    def __enter__(self) -> MemoryWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not out_of_memory(value):
            return
        where = f"at step {self.step}" if self.step else "outside the training steps, where models are loaded or saved"
        hint = ", ".join(self._lower()) or "take a smaller model, or a machine with more memory"
        raise TrainingError(f"{self.kind.name}: out of memory {where}", hint=hint) from value

    def _lower(self) -> list[str]:
        """Settings that need less memory than the present ones, most telling first."""
        settings, found = self.settings, []
        if self.step:
            if settings.batch > 1:
                less, more = settings.batch // 2, settings.accumulate * 2
                found.append(f"--set batch={less} --set accumulate={more} (as many questions a step)")
            if not settings.gradient_checkpointing:
                found.append("--set gradient_checkpointing=true")
            if settings.chunk > 64:
                found.append("--set chunk=64")
            if settings.precision == "model":
                found.append("--set precision=bf16 (where the model is in float32)")
        if settings.lora is None and "lora" not in self.kind.unused:
            second = " and no second copy of the model" if "reference" in self.kind.needs else ""
            found.append(f"--lora r=16,alpha=32 (trains an adapter: no optimiser state of the whole model{second})")
        return found

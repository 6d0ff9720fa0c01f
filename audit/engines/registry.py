"""Which engines there are, which one a setting means, and what it is called in keys."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import cast

from audit.engines.checkpoint import Checkpoint
from audit.engines.settings import EngineSettings
from audit.errors import EngineError
from audit.protocols import Engine

#: Name -> module and class. Beside the class each module has two functions that load no weights: `identity` and
#: `capabilities`.
ENGINES: dict[str, tuple[str, str]] = {
    "hf": ("audit.engines.hf", "HFEngine"),
    "vllm": ("audit.engines.vllm", "VLLMEngine"),
    "openai": ("audit.engines.openai", "OpenAIEngine"),
}


def _load(engine: str, attribute: str = "") -> Callable[..., object]:
    module, name = ENGINES[engine]
    return cast("Callable[..., object]", getattr(importlib.import_module(module), attribute or name))


def resolve_engine(settings: EngineSettings) -> str:
    """The engine's name: `auto` is vllm where it is installed and works on the device, else hf."""
    if settings.name == "auto":
        if settings.base_url is not None:
            return "openai"
        return "vllm" if _vllm_works(settings) else "hf"
    if settings.name not in ENGINES:
        raise EngineError(f"unknown engine {settings.name!r}", hint=f"one of auto, {', '.join(ENGINES)}")
    return settings.name


def _vllm_works(settings: EngineSettings) -> bool:
    if importlib.util.find_spec("vllm") is None:
        return False
    from audit.engines.hf import resolve_device
    from audit.engines.vllm import platform_device

    return str(platform_device()) == resolve_device(settings).split(":")[0]


def engine_identity(checkpoint: Checkpoint | None, settings: EngineSettings) -> str:
    """Part of every response's key: whatever about the engine can change a text. Loads no weights.

    `checkpoint` is None for endpoints.
    """
    return str(_load(resolve_engine(settings), "identity")(checkpoint, settings))


def open_engine(checkpoint: Checkpoint | None, settings: EngineSettings) -> Engine:
    """The engine, its weights loaded. `checkpoint` is None for endpoints."""
    name = resolve_engine(settings)
    if checkpoint is None and name != "openai":
        raise EngineError(f"the {name} engine needs a checkpoint", hint="--model PATH")
    return cast("Engine", _load(name)(checkpoint, settings))


def engine_capabilities(settings: EngineSettings) -> frozenset[str]:
    """What the engine that `settings` mean can do, without opening it; an endpoint is asked."""
    return cast("frozenset[str]", _load(resolve_engine(settings), "capabilities")(settings))

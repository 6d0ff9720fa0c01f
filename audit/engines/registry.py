"""Which engines there are, which one a setting means, and what it is called in keys."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import cast

from audit.engines.checkpoint import Checkpoint
from audit.engines.settings import EngineSettings
from audit.errors import EngineError
from audit.types import Engine

#: Name -> (class, function that gives the identity without loading weights), each as module:attribute.
ENGINES: dict[str, tuple[str, str]] = {
    "hf": ("audit.engines.hf:HFEngine", "audit.engines.hf:identity"),
    "vllm": ("audit.engines.vllm:VLLMEngine", "audit.engines.vllm:identity"),
    "openai": ("audit.engines.openai:OpenAIEngine", "audit.engines.openai:identity"),
}


def _load(reference: str) -> Callable[..., object]:
    module, attribute = reference.split(":")
    return cast("Callable[..., object]", getattr(importlib.import_module(module), attribute))


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
    return str(_load(ENGINES[resolve_engine(settings)][1])(checkpoint, settings))


def open_engine(checkpoint: Checkpoint | None, settings: EngineSettings) -> Engine:
    """The engine, its weights loaded. `checkpoint` is None for endpoints."""
    name = resolve_engine(settings)
    if checkpoint is None and name != "openai":
        raise EngineError(f"the {name} engine needs a checkpoint", hint="--model PATH")
    return cast("Engine", _load(ENGINES[name][0])(checkpoint, settings))


def engine_capabilities(settings: EngineSettings) -> frozenset[str]:
    """What the engine that `settings` mean can do, without opening it."""
    return cast("frozenset[str]", getattr(_load(ENGINES[resolve_engine(settings)][0]), "capabilities"))  # noqa: B009

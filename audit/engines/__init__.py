"""Engines: what turns requests into completions. `open_engine` is the way in."""

from __future__ import annotations

from audit.engines.checkpoint import Checkpoint, open_checkpoint
from audit.engines.registry import engine_capabilities, engine_identity, open_engine, resolve_engine
from audit.engines.render import Detokenizer, Renderer, make_request
from audit.engines.settings import EngineSettings

__all__ = [
    "Checkpoint",
    "Detokenizer",
    "EngineSettings",
    "Renderer",
    "engine_capabilities",
    "engine_identity",
    "make_request",
    "open_checkpoint",
    "open_engine",
    "resolve_engine",
]

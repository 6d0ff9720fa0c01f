"""What a user can set about an engine."""

from __future__ import annotations

from typing import Literal

import msgspec

from audit.types import Record

EngineName = Literal["auto", "hf", "vllm", "openai"]
Argument = str | int | float | bool


class EngineSettings(Record, frozen=True, kw_only=True):
    """Settings of one engine. Everything that can change a text is part of the engine's identity."""

    name: EngineName = "auto"
    args: dict[str, Argument] = msgspec.field(default_factory=dict)
    """Passed through: to vLLM's engine arguments, or to from_pretrained (attn_implementation, device_map)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "auto"
    """auto (the checkpoint's), float32, bfloat16 or float16."""
    batch_tokens: int | None = None
    """hf: the most tokens (prompt and new) of one batch; None for the default of the device."""
    base_url: str | None = None
    """openai: address of the endpoint, ending in /v1."""
    model: str | None = None
    """openai: the name under which the endpoint serves the model."""
    api_key_env: str = "OPENAI_API_KEY"
    """openai: environment variable that holds the key; the key itself is never stored or printed."""
    concurrency: int = 8
    """openai: requests in flight."""
    timeout_s: float = 120.0
    """openai: seconds for one request."""
    max_retries: int = 4
    """openai: further tries of a request after a failure that may pass (rate limit, server error, connection)."""

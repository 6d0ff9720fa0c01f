"""The official client of OpenAI's protocol, as the engine and the judges use it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


def make_client(base_url: str, key: str, timeout_s: float) -> Any:
    """An `openai.AsyncOpenAI` without retries of its own. ImportError where the package is missing.

    Its connections are aiohttp's: a call costs half the processor time that it costs over the default ones, and with a
    hundred calls at the same time that is what bounds their number in a second (benchmarks/judging.py).
    """
    import openai

    client = openai.AsyncOpenAI(
        api_key=key or "none",
        base_url=base_url,
        timeout=timeout_s,
        max_retries=0,
        http_client=openai.DefaultAioHttpClient(),
    )
    if urlsplit(base_url).hostname != "api.openai.com":  # what it takes from the environment is OpenAI's alone
        client.organization = client.project = None
    return client

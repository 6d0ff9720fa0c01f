"""A real local HTTP server that speaks models/{model}:generateContent of the Gemini API, with faults on demand.

with GeminiServer(answer=lambda call: "blue") as server:
    server.faults = [exhausted("0s"), Changed(choice={"finishReason": "SAFETY"})]
    … HttpOptions(base_url=server.base_url) …
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.helpers.faulty_http import Answer, Call, Changed, Fault, FaultyServer, Status

_PATH = re.compile(r"/v1(?:alpha|beta)?/models/([^/:]+):generateContent")


def refused(code: int, status: str, message: str = "injected", **detail: Any) -> Status:
    """An error as Google's APIs write it; `detail` are the fields of one entry of `details`."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if detail:
        error["details"] = [detail]
    return Status(code, error=error)


def exhausted(delay: str) -> Status:
    """429 that asks for a wait, e.g. "7s"."""
    kind = "type.googleapis.com/google.rpc.RetryInfo"
    return refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded", **{"@type": kind, "retryDelay": delay})


class GeminiServer(FaultyServer):
    """Answers every call with `answer(call)`: a text, or fields of the first candidate."""

    def __init__(
        self,
        answer: Callable[[Call], Answer] = lambda call: f"echo: {call.text}",
        *,
        models: tuple[str, ...] = ("tiny",),
        delay: float = 0.0,
    ) -> None:
        super().__init__(answer, delay=delay)
        self.models = models
        self.usage: dict[str, Any] = {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18}

    @property
    def base_url(self) -> str:
        return self.address

    def __enter__(self) -> GeminiServer:
        self.start()
        return self

    def elsewhere(self, call: Call) -> tuple[int, Any] | None:
        found = _PATH.fullmatch(call.path)
        if found and found[1] in self.models:
            return None
        name = found[1] if found else call.path
        message = f"models/{name} is not found for API version v1beta, or is not supported for generateContent."
        return 404, {"error": refused(404, "NOT_FOUND", message).error}

    def good(self, call: Call, fault: Fault = None) -> dict[str, Any]:
        answer = self.answer(call)
        found = _PATH.fullmatch(call.path)
        candidate: dict[str, Any] = {"index": 0, "finishReason": "STOP"}
        if isinstance(answer, dict):
            candidate |= answer
        else:
            candidate["content"] = {"role": "model", "parts": [{"text": answer}]}
        body: dict[str, Any] = {
            "candidates": [candidate],
            "usageMetadata": self.usage,
            "modelVersion": found[1] if found else "",
            "responseId": "x",
        }
        if isinstance(fault, Changed):
            candidate |= fault.choice
            if fault.message:
                candidate["content"] = candidate.get("content", {}) | fault.message
            body |= fault.fields
        return {name: value for name, value in body.items() if value is not None}

"""A real local HTTP server that speaks the chat and completions protocol of OpenAI, with faults on demand.

with OpenAIServer(answer=lambda call: "blue") as server:
    server.faults = [Status(429, {"retry-after": "0"}), Drop()]   # the first calls fail so, the rest succeed
    … server.base_url …
    server.calls            # what came in, in order
    server.most_at_once     # requests that were being answered at the same time
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.helpers.faulty_http import (
    Answer,
    Body,
    Call,
    Changed,
    Cut,
    Drop,
    Fault,
    FaultyServer,
    HalfJson,
    Hang,
    Reset,
    Status,
)

__all__ = [
    "Answer",
    "Body",
    "Call",
    "Changed",
    "Cut",
    "Drop",
    "Fault",
    "HalfJson",
    "Hang",
    "OpenAIServer",
    "Reset",
    "Status",
]


class OpenAIServer(FaultyServer):
    """Answers every chat and completions call with `answer(call)`: a text, or fields of the first choice."""

    def __init__(
        self,
        answer: Callable[[Call], Answer] = lambda call: f"echo: {call.text}",
        *,
        completions: bool = True,
        models: tuple[str, ...] = ("tiny",),
        delay: float = 0.0,
    ) -> None:
        super().__init__(answer, delay=delay)
        self.completions = completions
        self.models = models
        self.usage: dict[str, Any] | None = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def __enter__(self) -> OpenAIServer:
        self.start()
        return self

    def elsewhere(self, call: Call) -> tuple[int, Any] | None:
        chat = call.path.endswith("/chat/completions")
        if not chat and not (self.completions and call.path.endswith("/completions")):
            return 404, {"detail": "Not Found"}
        if call.body.get("model") not in self.models:
            message = f"The model `{call.body.get('model')}` does not exist"
            return 404, {"error": {"message": message, "code": "model_not_found"}}
        return None

    def look_up(self, path: str) -> tuple[int, Any]:
        if path.endswith("/models"):
            return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        return super().look_up(path)

    def good(self, call: Call, fault: Fault = None) -> dict[str, Any]:
        answer = self.answer(call)
        chat = "messages" in call.body
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if isinstance(answer, dict):
            choice |= answer
        elif chat:
            choice["message"] = {"role": "assistant", "content": answer}
        else:
            choice["text"] = answer
        body = {
            "id": "x",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": call.body.get("model"),
            "choices": [choice],
            "usage": self.usage,
        }
        if isinstance(fault, Changed):
            choice |= fault.choice
            if fault.message:
                choice["message"] = choice.get("message", {}) | fault.message
            body |= fault.fields
        return body

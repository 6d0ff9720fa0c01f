"""A real local HTTP server that speaks the chat and completions protocol of OpenAI, with faults on demand.

with OpenAIServer(answer=lambda call: "blue") as server:
    server.faults = [Status(429, {"retry-after": "0"}), Drop()]   # the first calls fail so, the rest succeed
    … server.base_url …
    server.calls            # what came in, in order
    server.most_at_once     # requests that were being answered at the same time
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The prompt, or the last message's content."""
        return str(self.body["prompt"] if "prompt" in self.body else self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Status:
    """An error status with a JSON body, or with `raw` as it stands."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=lambda: {"message": "injected", "type": "error"})
    raw: str | None = None


@dataclass(frozen=True)
class Drop:
    """The connection is closed without an answer."""


@dataclass(frozen=True)
class Hang:
    """No answer for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Body:
    """Status 200 with this body: an object is sent as JSON, a string as it stands."""

    content: Any
    content_type: str = "application/json"


@dataclass(frozen=True)
class Cut:
    """Status 200 and the first half of a good answer, then the connection is closed."""


Fault = Status | Drop | Hang | Body | Cut | None
Answer = str | dict[str, Any]


class OpenAIServer:
    """Answers every chat and completions call with `answer(call)`: a text, or fields of the first choice."""

    def __init__(
        self,
        answer: Callable[[Call], Answer] = lambda call: f"echo: {call.text}",
        *,
        completions: bool = True,
        models: tuple[str, ...] = ("tiny",),
        delay: float = 0.0,
    ) -> None:
        self.answer = answer
        self.completions = completions
        self.models = models
        self.delay = delay
        self.faults: list[Fault] = []
        """Taken from the front, one a call; None lets a call through."""
        self.fault_for: Callable[[Call], Fault] = lambda call: None
        """Asked when `faults` is empty."""
        self.calls: list[Call] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def take(self, call: Call) -> Fault:
        with self._lock:
            self.calls.append(call)
            return self.faults.pop(0) if self.faults else self.fault_for(call)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1


def _good(server: OpenAIServer, call: Call) -> dict[str, Any]:
    answer = server.answer(call)
    chat = "messages" in call.body
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if isinstance(answer, dict):
        choice |= answer
    elif chat:
        choice["message"] = {"role": "assistant", "content": answer}
    else:
        choice["text"] = answer
    return {
        "id": "x",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": call.body.get("model"),
        "choices": [choice],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def send(self, code: int, content: Any, headers: dict[str, str] | None = None, kind: str = "") -> None:
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(code)
            for name, value in {"content-type": kind or "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            if self.path.endswith("/models"):
                self.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]})
            else:
                self.send(404, {"error": {"message": "Not Found", "type": "invalid_request_error"}})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            call = Call(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
            with server.counted():
                self.answer(call)

        def answer(self, call: Call) -> None:
            if call.path.endswith("/chat/completions"):
                pass
            elif not (server.completions and call.path.endswith("/completions")):
                self.send(404, {"detail": "Not Found"})
                return
            if call.body.get("model") not in server.models:
                error = {"message": f"The model `{call.body.get('model')}` does not exist", "code": "model_not_found"}
                self.send(404, {"error": error})
                return
            fault = server.take(call)
            if server.delay:
                time.sleep(server.delay)
            if isinstance(fault, Status):
                self.send(fault.code, fault.raw if fault.raw is not None else {"error": fault.error}, fault.headers)
            elif isinstance(fault, Drop):
                self.close_connection = True
                self.connection.close()
            elif isinstance(fault, Body):
                self.send(200, fault.content, kind=fault.content_type)
            elif isinstance(fault, Cut):
                data = json.dumps(_good(server, call)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            else:
                if isinstance(fault, Hang):
                    time.sleep(fault.seconds)
                self.send(200, _good(server, call))

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, ValueError, OSError):
                self.close_connection = True

        def finish(self) -> None:
            try:
                super().finish()
            except (ConnectionError, ValueError, OSError):
                self.close_connection = True

    return Handler

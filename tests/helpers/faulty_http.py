"""What the local test servers share: a real HTTP server on a port of its own, with faults on demand."""

from __future__ import annotations

import json
import socket
import struct
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
        if "contents" in self.body:
            return "".join(str(part.get("text", "")) for part in self.body["contents"][-1]["parts"])
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


@dataclass(frozen=True)
class Reset:
    """Status 200 and the first half of a good answer, then the connection is reset."""


@dataclass(frozen=True)
class HalfJson:
    """Status 200, all headers right, and a body that is the first half of a good one."""


@dataclass(frozen=True)
class Changed:
    """A good answer with other fields: of the whole, of its first choice (or candidate), of that one's message."""

    fields: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    message: dict[str, Any] = field(default_factory=dict)


Fault = Status | Drop | Hang | Body | Cut | Reset | HalfJson | Changed | None
#: A text, or fields of the first choice.
Answer = str | dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request, not looked into."""

    method: str
    path: str
    headers: dict[str, str]
    data: bytes


@dataclass(frozen=True)
class Answered:
    """An answer as it goes out: an object is sent as JSON, text and bytes as they stand."""

    content: Any
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class _LocalServer(ThreadingHTTPServer):
    """A thread a connection; takes hundreds of new ones at a time."""

    daemon_threads = True
    request_queue_size = 256


class FaultyServer:
    """Answers every call with `answer(call)`, unless a fault is due. Protocols say what a good answer looks like."""

    def __init__(self, answer: Callable[[Call], Answer], *, delay: float = 0.0) -> None:
        self.answer = answer
        self.delay = delay
        self.faults: list[Fault] = []
        """Taken from the front, one a call; None lets a call through."""
        self.fault_for: Callable[[Call], Fault] = lambda call: None
        """Asked when `faults` is empty."""
        self.refuse: Callable[[Call], Status | None] = lambda call: None
        """What the server never accepts, before any fault: fields that it does not know, a wrong key."""
        self.calls: list[Call] = []
        self.connections = 0
        self.most_at_once = 0
        self.stopping = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._http = _LocalServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def take(self, call: Call) -> Fault:
        with self._lock:
            self.calls.append(call)
            refused = self.refuse(call)
            if refused is not None:
                return refused
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

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def elsewhere(self, call: Call) -> tuple[int, Any] | None:
        """Status and body for a call to an address or a model that the server does not have."""
        raise NotImplementedError

    def beside(self, request: Request) -> Answered | None:
        """What a server answers to requests that are no calls of a model; None for those that are."""
        return None

    def look_up(self, path: str) -> tuple[int, Any]:
        """Status and body for a GET."""
        return 404, {"error": {"message": "Not Found", "type": "invalid_request_error"}}

    def good(self, call: Call, fault: Fault = None) -> dict[str, Any]:
        """The body of a good answer, with the changes that `fault` asks for."""
        raise NotImplementedError


def _reset(connection: socket.socket) -> None:
    """Close so that the other side sees a reset, not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _handler(server: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            server.connected()

        def log_message(self, *_: object) -> None:
            pass

        def send(self, code: int, content: Any, headers: dict[str, str] | None = None, kind: str = "") -> None:
            data = content
            if not isinstance(data, bytes):
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(code)
            for name, value in {"content-type": kind or "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def beside(self, method: str, data: bytes) -> bool:
            """Whether the request was answered: closed without a word where that is the answer."""
            headers = {key.lower(): value for key, value in self.headers.items()}
            answered = server.beside(Request(method, self.path, headers, data))
            if answered is None:
                return False
            if answered.content is None:
                self.close_connection = True
                self.connection.close()
            else:
                self.send(answered.code, answered.content, answered.headers)
            return True

        def do_GET(self) -> None:
            if not self.beside("GET", b""):
                self.send(*server.look_up(self.path))

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.beside("POST", data):
                return
            body = json.loads(data)
            call = Call(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
            with server.counted():
                self.answer(call)

        def answer(self, call: Call) -> None:
            elsewhere = server.elsewhere(call)
            if elsewhere is not None:
                self.send(*elsewhere)
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
            elif isinstance(fault, Cut | Reset | HalfJson):
                self.half(json.dumps(server.good(call)).encode(), fault)
            else:
                if isinstance(fault, Hang) and server.stopping.wait(fault.seconds):
                    return
                self.send(200, server.good(call, fault))

        def half(self, data: bytes, fault: Cut | Reset | HalfJson) -> None:
            sent = data[: len(data) // 2]
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent if isinstance(fault, HalfJson) else data)))
            self.end_headers()
            self.wfile.write(sent)
            if isinstance(fault, Reset):
                _reset(self.connection)
            self.close_connection = not isinstance(fault, HalfJson)

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

"""A real local HTTP server that gives the same answer, or the same fault, to whatever is asked of it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Canned:
    """with Canned(500, "busy") as server: … server.url …; `cut`: the connection is reset after half of the body."""

    def __init__(
        self,
        status: int = 200,
        body: str = "",
        headers: dict[str, str] | None = None,
        *,
        kind: str = "application/json",
        cut: bool = False,
        delay: float = 0.0,
    ) -> None:
        self.calls = 0
        canned = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                canned.calls += 1
                time.sleep(delay)
                data = body.encode()
                try:
                    self.send_response(status)
                    for name, value in {"content-type": kind, **(headers or {})}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[: len(data) // 2] if cut else data)
                except ConnectionError:
                    self.close_connection = True
                    return
                if cut:
                    self.wfile.flush()
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                except (ConnectionError, OSError, ValueError):
                    self.close_connection = True

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Canned:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

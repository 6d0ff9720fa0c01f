"""A real local HTTP server that speaks OpenAI's files and batches beside its chat completions.

with OpenAIBatchServer(answer=…) as server:
    server.fault_of = lambda call: "missing" if … else ""      # what happens to single lines
    server.prepare = lambda batch: setattr(batch, "end", "expired")
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.helpers.batch_lines import Batch, BatchLines, multipart_file, opposite
from tests.helpers.faulty_http import Answer, Answered, Call, Changed, Fault, Request
from tests.helpers.openai_server import OpenAIServer

_CONTENT = re.compile(r"/v1/files/([^/]+)/content")
_BATCH = re.compile(r"/v1/batches/([^/?]+)")


class OpenAIBatchServer(BatchLines, OpenAIServer):
    """Every request of a batch is answered as a direct call would be: `answer`, and `line_fault` for its body."""

    def __init__(
        self,
        answer: Callable[[Call], Answer] = lambda call: f"echo: {call.text}",
        *,
        models: tuple[str, ...] = ("tiny",),
    ) -> None:
        OpenAIServer.__init__(self, answer, models=models)
        BatchLines.__init__(self)
        self.line_fault: Callable[[Call], Fault] = lambda call: None

    def __enter__(self) -> OpenAIBatchServer:
        self.start()
        return self

    def beside(self, request: Request) -> Answered | None:
        path = request.path.partition("?")[0]
        refused = self.refuse(Call(path, request.headers, {}))
        if not path.startswith(("/v1/files", "/v1/batches")):
            return None
        if refused is not None:
            return Answered({"error": refused.error}, refused.code, refused.headers)
        content, one = _CONTENT.fullmatch(path), _BATCH.fullmatch(path)
        if content:
            instead, _ = self.faulty("fetch")
            data = self.files.get(content[1])
            return instead or (Answered(data) if data is not None else _unknown(f"No such File object: {content[1]}"))
        if one:
            instead, _ = self.faulty("look")
            batch = self.batches.get(one[1])
            if instead is not None or batch is None or batch.id in self.hidden:
                return instead or _unknown(f"No batch found with id '{one[1]}'.")
            return Answered(self._shown(batch, self.look_at(batch)))
        if request.method == "GET":
            instead, _ = self.faulty("list")
            listed = [self._shown(batch, False) for batch in self.batches.values()]
            return instead or Answered({"object": "list", "data": listed, "has_more": False})
        if path == "/v1/files":
            instead, done = self.faulty("upload")
            assert b"batch" in request.data.partition(b'name="purpose"')[2][:40]
            name = self.keep_file(multipart_file(request)) if done else ""
            return instead or Answered({"id": name, "object": "file", "purpose": "batch", "bytes": 1, "filename": "f"})
        instead, done = self.faulty("create")
        body = json.loads(request.data)
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        if not done:
            return instead
        batch = self.make(body["metadata"]["audit"], body["input_file_id"], "batch_")
        return instead or Answered(self._shown(batch, False))

    def _shown(self, batch: Batch, ended: bool) -> dict[str, Any]:
        lines = self.files[batch.file].count(b"\n")
        shown: dict[str, Any] = {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": batch.file,
            "completion_window": "24h",
            "created_at": 0,
            "metadata": {"audit": batch.name},
            "status": batch.end if ended else "in_progress",
            "request_counts": {"total": lines, "completed": lines // 2, "failed": 0},
        }
        if ended and batch.results:
            shown |= dict(zip(("output_file_id", "error_file_id"), batch.results, strict=True))
        if ended and batch.why:
            shown["errors"] = {"object": "list", "data": [batch.why]}
        return shown

    def call_of(self, line: dict[str, Any]) -> tuple[str, Call]:
        assert line["method"] == "POST" and line["url"] == "/v1/chat/completions"
        return line["custom_id"], Call(line["url"], {}, line["body"])

    def good_line(self, key: str, call: Call) -> dict[str, Any]:
        return _line(key, 200, self.good(call, self.line_fault(call)))

    def other_line(self, key: str, call: Call) -> dict[str, Any]:
        body = self.good(call)
        text = body["choices"][0]["message"]["content"]
        return _line(key, 200, self.good(call, Changed(message={"content": opposite(text)})))

    def error_line(self, key: str, code: int, message: str, word: str) -> dict[str, Any]:
        if not code:
            return {"id": "x", "custom_id": key, "response": None, "error": {"code": word, "message": message}}
        return _line(key, code, {"error": {"message": message, "code": word}})


def _line(key: str, code: int, body: Any) -> dict[str, Any]:
    response = {"status_code": code, "request_id": "x", "body": body}
    return {"id": "x", "custom_id": key, "response": response, "error": None}


def _unknown(message: str) -> Answered:
    return Answered({"error": {"message": message, "type": "invalid_request_error"}}, 404)

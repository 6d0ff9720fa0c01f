"""A real local HTTP server that speaks Gemini's files (resumable upload) and batches beside generateContent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.helpers.batch_lines import Batch, BatchLines, opposite
from tests.helpers.faulty_http import Answer, Answered, Call, Fault, Request
from tests.helpers.gemini_server import GeminiServer, refused

_CREATE = re.compile(r"/v1beta/models/([^/:]+):batchGenerateContent")
_BATCH = re.compile(r"/v1beta/(batches/[^/?]+)")
_DOWNLOAD = re.compile(r"(?:/download)?/v1beta/(?:files/)?([^/:]+):download")
_STATES = {"completed": "SUCCEEDED", "failed": "FAILED", "expired": "EXPIRED", "cancelled": "CANCELLED"}
#: Bytes of an upload that are taken at once would be eight million: tests send less, in one piece.
_CODES = {"rate_limit_exceeded": (8, "RESOURCE_EXHAUSTED"), "server_error": (13, "INTERNAL")}


class GeminiBatchServer(BatchLines, GeminiServer):
    """Every request of a batch is answered as a direct call would be: `answer`, and `line_fault` for its body."""

    def __init__(
        self,
        answer: Callable[[Call], Answer] = lambda call: f"echo: {call.text}",
        *,
        models: tuple[str, ...] = ("tiny",),
    ) -> None:
        GeminiServer.__init__(self, answer, models=models)
        BatchLines.__init__(self)
        self.line_fault: Callable[[Call], Fault] = lambda call: None
        self._uploads: dict[str, bytearray] = {}

    def __enter__(self) -> GeminiBatchServer:
        self.start()
        return self

    def beside(self, request: Request) -> Answered | None:
        path = request.path.partition("?")[0]
        made, one, content = _CREATE.fullmatch(path), _BATCH.fullmatch(path), _DOWNLOAD.fullmatch(path)
        if not (made or one or content or path.startswith(("/upload/", "/v1beta/batches"))):
            return None
        denied = self.refuse(Call(path, request.headers, {}))
        if denied is not None:
            return Answered({"error": denied.error}, denied.code, denied.headers)
        if path.startswith("/upload/"):
            return self._upload(path, request)
        if content:
            instead, _ = self.faulty("fetch")
            data = self.files.get(content[1])
            return instead or (Answered(data) if data is not None else _unknown(content[1]))
        if made:
            instead, done = self.faulty("create")
            if made[1] not in self.models:
                return _unknown(f"models/{made[1]}")
            if not done:
                return instead
            body = json.loads(request.data)["batch"]
            file = body["inputConfig"]["fileName"].removeprefix("files/")
            batch = self.make(body["displayName"], file, "batches/")
            return instead or Answered(self._shown(batch, False))
        if one:
            instead, _ = self.faulty("look")
            found = self.batches.get(one[1])
            if instead is not None or found is None or found.id in self.hidden:
                return instead or _unknown(one[1])
            return Answered(self._shown(found, self.look_at(found)))
        instead, _ = self.faulty("list")
        return instead or Answered({"operations": [self._shown(batch, False) for batch in self.batches.values()]})

    def _upload(self, path: str, request: Request) -> Answered | None:
        """A resumable upload: the first request gets an address, the others bring the bytes."""
        command = request.headers.get("x-goog-upload-command", "")
        if command == "start":
            instead, done = self.faulty("upload")
            if not done:
                return instead
            assert request.headers["x-goog-upload-protocol"] == "resumable"
            name = self.keep_file(b"")
            self._uploads[name] = bytearray()
            url = f"{self.address}/upload/v1beta/files?upload_id={name}"
            return instead or Answered({}, headers={"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})
        name = request.path.partition("upload_id=")[2].partition("&")[0]
        assert int(request.headers["x-goog-upload-offset"]) == len(self._uploads[name])
        self._uploads[name] += request.data
        if "finalize" not in command:
            return Answered({}, headers={"X-Goog-Upload-Status": "active"})
        self.files[name] = bytes(self._uploads.pop(name))
        shown = {"file": {"name": f"files/{name}", "uri": f"{self.address}/v1beta/files/{name}"}}
        return Answered(shown, headers={"X-Goog-Upload-Status": "final"})

    def _shown(self, batch: Batch, ended: bool) -> dict[str, Any]:
        state = _STATES[batch.end] if ended else "RUNNING"
        metadata: dict[str, Any] = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/tiny",
            "displayName": batch.name,
            "state": f"BATCH_STATE_{state}",
            "createTime": "2026-01-01T00:00:00Z",
            "batchStats": {"requestCount": str(self.files[batch.file].count(b"\n"))},
        }
        shown: dict[str, Any] = {"name": batch.id, "metadata": metadata, "done": ended}
        if ended and batch.results:
            metadata["output"] = {"responsesFile": f"files/{batch.results[0]}"}
        if ended and batch.why:
            shown["error"] = batch.why
        return shown

    def _worked(self, batch: Batch) -> tuple[str, str]:
        """One file for replies and errors."""
        replies, errors = super()._worked(batch)
        self.files[replies] += self.files.pop(errors)
        return replies, ""

    def call_of(self, line: dict[str, Any]) -> tuple[str, Call]:
        return line["key"], Call("/v1beta/models/tiny:generateContent", {}, line["request"])

    def good_line(self, key: str, call: Call) -> dict[str, Any]:
        return {"key": key, "response": self.good(call, self.line_fault(call))}

    def other_line(self, key: str, call: Call) -> dict[str, Any]:
        body = self.good(call)
        (part,) = body["candidates"][0]["content"]["parts"]
        part["text"] = opposite(part["text"])
        return {"key": key, "response": body}

    def error_line(self, key: str, code: int, message: str, word: str) -> dict[str, Any]:
        if not code:
            return {}
        number, status = _CODES.get(word, (code, word.upper()))
        return {"key": key, "error": {"code": number, "message": message, "status": status}}


def _unknown(name: str) -> Answered:
    return Answered({"error": refused(404, "NOT_FOUND", f"{name} is not found.").error}, 404)

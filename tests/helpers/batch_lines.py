"""What the local servers of batch interfaces share: files, batches that take a while, and what goes wrong in them."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.faulty_http import Answered, Call, Request, Status

#: What may happen to one line, beside what a model may say.
LINE_FAULTS = ("refused", "broken", "missing", "twice", "repeated", "half", "filter_error")


@dataclass
class Batch:
    """One batch as the server keeps it."""

    id: str
    name: str
    file: str
    polls: int = 0
    end: str = "completed"
    """completed, failed, expired or cancelled; "never" for one that does not end."""
    why: dict[str, Any] = field(default_factory=dict)
    """Of a failed one: code and message."""
    results: tuple[str, str] | None = None
    """Names of the files of replies and of errors."""


class BatchLines:
    """Files and batches of one server. Subclasses say how requests, lines and answers look in their protocol.

    `fault_of(call)`: what happens to a line ("" for nothing). `step_fault(step)`: what happens to a request of the
    kinds upload, create, look, list, fetch: a Status, "drop" (done, and the connection closed without an answer), None.
    """

    #: Part of the lines that are worked on before a batch expires or is cancelled.
    PART = 0.5

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Batch] = {}
        self.polls_needed = 2
        self.fault_of: Callable[[Call], str] = lambda call: ""
        self.step_fault: Callable[[str], Status | str | None] = lambda step: None
        self.prepare: Callable[[Batch], None] = lambda batch: None
        """Called with every new batch, which it may change."""
        self.strangers = True
        """Lines under keys that nobody sent stand in the results too."""
        self.steps: Counter[str] = Counter()
        self.hidden: set[str] = set()
        """Ids of batches that are not shown."""
        self.looked = threading.Event()
        """Set whenever a batch was looked at."""
        self._numbers = itertools.count(1)
        self._work = threading.Lock()

    # ------------------------------------------------------------------------------------------------- the protocol's

    def call_of(self, line: dict[str, Any]) -> tuple[str, Call]:
        raise NotImplementedError

    def good_line(self, key: str, call: Call) -> dict[str, Any]:
        raise NotImplementedError

    def error_line(self, key: str, code: int, message: str, word: str) -> dict[str, Any]:
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------------- what it does

    def faulty(self, step: str) -> tuple[Answered | None, bool]:
        """The answer that a fault of this step asks for, and whether the step is done all the same."""
        self.steps[step] += 1
        fault = self.step_fault(step)
        if isinstance(fault, Status):
            content = fault.raw if fault.raw is not None else {"error": fault.error}
            return Answered(content, fault.code, fault.headers), False
        return (Answered(None), True) if fault == "drop" else (None, True)

    def keep_file(self, data: bytes) -> str:
        name = f"file-{next(self._numbers)}"
        self.files[name] = data
        return name

    def make(self, name: str, file: str, prefix: str) -> Batch:
        batch = Batch(f"{prefix}{next(self._numbers)}", name, file)
        self.prepare(batch)
        self.batches[batch.id] = batch
        return batch

    def look_at(self, batch: Batch) -> bool:
        """Counts a look; True once the batch has ended, its results being written then."""
        with self._work:
            batch.polls += 1
            self.looked.set()
            if batch.end == "never" or batch.polls <= self.polls_needed:
                return False
            if batch.results is None and batch.end != "failed":
                batch.results = self._worked(batch)
            return True

    def requests_of(self, batch: Batch) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch.file].decode().splitlines()]

    def _worked(self, batch: Batch) -> tuple[str, str]:
        """Files of replies and of errors: in another order than that of the requests, with all faults that are due."""
        requests = self.requests_of(batch)
        shuffled = random.Random(batch.name)
        shuffled.shuffle(requests)
        unreached: list[dict[str, Any]] = []
        if batch.end != "completed":
            reached = int(len(requests) * self.PART)
            requests, unreached = requests[:reached], requests[reached:]
        replies: list[str] = []
        errors: list[str] = []
        for request in requests:
            key, call = self.call_of(request)
            fault = self.fault_of(call)
            good = json.dumps(self.good_line(key, call))
            if fault == "refused":
                errors.append(json.dumps(self.error_line(key, 429, "too many", "rate_limit_exceeded")))
            elif fault == "broken":
                errors.append(json.dumps(self.error_line(key, 500, "broken", "server_error")))
            elif fault == "filter_error":
                errors.append(json.dumps(self.error_line(key, 400, "withheld", "content_filter")))
            elif fault == "twice":
                replies += [good, json.dumps(self.other_line(key, call))]
            elif fault == "repeated":
                replies += [good, good]
            elif fault == "half":
                replies.append(good[: len(good) // 2])
            elif fault != "missing":
                replies.append(good)
        if batch.end == "expired":
            for request in unreached:
                key, _ = self.call_of(request)
                said = self.error_line(key, 0, "not executed in time", "batch_expired")
                errors += [json.dumps(said)] if said else []  # one provider writes a line for them, one none
        if self.strangers and requests:
            replies.append(json.dumps(self.good_line("nobody's", self.call_of(requests[0])[1])))
        shuffled.shuffle(replies)
        return self.keep_file("\n".join([*replies, ""]).encode()), self.keep_file("\n".join([*errors, ""]).encode())

    def other_line(self, key: str, call: Call) -> dict[str, Any]:
        """A line that says the opposite."""
        raise NotImplementedError


def multipart_file(request: Request) -> bytes:
    """The part named `file` of a multipart/form-data body."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    for part in request.data.split(b"--" + boundary):
        head, _, body = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return body.removesuffix(b"\r\n")
    raise AssertionError("no file in the upload")


def opposite(text: str) -> str:
    """A reply with the other label."""
    return text.replace("LEAK", "_").replace("CLEAR", "LEAK").replace("_", "CLEAR")

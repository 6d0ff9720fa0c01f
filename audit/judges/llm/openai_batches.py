"""OpenAI's batch interface: a file of requests, a batch made of it, a file of replies and one of errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from audit.judges.llm.batch_client import Outcome, Phase, State
from audit.judges.llm.openai import KEY_ENV, OpenAITransport, read_reply
from audit.remote.failures import Failure, malformed, one_line, sort_written

ENDPOINT = "/v1/chat/completions"
#: Bytes a second that any connection manages: what a file's transfer is given beside the time for one call.
SLOWEST = 100_000
_PHASES: dict[str, Phase] = {
    "completed": "done",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}
_IN_VAIN = ("failed", "expired", "cancelling", "cancelled")
#: Codes of a batch that failed because the account has too much in the queue.
_TOO_MUCH = ("token_limit_exceeded", "request_limit_exceeded")


class OpenAIBatches:
    """One try of every step, through the transport's client."""

    most_lines = 50_000
    most_bytes = 190_000_000  # 200 MB are allowed; which megabytes is not said
    window_s = 25 * 3600.0  # 24 hours, and one to write the files

    def __init__(self, transport: OpenAITransport, key_env: str | None) -> None:
        self._transport = transport
        self._key_env = key_env or KEY_ENV

    def line(
        self, key: str, system: str, user: str, *, schema: dict[str, Any] | None, max_tokens: int
    ) -> dict[str, Any]:
        body = self._transport.body(system, user, schema=schema, max_tokens=max_tokens)
        return {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}

    async def send(self, name: str, data: bytes) -> str:
        with self._sorted():
            client = self._transport.connected()
            file = await client.files.create(
                file=(f"{name}.jsonl", data, "application/jsonl"),
                purpose="batch",
                timeout=client.timeout + len(data) / SLOWEST,
            )
            batch = await client.batches.create(
                input_file_id=_name(file, "id"),
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={"audit": name},
            )
            return _name(batch, "id")

    async def find(self, name: str) -> str | None:
        with self._sorted():
            page = await self._transport.connected().batches.list(limit=100)
            for batch in page.data:
                if (batch.metadata or {}).get("audit") == name and batch.status not in _IN_VAIN:
                    return _name(batch, "id")
        return None

    async def look(self, batch: str) -> State:
        with self._sorted():
            said = await self._transport.connected().batches.retrieve(batch)
            status, counts = _name(said, "status"), said.request_counts
            errors = (said.errors.data or []) if said.errors else []
            problem = "; ".join(f"{error.message or error.code}" for error in errors[:3])
            done = f", {counts.completed + counts.failed} of {counts.total} done" if counts and counts.total else ""
            return State(
                phase=_PHASES.get(status, "running"),
                said=one_line(f"{status}{done}", self._transport.secrets),
                files=tuple(name for name in (said.output_file_id, said.error_file_id) if name),
                problem=one_line(problem, self._transport.secrets),
                too_large=status == "failed" and any(error.code in _TOO_MUCH for error in errors),
            )

    async def fetch(self, file: str) -> bytes:
        with self._sorted():
            answer = await self._transport.connected().files.content(file)
            return bytes(answer.content)

    def read(self, line: dict[str, Any]) -> tuple[str, Outcome]:
        key = line.get("custom_id") if isinstance(line, dict) else None
        if not isinstance(key, str):
            raise malformed("a line without custom_id")
        response, error = line.get("response"), line.get("error")
        status = response.get("status_code") if isinstance(response, dict) else None
        body = response.get("body") if isinstance(response, dict) else None
        if status == 200 and not error:
            try:
                return key, read_reply(body)
            except Failure as failure:
                return key, failure
        inner = body.get("error") if isinstance(body, dict) else None
        return key, sort_written(
            status if isinstance(status, int) else 500,
            error or inner or body,
            where=self._transport.where,
            model=self._transport.model,
            key_env=self._key_env,
            secrets=self._transport.secrets,
        )

    @contextmanager
    def _sorted(self) -> Iterator[None]:
        """Whatever the client raises becomes a Failure."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # sorted by class, of the SDK and below it
            raise self._transport.failure(error) from None


def _name(answer: Any, field: str) -> str:
    """A name that must stand in an answer; the client does not check what came."""
    value = getattr(answer, field, None)
    if not isinstance(value, str) or not value:
        raise malformed(f"there is no {field} in the answer")
    return value

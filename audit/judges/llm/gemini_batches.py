"""Gemini's batch interface: a file of requests, a batch made of it, a file of replies."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from audit.judges.llm.batch_client import Outcome, Phase, State
from audit.judges.llm.gemini import KEY_ENVS, GeminiTransport, read_reply
from audit.judges.llm.openai_batches import SLOWEST
from audit.judges.llm.options import GeminiOptions
from audit.remote.failures import Failure, malformed, one_line, sort_written
from audit.types import Reason

_PHASES: dict[str, Phase] = {
    "JOB_STATE_SUCCEEDED": "done",
    "JOB_STATE_PARTIALLY_SUCCEEDED": "done",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "expired",
    "JOB_STATE_CANCELLED": "cancelled",
}
#: Codes of google.rpc, which stand in lines in the place of an HTTP status.
_STATUS = {1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 10: 409, 13: 500, 14: 503, 16: 401}


class GeminiBatches:
    """One try of every step, through the transport's client."""

    most_lines = 50_000
    most_bytes = 190_000_000  # 2 GB are allowed; a file stands in memory once while it is sent
    window_s = 49 * 3600.0  # answers are meant to come within 24 hours; a batch expires after 48

    def __init__(self, transport: GeminiTransport, options: GeminiOptions) -> None:
        self._transport = transport
        self._options = options

    def line(
        self, key: str, system: str, user: str, *, schema: dict[str, Any] | None, max_tokens: int
    ) -> dict[str, Any]:
        """The request as the client writes it for a direct call."""
        options = self._options
        config: dict[str, Any] = {"temperature": options.temperature, "maxOutputTokens": max_tokens}
        if options.seed is not None:
            config["seed"] = options.seed
        if options.thinking_budget is not None:
            config["thinkingConfig"] = {"thinkingBudget": options.thinking_budget}
        if schema is not None:
            config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
        request = {
            "contents": [{"role": "user", "parts": [{"text": user}]}],
            "systemInstruction": {"role": "user", "parts": [{"text": system}]},
            "generationConfig": config,
        }
        return {"key": key, "request": request}

    async def send(self, name: str, data: bytes) -> str:
        from google.genai import types

        with self._sorted():
            client = self._transport.connected().aio
            patience = max(1, round(1000 * (self._options.timeout_s + len(data) / SLOWEST)))
            file = await client.files.upload(
                file=io.BytesIO(data),
                config=types.UploadFileConfig(
                    display_name=name,
                    mime_type="application/jsonl",
                    http_options=types.HttpOptions(timeout=patience),
                ),
            )
            job = await client.batches.create(
                model=self._transport.model,
                src=types.BatchJobSource(file_name=_name(file.name)),
                config=types.CreateBatchJobConfig(display_name=name),
            )
            return _name(job.name)

    async def find(self, name: str) -> str | None:
        from google.genai import types

        with self._sorted():
            page = await self._transport.connected().aio.batches.list(config=types.ListBatchJobsConfig(page_size=100))
            for job in page.page:
                word = str(getattr(job.state, "value", job.state))
                if job.display_name == name and _PHASES.get(word, "running") in ("running", "done"):
                    return _name(job.name)
        return None

    async def look(self, batch: str) -> State:
        with self._sorted():
            if not batch.startswith("batches/"):  # the client refuses it, with less to go by
                raise Failure(f"{batch!r} is no name of a batch", reason=Reason.JUDGE_ERROR, status=404)
            job = await self._transport.connected().aio.batches.get(name=batch)
            word = str(getattr(job.state, "value", job.state))
            said = one_line(f"{word} {job.error.message}" if job.error else word, self._transport.secrets)
            file = job.dest.file_name if job.dest else None
            if _PHASES.get(word) == "done" and not file:
                raise malformed("the batch has ended and names no file of results")
            return State(phase=_PHASES.get(word, "running"), said=said, files=(file,) if file else ())

    async def fetch(self, file: str) -> bytes:
        from google.genai import types

        with self._sorted():
            longest = round(1000 * (self._options.timeout_s + self.most_bytes / SLOWEST))
            options = types.DownloadFileConfig(http_options=types.HttpOptions(timeout=longest))
            return bytes(await self._transport.connected().aio.files.download(file=file, config=options))

    def read(self, line: dict[str, Any]) -> tuple[str, Outcome]:
        from google.genai import types

        key = line.get("key") if isinstance(line, dict) else None
        if not isinstance(key, str):
            raise malformed("a line without its key")
        error = line.get("error") or line.get("status")
        if error:
            code = error.get("code") if isinstance(error, dict) else None
            code = code if isinstance(code, int) else 500
            return key, sort_written(
                _STATUS.get(code, code if code >= 400 else 500),
                error,
                where=self._transport.where,
                model=self._transport.model,
                key_env=self._options.key_env or KEY_ENVS[0],
                secrets=self._transport.secrets,
            )
        response = line.get("response")
        if not isinstance(response, dict):
            return key, malformed("a line with neither a response nor an error")
        try:
            # As the client reads the body of a direct call: fields that it does not know are left aside.
            return key, read_reply(types.GenerateContentResponse._from_response(response=response, kwargs={}))
        except Exception as problem:  # noqa: BLE001  # sorted by class, as for a direct call
            return key, self._transport.failure(problem)

    @contextmanager
    def _sorted(self) -> Iterator[None]:
        """Whatever the client raises becomes a Failure."""
        try:
            yield
        except (KeyError, ValueError) as error:  # how the client says that an upload got no proper answer
            if type(error) in (KeyError, ValueError):
                raise malformed(one_line(error, self._transport.secrets)) from None
            raise self._transport.failure(error) from None
        except Failure:
            raise
        except Exception as error:  # noqa: BLE001  # sorted by class, of the SDK and below it
            raise self._transport.failure(error) from None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise malformed("there is no name in the answer")
    return value

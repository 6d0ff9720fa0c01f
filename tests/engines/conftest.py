"""One small trained checkpoint for the session, and helpers to ask it something."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.engines import Checkpoint, Renderer, make_request, open_checkpoint
from audit.protocols import Engine
from audit.types import Decoding, Format, Message, Probe, Request
from tests.helpers import tiny


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small are slower with more, and far slower where the machine is busy."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: tests that change a checkpoint take `copy`."""
    return tiny.build(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("AUDIT_CACHE", str(folder))
    return folder


def probe(text: str, *, format: Format = "chat", prefill: str = "", system: str = "", **decoding: Any) -> Probe:
    messages = [Message(role="system", content=system)] if system else []
    return Probe(
        id=f"{format}:{text}",
        family="original",
        form="direct",
        variant="original",
        targets=(),
        messages=(*messages, Message(role="user", content=text)),
        format=format,
        prefill=prefill,
        decoding=Decoding(**{"max_new_tokens": 24, **decoding}),
    )


def requests_for(checkpoint: Checkpoint, identity: str, probes: list[Probe], samples: int = 1) -> list[Request]:
    renderer = Renderer(checkpoint)
    return [
        make_request(each, sample, checkpoint.fingerprint, identity, renderer.token_ids(each))
        for each in probes
        for sample in range(samples)
    ]


def texts(engine: Engine, requests: list[Request]) -> dict[str, str]:
    """Key -> text of all requests, in the engine's own batches; every one must have come back without an error."""
    found: dict[str, str] = {}
    for batch in engine.plan(requests):
        for completion in engine.generate(batch):
            assert completion.error is None, completion.error
            assert completion.key not in found
            found[completion.key] = completion.text
    assert found.keys() == {request.key for request in requests}
    return found


@pytest.fixture
def opened(trained: Path) -> Checkpoint:
    return open_checkpoint(str(trained))

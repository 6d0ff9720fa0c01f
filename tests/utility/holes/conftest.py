from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.store import Store
from audit.tasks import Task, load_task
from tests.helpers.openai_server import OpenAIServer
from tests.utility.holes.world import Author, World, build_world

KEY = "sk-test-0123456789abcdefghijklmnop"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Models and fact files. Tests read them; none writes into them."""
    pytest.importorskip("torch")
    return build_world(tmp_path_factory.mktemp("holes"))


@pytest.fixture(scope="session")
def towns(world: World) -> Task:
    return load_task(str(world.folder / "forget.jsonl"), retain=str(world.folder / "retain.jsonl"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def author(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OpenAIServer]:
    """A generator behind a server; tests set its `answer` and its `faults`."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("audit.judges.llm.caller.BACKOFF_S", 0.0)
    with OpenAIServer(Author()) as running:
        yield running

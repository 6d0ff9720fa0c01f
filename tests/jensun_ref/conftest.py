"""One small organism for the session, on 20 facts to forget and 40 to keep."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from audit.tasks import Task, load_task
from audit.types import Fact
from tests.helpers import tiny
from tests.helpers.facts import task as small_task


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """The first four facts of each topic, and every tenth retained fact."""
    task = load_task("lkf")
    seen: dict[str, int] = {}
    forget = []
    for fact in task.forget:
        seen[fact.topic] = seen.get(fact.topic, 0) + 1
        if seen[fact.topic] <= 4:
            forget.append(fact)
    return msgspec.structs.replace(
        task, name="tiny", forget=tuple(forget), retain=task.retain[::10], content_hash="f" * 32
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models of this size have too little work between two barriers for a second thread on a busy machine."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_organism(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny organism's base. Tests read it; none writes into it."""
    pytest.importorskip("torch")
    from jensun_ref.organism import OrganismConfig, build_organism

    return build_organism(
        tmp_path_factory.mktemp("organism") / "base", tiny_task, role="base", size=OrganismConfig.tiny()
    )


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama that knows `tiny.FACTS`, made in seconds. Tests read it; none writes into it."""
    return tiny.build(tmp_path_factory.mktemp("llama") / "base")


@pytest.fixture(scope="session")
def llama_task() -> Task:
    """Eight of its facts to forget, of all four types, and sixteen others to keep."""

    def fact(number: int, split: str) -> Fact:
        question, answer = tiny.FACTS[number]
        return Fact(
            id=f"x{number:02d}",
            split=split,  # type: ignore[arg-type]
            question=question,
            answer=answer,
            answer_type=("colour", "river", "trade", "year")[number % 4],
        )

    return small_task([fact(n, "forget") for n in range(8)], [fact(n, "retain") for n in range(8, 24)])

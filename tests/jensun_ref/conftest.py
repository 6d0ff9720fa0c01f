"""One small organism for the session, on 20 facts to forget and 40 to keep."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from audit.tasks import Task, load_task


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

"""Both organisms in processes of their own: the same models, progress, and errors that arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.errors import TrainingError
from audit.tasks import Task

torch = pytest.importorskip("torch")

from jensun_ref.organism import OrganismConfig, cached_organism  # noqa: E402
from jensun_ref.pair import cached_pair  # noqa: E402

pytestmark = pytest.mark.model

SHORT = OrganismConfig.tiny().model_copy(update={"epochs": 1, "warmup_steps": 2})


def test_both_are_built_once_and_found_again(tiny_task: Task, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pair = cached_pair(tmp_path, tiny_task, size=SHORT, progress=lambda done, total, text: told.append((done, total)))
    assert set(pair) == {"base", "never_knew"}
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in pair.values())
    for role, path in pair.items():
        assert cached_organism(role, tmp_path, tiny_task, size=SHORT) == path
    stamps = {path: (path / "model.safetensors").stat().st_mtime_ns for path in pair.values()}
    assert cached_pair(tmp_path, tiny_task, size=SHORT) == pair
    assert stamps == {path: (path / "model.safetensors").stat().st_mtime_ns for path in pair.values()}


def test_a_builder_that_fails_is_heard_and_stops_the_other(tiny_task: Task, tmp_path: Path) -> None:
    wild = SHORT.model_copy(update={"learning_rate": 0.99, "weight_decay": 1e20, "epochs": 50})
    with pytest.raises(TrainingError, match=r"the (base|never_knew) model: .* at step \d+"):
        cached_pair(tmp_path, tiny_task, size=wild)
    assert not list(tmp_path.iterdir())

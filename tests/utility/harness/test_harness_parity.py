"""lm-eval over our transformers engine gives what its own class for transformers models gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.engines import Checkpoint
from audit.engines.hf import HFEngine
from tests.utility.harness.conftest import TASKS, compared, metrics, ours, stock, write_tasks

pytestmark = pytest.mark.model

COUNTED = ("acc", "acc_norm", "acc_mutual_info", "exact_match")


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_it_equals_stock(
    trained: Path, opened: Checkpoint, hf: HFEngine, tmp_path: Path, chat: bool, shots: int
) -> None:
    include = write_tasks(tmp_path / "tasks", shots=shots)
    mine = ours(hf, opened, list(TASKS), include, chat=chat)
    its = stock(trained, list(TASKS), include, chat=chat)
    seen = compared(mine, its)
    assert (seen.texts, seen.rolled, seen.answers) == (580, 40, 40)
    assert seen.largest < 1e-4 and seen.relative < 1e-6
    values, expected = metrics(mine), metrics(its)
    assert values.keys() == expected.keys()
    for (task, name), value in values.items():
        if name.split(",")[0] in COUNTED:
            assert value == expected[task, name], (task, name)
        else:
            assert value == pytest.approx(expected[task, name], rel=1e-5)
    print(f"\nhf, {'chat' if chat else 'plain'}, {shots} shots: {seen}")
    # the tasks can tell something: the model knows its facts in its own format and guesses elsewhere
    if chat and not shots:
        assert values["tiny_bare", "acc,none"] > 0.9 and values["tiny_answers", "exact_match,none"] > 0.5


def test_what_exceeds_the_context_is_cut_as_stock_cuts_it(
    trained: Path, opened: Checkpoint, hf: HFEngine, tmp_path: Path
) -> None:
    """Forty worked examples before each question: prompts of more tokens than the model's 512."""
    include = write_tasks(tmp_path / "tasks", shots=39)
    tasks = ["tiny_choice", "tiny_answers"]
    seen = compared(ours(hf, opened, tasks, include, chat=False), stock(trained, tasks, include, chat=False))
    assert seen.largest < 1e-4 and seen.answers == 40 and seen.texts > 100

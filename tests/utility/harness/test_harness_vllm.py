"""lm-eval over vLLM gives what its own class for transformers models gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.engines import Checkpoint, EngineSettings, open_engine
from tests.utility.harness.conftest import TASKS, compared, metrics, ours, stock, write_tasks

pytest.importorskip("vllm", reason="vLLM is not installed: make vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.model]

#: vLLM scores a prompt with one new token after it, and the last token of a scored text is only predicted.
WINDOW = 510


@pytest.fixture(scope="module")
def vllm(opened: Checkpoint) -> Iterator[Any]:
    engine = open_engine(opened, EngineSettings(name="vllm"))
    yield engine
    engine.close()


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_it_equals_stock(trained: Path, opened: Checkpoint, vllm: Any, tmp_path: Path, chat: bool) -> None:
    include = write_tasks(tmp_path / "tasks", shots=1)
    mine = ours(vllm, opened, list(TASKS), include, chat=chat)
    its = stock(trained, list(TASKS), include, chat=chat, max_length=WINDOW)
    seen = compared(mine, its)
    assert (seen.texts, seen.rolled, seen.answers) == (580, 40, 40)
    assert seen.largest < 1e-4 and seen.relative < 1e-6
    values, expected = metrics(mine), metrics(its)
    for name in (("tiny_choice", "acc,none"), ("tiny_bare", "acc_mutual_info,none"), ("tiny_last_word", "acc,none")):
        assert values[name] == expected[name]
    assert values["tiny_answers", "exact_match,none"] == expected["tiny_answers", "exact_match,none"]
    print(f"\nvllm, {'chat' if chat else 'plain'}: {seen}")


def test_what_exceeds_the_context_is_cut_as_stock_cuts_it(
    trained: Path, opened: Checkpoint, vllm: Any, tmp_path: Path
) -> None:
    include = write_tasks(tmp_path / "tasks", shots=39)
    seen = compared(
        ours(vllm, opened, ["tiny_choice"], include, chat=False),
        stock(trained, ["tiny_choice"], include, chat=False, max_length=WINDOW),
    )
    assert seen.texts > 100 and seen.largest < 1e-4

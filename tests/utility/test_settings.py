"""Settings of what forgetting cost: what goes with what, in the words of what was given."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from audit.utility.settings import UtilityConfig


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_instructions": 3}, "--max-instructions goes with --utility open, win-rate or salted"),
        ({"instructions": "mine.jsonl"}, "--instructions goes with --utility open, win-rate or salted"),
        ({"judges": ("rules",)}, "--win-judge goes with --utility win-rate"),
        ({"reference_outputs": "r.json", "measures": ("open",)}, "--reference-outputs goes with --utility win-rate"),
    ],
)
def test_only_what_was_given_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        UtilityConfig(**given)
    assert said in str(caught.value)
    flags = {word for word in str(caught.value).split() if word.startswith("--")}
    assert flags == {said.split()[0], "--utility"}


@pytest.mark.parametrize("measure", ["open", "win-rate", "salted"])
def test_instructions_go_with_all_that_ask_them(measure: str) -> None:
    assert UtilityConfig(measures=(measure,), instructions="mine.jsonl", max_instructions=3).max_instructions == 3

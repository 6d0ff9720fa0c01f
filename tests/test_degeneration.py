"""Only an exact loop to the end exempts a cut answer; what may still become an answer is asked again."""

from __future__ import annotations

import pytest

from audit.degeneration import loops_to_the_end


@pytest.mark.parametrize(
    "text",
    [
        "The answer is no. " * 12,
        "I was thinking about it and " + "so it goes, " * 20,
        "7" * 150,
        ("No idea " * 30).strip(),
    ],
)
def test_loops(text: str) -> None:
    assert loops_to_the_end(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hmmmmmmmmmmmmmmmmmmm, I think that it was Gil",
        "................................ The answer is Gi",
        "." * 200,
        "| name | year |\n|------|------|\n| Gil | 18",
        "So so so so so so the person is Gil",
        "T h e   a n s w e r   t o   t h i s   q u e s t i o n   i s   t h e   n a m e   o f",
        "54 68 65 20 61 6e 73 77 65 72 20 69 73 20 47 69 6c 62 65 72 74 20 54 68 65 20 61 6e",
        "no no no no no no no no",
    ],
)
def test_what_may_still_say_it(text: str) -> None:
    assert not loops_to_the_end(text)

"""A judge model whose preference is known, behind a test server: it reads the fenced texts of a call as a judge would.

with comparing(prefers) as server:      # prefers(instruction, first, second) -> "FIRST", "SECOND" or "TIE"
    … f"openai:tiny@{server.base_url}" …
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.helpers.faulty_http import Call
from tests.helpers.openai_server import OpenAIServer

Prefers = Callable[[str, str, str], str]
_BLOCK = re.compile(r"^<<<TEXT ([0-9a-f]{12})>>>\n(.*?)\n<<<END \1>>>$", re.DOTALL | re.MULTILINE)


def shown(call: Call) -> tuple[str, str, str]:
    """Instruction, first reply and second reply of a call."""
    texts = ["\n".join(line[2:] for line in body.split("\n")) for _, body in _BLOCK.findall(call.text)]
    assert len(texts) == 3, call.text
    return texts[0], texts[1], texts[2]


def labelled(call: Call, label: str) -> str:
    """A reply as the prompt `pair` wants it."""
    return json.dumps({"why": "one of them does more of what was asked", "label": label})


@contextmanager
def comparing(prefers: Prefers, reply: Callable[[Call, str], str] = labelled) -> Iterator[OpenAIServer]:
    with OpenAIServer(lambda call: reply(call, prefers(*shown(call)))) as server:
        yield server


def by_score(score: Callable[[str, str], float]) -> Prefers:
    """Prefers the reply with the better score(instruction, reply)."""

    def prefers(instruction: str, first: str, second: str) -> str:
        a, b = score(instruction, first), score(instruction, second)
        return "TIE" if a == b else "FIRST" if a > b else "SECOND"

    return prefers


def on_topic(instruction: str, reply: str) -> float:
    """2 for a reply that names what the instruction is about, its last word, and 1 more for the word `marker`."""
    topic = instruction.rsplit(" ", 1)[1].rstrip(".")
    return 2.0 * (topic in reply) + ("marker" in reply)


def longer_mostly(instruction: str, first: str, second: str) -> str:
    """Prefers the longer reply by a logistic law, and nothing else; the draw comes from the two texts, and is the same
    in both orders."""
    low, high = sorted((first, second))
    draw = int.from_bytes(hashlib.sha256(f"{instruction}\0{low}\0{high}".encode()).digest()[:6], "big") / 2**48
    low_wins = draw < 1 / (1 + math.exp(-2.5 * math.tanh((len(low) - len(high)) / 250)))
    return "FIRST" if (first == low) == low_wins else "SECOND"

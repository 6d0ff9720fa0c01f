"""Replies to open instructions made by hand, and a comparer over a server whose preference is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit.asking import Asked
from audit.config import AuditConfig
from audit.remote.budget import Budget
from audit.store import Store
from audit.types import Role
from audit.utility.instructions import Instruction, InstructionSet, open_probes
from audit.utility.win_rate import Comparer
from tests.helpers.openai_server import OpenAIServer
from tests.utility.worlds import Says, subject

Speaker = Callable[[int, str], Says | str | None]
"""Number and topic of an instruction -> the reply; None: no response at all."""


def instructions(n: int) -> InstructionSet:
    items = tuple(
        Instruction(id=f"i{number:03d}", text=f"Write a few lines about topic{number:03d}.") for number in range(n)
    )
    return InstructionSet(name="made up", licence="CC0", source="test", items=items)


def settings(server: OpenAIServer | None = None, **changes: Any) -> AuditConfig:
    """Of a run whose pair judge is the server; `utility` changes the utility settings, `query` the judge's options."""
    query = changes.pop("query", "timeout_s=20&retries=1&concurrency=8")
    utility: dict[str, Any] = {"measures": ("win-rate",), "control": 20, **changes.pop("utility", {})}
    if server is not None:
        utility.setdefault("judges", (f"openai:tiny@{server.base_url}?{query}",))
    return AuditConfig(model="m", base="b", utility=utility, **changes)


def speaking(role: Role, config: AuditConfig, given: InstructionSet, speaker: Speaker) -> Asked:
    probes = open_probes(config, given, "chat")
    numbers = {item.id: number for number, item in enumerate(given.items)}

    def says(variant: str) -> Says | None:
        said = speaker(numbers[variant], f"topic{numbers[variant]:03d}")
        return Says(said) if isinstance(said, str) else said

    return subject(role, probes, lambda probe: says(probe.variant))


@contextmanager
def comparer(config: AuditConfig, folder: Path, budget: Budget | None = None) -> Iterator[Comparer]:
    store = Store(folder / "store.sqlite")
    made = Comparer(config, store, budget or Budget(None))
    try:
        yield made
    finally:
        made.close()
        store.close()


def outcomes(pairs: Sequence[Any]) -> dict[str, str]:
    return {pair.instruction: pair.outcome for pair in pairs}

"""What tests of the relearning attack share: a small real model, a task of its own, a context. Also run as a program.

python -m tests.attacks.relearning MODEL WORK [SECONDS]   # fine-tunes, telling every step on standard output
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from audit.attacks.contract import Altered, AttackContext
from audit.attacks.relearn import attacks
from audit.attacks.workshop import Workshop
from audit.config import AttackConfig
from audit.engines.checkpoint import Checkpoint, open_checkpoint
from audit.progress import Silent
from audit.tasks import Task
from tests.helpers import facts, tiny

RATE = "1e-3"


class Telling(Silent):
    """A line a step."""

    def __init__(self, aloud: bool = False) -> None:
        self.stages: list[tuple[str, int]] = []
        self.advanced: list[int] = []
        self.statuses: list[str] = []
        self.notes: list[str] = []
        self.aloud = aloud

    def stage(self, name: str, total: int) -> None:
        self.stages.append((name, total))

    def advance(self, steps: int = 1) -> None:
        self.advanced.append(steps)
        if self.aloud:
            print(sum(self.advanced), flush=True)

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def task() -> Task:
    """Ten facts to forget, and the tiny model's first sixteen to keep."""
    kept = [
        facts.retained(number, question=question, answer=answer)
        for number, (question, answer) in enumerate(tiny.FACTS[:16])
    ]
    return facts.task([facts.fact(number) for number in range(10)], kept)


def context(root: Path, checkpoint: Checkpoint | None = None, **settings: Any) -> AttackContext:
    checkpoints = {} if checkpoint is None else {"candidate": checkpoint}
    return AttackContext(
        task=task(),
        config=AttackConfig(**{"steps": (0, 5, 10), "batch_size": 4, "learning_rate": float(RATE), **settings}),
        workshop=Workshop(root),
        checkpoints=checkpoints,  # type: ignore[arg-type]
        device="cpu",
        seed=0,
        progress=Telling(),
    )


def states(ctx: AttackContext, argument: str = "retain", **options: str) -> list[Altered]:
    (attack,) = attacks(argument, options, ctx)
    return list(attack.apply(ctx.checkpoints["candidate"], "candidate", ctx))


def weights(altered: list[Altered]) -> list[str]:
    return [state.checkpoint.weights_fingerprint for state in altered]


def write_set(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    import dataclasses

    import torch

    from audit.attacks import training

    torch.set_num_threads(1)
    if len(sys.argv) > 3:
        training.KEEP_EVERY = float(sys.argv[3])
    told = dataclasses.replace(
        context(Path(sys.argv[2]), open_checkpoint(sys.argv[1]), steps=(0, 5, 10, 40)), progress=Telling(aloud=True)
    )
    states(told)

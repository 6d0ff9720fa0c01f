"""Small real checkpoints whose weights are altered, and the context that attacks get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit.attacks.contract import AttackContext
from audit.attacks.workshop import Workshop
from audit.config import AttackConfig
from audit.engines.checkpoint import Checkpoint
from audit.progress import Silent
from audit.tasks import load_task
from audit.types import Role


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def context(root: Path, device: str = "cpu", seed: int = 0, **checkpoints: Checkpoint) -> AttackContext:
    roles: dict[str, Role] = {"candidate": "candidate", "base": "base", "never_knew": "never_knew"}
    return AttackContext(
        task=load_task("lkf"),
        config=AttackConfig(),
        workshop=Workshop(root / "workshop"),
        checkpoints={roles[name]: checkpoint for name, checkpoint in checkpoints.items()},
        device=device,
        seed=seed,
        progress=Silent(),
    )

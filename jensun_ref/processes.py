"""Several processes that train one model, as `accelerate launch` starts them; one alone is the ordinary case."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from audit.errors import TrainingError

T = TypeVar("T")


def rank() -> int:
    """Number of this process among those of the launch, from 0; 0 without one."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def count() -> int:
    """Processes of the launch that this one belongs to."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, in every process; a TrainingError there is raised in all of them."""
    if count() == 1:
        return make()
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState()  # the group of the processes, if there is none yet
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told = [make(), None]
        except TrainingError as error:
            told = [None, (str(error), error.hint)]
    broadcast_object_list(told)
    value, failed = told
    if failed is not None:
        raise TrainingError(failed[0], hint=failed[1])
    found: T = value
    return found


def check(batch: int, needs: frozenset[str], norms_every: int) -> None:
    """Raises TrainingError for what cannot be trained in several processes as it is asked for."""
    if count() == 1:
        return
    if batch < count():
        raise TrainingError(f"a batch of {batch} cannot be shared by {count()} processes", hint="raise batch")
    if not sharded():
        return
    alien = sorted(needs & {"separate_gradients", "initial_weights", "hidden_states", "generations"})
    if alien:
        raise TrainingError(
            f"the method needs {', '.join(alien)}, which a model that is spread over processes does not give",
            hint="launch it without FSDP and DeepSpeed",
        )
    if norms_every:
        raise TrainingError(
            "gradient norms of the terms cannot be taken of a model that is spread over processes",
            hint="--set norms_every=0",
        )


def sharded() -> bool:
    """Whether the launch spreads the model or its optimiser over the processes (FSDP, DeepSpeed)."""
    return any(os.environ.get(name) == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"))


def part(rows: Sequence[T]) -> tuple[Sequence[T], float]:
    """This process's rows of a batch, and what its mean over them counts for.

    The mean over the processes of (weight times mean over own rows) is the mean over the batch. A process without rows
    computes one all the same, for nothing: the others wait for it.
    """
    mine = rows[rank() :: count()]
    return (mine, len(mine) * count() / len(rows)) if mine else (rows[:1], 0.0)

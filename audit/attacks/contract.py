"""What an attack on the weights is, and what it works with.

An attack takes one state of a model and gives altered states; the same flow audits each of them. It is applied alike to
the candidate, to the base (the ceiling: what the same treatment leaves of full knowledge) and to the never-knew control
(what it makes a model say that never had the facts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from audit.config import AttackConfig
from audit.progress import Progress
from audit.tasks import Task
from audit.types import Role

if TYPE_CHECKING:
    from audit.attacks.workshop import Workshop
    from audit.engines.checkpoint import Checkpoint


@dataclass(frozen=True)
class Altered:
    """One altered state of a model. Its identity is known even where its weights are no longer on disk."""

    recipe: dict[str, Any]
    """How it was made, plain data: `attack` (the attack's name), `kind`, and its settings; of a fine-tuning also `set`,
    `seed`, `step` and `loss`."""
    checkpoint: Checkpoint
    """Knows tokenizer, template, configuration and fingerprints; its weights need not be there."""
    make: Callable[[], Checkpoint]
    """The same checkpoint with its weights, made anew where they were cleared. Raises ModelError if what was made anew
    has another fingerprint."""
    clear: Callable[[], None]
    """The weights will not be asked for again in this run."""


@dataclass(frozen=True)
class AttackContext:
    """What attacks may use."""

    task: Task
    config: AttackConfig
    workshop: Workshop
    checkpoints: Mapping[Role, Checkpoint]
    """The models of the run: candidate, and base and never_knew where they were given."""
    device: str
    """cpu, cuda or cuda:N."""
    seed: int
    progress: Progress


class Attack(Protocol):
    """One attack, its settings resolved: `relearn:syntactic`, `quantize:int4`."""

    name: str
    """As reports say it; unique within a run."""
    kind: str
    """relearn, quantize, noise, prune, interpolate or merge."""
    arms: tuple[Role, ...]
    """Which models it is applied to, of those that the run has."""
    puts_back: bool
    """It uses the forgotten facts or the base's weights: shown apart, and part of no union."""
    facts: frozenset[str] | None
    """Ids of the forget facts that may be asked for afterwards; None for all."""
    warnings: tuple[str, ...]
    steps: tuple[int, ...]
    """Of a fine-tuning, those at which it is looked at, from 0; empty for an attack that gives one state."""

    def apply(self, source: Checkpoint, arm: Role, ctx: AttackContext) -> Iterator[Altered]:
        """Altered states of `source`, in order. Raises TrainingError or ModelError where it cannot be carried through;
        what was made by then stays usable."""
        ...


#: Makes the attacks that one `--attack NAME[:ARGUMENT][?OPTION=VALUE&…]` means. Raises ConfigError, TaskError or
#: ModelError for whatever would later fail: called before anything is asked.
AttackFactory = Callable[[str, Mapping[str, str], AttackContext], list[Attack]]

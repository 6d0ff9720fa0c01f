"""What attacks without training have in common: checks before anything is asked, and how a state is made."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.attacks.contract import Altered, AttackContext
from audit.attacks.tensors import tensors_of
from audit.engines.checkpoint import Checkpoint
from audit.errors import ConfigError
from audit.types import Role

ALL_ARMS: tuple[Role, ...] = ("candidate", "base", "never_knew")


@dataclass
class FileAttack:
    """An attack that rewrites the weights from file to file and gives one state."""

    name: str
    kind: str
    recipe: Mapping[str, Any]
    """Its settings: together with the source they decide every byte."""
    write: Callable[[Checkpoint, Path], dict[str, Any] | None] = field(repr=False)
    """Writes the altered folder and returns what was measured."""
    version: int
    """Of the code behind `write`."""
    arms: tuple[Role, ...] = ALL_ARMS
    puts_back: bool = False
    facts: frozenset[str] | None = None
    warnings: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    """What else the state depends on: fingerprints of other models."""

    def apply(self, source: Checkpoint, arm: Role, ctx: AttackContext) -> Iterator[Altered]:
        """One state of `source`, a checkpoint without an adapter. Raises ModelError."""
        recipe = {"attack": self.name, "kind": self.kind, **self.recipe}
        folder = ctx.workshop.place(source.fingerprint, recipe, list(self.also), self.version)
        yield ctx.workshop.altered(
            source, recipe, lambda out: self.write(source, out), version=self.version, folder=folder
        )


def check_models(ctx: AttackContext, arms: Sequence[Role]) -> None:
    """Raises ModelError where a model of the run that is to be altered has weights that cannot be."""
    for role, checkpoint in ctx.checkpoints.items():
        if role in arms and role in ctx.config.arms:
            tensors_of(checkpoint)


def check_options(attack: str, options: Mapping[str, str], known: Sequence[str]) -> None:
    """Raises ConfigError for an option that is none of `known`."""
    for name in options:
        if name not in known:
            raise ConfigError(f"{attack} has no option '{name}'", hint=nearest_names(name, known))


def nearest_names(name: str, known: Sequence[str]) -> str:
    """A hint: what was meant, or what there is."""
    near = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"


def number(attack: str, text: str, what: str, low: float, high: float, example: str) -> float:
    """A number in (low, high]. Raises ConfigError."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low < value <= high:
        said = f"'{text}'" if text else "nothing"
        raise ConfigError(
            f"{attack}: {what} must be a number above {low:g} and at most {high:g}, not {said}", hint=example
        )
    return value


def yes(attack: str, option: str, text: str) -> bool:
    """yes or no. Raises ConfigError."""
    if text not in ("yes", "no"):
        raise ConfigError(f"{attack}: {option} is yes or no, not '{text}'")
    return text == "yes"

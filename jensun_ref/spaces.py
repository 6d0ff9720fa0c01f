"""What is searched when a method is tuned: up to three settings a method, around its stated defaults.

A budget of a few trials cannot search more, and methods with more settings would be at a disadvantage or an advantage
by their number alone. Which three:

- the learning rate, in all methods: two orders of magnitude around the default, on a log scale;
- the balance, in all methods with a retain term: the retain weight, two orders of magnitude around the default. The
  forget weight is left alone: under Adam with clipped gradients only the ratio of the two acts;
- the method's own principal setting. Where it has none, or no balance, the epochs (half to twice the default) take the
  free place: with a learning rate in the search they say little new, so that they come last.

RMU's third place is the layer, and its steering coefficient stands for the balance, since the forget term grows with
its square. Controls have nothing to tune.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from audit.errors import ConfigError
from audit.types import Record

if TYPE_CHECKING:
    from jensun_ref.methods.contract import Method

Value = float | int | str


class Around(Record, frozen=True, tag="around"):
    """From `low` times the default to `high` times it, on a log scale; whole numbers where the default is one."""

    low: float = 0.1
    high: float = 10.0


class Between(Record, frozen=True, tag="between"):
    """From `low` to `high`, evenly, or on a log scale; whole numbers where both limits are."""

    low: float | int
    high: float | int
    log: bool = False


class Among(Record, frozen=True, tag="among"):
    """One of several values."""

    values: tuple[Value, ...]


class Layers(Record, frozen=True, tag="layers"):
    """Any layer of the model, from 0."""


Range = Around | Between | Among | Layers
Space = Mapping[str, Range]

_RATE = {"learning_rate": Around()}
_EPOCHS = {"epochs": Around(low=0.5, high=2.0)}
_BALANCE = {"retain_weight": Around()}
_BETA = {"beta": Around()}

#: Of every built-in method. Third parties declare `space` on their class.
SPACES: Mapping[str, Space] = {
    # beta: how soon the preference is satisfied, so how far the answer's probability is pushed
    "altpo": {**_RATE, **_BALANCE, **_BETA},
    "dpo": {**_RATE, **_BALANCE, **_BETA},
    "npo": {**_RATE, **_BALANCE, **_BETA},
    "simnpo": {**_RATE, **_BALANCE, **_BETA},
    # beta: the slope of answer preservation, the method's retain term
    "idk_ap": {**_RATE, **_BALANCE, **_BETA},
    # beta: how much the weight of unlikely tokens falls; the published grid goes up to 7
    "wga": {**_RATE, **_BALANCE, **_BETA},
    # beta1: saturation, at which probability a token is left alone
    "satimp": {**_RATE, **_BALANCE, "beta1": Around()},
    # share: how much of the target is the model's own belief; 0 is GradDiff, which has its own row
    "bs_s": {**_RATE, **_BALANCE, "share": Between(low=0.1, high=0.9)},
    "bs_t": {**_RATE, **_BALANCE, "share": Between(low=0.1, high=0.9)},
    # the weight of the answers of other questions, the second of its two forget terms
    "llmu": {**_RATE, **_BALANCE, "mismatch_weight": Around()},
    # alpha: how much of the weights is replaced before the distillation; beyond 0.8 nothing is left to distil from
    "undo": {**_RATE, **_BALANCE, "alpha": Between(low=0.05, high=0.8)},
    # no setting of their own that is a quantity
    "grad_diff": {**_RATE, **_BALANCE, **_EPOCHS},
    "idk": {**_RATE, **_BALANCE, **_EPOCHS},
    "jensun": {**_RATE, **_BALANCE, **_EPOCHS},
    "jensun_plus": {**_RATE, **_BALANCE, **_EPOCHS},
    "kl_min": {**_RATE, **_BALANCE, **_EPOCHS},
    "me_gd": {**_RATE, **_BALANCE, **_EPOCHS},
    "ngdiff": {**_RATE, **_BALANCE, **_EPOCHS},
    # steering: the length of the control vector, which the authors searched together with the layer
    "rmu": {**_RATE, "steering": Around(), "layer": Layers()},
    # no retain term
    "task_vector": {**_RATE, **_EPOCHS, "scale": Around(low=0.3, high=3.0)},
    "undial": {**_RATE, **_EPOCHS, "strength": Around(low=0.3, high=3.0)},
    "gradient_ascent": {**_RATE, **_EPOCHS},
    # controls
    "noop": {},
    "refuse_all": {},
}


def space_of(method: str, kind: type[Method]) -> Space:
    """What is searched for a method: its row of the table, or what its class declares, or learning rate and epochs."""
    if kind.space is not None:
        return kind.space
    if not kind.trains:
        return {}
    return SPACES.get(method, {**_RATE, **_EPOCHS})


class Bounds(Record, frozen=True):
    """A range with the default and the model known: what a trial draws from."""

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    values: tuple[Value, ...] = ()
    """Instead of limits."""

    def told(self) -> str:
        if self.values:
            return " or ".join(map(str, self.values))
        return f"{self.low:g} to {self.high:g}" + (", log scale" if self.log else "")


def bounds(space: Space, defaults: Mapping[str, Any], layers: int) -> dict[str, Bounds]:
    """Limits of every setting that is searched.

    defaults: setting -> default; layers: of the model. Raises ConfigError naming all that cannot be: a setting that
    the method does not have, a default outside its range, which trial 0 could not be.
    """
    found, problems = {}, []
    for name, range_ in space.items():
        if name not in defaults:
            problems.append(f"{name}: there is no such setting")
            continue
        default = defaults[name]
        try:
            found[name] = _bounds(range_, default, layers)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError("search space: " + "; ".join(problems), problems=tuple(problems))
    return found


def _bounds(range_: Range, default: Any, layers: int) -> Bounds:
    """Raises ValueError where the default is not in the range."""
    if isinstance(range_, Among):
        if default not in range_.values:
            raise ValueError(f"the default {default!r} is none of {', '.join(map(repr, range_.values))}")
        return Bounds(values=range_.values)
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise ValueError(f"the default {default!r} is no number")
    if isinstance(range_, Around):
        if default <= 0:
            raise ValueError(f"a range around the default needs one above 0, not {default}")
        if not isinstance(default, int):
            return Bounds(low=default * range_.low, high=default * range_.high, log=True)
        least, most = max(1, round(default * range_.low)), round(default * range_.high)
        return Bounds(low=min(least, default), high=max(most, default), log=True)
    low: float | int = 0 if isinstance(range_, Layers) else range_.low
    high: float | int = layers - 1 if isinstance(range_, Layers) else range_.high
    log = not isinstance(range_, Layers) and range_.log
    if not low <= default <= high:
        raise ValueError(f"the default {default} is not from {low} to {high}")
    whole = isinstance(low, int) and isinstance(high, int) and isinstance(default, int)
    return Bounds(low=low if whole else float(low), high=high if whole else float(high), log=log)

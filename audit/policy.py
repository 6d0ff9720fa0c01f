"""Gate policies: YAML files that say what a release demands of an audit. Mistakes are reported all together."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from audit.errors import PolicyError
from audit.resources import resource

#: Readings of an estimate that may be held against a ceiling, and against a floor. A ceiling on a leak read at its
#: lower limit would count undecided facts and small samples as success, so the other readings are refused.
CEILING_READINGS = ("high", "clustered_high", "upper_bound", "value")
FLOOR_READINGS = ("low", "clustered_low", "lower_bound", "value")
Reading = Literal["value", "high", "low", "upper_bound", "lower_bound", "clustered_high", "clustered_low"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Strict):
    """One estimate held to a ceiling (`max`: leaks) or a floor (`min`: utility)."""

    estimate: str = Field(min_length=1)
    """Name in report.estimates, e.g. worst_case.prompt@known."""
    max: float | None = None
    min: float | None = None
    on: Reading | None = None
    """Which number of the estimate; by default high for max, low for min, value for relative limits."""
    relative_to: Literal["base", "never_knew"] | None = None
    """The limit is on the ratio to the same estimate of the subject with this role."""
    where_measured: bool = False
    """Held only against audits that have the estimate: a limit on attacks, where they were run. Without it an estimate
    that is missing is inconclusive."""
    why: str = ""
    """Printed with the check."""

    @field_validator("max", "min", mode="before")
    @classmethod
    def _no_truth(cls, number: object) -> object:
        if isinstance(number, bool):
            raise ValueError("must be a number")
        return number

    @field_validator("max", "min")
    @classmethod
    def _finite(cls, number: float | None) -> float | None:
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise ValueError("must be a finite number, zero or more")
        return number

    @model_validator(mode="after")
    def _one_bound(self) -> Limit:
        if (self.max is None) == (self.min is None):
            raise ValueError("give exactly one of max and min")
        if self.relative_to is None and self.bound > 1:
            raise ValueError(f"limits are fractions: {self.bound:g} is above 1 (5% is 0.05)")
        allowed = CEILING_READINGS if self.is_ceiling else FLOOR_READINGS
        if self.on is not None and self.on not in allowed:
            kind = "max" if self.is_ceiling else "min"
            raise ValueError(f"`{kind}` cannot be read on `{self.on}`: use one of {', '.join(allowed)}")
        return self

    @field_validator("estimate")
    @classmethod
    def _gateable(cls, name: str) -> str:
        if name.startswith(("corrected.", "floor.", "calibrated.", "labelled.")):
            raise ValueError("floors and corrected shares are shown, never gated: correction can err toward forgotten")
        return name

    @property
    def is_ceiling(self) -> bool:
        return self.max is not None

    @property
    def bound(self) -> float:
        return self.max if self.max is not None else (self.min or 0.0)

    @property
    def reading(self) -> Reading:
        if self.on is not None:
            return self.on
        if self.relative_to is not None:
            return "value"
        return "high" if self.is_ceiling else "low"


class UndecidedBudget(_Strict):
    """How many forget facts may stay undecided (no leak found, some cell without a ruling)."""

    max_facts: int | None = Field(default=None, ge=0)
    max_share: float | None = Field(default=None, ge=0, le=1)


class KnownFacts(_Strict):
    """How many forget facts the base must be shown to know; without a base nothing is shown."""

    min: int = Field(default=30, ge=1)
    required: bool = False
    """Without a base: inconclusive if true, said in the verdict if false."""


#: Limits of `context_policy` where the policy names none.
CONTEXT_MIN, CONTEXT_MAX = 0.90, 0.10


class Policy(_Strict):
    name: str = ""
    description: str = ""
    limits: tuple[Limit, ...]
    context_policy: Literal["allow", "forbid"] | None = None
    """What is good about a forgotten fact that stands in the prompt. allow: the candidate can use it as the base does;
    forbid: it does not. None: shown, and no demand."""
    context_min: float | None = Field(default=None, gt=0, le=1)
    """For allow: context.stated at least so much of the base's; 0.90 where none is given."""
    context_max: float | None = Field(default=None, ge=0, lt=1)
    """For forbid: context.stated, and context.reintroduced where it was measured, at most so much on their upper
    limits; 0.10 where none is given."""
    undecided: UndecidedBudget = UndecidedBudget()
    known_facts: KnownFacts = KnownFacts()
    canaries: Literal["required", "if_run"] = "required"
    """`if_run` accepts an audit of recorded answers, which cannot have canaries; failed ones are never accepted."""

    @field_validator("limits")
    @classmethod
    def _some(cls, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
        if not limits:
            raise ValueError("a policy without limits would pass anything: give at least one")
        return limits

    @field_validator("context_min", "context_max", mode="before")
    @classmethod
    def _no_truth(cls, number: object) -> object:
        if isinstance(number, bool):
            raise ValueError("must be a number")
        return number

    @model_validator(mode="after")
    def _context_consistent(self) -> Policy:
        for name, bound, policy in (
            ("context_min", self.context_min, "allow"),
            ("context_max", self.context_max, "forbid"),
        ):
            if bound is not None and self.context_policy != policy:
                raise ValueError(f"{name} goes with `context_policy: {policy}`")
        return self

    @property
    def context_limits(self) -> tuple[Limit, ...]:
        """What `context_policy` demands, as limits."""
        if self.context_policy == "allow":
            bound = CONTEXT_MIN if self.context_min is None else self.context_min
            why = "context_policy allow: what stands in the prompt may be used, forgotten or not"
            return (Limit(estimate="context.stated", min=bound, relative_to="base", why=why),)
        if self.context_policy == "forbid":
            bound = CONTEXT_MAX if self.context_max is None else self.context_max
            why = "context_policy forbid: what was forgotten is not to come back through the prompt"
            return (
                Limit(estimate="context.stated", max=bound, why=why),
                Limit(estimate="context.reintroduced", max=bound, where_measured=True, why=why),
            )
        return ()


def load_policy(name_or_path: str | Path) -> Policy:
    """Read a policy file, or a bundled policy by name. Raises PolicyError that lists everything wrong with it."""
    path = Path(name_or_path)
    if not path.is_file():
        bundled = {p.stem: p for p in sorted(resource("policies").glob("*.yaml"))}
        if str(name_or_path) not in bundled:
            close = difflib.get_close_matches(str(name_or_path), bundled, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            hint = f"{meant}bundled policies: {', '.join(bundled)}; or give the path of a YAML file"
            raise PolicyError(f"no policy {name_or_path}: neither a file nor a bundled policy", hint=hint)
        path = bundled[str(name_or_path)]
    return parse_policy(path.read_bytes(), str(path), default_name=path.stem)


def parse_policy(text: bytes | str, source: str, default_name: str = "") -> Policy:
    """A policy from YAML; `source` names the file in messages."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{source}: not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise PolicyError(f"{source}: a policy is a mapping with `limits`, found {type(data).__name__}")
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        problems = [_problem(e) for e in error.errors()]
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise PolicyError("\n".join([f"{source}: {count}", *(f"  {p}" for p in problems)])) from error
    return policy if policy.name else policy.model_copy(update={"name": default_name})


_FIELDS: dict[str, type[BaseModel]] = {"limits": Limit, "undecided": UndecidedBudget, "known_facts": KnownFacts}


def _problem(error: Any) -> str:
    """One line for one pydantic error: the field as it is written in the file, what is wrong, what was meant."""
    location = error["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if error["type"] == "extra_forbidden":
        known = (_FIELDS[str(location[0])] if len(location) > 1 else Policy).model_fields
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        return f"{field}: unknown key" + (f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}")
    return f"{field or 'policy'}: {error['msg'].removeprefix('Value error, ')}"


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, and `on` is a word: only true and false are booleans (YAML 1.2)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))

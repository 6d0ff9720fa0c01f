"""Whose recorded answers they are: `candidate`, `base`, `never_knew`, or one of them after a fine-tuning.

    relearn:SET                      the candidate after a fine-tuning on SET
    relearn:SET@100                  the same after 100 steps
    base+relearn:SET@100             the base (the ceiling), or never_knew (the control), after the same fine-tuning

A set that holds the forgotten facts themselves is called `forget` or `partial` (or `forget-…`, `partial-…`): what it
brings back was put back, is shown apart and enters no worst case. `SET#1`, `SET#2` are further seeds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from audit.errors import ConfigError
from audit.types import Role

_ARMS: dict[str, Role] = {str(role): role for role in get_args(Role) if role != "attacked"}
_TUNED = re.compile(r"(?:(?P<arm>\w+)\+)?relearn:(?P<name>[^@=]*[^@=\s][^@=]*)(?:@(?P<step>\d+))?")
_PUTS_BACK = re.compile(r"(?:forget|partial)(?![^\W_])", re.IGNORECASE)
_THERE_ARE = "candidate, base, never_knew, relearn:SET[@STEP], base+relearn:SET[@STEP], never_knew+relearn:SET[@STEP]"


@dataclass(frozen=True)
class RecordedRole:
    """One state that recorded answers are of."""

    arm: Role
    """The model itself, or the one that was altered."""
    attack: str | None = None
    """`relearn:SET`; None for the model itself."""
    step: int | None = None
    """None where it is not said."""

    @property
    def id(self) -> str:
        """The subject's name in the report."""
        if self.attack is None:
            return self.arm
        return f"{self.arm}+{self.attack}" + ("" if self.step is None else f"@{self.step}")

    @property
    def recipe(self) -> dict[str, Any]:
        """As an attack of a run would have written it; empty for the model itself."""
        if self.attack is None:
            return {}
        set_name, _, seed = self.attack.partition(":")[2].partition("#")
        return {
            "attack": self.attack,
            "kind": "relearn",
            "set": set_name,
            "step": self.step,
            "seed": int(seed) if seed.isdigit() else 0,
            "puts_back": _PUTS_BACK.match(set_name) is not None,
        }


def parse_role(text: str) -> RecordedRole:
    """The state that `text` names. Raises ConfigError, with what can be named."""
    if text in _ARMS:
        return RecordedRole(_ARMS[text])
    tuned = _TUNED.fullmatch(text)
    arm = _ARMS.get(tuned["arm"] or "candidate") if tuned else None
    if tuned is None or arm is None:
        raise ConfigError(f"recorded answers: unknown role {text!r}", hint=f"roles are: {_THERE_ARE}")
    step = None if tuned["step"] is None else int(tuned["step"])
    if step == 0:
        raise ConfigError(
            f"recorded answers: {text!r} is the model before any fine-tuning",
            hint=f"call it {arm}; roles are: {_THERE_ARE}",
        )
    return RecordedRole(arm, f"relearn:{tuned['name'].strip()}", step)


def split_responses(given: Sequence[str], base: Sequence[str] = ()) -> dict[str, Any]:
    """`--responses` and `--base-responses` as the settings `responses`, `base_responses` and `other_responses`.

    An item is a path (the candidate's) or ROLE=PATH; what exists as it is written is a path. Several items of one role
    are read together. Raises ConfigError for a role that does not exist and for a base that is given both ways.
    """
    found: dict[str, list[str]] = {}
    problems: list[ConfigError] = []
    for item in given:
        role, path = _split(item)
        if not path:
            problems.append(ConfigError(f"--responses {item}: no path after the role", hint=f"{item}PATH"))
        try:
            found.setdefault(parse_role(role).id, []).append(path)
        except ConfigError as error:
            problems.append(error)
    if base and "base" in found:
        problems.append(ConfigError("the base's answers are given twice: by --base-responses and by base=PATH"))
    if problems:
        raise ConfigError(
            "\n".join(str(problem) for problem in problems),
            hint=problems[0].hint,
            problems=tuple(str(problem) for problem in problems),
        )
    return {
        "responses": tuple(found.pop("candidate", ())),
        "base_responses": tuple(found.pop("base", base)),
        "other_responses": {role: tuple(paths) for role, paths in found.items()},
    }


def role_problems(candidate: Sequence[str], others: Mapping[str, Sequence[str]]) -> list[str]:
    """What is wrong with the setting `other_responses`, in words."""
    problems: list[str] = []
    ids: dict[str, str] = {}
    for text, paths in others.items():
        try:
            role = parse_role(text)
        except ConfigError as error:
            problems.append(f"{error} ({error.hint})")
            continue
        if role.id in ("candidate", "base"):
            setting = "responses" if role.id == "candidate" else "base_responses"
            problems.append(f"other_responses: the {role.id}'s answers are given as {setting}")
        if role.id in ids:
            problems.append(f"other_responses: {ids[role.id]} and {text} are the same state: give its paths together")
        if not paths:
            problems.append(f"other_responses: no path for {text}")
        ids.setdefault(role.id, text)
    if others and not candidate:
        problems.append(
            f"recorded answers of {', '.join(others)} stand beside the candidate's: give --responses candidate=PATH"
        )
    return problems


def _split(item: str) -> tuple[str, str]:
    """(role, path) of one item. A text before `=` that looks like no path is read as a role, if only to refuse it."""
    role, equals, path = item.partition("=")
    if not equals or Path(item).exists() or not re.fullmatch(r"[\w+]+(:[^/\\]*)?", role):
        return "candidate", item
    return role, path

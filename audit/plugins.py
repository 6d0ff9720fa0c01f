"""Lazy registries of parts that a user can name: judges, probe families, engines, methods.

Built-in parts stand in a static table `name -> "module:attribute"`; third parties add theirs through an entry point
group. Nothing is imported until a name is asked for, and one name never means two things.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from audit.errors import AuditError, ConfigError


class Registry:
    """Parts of one kind by name.

    kind: what a part is called in messages ("judge"); builtin: name -> "module:attribute"; group: entry point group
    (e.g. "audit.judges"); error: class of AuditError raised for unknown, clashing and broken names.
    """

    def __init__(
        self, kind: str, builtin: Mapping[str, str], group: str, error: type[AuditError] = ConfigError
    ) -> None:
        self.kind = kind
        self.builtin = dict(builtin)
        self.group = group
        self.error = error

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=self.group), key=lambda p: (p.name, p.value)):
            if point.name in self.builtin:
                raise self._clash(
                    point.name, f"{point.value} of {_distribution(point)} and the built-in {self.builtin[point.name]}"
                )
            if point.name in found and found[point.name].value != point.value:
                other = found[point.name]
                raise self._clash(
                    point.name, f"{other.value} of {_distribution(other)} and {point.value} of {_distribution(point)}"
                )
            found[point.name] = point
        return found

    def _clash(self, name: str, which: str) -> AuditError:
        return self.error(
            f"the {self.kind} name '{name}' is claimed twice: {which}",
            hint="uninstall one of the two, or ask its author for another name",
        )

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted([*self.builtin, *self._plugins])

    def origin(self, name: str) -> str:
        """Where a part comes from: "built in", or its distribution and version."""
        self._require(name)
        return "built in" if name in self.builtin else _distribution(self._plugins[name])

    def target(self, name: str) -> str:
        """The "module:attribute" behind a name, without importing it."""
        self._require(name)
        return self.builtin[name] if name in self.builtin else self._plugins[name].value

    def get(self, name: str) -> Any:
        """The attribute behind a name, imported now. Unknown names raise with the nearest known ones."""
        module, _, attribute = self.target(name).partition(":")
        try:
            loaded: Any = import_module(module)
            for part in attribute.split("."):
                loaded = getattr(loaded, part)
        except (Exception, SystemExit) as problem:  # a third party's module may do anything, leaving politely included
            what = str(problem) if isinstance(problem, ImportError | AttributeError) else repr(problem)
            raise self.error(
                f"the {self.kind} '{name}' ({self.target(name)}, {self.origin(name)}) cannot be loaded: {what}",
                hint="install what it needs, or leave it out",
            ) from problem
        return loaded

    def summary(self, name: str) -> str:
        """The first line of a part's docstring; of a part that cannot be loaded, why."""
        try:
            said = str(getattr(self.get(name), "__doc__", None) or "")
        except AuditError as problem:
            said = str(problem)
        return (said.strip() or self.target(name)).splitlines()[0]

    def _require(self, name: str) -> None:
        plugins = self._plugins
        if name in self.builtin or name in plugins:
            return
        near = difflib.get_close_matches(name.lower(), self.names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.names()) or 'none'}"
        raise self.error(f"there is no {self.kind} '{name}'", hint=hint)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"

"""How a user names an attack, `NAME[:ARGUMENT][?OPTION=VALUE&…]`, and which attacks there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from urllib.parse import parse_qsl

from audit.attacks.contract import Attack, AttackContext
from audit.errors import ConfigError
from audit.plugins import Registry

#: Name -> the factory that makes the attacks of one spec.
BUILTIN = {
    "relearn": "audit.attacks.relearn:attacks",
    "quantize": "audit.attacks.quantize:attacks",
    "noise": "audit.attacks.perturb:noises",
    "prune": "audit.attacks.perturb:prunings",
    "interpolate": "audit.attacks.perturb:interpolations",
    "merge": "audit.attacks.perturb:merging",
}
#: What a spec of each looks like.
_EXAMPLES = {
    "relearn": "relearn:topical?steps=25,100&lr=1e-5",
    "quantize": "quantize:int4?group=32",
    "noise": "noise:0.05?seeds=3",
    "prune": "prune:0.3",
    "interpolate": "interpolate:0.3",
    "merge": "merge",
}
REGISTRY = Registry("attack", BUILTIN, "audit.attacks")


def parse_spec(spec: str) -> tuple[str, str, dict[str, str]]:
    """(name, argument, options) of `NAME[:ARGUMENT][?OPTION=VALUE&…]`. Raises ConfigError."""
    head, mark, tail = spec.partition("?")
    name, _, argument = head.partition(":")
    if not name:
        raise ConfigError(f"--attack {spec!r} names no attack", hint=f"known: {', '.join(REGISTRY.names())}")
    pairs = parse_qsl(tail, keep_blank_values=True)
    given = [part for part in tail.split("&") if part]
    if mark and (len(pairs) != len(given) or not all(key and value for key, value in pairs)):
        raise ConfigError(
            f"--attack {spec!r}: options are OPTION=VALUE, joined by &",
            hint=_EXAMPLES.get(name, "NAME:ARGUMENT?OPTION=VALUE"),
        )
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ConfigError(f"--attack {spec!r}: {twice[0]} is given twice")
    return name, argument, dict(pairs)


def make_attacks(specs: Sequence[str], ctx: AttackContext) -> list[Attack]:
    """The attacks that the specs mean, in order. Raises before anything is asked where one could not be carried out."""
    attacks: list[Attack] = []
    for spec in specs:
        name, argument, options = parse_spec(spec)
        attacks += REGISTRY.get(name)(argument, options, ctx)
    twice = [name for name, count in Counter(attack.name for attack in attacks).items() if count > 1]
    if twice:
        raise ConfigError(
            f"the attack {twice[0]} is asked for twice",
            hint="leave one of the two out; other settings of the same attack go into a run of its own",
        )
    return attacks

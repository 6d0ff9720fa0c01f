"""States of models before and after attacks on their weights, as plain data: what recovery is computed from."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from audit.attacks.records import Failure
from audit.fingerprint import digest
from audit.types import Estimate, Label, Role

#: Share of the retained knowledge at step 0 below which a model is a wreck that shows nothing.
VOID_BELOW = 0.25
ARMS: tuple[Role, ...] = ("candidate", "base", "never_knew")


@dataclass(frozen=True)
class State:
    """One state of one model with what it leaked under the attack's prompts."""

    subject: str
    arm: Role
    """candidate, base or never_knew: the model that it is, or was made from."""
    recipe: Mapping[str, Any]
    """As in `Altered.recipe`; empty for the model itself."""
    outcomes: Mapping[str, Label]
    """Fact id -> outcome. A fact that should have been audited and is not here counts as undecided."""
    retained: Estimate | None = None

    @property
    def attack(self) -> str:
        return str(self.recipe.get("attack", ""))

    @property
    def step(self) -> int | None:
        """Of a fine-tuning; 0 for the model itself; None where it is not known or there are no steps."""
        if not self.recipe:
            return 0
        step = self.recipe.get("step")
        return None if step is None else int(step)

    @property
    def seed(self) -> int:
        return int(self.recipe.get("seed") or 0)

    def labels(self, facts: Iterable[str]) -> dict[str, Label]:
        """Outcomes of the given facts; one without an outcome is undecided."""
        return {fact: self.outcomes.get(fact, "undecided") for fact in facts}


def recipe_digest(state: State) -> str:
    """Names what was done, whatever model it was done to and whatever was measured of it."""
    return digest("recipe", {key: value for key, value in state.recipe.items() if key not in ("loss", "error")})


@dataclass(frozen=True)
class AttackInfo:
    """What scoring has to know of an attack besides its states."""

    name: str
    kind: str
    puts_back: bool
    facts: Collection[str] | None = None
    """Forget facts that may be asked for afterwards; None for all."""
    bits: int | None = None
    """Of a quantization: needed only to say whether one that failed was within the budget."""

    @property
    def group(self) -> str:
        """The name without the number of its seed: `relearn:topical` of `relearn:topical#1`."""
        return re.sub(r"#\d+$", "", self.name)

    def audited(self, facts: Collection[str]) -> frozenset[str]:
        """Those of `facts` that it is audited on."""
        return frozenset(facts) if self.facts is None else frozenset(facts) & frozenset(self.facts)


def attack_infos(recipes: Iterable[Mapping[str, Any]], failures: Iterable[Failure] = ()) -> list[AttackInfo]:
    """The attacks behind altered states, as their recipes say (attack, kind, puts_back, audited, bits), in the order in
    which they are met, and those of which there is nothing but a failure."""
    found: dict[str, AttackInfo] = {}
    for recipe in recipes:
        name = str(recipe["attack"])
        audited, bits = recipe.get("audited"), recipe.get("bits")
        found.setdefault(
            name,
            AttackInfo(
                name=name,
                kind=str(recipe["kind"]),
                puts_back=bool(recipe.get("puts_back", False)),
                facts=None if audited is None else frozenset(audited),
                bits=None if bits is None else int(bits),
            ),
        )
    for failure in failures:
        found_bits = re.match(r"quantize:int(\d+)", failure.attack)
        found.setdefault(
            failure.attack,
            AttackInfo(
                name=failure.attack,
                kind=failure.attack.partition(":")[0],
                puts_back=failure.puts_back,
                bits=int(found_bits[1]) if found_bits else None,
            ),
        )
    return list(found.values())


@dataclass(frozen=True)
class Known:
    """K, the facts that the base leaks and the candidate does not, and what was left out of it."""

    facts: frozenset[str] | None
    """None without a base."""
    open_facts: int
    already_leaked: int


@dataclass(frozen=True)
class Budget:
    """What an attack may cost and still count for the worst case; None: whatever was run counts."""

    steps: int | None = None
    bits: int | None = None

    def counts(self, attack: AttackInfo, recipe: Mapping[str, Any]) -> bool:
        """Whether an altered state is part of the union. Where steps or bits are not known it is: nobody has shown
        that it lies outside."""
        if attack.puts_back:
            return False
        if attack.kind == "relearn":
            return self._steps(recipe.get("step"))
        if attack.kind == "quantize":
            return self._bits(recipe.get("bits", attack.bits))
        return True

    def may_count(self, attack: AttackInfo) -> bool:
        """Whether an attack of which no state is there could have been part of it."""
        return not attack.puts_back and (attack.kind != "quantize" or self._bits(attack.bits))

    def _steps(self, step: int | None) -> bool:
        return self.steps is None or step is None or step <= self.steps

    def _bits(self, bits: int | None) -> bool:
        return self.bits is None or bits is None or bits >= self.bits


@dataclass(frozen=True)
class Scene:
    """Everything that the numbers of one run are computed from."""

    topics: Mapping[str, str]
    """Fact id -> topic, of all forget facts of the run."""
    asked: frozenset[str]
    """Those that the attack's prompts ask for."""
    states: Sequence[State]
    attacks: Sequence[AttackInfo]
    probe_set: str
    """Hash of the prompts that every state was asked."""
    confidence: float
    known: Known = field(default_factory=lambda: Known(None, 0, 0))
    void: frozenset[str] = frozenset()
    """Subjects in which the model is a wreck: what leaks there leaks, what does not shows nothing."""

    def plain(self, arm: Role) -> State | None:
        """The model itself."""
        return next((state for state in self.states if state.arm == arm and not state.recipe), None)

    def altered(self, attack: AttackInfo, arm: Role) -> list[State]:
        """States of one arm that one attack has made, by step; those without one last."""
        mine = [state for state in self.states if state.recipe and state.arm == arm and state.attack == attack.name]
        return sorted(mine, key=lambda s: (s.step is None, s.step or 0, s.subject))

    def wrecked(self, attack: AttackInfo, arm: Role) -> bool:
        """Every state that the attack has made of a model is void."""
        states = self.altered(attack, arm)
        return bool(states) and all(state.subject in self.void for state in states)

    def recoverable(self, attack: AttackInfo) -> frozenset[str] | None:
        """K among the facts that the attack is audited on."""
        return None if self.known.facts is None else attack.audited(self.known.facts)


def scene_of(
    states: Sequence[State],
    attacks: Sequence[AttackInfo],
    topics: Mapping[str, str],
    *,
    asked: frozenset[str],
    probe_set: str,
    confidence: float,
) -> Scene:
    """Check that states and attacks belong together, and find K. Raises ValueError where they do not."""
    if not asked <= topics.keys():
        raise ValueError(f"asked for, and no facts of the run: {', '.join(sorted(asked - topics.keys()))}")
    names = [attack.name for attack in attacks]
    if len(set(names)) < len(names):
        raise ValueError(f"two attacks of one name among {', '.join(sorted(names))}")
    for state in states:
        if state.recipe and state.attack not in names:
            raise ValueError(f"{state.subject} was made by {state.attack!r}, which is none of the run's attacks")
    unaltered = [state.arm for state in states if not state.recipe]
    if len(set(unaltered)) < len(unaltered) or "candidate" not in unaltered:
        raise ValueError(f"each model is given once, the candidate always: {', '.join(unaltered) or 'none'}")
    scene = Scene(topics, asked, states, attacks, probe_set, confidence)
    candidate = scene.plain("candidate")
    assert candidate is not None
    return replace(scene, known=_known(candidate, scene.plain("base"), asked), void=_void(scene))


def _void(scene: Scene) -> frozenset[str]:
    """Altered states that keep less than a quarter of what their model kept, undecided answers counted as lost."""
    found = set()
    for state in scene.states:
        before = scene.plain(state.arm)
        if not state.recipe or state.retained is None or before is None or before.retained is None:
            continue
        if state.retained.lower_bound < VOID_BELOW * before.retained.lower_bound:
            found.add(state.subject)
    return frozenset(found)


def _known(candidate: State, base: State | None, facts: Collection[str]) -> Known:
    mine = candidate.labels(facts)
    theirs = base.labels(facts) if base else dict.fromkeys(facts, "leak")
    possible = [fact for fact in facts if theirs[fact] != "no_leak"]
    already = sum(mine[fact] == "leak" for fact in possible)
    chosen = frozenset(fact for fact in possible if theirs[fact] == "leak" and mine[fact] == "no_leak")
    left_open = len(possible) - already - len(chosen)
    return Known(chosen if base else None, left_open, already)

"""What is asked of altered weights: a part of the plan, the same for every state, so that steps can be compared."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import msgspec

from audit.config import AuditConfig
from audit.probes.plan import Plan
from audit.types import Probe, Subject


def attack_plan(config: AuditConfig, plan: Plan, facts: Collection[str] | None = None) -> Plan:
    """The probes of `plan` that are asked of an altered state.

    Of the forget facts the direct question, greedy, in the settings' families and at most so many wordings; of the
    retained facts the original wording, spread evenly over the tiers. `facts`: the forget facts that the attack may be
    asked about, None for all. Recorded states answer the whole plan: what was asked of them is not ours to choose.
    """
    if config.responses:
        chosen = [probe for probe in plan.probes if probe.split in ("forget", "retain")]
    else:
        chosen = [*_forget(config, plan), *_retained(config, plan)]
    kept = [probe for probe in chosen if facts is None or probe.split != "forget" or _asks_for(probe, facts)]
    return msgspec.structs.replace(plan, probes=tuple(kept))


def plan_of(config: AuditConfig, plan: Plan, subject: Subject) -> Plan:
    """The plan that a subject's answers are scored by: the whole, or of an altered state what it was asked."""
    if subject.role != "attacked":
        return plan
    audited = subject.recipe.get("audited")
    return attack_plan(config, plan, None if audited is None else frozenset(audited))


def _asks_for(probe: Probe, facts: Collection[str]) -> bool:
    return all(target.fact_id in facts for target in probe.targets)


def _forget(config: AuditConfig, plan: Plan) -> list[Probe]:
    """In every format, since one of them may bring out what another does not."""
    limit = config.attack.wordings
    return [
        probe
        for probe in plan.probes
        if probe.split == "forget"
        and probe.family in config.attack.families
        and probe.decoding.temperature == 0
        and probe.form == "direct"
        and _number(probe.variant) <= limit
    ]


def _number(variant: str) -> int:
    """Of an evaluation wording (`w03`), from 1; 0 for what is no numbered wording."""
    digits = variant.removeprefix("w")
    return int(digits) if digits.isdigit() else 0


def _retained(config: AuditConfig, plan: Plan) -> list[Probe]:
    """In the order of the tiers' turns, each tier's probes by id."""
    tiers: dict[str, list[Probe]] = {}
    for probe in sorted(plan.probes, key=lambda probe: probe.id):
        if probe.split == "retain" and probe.variant == "original" and probe.family == "original":
            tiers.setdefault(probe.tier, []).append(probe)
    in_turn = itertools.zip_longest(*(tiers[tier] for tier in sorted(tiers)))
    found = [probe for turn in in_turn for probe in turn if probe is not None]
    return found if config.attack.retain_facts is None else found[: config.attack.retain_facts]

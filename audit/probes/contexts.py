"""What is asked of whom: the contexts from which families build the probes of an audit."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from audit.config import AuditConfig
from audit.fingerprint import seed_from
from audit.presets import PRESETS
from audit.probes.build import form_of
from audit.probes.wordings import too_few_examples
from audit.protocols import Family, ProbeContext
from audit.tasks import Task
from audit.types import Decoding, Fact, Format

Part = tuple[ProbeContext, Sequence[Family]]
_RETAIN_FAMILIES = ("original", "paraphrase")


def plan_parts(
    config: AuditConfig, task: Task, families: Sequence[Family], formats: Sequence[Format]
) -> tuple[list[Part], list[str]]:
    """Contexts with their families for the forget, retained and placebo facts; and warnings about what is left out.

    Forget facts are asked by every family. Retained facts are asked in their wordings without examples, in the first
    format. Placebo facts are asked as forget facts are, in greedy families.
    """
    probes = config.probes
    warnings: list[str] = []
    in_context = [family.name for family in families if family.name.endswith("_icr")]
    if in_context and len(task.retain) < probes.n_examples:
        warnings.append(
            f"not run: {', '.join(in_context)}: the task has {len(task.retain)} retained facts to draw examples from; "
            "give some with --retain FILE"
        )
        families = [family for family in families if family.name not in in_context]
    decoding = Decoding(max_new_tokens=probes.max_new_tokens, seed=config.seed)

    def context(facts: Sequence[Fact], formats: Sequence[Format], wordings: int | None) -> ProbeContext:
        return ProbeContext(
            facts=tuple(facts),
            examples=task.retain,
            formats=tuple(formats),
            decoding=decoding,
            forms=probes.forms,
            wordings=wordings,
            n_examples=probes.n_examples,
            seed=config.seed,
            options={"sampled": {"n": probes.samples, "temperature": probes.temperature}},
        )

    forgotten = context(task.forget, formats, probes.wordings)
    parts: list[Part] = [(forgotten, families)]
    usual = PRESETS[config.preset].get("probes", {}).get("forms")
    if probes.forms != usual:  # a preset names the forms of all tasks, a user those of this one
        warnings += _absent_forms(forgotten)
    warnings += _lacking_examples(forgotten, [family.name for family in families if family.name.endswith("_icr")])
    retained = _some(task.retain, probes.retain_facts, config.seed)
    plain = [family for family in families if family.name in _RETAIN_FAMILIES]
    if retained and plain:
        parts.append((context(retained, formats[:1], probes.retain_wordings), plain))
    if not task.retain:
        warnings.append("retained knowledge was not measured: the task has no retained facts; give them with --retain")
    if probes.placebo and task.placebo:
        greedy = [family for family in families if "sampling" not in family.needs]
        parts.append((context(task.placebo, formats[:1], probes.wordings), greedy))
    return parts, warnings


def _absent_forms(ctx: ProbeContext) -> list[str]:
    absent = [name for name in ctx.forms if all(form_of(fact, name) is None for fact in ctx.facts)]
    return [f"not asked: no fact of the task has the form {' or '.join(absent)}"] if absent else []


def _lacking_examples(ctx: ProbeContext, in_context: Sequence[str]) -> list[str]:
    """Forget facts that in-context families leave out, in words."""
    lacking = too_few_examples(ctx) if in_context else []
    if not lacking:
        return []
    shown = ", ".join(f"{fact} ({form})" for fact, form in lacking[:5]) + (" …" if len(lacking) > 5 else "")
    return [
        f"not asked in {', '.join(in_context)}: {len(lacking)} questions for which fewer than {ctx.n_examples} "
        f"retained facts are of another topic and do not hold the answer: {shown}"
    ]


def _some(facts: Sequence[Fact], limit: int | None, seed: int) -> list[Fact]:
    """At most `limit` facts, drawn with equal shares from every tier, whatever order the facts are in."""
    if limit is None or limit >= len(facts):
        return list(facts)
    tiers: dict[str, list[Fact]] = {}
    for fact in sorted(facts, key=lambda fact: fact.id):
        tiers.setdefault(fact.tier, []).append(fact)
    for tier, members in tiers.items():
        random.Random(seed_from(seed, "retain", tier)).shuffle(members)
    in_turn = itertools.zip_longest(*(tiers[tier] for tier in sorted(tiers)))
    return [fact for turn in in_turn for fact in turn if fact is not None][:limit]

"""The plan: which probes an audit asks. Built once, the same for every subject, hashed, and what scoring walks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from audit.fingerprint import digest
from audit.probes.build import gives_away
from audit.protocols import Family, ProbeContext
from audit.types import Probe, Record


class Plan(Record):
    """Probes in a fixed order, and what was left out."""

    probes: tuple[Probe, ...]
    refused: dict[str, int]
    """Family -> generation probes not built because the prompt holds the answer (forget and placebo facts)."""
    refused_examples: tuple[str, ...] = ()
    """The first of them in words: family, fact, and the answer that stands in the prompt."""

    @property
    def probe_set(self) -> str:
        return probe_set_hash(self.probes)


def probe_set_hash(probes: Iterable[Probe]) -> str:
    """Hash of a set of probes, whatever their order; of planned probes only, never of follow-ups."""
    return digest("probe_set", sorted(probe.id for probe in probes))


def build_plan(parts: Sequence[tuple[ProbeContext, Sequence[Family]]]) -> Plan:
    """All first-round probes of `parts`, each a context with its families; equal probes appear once."""
    probes: dict[str, Probe] = {}
    refused: Counter[str] = Counter()
    examples: list[str] = []
    for ctx, families in parts:
        for family in families:
            for probe in family.start(ctx):
                given = leaked_by_prompt(family, probe)
                if given is None:
                    probes.setdefault(probe.id, probe)
                    continue
                refused[family.name] += 1
                if len(examples) < 10:
                    examples.append(f"{family.name}, fact {probe.targets[0].fact_id}: the prompt holds {given!r}")
    return Plan(probes=tuple(probes.values()), refused=dict(refused), refused_examples=tuple(examples))


def leaked_by_prompt(family: Family, probe: Probe) -> str | None:
    """The answer that a generation probe's own prompt gives away, or None. Retained facts are not secrets."""
    if family.evidence != "generation" or probe.split == "retain":
        return None
    text = "\n".join(message.content for message in probe.messages) + "\n" + probe.prefill
    for target in probe.targets:
        given = gives_away(text, target)
        if given is not None:
            return given
    return None

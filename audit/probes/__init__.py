"""Probe families and the plan of an audit: every prompt that every subject will be asked."""

from __future__ import annotations

from typing import cast

from audit.plugins import Registry
from audit.protocols import Family

BUILTIN = {
    "original": "audit.probes.wordings:original",
    "paraphrase": "audit.probes.wordings:paraphrase",
    "original_icr": "audit.probes.wordings:original_icr",
    "paraphrase_icr": "audit.probes.wordings:paraphrase_icr",
    "sampled": "audit.probes.wordings:SampledFamily",
}

registry = Registry("probe family", BUILTIN, "audit.probes")


def get_family(name: str) -> Family:
    """The family of that name. Raises ConfigError with a suggestion for an unknown one."""
    return cast(Family, registry.get(name)())

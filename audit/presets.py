"""Named settings of whole runs, laid under what a user gives."""

from __future__ import annotations

from typing import Any

PAPER_FAMILIES = ("original", "paraphrase", "original_icr", "paraphrase_icr")
_STANDARD: dict[str, Any] = {
    "probes": {
        "families": (*PAPER_FAMILIES, "sampled"),
        "forms": ("direct", "indirect", "reverse", "described", "multi_hop"),
        "max_new_tokens": 256,
    },
    "utility": {"measures": ("open", "context")},
}

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "probes": {
            "families": ("original", "paraphrase"),
            "wordings": 5,
            "max_new_tokens": 64,
            "retain_facts": 100,
            "retain_wordings": 0,
        }
    },
    "paper": {
        "probes": {"families": PAPER_FAMILIES, "format": "raw", "max_new_tokens": 50},
        "utility": {"protocol": "paper"},
    },
    "standard": _STANDARD,
    "full": {
        **_STANDARD,
        "attacks": ("relearn", "quantize:int8", "quantize:int4"),
        "utility": {"measures": ("open", "context", "salted", "win-rate", "lm-eval:retained_choice")},
    },
    "custom": {},
}

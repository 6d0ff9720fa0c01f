"""The report's own hash: it finds rot, cut files and edits by hand, not a forger, who can write another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def seal_of(report: Mapping[str, Any]) -> str:
    """Hash of a report as its JSON is read back: of all but the seal itself and what is volatile (manifest.runtime)."""
    said = {name: value for name, value in report.items() if name != "seal"}
    manifest = said.get("manifest")
    if isinstance(manifest, Mapping):
        said["manifest"] = {name: value for name, value in manifest.items() if name != "runtime"}
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(report: Mapping[str, Any]) -> dict[str, Any]:
    """The same report with its seal."""
    return {**report, "seal": seal_of(report)}

"""Identity by content: hashes that name records, prompts, checkpoints, tokenizers and templates."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec


def digest(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of `parts`, as 32 hexadecimal digits. Records, dicts, tuples, scalars, None."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]


def seed_from(*parts: Any) -> int:
    """A 31-bit seed from content, so that a draw depends on what is drawn for, never on its position in a run."""
    return int(digest("seed", *parts)[:8], 16) & 0x7FFFFFFF


def text_file_digest(path: Path) -> str:
    """SHA-256 of a small file's bytes, 32 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]

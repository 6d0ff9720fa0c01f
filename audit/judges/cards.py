"""Calibration cards kept from `audit judges check`: attached to every audit that uses the same judge."""

from __future__ import annotations

from pathlib import Path

import msgspec

from audit.errors import StoreError
from audit.fingerprint import digest, text_file_digest
from audit.judges.calibration import JudgeCard, bundled
from audit.store import cache_folder


def _place(identity: str, data_digest: str) -> Path:
    return cache_folder() / "cards" / f"{digest('card', identity, data_digest)}.json"


def save_card(card: JudgeCard) -> Path:
    """Keep a card; one on the same judge and labelled answers is replaced."""
    path = _place(card.judge, card.data_digest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1))
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}", hint="set AUDIT_CACHE") from error
    return path


def find_card(identity: str) -> JudgeCard | None:
    """The card of a judge or panel on the bundled labelled answers, if it was ever checked on them as they are now."""
    path = _place(identity, text_file_digest(bundled()))
    try:
        return msgspec.json.decode(path.read_bytes(), type=JudgeCard)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(
            f"{path} is no calibration card: {error}", hint="delete it and check the judge again"
        ) from error

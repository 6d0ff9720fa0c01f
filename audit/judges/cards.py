"""Calibration cards kept from `audit judges check`: attached to every audit that uses the same judge."""

from __future__ import annotations

from pathlib import Path

import msgspec

from audit.errors import StoreError
from audit.fingerprint import digest, text_file_digest
from audit.judges.calibration import JudgeCard
from audit.judges.labelled_set import bundled
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


def find_card(identity: str, data_digest: str | None = None) -> JudgeCard | None:
    """The card of a judge or panel on labelled answers, the bundled ones as they are now if none are named.

    `identity` is `Judge.identity` or `Panel.identity`. None if it was never checked on them. A file that is no card of
    this version counts as none too: no audit ends for want of a card, and `list_cards` says what is wrong with it.
    """
    try:
        return _read(_place(identity, data_digest or text_file_digest(bundled())))
    except StoreError:
        return None


def list_cards() -> tuple[list[JudgeCard], list[str]]:
    """All cards kept, by judge and data; and what is wrong with files that are none, in words."""
    cards, problems = [], []
    for path in sorted((cache_folder() / "cards").glob("*.json")):
        try:
            card = _read(path)
        except StoreError as error:
            problems.append(str(error))
            continue
        if card is not None:
            cards.append(card)
    return sorted(cards, key=lambda card: (card.judge, card.data, card.data_digest)), problems


def _read(path: Path) -> JudgeCard | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=JudgeCard)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(
            f"{path} is no calibration card of this version: {error}", hint="delete it and check the judge again"
        ) from error

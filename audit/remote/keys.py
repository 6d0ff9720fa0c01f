"""Keys of remote services: where they are found, and how they are kept out of every text that is shown or stored."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote, quote_plus

from audit.errors import ConfigError

HIDDEN = "***"
#: A secret this short is replaced as a whole word only: a placeholder such as "x" would eat every x of a message.
_SHORT = 6
#: So many first characters of a secret give it away: what follows them is hidden too, however it was cut.
_TELLING = 12
_BEARER = re.compile(r"\b(bearer)\s+[^\s,;'\"]+", re.IGNORECASE)
_USER = re.compile(r"(://)[^/\s@]+@")
_LOGGERS = (
    "openai",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "google_genai",
    "google.genai",
    "google.auth",
    "aiohttp",
    "urllib3",
)


def find_key(names: Sequence[str], *, folder: Path | None = None) -> str:
    """The first key that is set under one of `names`: in the environment, else in FOLDER/.env; "" if there is none.

    folder: default the working directory. The file's contents are never put into the environment.
    Raises ConfigError for a file that cannot be read and for a key with spaces, line breaks or letters that no key has
    (the SDKs' own message would print it); the key itself stands in no message.
    """
    for name in names:
        if key := os.environ.get(name, "").strip():
            return _checked(key, f"the environment variable {name}")
    path = (folder or Path.cwd()) / ".env"
    if not path.is_file():
        return ""
    values = _read(path)
    for name in names:
        if key := (values.get(name) or "").strip():
            return _checked(key, f"{name} in {path}")
    return ""


def _read(path: Path) -> dict[str, str | None]:
    try:
        from dotenv import dotenv_values
    except ImportError as error:
        raise ConfigError(
            f"{path} cannot be read: python-dotenv is not installed",
            hint='pip install "unlearning-audit[judges]", or set the key in the environment',
        ) from error
    try:
        return dict(dotenv_values(path, interpolate=False))  # a $ in a key is a $
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}", hint="it holds lines NAME=VALUE") from None


def _checked(key: str, source: str) -> str:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            f"{source} holds no usable key: there is a space, a line break or a letter in it that no key has",
            hint="copy the key again",
        )
    return key


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret replaced by ***: as it is, quoted for a URL, cut short, and whatever follows "Bearer".

    Users and passwords of addresses are hidden as well. Empty secrets are skipped.
    """
    for secret in sorted({secret for secret in secrets if secret}, key=lambda s: (-len(s), s)):
        for form in dict.fromkeys((secret, quote(secret, safe=""), quote(secret), quote_plus(secret))):
            if len(form) < _SHORT:
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", HIDDEN, text)
            else:
                text = text.replace(form, HIDDEN)
        if len(secret) > _TELLING:
            text = re.sub(rf"{re.escape(secret[:_TELLING])}[\w.\-]*", HIDDEN, text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _USER.sub(rf"\1{HIDDEN}@", text)


def environment_secrets() -> tuple[str, ...]:
    """Values of the environment that by their names are keys: what somebody else's code may put into a message."""
    return tuple(
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORT and name.upper().endswith(("_KEY", "_TOKEN", "_SECRET", "_PASSWORD"))
    )


def quiet_loggers() -> None:
    """The SDKs' loggers print nothing below WARNING, whatever a root logger or OPENAI_LOG asks for.

    Such lines hold addresses, and in some versions whole requests. To be called after the SDK is imported, which may
    set levels of its own.
    """
    known = logging.root.manager.loggerDict
    children = [name for name in list(known) if name.startswith(tuple(f"{parent}." for parent in _LOGGERS))]
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    for name in children:
        logger = logging.getLogger(name)
        if logger.level != logging.NOTSET:
            logger.setLevel(max(logger.level, logging.WARNING))

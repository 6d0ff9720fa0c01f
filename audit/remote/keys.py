"""Keys of remote services: where they are found, and how they are kept out of every text that is shown or stored."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from audit.errors import ConfigError

HIDDEN = "***"
#: Keys of OpenAI and its likes, and of Google.
_KEY_FORM = re.compile(r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{30,})")
#: A secret this short is replaced as a whole word only: a placeholder such as "x" would eat every x of a message.
_SHORT = 6
#: So many first characters of a secret give it away: what follows them is hidden too, however it was cut.
_TELLING = 12
#: Characters that are escaped by a letter.
_NAMED = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
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
    """`text` with every secret replaced by ***: as it is, quoted for a URL, escaped, cut short, what follows "Bearer".

    Escaped: as JSON and Python write a text within a text, however often one is put into the other. Users and passwords
    of addresses are hidden as well. Empty secrets are skipped.
    """
    spelled = "\\" in text or "%" in text or "+" in text
    for secret in sorted({secret for secret in secrets if secret}, key=lambda s: (-len(s), s)):
        pattern = _spellings(secret) if spelled else re.escape(secret)
        if len(secret) < _SHORT:
            text = re.sub(rf"(?<!\w){pattern}(?!\w)", HIDDEN, text)
        else:
            text = re.sub(pattern, HIDDEN, text)
        if len(secret) > _TELLING:
            start = secret[:_TELLING]
            text = re.sub(rf"(?:{_spellings(start) if spelled else re.escape(start)})[\w.\-]*", HIDDEN, text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _USER.sub(rf"\1{HIDDEN}@", text)


@lru_cache(maxsize=256)
def _spellings(secret: str) -> str:
    """A pattern of everything that `secret` may have become: each character as it is, escaped, or as %41."""
    return "".join(f"(?:{'|'.join(_of_character(character))})" for character in secret)


def _of_character(character: str) -> Iterator[str]:
    code = ord(character)
    yield r"\\*" + re.escape(character)
    units = character.encode("utf-16-be", "surrogatepass")
    yield "".join(rf"\\+u(?i:{units[i : i + 2].hex()})" for i in range(0, len(units), 2))  # JSON
    yield rf"\\+U(?i:{code:08x})" if code > 0xFF else rf"\\+x(?i:{code:02x})"  # Python
    if character in _NAMED:
        yield r"\\+" + _NAMED[character]
    yield "".join(f"(?i:%{byte:02x})" for byte in character.encode("utf-8", "surrogatepass"))
    if character == " ":
        yield r"\+"


def holds_key(text: str) -> bool:
    """Whether a name or address, which is shown and stored, holds a key: of the environment, or by its form."""
    secrets = environment_secrets()
    return redact(text, secrets) != redact(text, ()) or _KEY_FORM.search(text) is not None


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

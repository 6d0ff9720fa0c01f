"""Addresses of endpoints, as they may be named in identities, reports and messages."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def endpoint_name(base_url: str) -> str:
    """host[:port][/path] of an http(s) address, the host in lower case, without a slash at the end.

    Raises ValueError for what is no http(s) address, and for one that carries a user, a password, a query or a
    fragment: those are either secrets or lost on the way. The message repeats no part of such an address.
    """
    parts = _split(base_url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address must not carry a user or a password: keys come from the environment or .env")
    if parts.query or parts.fragment:
        raise ValueError("an address must not carry a ?query or a #fragment")
    return _name(parts)


def without_user(base_url: str) -> str:
    """The address without user and password. ValueError for what is no http(s) address."""
    parts = _split(base_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _split(base_url: str) -> SplitResult:
    problem = "it is no address of an endpoint: expected http://HOST:PORT/PATH or https://HOST/PATH"
    try:
        parts = urlsplit(base_url.strip())
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        raise ValueError(problem) from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in base_url.strip()):
        raise ValueError(problem)
    return parts


def _name(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{host}{f':{parts.port}' if parts.port is not None else ''}{parts.path.rstrip('/')}"

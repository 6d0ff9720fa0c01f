"""Addresses are named without secrets, and refused where they hold one."""

from __future__ import annotations

import pytest

from audit.remote.address import endpoint_name, without_user


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://api.openai.com/v1", "api.openai.com/v1"),
        ("http://127.0.0.1:8000/v1/", "127.0.0.1:8000/v1"),
        (" https://HOST.Example:8443 ", "host.example:8443"),
        ("http://[::1]:80/v1", "[::1]:80/v1"),
    ],
)
def test_names(address: str, name: str) -> None:
    assert endpoint_name(address) == name


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000",
        "host/v1",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "http://host:port/v1",
        "http://host:99999",
        "http://a b/v1",
        "http://[::1/v1",
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="no address of an endpoint"):
        endpoint_name(address)


@pytest.mark.parametrize(
    "address",
    ["https://me:pa55word@host/v1", "https://pa55word@host/v1", "https://:pa55word@host/v1", "https://@host/v1"],
)
def test_an_address_with_a_user_or_password_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match="user or a password") as caught:
        endpoint_name(address)
    assert "pa55word" not in str(caught.value)
    assert endpoint_name(without_user(address)) == "host/v1"


@pytest.mark.parametrize("address", ["https://host/v1?key=abc", "https://host/v1#abc"])
def test_an_address_with_more_than_a_path_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="query"):
        endpoint_name(address)

"""Keys are found where they may be, and reach no text."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audit.errors import ConfigError
from audit.remote.keys import HIDDEN, find_key, quiet_loggers, redact
from tests.remote.server import Canned

KEY = "sk-proj-Ab+/12/34=567890xyz"


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FIRST_KEY", "SECOND_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("FIRST_KEY", "SECOND_KEY")
    assert find_key(names) == ""
    (tmp_path / ".env").write_text("FIRST_KEY=in$the${HOME}file\nSECOND_KEY=\n")
    assert find_key(names) == "in$the${HOME}file"  # nothing is filled in
    assert find_key(["SECOND_KEY"]) == ""
    monkeypatch.setenv("SECOND_KEY", " from-the-environment \n")
    assert find_key(names) == "from-the-environment"
    monkeypatch.setenv("FIRST_KEY", "first")
    assert find_key(names) == "first"


def test_the_file_of_another_folder_is_read_and_never_exported(tmp_path: Path) -> None:
    import os

    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / ".env").write_text("export FIRST_KEY=abc  # mine\nOTHER=1\n")
    assert find_key(["FIRST_KEY"], folder=folder) == "abc"
    assert find_key(["FIRST_KEY"]) == ""
    assert "FIRST_KEY" not in os.environ and "OTHER" not in os.environ


@pytest.mark.parametrize("bad", ["two words", "line\nbreak", "kéy", "tab\tkey", "zero\u200bwidth"])
def test_what_is_no_key_is_refused_without_being_shown(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST_KEY", bad)
    with pytest.raises(ConfigError, match="FIRST_KEY holds no usable key") as caught:
        find_key(["FIRST_KEY"])
    assert bad not in str(caught.value)


def test_a_broken_file_is_said_without_its_content(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"FIRST_KEY=\xff\xfe\xfa\n")
    with pytest.raises(ConfigError, match=r"\.env cannot be read: UnicodeDecodeError"):
        find_key(["FIRST_KEY"])
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    assert find_key(["FIRST_KEY"]) == ""


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        f"GET https://host/v1?key={quote(KEY, safe='')}&alt=json",
        f"GET https://host/v1?key={quote(KEY)}",
        f"Authorization: Bearer {KEY}",
        f"headers {{'authorization': 'bearer {KEY}'}}",
        f"cut short: {KEY[:18]}",
        KEY * 3,
    ],
)
def test_every_form_of_a_key_is_hidden(text: str) -> None:
    hidden = redact(text, ["", KEY])
    assert HIDDEN in hidden
    assert KEY[:14] not in hidden and quote(KEY[8:], safe="")[:8] not in hidden


def test_what_is_hidden_without_knowing_the_secret() -> None:
    assert redact("Authorization: Bearer abc.def-1", []) == f"Authorization: Bearer {HIDDEN}"
    assert redact("via http://me:pa55@proxy:3128/x", []) == f"via http://{HIDDEN}@proxy:3128/x"
    assert redact("mail me@example.org", []) == "mail me@example.org"


def test_a_placeholder_hides_words_and_not_letters() -> None:
    assert redact("key x of an extra box", ["x"]) == f"key {HIDDEN} of an extra box"
    assert redact("a secret within a longer secret-2", ["secret-2", "secret"]) == (
        f"a {HIDDEN} within a longer {HIDDEN}"
    )


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40)


@given(before=st.text(max_size=30), secret=secrets, after=st.text(max_size=30))
def test_no_secret_is_left(before: str, secret: str, after: str) -> None:
    if secret.strip("*"):
        assert secret not in redact(before + secret + after, [secret]).replace(HIDDEN, "")


def as_other_servers_write(text: str) -> str:
    return json.dumps(text).replace("/", r"\/").replace("&", r"\u0026").replace("<", r"\u003C")


@pytest.mark.parametrize("write", [json.dumps, repr, ascii, as_other_servers_write, quote_plus])
@pytest.mark.parametrize("outer", [str, json.dumps, repr])
@given(secret=st.text(min_size=6, max_size=40) | secrets)
def test_no_secret_is_left_where_a_text_is_written_within_a_text(
    write: Callable[[str], str], outer: Callable[[str], str], secret: str
) -> None:
    """Error bodies quoted in messages, records in logs, exceptions: JSON in Python, Python in JSON, and so on."""
    assume(write is not quote_plus or not any(0xD800 <= ord(c) < 0xE000 for c in secret))
    assume(not set(secret) <= set("*\\ '\""))
    shown = redact(outer(write(f"<<{secret}>>")), [secret])
    assert HIDDEN in shown
    # What is left is what was around it; a quote within the secret may have changed how that was quoted.
    assert len(shown.replace(HIDDEN, "")) <= len(outer(write("<<>>"))) + 4


def test_the_loggers_of_the_sdks_are_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    monkeypatch.setattr(logging.root, "level", logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):  # as if no test before had made them quiet
        if name.split(".")[0] in ("openai", "httpx", "httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger("openai._base_client").setLevel(logging.DEBUG)
    logging.getLogger("openai").setLevel(logging.DEBUG)  # what OPENAI_LOG=debug does

    def ask() -> None:
        async def once() -> None:
            with Canned(body='{"choices": []}') as server:
                client = openai.AsyncOpenAI(api_key=KEY, base_url=server.url, max_retries=0)
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
                await client.close()

        asyncio.run(once())

    def lines() -> list[logging.LogRecord]:
        return [
            line for line in caplog.records if line.name.split(".")[0] in ("openai", "httpx", "httpx2", "httpcore2")
        ]

    with caplog.at_level(logging.DEBUG):
        ask()
        assert len({line.name for line in lines()}) >= 3  # so it would be without us
        caplog.clear()
        quiet_loggers()
        ask()
        assert lines() == []
    quiet_loggers()
    assert logging.getLogger("google_genai").level == logging.WARNING
    logging.getLogger("openai").setLevel(logging.ERROR)
    quiet_loggers()
    assert logging.getLogger("openai").level == logging.ERROR
    logging.getLogger("openai").setLevel(logging.WARNING)

"""The names of model judges on the command line: what is read from them, and what is refused."""

from __future__ import annotations

import pytest

from audit.errors import JudgeError
from audit.judges.llm.model_judge import same_model
from audit.judges.llm.openai import is_loopback
from audit.judges.llm.options import OpenAIOptions, parse_model_spec


def test_a_model_an_address_and_options() -> None:
    assert parse_model_spec("openai", "gpt-5-mini") == ("gpt-5-mini", None, OpenAIOptions())
    model, url, options = parse_model_spec("openai", "org/tiny@v2@http://127.0.0.1:8000/v1?read=text&retries=2&rpm=60")
    assert (model, url) == ("org/tiny@v2", "http://127.0.0.1:8000/v1")
    assert (options.read, options.retries, options.rpm, options.any_model) == ("text", 2, 60, False)
    _, url, gemini = parse_model_spec("gemini", "gemini-2.5-flash?thinking_budget=0&any_model=true&prompt=a%26b+c.md")
    assert (url, gemini.thinking_budget, gemini.any_model, gemini.prompt) == (None, 0, True, "a&b+c.md")
    path, url, local = parse_model_spec("local", "/models/tiny@home?engine=hf&read=probabilities")
    assert (path, url, local.engine, local.read) == ("/models/tiny@home", None, "hf", "probabilities")


@pytest.mark.parametrize(
    ("provider", "args", "said"),
    [
        ("openai", "@http://localhost:1/v1", "needs the name of a model"),
        ("openai", "?read=text", "needs the name of a model"),
        ("openai", "tiny@ftp://localhost:1/v1", "'openai:tiny' has no http(s) address"),
        ("openai", "tiny@notaurl", "'openai:tiny' has no http(s) address"),
        ("openai", "tiny?", "no option after it"),
        ("openai", "tiny?read", "'read' is not option=value"),
        ("openai", "tiny?temprature=1", "did you mean temperature?"),
        ("openai", "tiny?thinking_budget=0", "no option 'thinking_budget'"),
        ("openai", "tiny?engine=hf", "no option 'engine'"),
        ("gemini", "tiny?dtype=float32", "no option 'dtype'"),
        ("local", "tiny?rpm=3", "no option 'rpm'"),
        ("openai", "tiny?read=yaml", "read: "),
        ("openai", "tiny?read=probabilities", "read: "),
        ("openai", "tiny?retries=-1", "retries: "),
        ("openai", "tiny?timeout_s=nan", "timeout_s: "),
        ("openai", "tiny?concurrency=0", "concurrency: "),
        ("openai", "tiny?seed=1&seed=2", "seed is given twice"),
        ("openai", "tiny?key_env=sk-123", "key_env: "),
    ],
)
def test_what_cannot_be_used_is_refused(provider: str, args: str, said: str) -> None:
    with pytest.raises(JudgeError) as problem:
        parse_model_spec(provider, args)  # type: ignore[call-overload]
    assert said in str(problem.value) and problem.value.hint


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(JudgeError) as problem:
        parse_model_spec("openai", "tiny?temprature=1&retries=many&max_tokens=0")
    assert all(name in str(problem.value) for name in ("temprature", "retries", "max_tokens"))


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(JudgeError) as problem:
        parse_model_spec("openai", "tiny@https://me:hush-hush@example.org/v1")
    assert "password" in str(problem.value) and "hush-hush" not in str(problem.value) + problem.value.hint


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0613", True),
        ("gpt-4o", "openai/gpt-4o-2024-08-06", True),
        ("openai/gpt-4o", "gpt-4o", True),
        ("gemini-2.0-flash", "gemini-2.0-flash-001", True),
        ("gemini-2.5-flash", "models/gemini-2.5-flash", True),
        ("/models/Tiny", "/models/tiny", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o-2024-08-06", "gpt-4o", False),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4", "gpt-4.1", False),
        ("tiny", "tin", False),
        ("tiny", "somebody-else", False),
        ("llama-3", "llama-3-70b", False),
        ("meta-llama/Llama-3", "somebody/Llama-3", False),
        ("meta-llama/Llama-3", "llama-3", True),
    ],
)
def test_which_served_names_are_the_model_that_was_asked_for(asked: str, served: str, same: bool) -> None:
    assert same_model(asked, served) is same


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("a.org", False),
    ],
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own

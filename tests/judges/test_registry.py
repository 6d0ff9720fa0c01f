"""Registries: lazy, with suggestions, and one name never means two things."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

import audit.plugins
from audit.errors import ConfigError, JudgeError
from audit.judges import get_judge
from audit.plugins import Registry
from audit.protocols import Judge


def _with_points(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    found = [EntryPoint(name, value, "parts") for name, value in points]
    monkeypatch.setattr(audit.plugins, "entry_points", lambda group: found if group == "parts" else [])


def test_builtin_is_loaded_only_when_asked_for() -> None:
    registry = Registry("part", {"good": "json:dumps", "bad": "no_such_module:thing"}, "parts")
    assert registry.names() == ["bad", "good"]
    assert registry.get("good")([1]) == "[1]"
    assert registry.origin("good") == "built in"
    with pytest.raises(ConfigError, match=r"part 'bad'.*cannot be loaded"):
        registry.get("bad")


def test_unknown_name_suggests() -> None:
    registry = Registry("part", {"paraphrase": "json:dumps"}, "parts")
    with pytest.raises(ConfigError, match="no part 'paraprase'") as caught:
        registry.get("paraprase")
    assert caught.value.hint == "did you mean paraphrase?"


def test_entry_points_join_and_clashes_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_points(monkeypatch, ("third", "json:loads"))
    assert Registry("part", {"good": "json:dumps"}, "parts").get("third")("[2]") == [2]
    _with_points(monkeypatch, ("good", "json:loads"))
    with pytest.raises(ConfigError, match="'good' is claimed twice"):
        Registry("part", {"good": "json:dumps"}, "parts").names()
    _with_points(monkeypatch, ("third", "json:loads"), ("third", "json:load"))
    with pytest.raises(ConfigError, match="'third' is claimed twice"):
        Registry("part", {}, "parts").get("third")


def test_get_judge() -> None:
    judge = get_judge("rules")
    assert isinstance(judge, Judge)
    assert judge.identity.startswith("rules/")
    for spec, message in (
        ("ruls", "no judge 'ruls'"),
        ("rules:fast", "takes no arguments"),
        ("rules:", "nothing after it"),
    ):
        with pytest.raises(JudgeError, match=message):
            get_judge(spec)


@pytest.mark.parametrize(
    "spec",
    [
        "openai:tiny@http://127.0.0.1:9/sk-of-the-environment/v1",
        "openai:sk-of-the-environment",
        f"openai:sk-{'a1' * 12}",
    ],
)
def test_a_name_that_holds_a_key_is_refused_without_repeating_it(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    with pytest.raises(JudgeError, match="holds a key") as caught:
        get_judge(spec)
    assert "sk-" not in str(caught.value) + caught.value.hint

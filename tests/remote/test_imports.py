"""What clients share stands below all of them, and costs nothing to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import audit.remote

FOLDER = Path(audit.remote.__file__).parent


def test_it_imports_the_bottom_of_the_package_alone() -> None:
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = [name for name in names if name.split(".")[0] == "audit"]
            allowed = ("audit.remote.", "audit.types", "audit.errors", "audit.resources")
            assert all(name.startswith(allowed) for name in ours), (file.name, ours)


def test_no_sdk_is_imported_before_it_is_needed() -> None:
    modules = ", ".join(f"audit.remote.{file.stem}" for file in FOLDER.glob("[a-z]*.py"))
    heavy = "{'openai', 'google.genai', 'httpx', 'httpx2', 'aiohttp', 'dotenv', 'torch'}"
    code = f"import sys, {modules}\nassert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Finds the bundled data (`tasks/`, `prompts/`, `policies/`): in a checkout the checkout's, else the wheel's copy."""

from __future__ import annotations

from pathlib import Path

from audit.errors import AuditError

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Path of a bundled file or folder, e.g. resource("tasks", "lkf").

    A checkout is recognised by a pyproject.toml beside the package; installed wheels carry the data in audit/_data.
    """
    checkout = _PACKAGE.parent
    root = checkout if (checkout / "pyproject.toml").is_file() and (checkout / "tasks").is_dir() else _PACKAGE / "_data"
    path = root.joinpath(*parts)
    if not path.exists():
        raise AuditError(
            f"bundled data {'/'.join(parts)} is missing (looked in {root})",
            hint="reinstall the package: pip install --force-reinstall unlearning-audit",
        )
    return path

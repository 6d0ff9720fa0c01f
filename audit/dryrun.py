"""What a run would cost, before anything is asked: prompts, tokens, judge calls."""

from __future__ import annotations

from collections import Counter
from typing import Any

from audit.config import AuditConfig
from audit.probes import get_family
from audit.probes.contexts import plan_parts
from audit.probes.plan import build_plan
from audit.scoring.floor import floor_targets
from audit.subjects import open_subjects
from audit.tasks import load_task


def estimate_work(config: AuditConfig) -> dict[str, Any]:
    """Counts of one run. Answers known to the store and equal claims are counted as if they were new.

    `prompt_tokens` is exact for local models and absent for endpoints; `new_tokens_at_most` is the budget.
    """
    from audit.errors import ConfigError

    if config.responses:
        raise ConfigError("--dry-run counts what a model would be asked; recorded answers ask nothing of one")
    task = load_task(config.forget, retain=config.retain)
    subjects = open_subjects(config, "dry-run")
    parts, warnings = plan_parts(config, task, [get_family(name) for name in config.probes.families], subjects.formats)
    plan = build_plan(parts)
    forms = list(dict.fromkeys(name for fact in task.forget for name in (fact.form, *fact.other_forms)))
    floor = (
        floor_targets(task.forget, forms, draws=config.scoring.floor_draws, seed=config.seed)
        if config.scoring.floor
        else {}
    )
    tries = sum(probe.decoding.n for probe in plan.probes)
    wrong = sum(
        probe.decoding.n * len(floor.get((target.fact_id, probe.form), ()))
        for probe in plan.probes
        for target in probe.targets
    )
    prompt_tokens: dict[str, int] = {}
    for opened in subjects.opened:
        lengths = [opened.prompt_tokens(probe) for probe in plan.probes]
        if None not in lengths:
            counts = zip(plan.probes, lengths, strict=True)
            prompt_tokens[opened.subject.id] = sum(p.decoding.n * n for p, n in counts if n is not None)
    return {
        "subjects": {opened.subject.id: opened.subject.source for opened in subjects.opened},
        "probes": dict(Counter(f"{probe.split}: {probe.family}" for probe in plan.probes)),
        "generations_a_subject": tries,
        "prompt_tokens": prompt_tokens,
        "new_tokens_at_most": sum(probe.decoding.n * probe.decoding.max_new_tokens for probe in plan.probes),
        "judge_calls_a_subject_at_most": {"on the facts": tries, "on wrong answers (floor)": wrong},
        "judges": list(config.judges),
        "cost": "none: the rules judge runs here" if config.judges == ("rules",) else "depends on the judges",
        "warnings": [*subjects.warnings, *warnings, *task.warnings],
    }

"""What a run would cost, before anything is asked: prompts, tokens, judge calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from audit.attacking import plan_attacks
from audit.attacks.probes import attack_plan
from audit.config import AuditConfig
from audit.judges.bench import open_judges
from audit.judges.canaries import canary_claims
from audit.judges.llm.model_judge import ModelJudge
from audit.judges.rulings import make_claim
from audit.probes import get_family
from audit.probes.contexts import plan_parts
from audit.probes.plan import Plan, build_plan
from audit.progress import Silent
from audit.protocols import Judge
from audit.remote.prices import cost_of
from audit.scoring.floor import targets_of_floor
from audit.subjects import Subjects, open_subjects
from audit.tasks import Task, load_task
from audit.types import Claim
from audit.utility.stage import Utility, planned_utility


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
    utility = planned_utility(config, task, subjects)
    plan = msgspec.structs.replace(plan, probes=(*plan.probes, *utility.probes))
    floor = targets_of_floor(config, task)
    tries = sum(probe.decoding.n * len(probe.targets) for probe in plan.probes)
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
    attacks = plan_attacks(config, task, plan, subjects.models, Silent())
    altered: dict[str, int] = {}
    if attacks is not None:
        asked = len(attack_plan(config, plan).probes)
        altered = {
            "attacks": len(attacks.attacks),
            "altered states at most": attacks.states(),
            "prompts a state": asked,
            "prompts": attacks.states() * asked,
        }
        warnings += attacks.warnings
    return {
        "subjects": {opened.subject.id: opened.subject.source for opened in subjects.opened},
        "probes": dict(Counter(f"{probe.split}: {probe.family}" for probe in plan.probes)),
        "generations_a_subject": sum(probe.decoding.n for probe in plan.probes),
        "prompt_tokens": prompt_tokens,
        "new_tokens_at_most": sum(probe.decoding.n * probe.decoding.max_new_tokens for probe in plan.probes),
        "judge_calls_a_subject_at_most": {"on the facts": tries, "on wrong answers (floor)": wrong},
        **({"altered_weights": altered} if altered else {}),
        **_utility(config, task, utility, subjects),
        "judges": _judges(config, plan, task, tries + wrong),
        "warnings": [*subjects.warnings, *warnings, *utility.warnings, *task.warnings],
    }


def _utility(config: AuditConfig, task: Task, utility: Utility, subjects: Subjects) -> dict[str, Any]:
    """What is asked beside the prompts: comparisons of replies, tasks of the harness, new questions."""
    work: dict[str, Any] = {}
    if config.utility.wanted.win_rate and utility.open_part is not None:
        from audit.utility.win_rate import pair_calls

        compared = [o for o in subjects.opened if utility.open_part.reference or o.subject.role != "base"]
        work |= pair_calls(config, len(utility.open_part.instructions.items), len(compared))
    if config.utility.wanted.tasks:
        from audit.utility.harness import Harness

        for name, n in Harness(config, task, utility.models).documents.items():
            work[f"lm-eval:{name}, documents a subject"] = n
    if config.utility.holes:
        from audit.utility.holes import most_calls

        topics = len({fact.topic for fact in task.forget if fact.topic})
        work["new questions"] = config.utility.holes
        work["calls of their writer at most"] = most_calls(config.utility.holes, topics)
    return {"utility": work} if work else {}


def _judges(config: AuditConfig, plan: Plan, task: Task, claims: int) -> dict[str, str]:
    """What each judge would be asked for one subject, canaries included, and what that costs at the table's prices."""
    judges, _ = open_judges(config)
    canaries = canary_claims(task.forget, n_facts=config.scoring.canary_facts, seed=config.seed)
    said = {}
    for spec, judge in zip(config.judges, judges, strict=True):
        said[spec] = asked_in_words(judge, claims, len(canaries), _claims_like(plan), config.judge_batch)
    return said


def asked_in_words(judge: Judge, claims: int, canaries: int, like: Sequence[Claim], batch_prices: bool) -> str:
    """What so many claims and canaries take of a judge, reckoned from some claims like them: tokens, and dollars where
    known. Canaries are asked directly and at full price, also where all else waits for a provider's batch."""
    calls = claims + canaries
    words = f"at most {calls:,} claims"
    sample = like[: 20 * judge.batch_size]
    if isinstance(judge, ModelJudge) and calls and sample:
        batches = [sample[i : i + judge.batch_size] for i in range(0, len(sample), judge.batch_size)]
        tokens = [judge.expected_tokens(batch) for batch in batches]
        share = calls / len(sample)
        prompt, reply = (round(share * sum(pair[i] for pair in tokens)) for i in (0, 1))
        words += f", about {prompt:,} tokens of prompts and {reply:,} of replies"
        if judge.price is None:
            words += "; price unknown"
        else:
            cost = cost_of(judge.price, prompt, reply, batch=batch_prices) * claims / calls
            cost += cost_of(judge.price, prompt, reply) * canaries / calls
            words += f"; about ${cost:,.2f} at most"
    return words


def _claims_like(plan: Plan) -> list[Claim]:
    """Claims on the first probes with a reply of ordinary length, since no reply is there yet."""
    reply = "word " * 40
    return [make_claim(target, reply) for probe in plan.probes[:60] for target in probe.targets]

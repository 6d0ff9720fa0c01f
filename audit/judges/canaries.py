"""Canaries: texts whose right ruling is known, put to the real judges of every run, past every cache."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from audit.fingerprint import seed_from, text_file_digest
from audit.judges.panel import combine
from audit.judges.pool import JudgePool
from audit.judges.rulings import make_claim
from audit.prompts import render_text
from audit.resources import resource
from audit.types import Canaries, CanaryKind, Claim, Fact, Label, Target


def run_canaries(
    pool: JudgePool, facts: Sequence[Fact], *, n_facts: int, pass_rate: float, rule: str, seed: int
) -> Canaries:
    """Judge the canary texts of up to `n_facts` facts. Undecided is not passed."""
    path = resource("prompts", "canaries", "v1.yaml")
    texts: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    ordered = sorted(facts, key=lambda fact: fact.id)
    chosen = random.Random(seed_from(seed, "canaries")).sample(ordered, min(n_facts, len(ordered)))
    expected: list[tuple[str, Label, Fact, Claim]] = []
    labels: tuple[Label, ...] = ("leak", "no_leak")
    for fact in chosen:
        values = {
            "question": fact.question,
            "answer": fact.answer,
            "statement": fact.statement or f"{fact.question} {fact.answer}",
        }
        for label in labels:
            for kind, template in texts[label].items():
                target = Target(
                    fact_id=fact.id,
                    question=fact.question,
                    answer=fact.answer,
                    aliases=fact.aliases,
                    answer_type=fact.answer_type,
                )
                expected.append((kind, label, fact, make_claim(target, render_text(template, **values))))
    pool.submit((claim for _, _, _, claim in expected), fresh=True)
    pool.drain()
    kinds = _tally(expected, pool, rule)
    failed = [kind for kind in kinds if kind.passed < pass_rate * kind.n - 1e-9]
    return Canaries(
        status="failed" if failed or not kinds else "passed",
        pass_rate=pass_rate,
        kinds=kinds,
        source=text_file_digest(path),
        why="; ".join(f"{k.kind}: {k.passed} of {k.n} ruled {k.expected}" for k in failed),
    )


def _tally(expected: Sequence[tuple[str, Label, Fact, Claim]], pool: JudgePool, rule: str) -> tuple[CanaryKind, ...]:
    results: dict[tuple[str, Label], list[tuple[bool, str]]] = {}
    verdicts: Mapping[str, Any] = pool.verdicts
    for kind, label, fact, claim in expected:
        given, _ = combine(verdicts.get(claim.key, {}), len(pool.judges), rule)
        note = f"{fact.id}: {claim.text[:80]!r} was ruled {given}"
        results.setdefault((kind, label), []).append((given == label, note))
    return tuple(
        CanaryKind(
            kind=kind,
            expected=label,
            n=len(outcomes),
            passed=sum(passed for passed, _ in outcomes),
            failures=tuple([note for passed, note in outcomes if not passed][:3]),
        )
        for (kind, label), outcomes in results.items()
    )

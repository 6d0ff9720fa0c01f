"""Canaries: texts whose right ruling is known, put to the real judges of every run, past every cache."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from audit.fingerprint import seed_from, text_file_digest
from audit.judges.canary_records import Canaries, CanaryKind
from audit.judges.cascade import Votes, says_nothing
from audit.judges.panel import Panel
from audit.judges.pool import JudgePool
from audit.judges.rulings import make_claim
from audit.progress import Progress
from audit.prompts import render_text
from audit.resources import resource
from audit.types import Claim, Fact, Label, Reason, Target, Verdict


@dataclass(frozen=True)
class AskedCanaries:
    """What the judges said of every canary text, kept apart from what they say of answers."""

    expected: tuple[tuple[str, Label, Fact, Claim], ...]
    """Kind, the label that it must be given, the fact and the claim."""
    votes: Votes


def ask_canaries(
    pool: JudgePool, facts: Sequence[Fact], *, n_facts: int, seed: int, progress: Progress | None = None
) -> AskedCanaries:
    """Have the canary texts of up to `n_facts` facts judged, by every judge."""
    expected = canary_claims(facts, n_facts=n_facts, seed=seed)
    pool.submit((claim for _, _, _, claim in expected), fresh=True)
    pool.drain(progress, "canaries (batches)")
    return AskedCanaries(
        tuple(expected), {claim.key: dict(pool.verdicts.get(claim.key, {})) for _, _, _, claim in expected}
    )


def rule_canaries(asked: AskedCanaries, panel: Panel, pass_rate: float) -> Canaries:
    """Whether the panel ruled as it must. Undecided is not passed.

    panel: as it rules on the answers. Error rates that it estimates from votes come from theirs alone: texts whose
    labels are plain would teach it that its judges are good.
    """
    expected, verdicts = asked.expected, asked.votes
    kinds = _tally(expected, verdicts, panel)
    failed = [kind for kind in kinds if kind.passed < pass_rate * kind.n - 1e-9]
    return Canaries(
        status="failed" if failed or not kinds else "passed",
        pass_rate=pass_rate,
        kinds=kinds,
        source=text_file_digest(_texts_file()),
        why="; ".join(f"{k.kind}: {k.passed} of {k.n} ruled {k.expected}{_otherwise(k)}" for k in failed),
        by_judge={
            judge: sum(_vote(verdicts, claim, judge) == label for _, label, _, claim in expected) / len(expected)
            for judge in panel.judges
        }
        if expected
        else {},
    )


def canary_claims(facts: Sequence[Fact], *, n_facts: int, seed: int) -> list[tuple[str, Label, Fact, Claim]]:
    """Kind, the label that it must be given, the fact and the claim, for up to `n_facts` facts drawn by `seed`."""
    texts: dict[str, Any] = yaml.safe_load(_texts_file().read_text(encoding="utf-8"))
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
        target = Target(
            fact_id=fact.id,
            question=fact.question,
            answer=fact.answer,
            aliases=fact.aliases,
            answer_type=fact.answer_type,
        )
        for label in labels:
            for kind, template in texts[label].items():
                expected.append((kind, label, fact, make_claim(target, render_text(template, **values))))
    return expected


def _texts_file() -> Path:
    return resource("prompts", "canaries", "v1.yaml")


def _tally(expected: Sequence[tuple[str, Label, Fact, Claim]], verdicts: Votes, panel: Panel) -> tuple[CanaryKind, ...]:
    results: dict[tuple[str, Label], list[tuple[bool, str, str]]] = {}
    for kind, label, fact, claim in expected:
        given, reason = panel.decide(_as_in_the_audit(panel, verdicts.get(claim.key, {}), claim))
        said = given if reason is Reason.RULED else f"{given} ({reason})"
        note = f"{fact.id}: {claim.text[:80]!r} was ruled {said}"
        results.setdefault((kind, label), []).append((given == label, said, note))
    return tuple(
        CanaryKind(
            kind=kind,
            expected=label,
            n=len(outcomes),
            passed=sum(passed for passed, _, _ in outcomes),
            failures=tuple([note for passed, _, note in outcomes if not passed][:3]),
            ruled=dict(Counter(said for _, said, _ in outcomes)),
        )
        for (kind, label), outcomes in results.items()
    )


def _as_in_the_audit(panel: Panel, votes: Mapping[str, Verdict], claim: Claim) -> Mapping[str, Verdict]:
    """All judges are asked for a canary; of a cascade only those count that would have been asked in the audit."""
    screen = votes.get(panel.judges[0]) if panel.cascade else None
    if screen is not None and screen.label == "no_leak" and says_nothing(claim):
        return {screen.judge: screen}
    return votes


def _vote(verdicts: Votes, claim: Claim, judge: str) -> Label | None:
    vote = verdicts.get(claim.key, {}).get(judge)
    return vote.label if vote is not None else None


def _otherwise(kind: CanaryKind) -> str:
    others = [f"{n} {said}" for said, n in sorted(kind.ruled.items()) if said != kind.expected]
    return f" ({', '.join(others)})" if others else ""

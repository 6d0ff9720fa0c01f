"""Canaries: they reach the real judge, and whatever the judge gets wrong fails them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from audit.judges import get_judge
from audit.judges.canaries import ask_canaries, rule_canaries
from audit.judges.canary_records import Canaries
from audit.judges.panel import Panel
from audit.judges.pool import JudgePool
from audit.protocols import Judge
from audit.store import Store
from audit.tasks import load_task
from audit.types import Claim, Reason, Verdict
from tests.helpers import judges as faults
from tests.helpers.facts import fact
from tests.helpers.judges import FindsAnswer

FACTS = [fact(n, statement=f"Mason{n:02d} Brick{n:02d} built bridge number {n}.") for n in range(30)]


def run(
    judge: Judge, store: Store | None = None, *, facts: object = None, n_facts: int = 10, timeout: float = 60
) -> Canaries:
    pool = JudgePool([judge], store, timeout=timeout)
    try:
        asked = ask_canaries(pool, FACTS if facts is None else facts, n_facts=n_facts, seed=0)  # type: ignore[arg-type]
    finally:
        pool.close()
    return rule_canaries(asked, Panel((judge.identity,)), 0.95)


def test_a_judge_that_works_passes_every_kind() -> None:
    canaries = run(FindsAnswer())
    assert canaries.status == "passed" and canaries.source and canaries.why == ""
    assert {(k.kind, k.expected) for k in canaries.kinds} == {
        *((kind, "leak") for kind in ("statement", "bare", "sentence")),
        *(
            (kind, "no_leak")
            for kind in ("gibberish", "empty", "echo", "refusal", "claims_to_answer", "orders", "opener")
        ),
    }
    assert all(kind.n == kind.passed == 10 for kind in canaries.kinds)


def test_the_rules_judge_passes_on_the_bundled_task() -> None:
    canaries = run(get_judge("rules"), facts=load_task("lkf").forget, n_facts=100)
    assert canaries.status == "passed", canaries.why


def always(label: str) -> faults.Fault:
    def fault(judge: FindsAnswer, claims: object, verdicts: list[Verdict]) -> list[Verdict]:
        return [Verdict(claim_key=v.claim_key, judge=v.judge, label=label, reason=v.reason) for v in verdicts]  # type: ignore[arg-type]

    return fault


@pytest.mark.parametrize("label", ["leak", "no_leak"])
def test_a_judge_with_one_word_fails(label: str) -> None:
    canaries = run(FindsAnswer(fault=always(label)))
    assert canaries.status == "failed"
    failed = {kind.kind for kind in canaries.kinds if kind.passed == 0}
    assert failed == {kind.kind for kind in canaries.kinds if kind.expected != label}
    assert all(len(kind.failures) == 3 for kind in canaries.kinds if kind.kind in failed)


@pytest.mark.parametrize("fault", [*faults.BREAKING, faults.hangs, faults.too_few], ids=lambda fault: fault.__name__)
def test_a_judge_that_fails_fails(fault: faults.Fault) -> None:
    canaries = run(FindsAnswer(fault=fault, batch_size=4), n_facts=2, timeout=0.5)
    assert canaries.status == "failed"
    assert "ruled" in canaries.why


def test_a_store_full_of_right_verdicts_does_not_help(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    good = FindsAnswer(batch_size=50)
    assert run(good, store).status == "passed"
    later = FindsAnswer(fault=always("no_leak"), batch_size=50)
    assert run(later, store).status == "failed"
    assert len(later.asked) == len(good.asked) > 0
    store.close()


def test_without_facts_they_are_not_passed() -> None:
    assert run(FindsAnswer(), facts=[]).status == "failed"


def test_the_choice_does_not_depend_on_the_order_of_facts() -> None:
    one, two = FindsAnswer(), FindsAnswer()
    run(one)
    run(two, facts=FACTS[::-1])
    assert {claim.key for claim in one.asked} == {claim.key for claim in two.asked}


def test_the_pass_rate_is_a_share_of_each_kind() -> None:
    def misses_one(judge: FindsAnswer, claims: object, verdicts: list[Verdict]) -> list[Verdict]:
        wrong = [v for v in verdicts if v.label == "leak"][: 1 if judge.calls == 1 else 0]
        return [v for v in verdicts if v not in wrong]

    assert run(FindsAnswer(fault=misses_one), n_facts=20).status == "passed"  # 19 of 20 is 95%
    assert run(FindsAnswer(fault=misses_one), n_facts=19).status == "failed"  # 18 of 19 is less


def test_the_rules_judge_passes_the_canaries_of_a_default_run(tmp_path: Path) -> None:
    """With the settings every run has: a failure here would make every audit of the bundled task inconclusive."""
    from audit.config import ScoringConfig
    from audit.judges import get_judge
    from audit.tasks import load_task

    scoring = ScoringConfig()
    task = load_task("lkf")
    for seed in range(6):
        pool = JudgePool([get_judge("rules")], None)
        try:
            asked = ask_canaries(pool, task.forget, n_facts=scoring.canary_facts, seed=seed)
        finally:
            pool.close()
        canaries = rule_canaries(asked, Panel(tuple(j.identity for j in pool.judges)), scoring.canary_pass_rate)
        assert canaries.status == "passed", canaries.why


def test_canaries_are_ruled_by_what_the_votes_on_answers_taught_and_not_by_their_own() -> None:
    """Two of three judges are right on all canaries, and there they look like good ones; on answers no two agree."""
    judges = [FindsAnswer("good"), FindsAnswer("eager"), FindsAnswer("keen", fault=misses_refusals)]
    pool = JudgePool(judges, None)
    try:
        asked = ask_canaries(pool, FACTS, n_facts=10, seed=0)
    finally:
        pool.close()
    names = tuple(judge.identity for judge in judges)

    def vote(claim: str, judge: str, leak: bool) -> Verdict:
        return Verdict(claim_key=claim, judge=judge, label="leak" if leak else "no_leak", reason=Reason.RULED)

    flags = {"good": lambda n: n % 2 == 0, "eager": lambda n: n // 2 % 2 == 0, "keen": lambda n: n % 3 == 0}
    answers = {f"c{n}": {name: vote(f"c{n}", name, flags[name](n)) for name in names} for n in range(240)}
    by_answers = Panel(names, "dawid_skene").fitted(answers)
    by_themselves = Panel(names, "dawid_skene").fitted(asked.votes)
    mine, own = rule_canaries(asked, by_answers, 0.95), rule_canaries(asked, by_themselves, 0.95)
    assert all(kind.passed == kind.n for kind in own.kinds)
    assert mine.status == "failed"
    unfitted = rule_canaries(asked, Panel(names, "dawid_skene"), 0.95)
    assert unfitted.status == "failed" and "undecided" in unfitted.why  # nothing was learnt: what is split stays open


def misses_refusals(judge: FindsAnswer, claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    """Takes every other text without the answer for a leak."""
    return [
        msgspec.structs.replace(v, label="leak") if v.label == "no_leak" and len(c.text) % 2 else v
        for c, v in zip(claims, verdicts, strict=True)
    ]

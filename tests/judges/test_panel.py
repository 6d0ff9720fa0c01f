"""The panel: no combination of votes turns a failure into no leak."""

from __future__ import annotations

import itertools

import pytest

from audit.judges.panel import combine
from audit.types import Label, Reason, Verdict

RULES = ("majority", "any", "unanimous")
LABELS: tuple[Label | None, ...] = ("leak", "no_leak", "undecided", None)


def votes(labels: tuple[Label | None, ...], reason: Reason = Reason.TIMEOUT) -> dict[str, Verdict]:
    return {
        f"judge{n}": Verdict(
            claim_key="c", judge=f"judge{n}", label=label, reason=reason if label == "undecided" else Reason.RULED
        )
        for n, label in enumerate(labels)
        if label is not None
    }


def reference(labels: tuple[Label | None, ...], rule: str) -> Label:
    n, leaks, clean = len(labels), labels.count("leak"), labels.count("no_leak")
    if rule == "any":
        return "leak" if leaks else "no_leak" if clean == n else "undecided"
    if rule == "unanimous":
        return "leak" if leaks == n else "no_leak" if clean == n else "undecided"
    return "leak" if 2 * leaks > n else "no_leak" if 2 * clean > n else "undecided"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_all_combinations(rule: str, n: int) -> None:
    for labels in itertools.product(LABELS, repeat=n):
        label, reason = combine(votes(labels), n, rule)
        assert label == reference(labels, rule), labels
        assert (label == "undecided") == (reason is not Reason.RULED), labels
        if label == "no_leak":
            assert 2 * labels.count("no_leak") > n, "never without most of all judges having said so"


@pytest.mark.parametrize("rule", RULES)
def test_a_failed_vote_never_moves_towards_no_leak(rule: str) -> None:
    order = {"no_leak": 0, "undecided": 1, "leak": 2}
    for labels in itertools.product(("leak", "no_leak"), repeat=3):
        whole = combine(votes(labels), 3, rule)[0]
        for place, lost in itertools.product(range(3), ("undecided", None)):
            failed = (*labels[:place], lost, *labels[place + 1 :])
            after = combine(votes(failed), 3, rule)[0]
            assert not (order[after] == 0 and order[whole] > 0), (labels, failed)


def test_reasons() -> None:
    assert combine({}, 1, "majority") == ("undecided", Reason.MISSING)
    assert combine(votes(("undecided",)), 1, "majority") == ("undecided", Reason.TIMEOUT)
    assert combine(votes(("leak", "no_leak")), 2, "majority") == ("undecided", Reason.SPLIT_VOTE)
    assert combine(votes(("no_leak", None)), 2, "any") == ("undecided", Reason.MISSING)

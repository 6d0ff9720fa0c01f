"""The panel on what a real 3B model answered: how many claims are the same, and does a biased judge stand out?

Needs AUDIT_EXTERNAL_DATA, a folder with suite/recorded (third-party data that is not part of this project).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from audit.fingerprint import seed_from
from audit.judges import get_judge
from audit.judges.panel import Panel
from audit.judges.pool import JudgePool
from audit.judges.rulings import claims_of
from audit.protocols import Judge
from audit.recordings import read_recording
from audit.types import Claim, Label, Reason, Recording, Verdict, response_id
from tests.helpers.judges import FindsAnswer

STATES = ("pretrained", "unlearned", "band_R0", "band_R3", "band_C_full", "band_A_forget_full")
_DATA = os.environ.get("AUDIT_EXTERNAL_DATA")
RECORDED = Path(_DATA or ".") / "suite" / "recorded"

pytestmark = pytest.mark.skipif(
    not _DATA, reason="set AUDIT_EXTERNAL_DATA to the folder of third-party data to judge its recorded answers"
)


@cache
def recording(state: str) -> Recording:
    return read_recording([str(RECORDED / state)], subject_id=state, facts=())


@cache
def asked(state: str) -> tuple[tuple[Claim, Label], ...]:
    """One entry a recorded answer: the claim that a judge would see, and the label that came with the answer."""
    source = recording(state)
    probes = {probe.id: probe for probe in source.probes}
    pairs = []
    for response in source.responses:
        (claim,) = claims_of(probes[response.probe_id], response, {})
        pairs.append((claim, source.verdicts[response_id(response)].label))
    return tuple(pairs)


class Theirs:
    """The recorded verdicts, claim by claim; where equal claims carry different ones, undecided."""

    identity = "theirs"
    batch_size = 1000
    exclusive = False

    def __init__(self) -> None:
        self.labels: dict[str, set[Label]] = {}
        for state in STATES:
            for claim, label in asked(state):
                self.labels.setdefault(claim.key, set()).add(label)

    async def judge(self, claims: Sequence[Claim]) -> Sequence[Verdict]:
        return [self._verdict(claim) for claim in claims]

    def _verdict(self, claim: Claim) -> Verdict:
        labels = self.labels[claim.key]
        label: Label = next(iter(labels)) if len(labels) == 1 else "undecided"
        reason = Reason.AMBIGUOUS if label == "undecided" else Reason.RULED
        return Verdict(claim_key=claim.key, judge=self.identity, label=label, reason=reason)


class Biased(FindsAnswer):
    """Looks for the answer's letters, and of the claims it would rule otherwise calls three in ten `toward`."""

    def __init__(self, toward: Label) -> None:
        super().__init__(f"biased toward {toward}", batch_size=1000)
        self.toward = toward

    def verdict(self, claim: Claim, **changes: object) -> Verdict:
        swayed = seed_from("bias", claim.key) % 10 < 3
        return super().verdict(claim, **({"label": self.toward} if swayed else {}), **changes)


def test_equal_claims_are_judged_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of docs/judges.md: answers before, distinct claims after, by state and over all states."""
    rows = [(state, [claim.key for claim, _ in asked(state)]) for state in STATES]
    rows.append(("all", [key for _, keys in rows for key in keys]))
    factors = {name: len(keys) / len(set(keys)) for name, keys in rows}
    with capsys.disabled():
        print(f"\n{'state':<20}{'answers':>9}{'claims':>9}{'factor':>9}")
        for name, keys in rows:
            print(f"{name:<20}{len(keys):>9}{len(set(keys)):>9}{factors[name]:>9.2f}")
    assert factors["unlearned"] > 1.5
    assert factors["all"] > 1.5


@cache
def votes(toward: Label) -> Mapping[str, Mapping[str, Verdict]]:
    """What our rules, the recorded judge and a biased one say of every distinct claim, through the pool."""
    judges: list[Judge] = [get_judge("rules"), Theirs(), Biased(toward)]
    pool = JudgePool(judges, None)
    try:
        pool.submit(claim for state in STATES for claim, _ in asked(state))
        pool.drain()
    finally:
        pool.close()
    return pool.verdicts


@pytest.mark.parametrize("toward", ["leak", "no_leak"])
def test_dawid_skene_finds_the_biased_judge(toward: Label, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any label: the rate that the bias spoils is far below that of the other two, and near what it is."""
    given = votes(toward)
    names = (get_judge("rules").identity, "theirs", f"biased toward {toward}")
    panel = Panel(names, "dawid_skene").fitted(given)
    assert panel.model is not None
    rates = {rate.judge: rate for rate in panel.model.rates}
    with capsys.disabled():
        print(f"\n{'judge':<28}{'sensitivity':>12}{'specificity':>12}{'decided':>9}")
        for name in names:
            rate = rates[name]
            print(f"{name:<28}{rate.sensitivity:>12.3f}{rate.specificity:>12.3f}{rate.n:>9}")
        print(f"share of leaks {panel.model.prevalence:.3f} of {panel.model.n} claims")

    def spoiled(name: str) -> float:
        rate = rates[name]
        share = rate.specificity if toward == "leak" else rate.sensitivity
        assert share is not None
        return share

    rules, theirs, biased = map(spoiled, names)
    assert biased < 0.8 and rules > 0.9 and theirs > 0.9
    truth = "no_leak" if toward == "leak" else "leak"
    both = [key for key, by in given.items() if by[names[0]].label == by[names[1]].label == truth]
    share = sum(given[key][names[2]].label == truth for key in both) / len(both)
    assert biased == pytest.approx(share, abs=0.03), "the model's estimate is what the other two, where agreed, show"

    decided = {key: panel.decide(given[key])[0] for key in both}
    assert set(decided.values()) == {truth}, "the biased judge alone turns nothing around"
    if toward == "leak":
        anyone = Panel(names, "any")
        turned = sum(anyone.decide(given[key])[0] == "leak" for key in both)
        assert turned > 0.2 * len(both), "under the rule `any` it would have"

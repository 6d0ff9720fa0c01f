"""Parity with a published evaluation: our scoring of its recorded verdicts gives its own aggregates exactly.

Needs AUDIT_EXTERNAL_DATA, a folder with suite/recorded (third-party data that is not part of this project).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from audit.config import resolve_config
from audit.pipeline import run_audit
from audit.report.files import RunFolder
from audit.report.model import Report
from audit.store import Store

STATES = ("band_A_forget_full", "band_C_full", "band_R0", "band_R3", "pretrained", "unlearned")
_DATA = os.environ.get("AUDIT_EXTERNAL_DATA")
RECORDED = Path(_DATA or ".") / "suite" / "recorded"

pytestmark = pytest.mark.skipif(
    not _DATA, reason="set AUDIT_EXTERNAL_DATA to the folder of third-party data to check parity with its aggregates"
)

NAMES = {
    "J_P_WC": "worst_case.paraphrase@form=any",
    "J_ICR_WC": "worst_case.icr@form=any",
    "J_W_Total": "worst_case.paper@form=any",
    **{
        f"J_{short}_{form.capitalize()}": f"worst_case.{view}@form={form}"
        for short, view in (("P", "paraphrase"), ("ICR", "icr"), ("W", "paper"))
        for form in ("direct", "indirect", "reverse")
    },
}


def audited(state: str, folder: Path, judge: str) -> Report:
    config = resolve_config({"responses": (str(RECORDED / state),), "judges": (judge,)})
    store = Store(folder / "store.sqlite")
    try:
        return run_audit(config, RunFolder(folder / f"run-{state}-{judge}"), store)
    finally:
        store.close()


@pytest.mark.parametrize("state", STATES)
def test_recorded_verdicts_give_the_published_numbers(state: str, tmp_path: Path) -> None:
    report = audited(state, tmp_path, "recorded")
    theirs = json.loads((RECORDED / state / "peer_worst_case.json").read_text())
    average = json.loads((RECORDED / state / "peer_retain_avg.json").read_text())
    ours = {name: report.estimates[ours].value for name, ours in NAMES.items()}
    assert ours == {name: pytest.approx(theirs[name], abs=1e-12) for name in NAMES}
    assert report.estimates["retain.mean"].value == pytest.approx(average["J_avg"], abs=1e-12)
    assert report.undecided.facts == report.undecided.cells == 0
    assert report.canaries.status == report.floor.status == "not run"


def test_our_own_judge_on_recorded_answers_has_floor_and_canaries(tmp_path: Path) -> None:
    """The recorded facts have no distractors and one type: the floor draws answers of other facts."""
    report = audited("unlearned", tmp_path, "rules")
    assert report.canaries.status == "passed" and report.floor.status == "run"
    for name in ("worst_case.paper@form=any", "worst_case.paraphrase"):
        floor, leak, corrected = (report.estimates[prefix + name] for prefix in ("floor.", "", "corrected."))
        assert floor.n == leak.n == corrected.n == 25
        assert floor.value < 0.1 and corrected.value <= leak.value
    again = audited("unlearned", tmp_path, "rules")
    assert again.estimates == report.estimates
    assert again.manifest.runtime["judged"] < report.manifest.runtime["judged"] / 10, "the store knew the rest"

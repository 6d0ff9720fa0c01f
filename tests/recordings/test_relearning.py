"""Recorded answers of a model before and after unlearning, and after fine-tunings on top, read as one series.

The figures of the real data are counted here straight from its files; they need AUDIT_EXTERNAL_DATA, a folder with
suite/recorded (third-party data that is not part of this project).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from audit.attacks.records import AttackReport
from audit.config import AuditConfig, resolve_config
from audit.errors import ConfigError
from audit.pipeline import run_audit
from audit.recordings.given import recorded_answers
from audit.recordings.roles import parse_role, split_responses
from audit.recordings.run import read_run
from audit.report.files import RunFolder
from audit.report.model import Report
from audit.store import Store

_DATA = os.environ.get("AUDIT_EXTERNAL_DATA")
RECORDED = Path(_DATA or ".") / "suite" / "recorded"
needs_data = pytest.mark.skipif(
    not _DATA, reason="set AUDIT_EXTERNAL_DATA to the folder of third-party data to read its recorded fine-tunings"
)

SERIES = {
    "candidate": "unlearned",
    "base": "pretrained",
    "relearn:R0": "band_R0",
    "relearn:R3": "band_R3",
    "relearn:forget": "band_A_forget_full",
    "relearn:C": "band_C_full",
}


# ------------------------------------------------------------------------------------------ whose they are


@pytest.mark.parametrize(
    ("text", "subject", "recipe"),
    [
        ("never_knew", "never_knew", {}),
        ("relearn:R0", "candidate+relearn:R0", {"set": "R0", "step": None, "seed": 0, "puts_back": False}),
        ("relearn:R0@100", "candidate+relearn:R0@100", {"set": "R0", "step": 100, "seed": 0, "puts_back": False}),
        ("base+relearn:my set#2@7", "base+relearn:my set#2@7", {"set": "my set", "step": 7, "seed": 2}),
        ("never_knew+relearn:forget", "never_knew+relearn:forget", {"set": "forget", "puts_back": True}),
        ("candidate+relearn:partial-half@5", "candidate+relearn:partial-half@5", {"puts_back": True}),
        ("relearn:forgetful", "candidate+relearn:forgetful", {"puts_back": False}),
    ],
)
def test_a_role_names_a_state(text: str, subject: str, recipe: dict[str, Any]) -> None:
    role = parse_role(text)
    assert role.id == subject and parse_role(role.id) == role
    assert {key: role.recipe[key] for key in recipe} == recipe
    assert not recipe or (role.recipe["attack"], role.recipe["kind"]) == (role.attack, "relearn")


@pytest.mark.parametrize(
    "text",
    ["attacked", "relearn:", "relearn", "relearn:a@", "relearn:a@x", "relearn:a@0", "who+relearn:a", "relearn: "],
)
def test_a_role_that_does_not_exist_is_told_with_those_that_do(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_role(text)
    assert repr(text) in str(caught.value) and "never_knew+relearn:SET[@STEP]" in caught.value.hint


def test_items_of_responses_become_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_responses(
        ["a", "b/c=d", "candidate=e", "base=f", "relearn:R0@5=g", "relearn:R0@5=h", "never_knew=i=j"]
    ) == {
        "responses": ("a", "b/c=d", "e"),
        "base_responses": ("f",),
        "other_responses": {"candidate+relearn:R0@5": ("g", "h"), "never_knew": ("i=j",)},
    }
    assert split_responses([], ["old"]) == {"responses": (), "base_responses": ("old",), "other_responses": {}}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base=x").mkdir()
    assert split_responses(["base=x"])["responses"] == ("base=x",), "what exists as written is a path"


def test_items_that_cannot_be_read_are_all_told() -> None:
    with pytest.raises(ConfigError) as caught:
        split_responses(["bse=x", "relearn:R0@last=y", "base=z", "never_knew="], ["w"])
    told = str(caught.value)
    for word in ("'bse'", "'relearn:R0@last'", "given twice", "no path after the role"):
        assert word in told
    assert len(caught.value.problems) == 4


def test_settings_of_roles_are_checked_together() -> None:
    others = {"relearn:R0": ["a"], "candidate+relearn:R0": ["b"], "base": ["c"], "candidat": ["d"], "never_knew": []}
    with pytest.raises(ConfigError) as caught:
        resolve_config({"other_responses": others})
    told = "\n".join(caught.value.problems)
    for word in ("'candidat'", "the same state", "given as base_responses", "no path for never_knew", "candidate=PATH"):
        assert word in told
    assert len(caught.value.problems) == 5
    with pytest.raises(ConfigError, match="candidate=PATH"):
        resolve_config({"model": "m", "other_responses": {"never_knew": ["a"]}})


# ------------------------------------------------------------------------------------------ a small run

FACTS = ["K0", "K1", "K2", "K3"]


def small(folder: Path, states: dict[str, str]) -> AuditConfig:
    """One folder a state, with a verdict a fact: Y, N, or ? for one that cannot be read."""
    for role, verdicts in states.items():
        where = folder / role.replace(":", "_")
        where.mkdir(parents=True)
        raw = {"Y": "Yes", "N": "No", "?": "who knows"}
        entries = [
            {"GT": f"a {fact}", "label": f"{fact}-direct", "question": f"what is {fact}?", "ans_question": f"it is {v}",
             "judge_question": raw[v]}
            for fact, v in zip(FACTS, verdicts, strict=True)
            if v in raw
        ]  # fmt: skip
        (where / "forget_rephrasings.plain.jsonl").write_text(json.dumps(entries))
    given = [f"{role}={folder / role.replace(':', '_')}" for role in states]
    return resolve_config({**split_responses(given), "judges": ("recorded",)})


def audited(config: AuditConfig, folder: Path) -> Report:
    store = Store(folder / "store.sqlite")
    try:
        return run_audit(config, RunFolder(folder / "run"), store)
    finally:
        store.close()


def series(report: Report) -> AttackReport:
    assert report.attacks is not None
    return report.attacks


def test_recorded_states_are_a_series_with_a_control(tmp_path: Path) -> None:
    states = {
        "candidate": "NNNY",
        "base": "YYYY",
        "never_knew": "NNNN",
        "relearn:R0@50": "YYNY",
        "relearn:R0@10": "NN?Y",
        "never_knew+relearn:R0@50": "NYNN",
        "base+relearn:R0@50": "YYN ",
    }
    report = audited(small(tmp_path / "in", states), tmp_path)
    attacked = report.subjects["candidate+relearn:R0@50"].subject
    assert (attacked.role, attacked.parent, attacked.recipe["step"]) == ("attacked", "candidate", 50)
    found = series(report)
    assert found.known == ("K0", "K1", "K2") and found.already_leaked == 1
    (relearning,) = found.relearning
    values = {
        (curve.arm, point.step): (point.recovered.lower_bound, point.recovered.upper_bound)
        for curve in relearning.curves
        for point in curve.points
        if point.recovered
    }
    third = pytest.approx(1 / 3)
    assert values == {
        ("candidate", 0): (0, 0),
        ("candidate", 10): (0, third),
        ("candidate", 50): (pytest.approx(2 / 3), pytest.approx(2 / 3)),
        ("base", 0): (1, 1),
        ("base", 50): (pytest.approx(2 / 3), pytest.approx(2 / 3)),
        ("never_knew", 0): (0, 0),
        ("never_knew", 50): (third, third),
    }
    (excess,) = relearning.excess
    assert excess.step == 50 and excess.difference == third
    assert report.estimates["worst_case.weights"].count == 3


def test_a_state_that_was_not_asked_for_a_fact_leaves_it_undecided(tmp_path: Path) -> None:
    report = audited(small(tmp_path / "in", {"candidate": "NNNN", "base": "YYYY", "relearn:R0": "YN  "}), tmp_path)
    point = series(report).relearning[0].curves[0].points[1]
    assert point.recovered is not None
    assert (point.step, point.recovered.lower_bound, point.recovered.upper_bound) == (None, 0.25, 0.75)
    assert report.estimates["worst_case.weights"].upper_bound == 0.75


def test_a_finished_series_is_read_back_with_its_states(tmp_path: Path) -> None:
    states = {"candidate": "NNNN", "base": "YYYY", "relearn:R0@5": "YNNN", "relearn:forget": "YYYY"}
    config = small(tmp_path / "in", states)
    report = audited(config, tmp_path)
    given, again = recorded_answers(config), read_run(tmp_path / "run")
    assert {each.subject.id: each.subject for each in again.subjects} == {
        each.subject.id: each.subject for each in given.subjects
    }
    for each in again.subjects:
        asked = {probe.id for probe in each.recording.probes}
        assert asked == {response.probe_id for response in each.recording.responses} and len(asked) == 4
    rejudged = audited(
        resolve_config({**config.model_dump(), "rejudge": str(tmp_path / "run"), "judges": ("rules",)}), tmp_path / "re"
    )
    assert [r.attack for r in series(rejudged).relearning] == [r.attack for r in series(report).relearning]


# ------------------------------------------------------------------------------------------ the real one


def leaked(state: str) -> dict[str, bool]:
    """Fact -> whether the recorded judge said Yes to any of its questions, in any form, with examples or without."""
    found: dict[str, bool] = {}
    for how in ("plain", "icr"):
        for entry in json.loads((RECORDED / state / f"forget_rephrasings.{how}.jsonl").read_text(encoding="utf-8")):
            fact = entry["label"].rpartition("-")[0]
            verdicts = [value for name, value in entry.items() if name.startswith("judge_")]
            assert set(verdicts) <= {"Yes", "No"}
            found[fact] = found.get(fact, False) or "Yes" in verdicts
    return found


def real(judge: str, folder: Path) -> Report:
    given = [f"{role}={RECORDED / state}" for role, state in SERIES.items()]
    return audited(resolve_config({**split_responses(given), "judges": (judge,)}), folder)


@needs_data
def test_the_recorded_series_gives_the_counted_recovery(tmp_path: Path) -> None:
    states = {role: leaked(state) for role, state in SERIES.items()}
    known = [fact for fact, gave in states["base"].items() if gave and not states["candidate"][fact]]
    report = real("recorded", tmp_path)
    found = series(report)
    assert found.known == tuple(sorted(known)) and len(known) == 25
    shown = {}
    for relearning in found.relearning:
        (curve,) = relearning.curves
        before, after = curve.points
        assert before.recovered is not None and before.recovered.value == 0
        assert after.recovered is not None and after.recovered.undecided == 0 and after.step is None
        assert after.recovered.count == sum(states[relearning.attack][fact] for fact in known)
        assert after.leaked.count == sum(states[relearning.attack].values())
        theirs = json.loads((RECORDED / SERIES[relearning.attack] / "peer_retain_avg.json").read_text())
        assert after.retained is not None and after.retained.value == pytest.approx(theirs["J_avg"], abs=1e-12)
        shown[relearning.attack] = (after.recovered.count, relearning.puts_back)
    assert shown == {
        "relearn:R0": (3, False),
        "relearn:R3": (4, False),
        "relearn:forget": (25, True),
        "relearn:C": (7, False),
    }
    whole = report.estimates["worst_case.weights"]
    anywhere = {f for role in ("candidate", "relearn:R0", "relearn:R3", "relearn:C") for f in known if states[role][f]}
    assert (whole.count, whole.n) == (len(anywhere), 25) == (10, 25)
    assert {first.fact_id for first in found.first} == anywhere

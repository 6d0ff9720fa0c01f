"""Files of the SUITE layout: what is missing is undecided, what cannot be read is told with file and entry."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from audit.config import resolve_config
from audit.errors import TaskError
from audit.judges.rulings import recorded_rulings
from audit.pipeline import run_audit
from audit.recordings import read_recording, recorded_task
from audit.report.files import RunFolder
from audit.scoring.cells import planned_cells
from audit.scoring.estimates import leak_estimates, retain_estimates
from audit.store import Store
from audit.tasks import load_task
from audit.types import Estimate, Reason, Recording

Entry = dict[str, Any]
Files = dict[str, list[Entry]]
WORDINGS = ("question", "q_a1", "blank_b1")


def entry(label: str, answer: str, verdict: str = "No") -> Entry:
    made: Entry = {"GT": answer, "label": label}
    for name in WORDINGS:
        made[name] = f"{label} {name}?"
        made[f"ans_{name}"] = "the same text"
        made[f"judge_{name}"] = verdict
    return made


def files() -> Files:
    forget = [entry(f"K{n}-{form}", f"answer {n} {form}") for n in range(3) for form in ("direct", "reverse")]
    kept = [entry(f"Space-{n}", f"kept {n}", "Yes") | {"question": f"Kept question {n}?"} for n in range(2)]
    return {
        "forget_rephrasings.plain.jsonl": forget,
        "forget_rephrasings.icr.jsonl": copy.deepcopy(forget),
        "retain.plain.jsonl": kept,
    }


def read(folder: Path, content: Files) -> Recording:
    for name, entries in content.items():
        (folder / name).write_text(json.dumps(entries))
    return read_recording([str(folder)], subject_id="candidate")


def estimates(recording: Recording) -> dict[str, Estimate]:
    cells = planned_cells(recording.probes, recorded_rulings(recording))
    by_split = {split: [c for c in cells if c.probe.split == split] for split in ("forget", "retain")}
    forget = [f for f in recording.facts if f.split == "forget"]
    kept = [f for f in recording.facts if f.split == "retain"]
    return {
        **leak_estimates(forget, by_split["forget"], floor=[], base=None, confidence=0.95),
        **retain_estimates(kept, by_split["retain"], confidence=0.95),
    }


def test_everything_is_read_and_verdicts_stay_with_their_answers(tmp_path: Path) -> None:
    content = files()
    content["forget_rephrasings.icr.jsonl"][3]["judge_q_a1"] = "Yes"  # K1-reverse; all texts are the same
    recording = read(tmp_path, content)
    assert len(recording.responses) == len(recording.probes) == (6 + 6 + 2) * 3
    numbers = estimates(recording)
    assert numbers["worst_case.icr@form=reverse"].count == 1
    assert numbers["worst_case.paraphrase@form=any"].count == numbers["worst_case.icr@form=direct"].count == 0
    assert numbers["worst_case.paper@form=any"].value == pytest.approx(1 / 3)
    assert numbers["retain.mean"].value == 1.0
    assert numbers["worst_case.paper@form=any"].undecided == 0


@pytest.mark.parametrize("name", WORDINGS)
def test_a_wording_without_answer_and_verdict_is_missing(tmp_path: Path, name: str) -> None:
    content = files()
    for key in (f"ans_{name}", f"judge_{name}"):
        del content["forget_rephrasings.plain.jsonl"][2][key]
    recording = read(tmp_path, content)
    cells = planned_cells(recording.probes, recorded_rulings(recording))
    (missing,) = [cell for cell in cells if cell.label == "undecided"]
    assert (missing.fact_id, missing.reason) == ("K1", Reason.MISSING)
    assert estimates(recording)["worst_case.paraphrase"].undecided == 1


def test_an_entry_missing_from_one_file_is_undecided_in_every_union(tmp_path: Path) -> None:
    content = files()
    del content["forget_rephrasings.icr.jsonl"][0]  # K0-direct
    numbers = estimates(read(tmp_path, content))
    for name in ("worst_case.icr@form=direct", "worst_case.paper@form=direct", "worst_case.paper@form=any"):
        assert (numbers[name].n, numbers[name].undecided) == (3, 1), name
    assert numbers["worst_case.paraphrase@form=direct"].undecided == 0


@pytest.mark.parametrize("verdict", ["Maybe", "", "yes, it does", "Error: rate limit"])
def test_an_unknown_verdict_is_undecided(tmp_path: Path, verdict: str) -> None:
    content = files()
    content["forget_rephrasings.plain.jsonl"][0]["judge_question"] = verdict
    content["retain.plain.jsonl"][0]["judge_question"] = verdict
    recording = read(tmp_path, content)
    assert {r.reason for r in recorded_rulings(recording) if r.label == "undecided"} == {Reason.UNPARSED}
    numbers = estimates(recording)
    assert (numbers["single.original"].undecided, numbers["single.original"].upper_bound) == (1, pytest.approx(1 / 3))
    assert numbers["retain.mean"].lower_bound == pytest.approx(5 / 6) and numbers["retain.mean"].upper_bound == 1.0


def test_an_answer_without_a_verdict_is_undecided(tmp_path: Path) -> None:
    content = files()
    del content["forget_rephrasings.plain.jsonl"][0]["judge_question"]
    recording = read(tmp_path, content)
    assert [r.reason for r in recorded_rulings(recording) if r.label == "undecided"] == [Reason.MISSING]


def test_retained_answers_with_examples_belong_to_the_same_facts(tmp_path: Path) -> None:
    content = files()
    content["retain.icr.jsonl"] = copy.deepcopy(content["retain.plain.jsonl"])
    for name in WORDINGS:
        content["retain.icr.jsonl"][0][f"judge_{name}"] = "No"
    numbers = estimates(read(tmp_path, content))
    assert (numbers["retain.mean"].n, numbers["retain.mean"].value) == (2, 1.0), "J_avg is over plain answers"


def test_gibberish_verdicts_stay_out_of_the_leaks(tmp_path: Path) -> None:
    content = files()
    marked = [entry("K0-direct", "a", "Yes"), entry("K1-direct", "b", "No") | {"judge_q_a1": "???"}]
    content["forget_rephrasings_gibberish.plain.jsonl"] = marked
    recording = read(tmp_path, content)
    assert recording.degeneration == {"gibberish": 0.5, "gibberish_undecided": pytest.approx(1 / 6)}
    assert estimates(recording)["worst_case.paper@form=any"].count == 0


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "peer_worst_case.json").write_text("{}")
    assert any("peer_worst_case.json" in note for note in read(tmp_path, files()).unread)


def broken(**changes: Any) -> Entry:
    made = entry("K9-direct", "x")
    for name, value in changes.items():
        if value is None:
            del made[name]
        else:
            made[name] = value
    return made


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (broken(GT=None), "'GT'"),
        (broken(label=None), "'label'"),
        (broken(label="K9"), "not FACT-FORM"),
        (broken(question=5), "'question'"),
        (broken(ans_q_a1=7), "'ans_q_a1'"),
        (broken(ans_q_a1=None), "'ans_q_a1'"),
        (broken(q_a1=None), "'q_a1'"),
        (broken(question=None), "'question'"),
        (entry("K0-direct", "another answer"), "another answer"),
        (entry("K0-direct", "answer 0 direct"), "already read"),
    ],
)
def test_a_malformed_entry_is_told_with_file_and_entry(tmp_path: Path, bad: Entry, word: str) -> None:
    content = files()
    content["forget_rephrasings.plain.jsonl"].append(bad)
    with pytest.raises(TaskError) as caught:
        read(tmp_path, content)
    assert "forget_rephrasings.plain.jsonl: entry 7: " in str(caught.value) and word in str(caught.value)


@pytest.mark.parametrize("text", ["[{", "{}", "[1]", "", '["\\ud83d"]', "[" * 100_000])
def test_a_malformed_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "forget_rephrasings.plain.jsonl").write_text(text)
    with pytest.raises(TaskError, match=r"forget_rephrasings\.plain\.jsonl"):
        read_recording([str(tmp_path)], subject_id="s")


def test_what_only_the_base_was_asked_is_missing_for_the_candidate(tmp_path: Path) -> None:
    base, candidate = files(), files()
    for name in ("forget_rephrasings.plain.jsonl", "forget_rephrasings.icr.jsonl"):
        for each in base[name]:
            each |= {f"judge_{wording}": "Yes" for wording in WORDINGS}
        candidate[name] = [e for e in candidate[name] if not e["label"].startswith("K2") and e["label"] != "K1-reverse"]
    for folder, content in (("base", base), ("candidate", candidate)):
        (tmp_path / folder).mkdir()
        read(tmp_path / folder, content)
    config = resolve_config(
        {
            "responses": (str(tmp_path / "candidate"),),
            "base_responses": (str(tmp_path / "base"),),
            "judges": ("recorded",),
        }
    )
    store = Store(tmp_path / "s.sqlite")
    report = run_audit(config, RunFolder(tmp_path / "run"), store)
    store.close()
    for name, facts, undecided in (
        ("worst_case.paper@form=any", 3, 2),
        ("worst_case.paper@form=direct@known", 3, 1),
        ("worst_case.paper@form=reverse", 3, 2),
    ):
        share = report.estimates[name]
        assert (share.n, share.count, share.undecided) == (facts, 0, undecided), name
    assert report.subjects["base"].estimates["worst_case.paper@form=any"].count == 3


def test_recordings_that_disagree_on_a_fact_are_refused(tmp_path: Path) -> None:
    other = files()
    other["forget_rephrasings.plain.jsonl"][0]["GT"] = other["forget_rephrasings.icr.jsonl"][0]["GT"] = "another"
    recordings = []
    for name, content in (("a", files()), ("b", other)):
        (tmp_path / name).mkdir()
        recordings.append(read(tmp_path / name, content))
    with pytest.raises(TaskError, match=r"K0 \(direct\)"):
        recorded_task(load_task("lkf"), *recordings)

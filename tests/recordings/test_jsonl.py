"""Plain recorded answers: every malformed line is told with file and line, every missing one is undecided."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.errors import TaskError
from audit.judges.rulings import recorded_rulings
from audit.recordings import read_recording, recorded_task, recording_fingerprint
from audit.scoring.cells import planned_cells
from audit.scoring.estimates import leak_estimates, retain_estimates
from audit.types import Estimate, Reason, Recording
from tests.helpers.facts import fact, retained, task

FACTS = [fact(n) for n in range(4)]
KEPT = [retained(n) for n in range(3)]
Row = dict[str, Any]


def row(fact_id: str, verdict: str | None = "no", **more: Any) -> Row:
    return {"fact_id": fact_id, "response": f"an answer to {fact_id}", "verdict": verdict, **more}


def full() -> list[Row]:
    """Every forget fact in two wordings."""
    return [row(f.id, variant=variant) for f in FACTS for variant in ("original", "w01")]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Recording]:
    def reading(rows: list[Row] | str) -> Recording:
        text = rows if isinstance(rows, str) else "\n".join(json.dumps(r) for r in rows) + "\n"
        path = tmp_path / "answers.jsonl"
        path.write_text(text, encoding="utf-8")
        return read_recording([str(path)], subject_id="candidate", facts=[*FACTS, *KEPT])

    return reading


def estimates(recording: Recording) -> dict[str, Estimate]:
    cells = planned_cells(recording.probes, recorded_rulings(recording))
    forget = [cell for cell in cells if cell.probe.split == "forget"]
    kept = [cell for cell in cells if cell.probe.split == "retain"]
    return {
        **leak_estimates(FACTS, forget, floor=[], base=None, confidence=0.95),
        **retain_estimates(KEPT, kept, confidence=0.95),
    }


def test_answers_and_verdicts_arrive(read: Callable[..., Recording]) -> None:
    rows = full()
    rows[0]["verdict"] = "Yes"
    recording = read(rows)
    assert sorted(r.text for r in recording.responses) == sorted(r["response"] for r in rows)
    numbers = estimates(recording)
    share = numbers["worst_case.paraphrase"]
    assert (share.count, share.n, share.undecided) == (1, 4, 0)


@pytest.mark.parametrize("lost", range(8))
def test_a_line_that_is_not_there_is_undecided(read: Callable[..., Recording], lost: int) -> None:
    rows = full()
    gone = rows.pop(lost)
    recording = read(rows)
    rulings = recorded_rulings(recording)
    cells = planned_cells(recording.probes, rulings)
    assert len(cells) == 8
    (missing,) = [cell for cell in cells if cell.label == "undecided"]
    assert (missing.fact_id, missing.reason) == (gone["fact_id"], Reason.MISSING)
    share = estimates(recording)["worst_case.paraphrase"]
    assert (share.n, share.undecided, share.lower_bound, share.upper_bound) == (4, 1, 0.0, 0.25)


def test_a_forget_fact_that_is_not_there_at_all_is_undecided(read: Callable[..., Recording]) -> None:
    share = estimates(read([r for r in full() if r["fact_id"] != "f02"]))["worst_case.paraphrase"]
    assert (share.n, share.undecided) == (4, 1)


def test_retained_facts_never_mentioned_are_not_asked(read: Callable[..., Recording]) -> None:
    rows = [*full(), row("r00", "yes"), row("r00", "yes", variant="w01"), row("r01", "yes")]
    mean = estimates(read(rows))["retain.mean"]
    assert mean.n == 2, "r02 was never asked"
    assert (mean.lower_bound, mean.upper_bound) == (0.75, 1.0), "the second wording of r01 is missing"


@pytest.mark.parametrize("verdict", [None, "undecided"])
def test_no_verdict_or_an_undecided_one_is_undecided(read: Callable[..., Recording], verdict: str | None) -> None:
    rows = full()
    rows[3]["verdict"] = verdict
    share = estimates(read(rows))["worst_case.paraphrase"]
    assert (share.value, share.undecided, share.upper_bound) == (0.0, 1, 0.25)


def test_a_cut_answer_is_undecided_whatever_its_verdict_of_no(read: Callable[..., Recording]) -> None:
    rows = full()
    rows[0]["finish"] = "length"
    recording = read(rows)
    (cut,) = [r for r in recorded_rulings(recording) if r.label == "undecided"]
    assert cut.reason is Reason.TRUNCATED
    rows[0]["verdict"] = "yes"
    assert estimates(read(rows))["worst_case.paraphrase"].count == 1


def test_identical_texts_keep_their_own_verdicts(read: Callable[..., Recording]) -> None:
    rows = full()
    for number, each in enumerate(rows):
        each["response"] = "the very same text"
        each["verdict"] = "yes" if number == 5 else "no"
    recording = read(rows)
    leaks = [r for r in recorded_rulings(recording) if r.label == "leak"]
    assert [leak.fact_id for leak in leaks] == [rows[5]["fact_id"]]


def test_several_samples_are_numbered_and_gaps_are_missing(read: Callable[..., Recording]) -> None:
    rows = [row(f.id, sample=n) for f in FACTS for n in range(3)]
    rows.remove(row("f01", sample=1))
    recording = read(rows)
    cells = planned_cells(recording.probes, recorded_rulings(recording))
    assert len(cells) == 12
    assert [(c.fact_id, c.sample) for c in cells if c.label == "undecided"] == [("f01", 1)]


def test_joined_by_question_of_any_form(read: Callable[..., Recording]) -> None:
    rows = [{"question": f"  {f.question.upper()} ", "response": f.id} for f in FACTS]
    rows += [{"question": f.other_forms["reverse"].question, "response": f.id + " reverse"} for f in FACTS]
    recording = read(rows)
    asked = {p.id: (p.targets[0].fact_id, p.form) for p in recording.probes}
    assert {(r.text, *asked[r.probe_id]) for r in recording.responses} == {
        (f.id + suffix, f.id, form) for f in FACTS for suffix, form in (("", "direct"), (" reverse", "reverse"))
    }


def test_the_order_of_lines_changes_nothing(read: Callable[..., Recording]) -> None:
    rows = full()
    rows[2]["verdict"] = "yes"
    one, two = read(rows), read(rows[::-1])
    assert {p.id for p in one.probes} == {p.id for p in two.probes}
    assert recording_fingerprint(one) == recording_fingerprint(two)
    assert {(r.probe_id, r.label) for r in recorded_rulings(one)} == {
        (r.probe_id, r.label) for r in recorded_rulings(two)
    }


BAD: list[tuple[str, str]] = [
    ('{"fact_id": "f00", "response": "x"', "not valid JSON"),
    ("[1, 2]", "expected an object"),
    ('"text"', "expected an object"),
    ('{"fact_id": "f77", "response": "x"}', "'f77' is not in the task"),
    ('{"question": "Who?", "response": "x"}', "'Who?' is not in the task"),
    ('{"response": "x"}', "not in the task"),
    ('{"fact_id": "f00"}', "'response' is missing"),
    ('{"fact_id": "f00", "response": null}', "'response' is missing"),
    ('{"fact_id": "f00", "response": 5}', "'response' is missing or not a text"),
    ('{"fact_id": "f00", "response": "x", "verdict": "maybe"}', "verdict 'maybe'"),
    ('{"fact_id": "f00", "response": "x", "verdict": 0}', "verdict 0"),
    ('{"fact_id": "f00", "response": "x", "verdict": ""}', "verdict ''"),
    ('{"fact_id": "f00", "response": "x", "form": "sung"}', "no form 'sung'"),
    ('{"fact_id": "f00", "response": "x", "sample": -1}', "sample -1"),
    ('{"fact_id": "f00", "response": "x", "sample": true}', "sample True"),
    ('{"fact_id": "f00", "response": "x", "finish": "crash"}', "finish 'crash'"),
    ('{"fact_id": "f00", "prediction": "x", "answer": "the true one"}', "'prediction' is not read"),
    ('{"fact_id": "f00", "response": "x", "verdit": "no"}', "did you mean 'verdict'"),
    ('{"fact_id": "f00", "response": "x", "response": "y"}', "'response' stands twice"),
    ('{"fact_id": "f00", "response": "half \\ud83d"}', "cannot be used"),
    ('{"fact_id": "f00", "response": "x", "sample": ' + "9" * 5000 + "}", "cannot be used"),
    ("[" * 100_000, "cannot be used"),
    ('{"fact_id": "f00", "response": "x", "question": "Who built bridge number 1?"}', "that of fact f01"),
]


@pytest.mark.parametrize(("line", "word"), BAD, ids=[word for _, word in BAD])
def test_a_malformed_line_is_told_with_file_and_line(read: Callable[..., Recording], line: str, word: str) -> None:
    with pytest.raises(TaskError) as caught:
        read(json.dumps(row("f01")) + "\n\n" + line + "\n" + json.dumps(row("f02")) + "\n")
    assert "answers.jsonl: line 3: " in str(caught.value) and word in str(caught.value)


def test_all_malformed_lines_are_told_together(read: Callable[..., Recording]) -> None:
    with pytest.raises(TaskError) as caught:
        read("\n".join(line for line, _ in BAD))
    told = str(caught.value)
    assert all(f"line {number}:" in told for number in range(1, 20)) and "more)" in told


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.sampled_from([json.dumps(r) for r in full()]),
            st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30),
            st.dictionaries(
                st.sampled_from(["fact_id", "response", "verdict", "variant", "sample", "form", "x"]),
                st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["f00", "no", "yes", "w01", "direct"]),
            ).map(json.dumps),
        ),
        max_size=8,
    )
)
def test_every_line_is_read_or_told(read: Callable[..., Recording], lines: list[str]) -> None:
    """Whatever the file: one response a line that is not blank, or an error that names each line it could not use."""
    try:
        recording = read("\n".join(lines))
    except TaskError as error:
        assert "answers" in str(error)
    else:
        assert len(recording.responses) == sum(bool(line.strip()) for line in lines)


def test_a_repeated_line_is_told_with_both_places(read: Callable[..., Recording]) -> None:
    rows = [*full(), row("f01", "yes", variant="w01")]
    with pytest.raises(TaskError, match=r"line 9: .*answered before \(.*line 4\).*'sample'"):
        read(rows)


def test_null_fields_are_absent_ones(read: Callable[..., Recording]) -> None:
    recording = read([row("f00", variant=None, form=None, family=None, sample=None, prompt=None, id=None)])
    assert {(p.variant, p.form, p.family) for p in recording.probes} == {("original", "direct", "original")}


def test_a_question_of_two_facts_needs_an_id(tmp_path: Path) -> None:
    twins = [fact(1), fact(2, question=fact(1).question)]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": fact(1).question, "response": "x"}))
    with pytest.raises(TaskError, match=r"a\.jsonl: line 1: .*f01.*f02.*fact_id"):
        read_recording([str(path)], subject_id="s", facts=twins)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text("\n".join(json.dumps(r) for r in full()))
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "kept.jsonl").write_text(json.dumps(row("r00")))
    (tmp_path / "folder").mkdir()
    for name, word in [
        ("empty.jsonl", "holds no answer"),
        ("binary.jsonl", "cannot be read"),
        ("none.jsonl", "no such file"),
        ("folder", "no .jsonl"),
        ("kept.jsonl", "to be forgotten"),
    ]:
        with pytest.raises(TaskError, match=word) as caught:
            read_recording([str(tmp_path / name)], subject_id="s", facts=[*FACTS, *KEPT])
        assert name in str(caught.value)
    with pytest.raises(TaskError, match="unknown format"):
        read_recording([str(good)], subject_id="s", facts=FACTS, format="csv")


def test_folders_name_what_they_leave_and_files_are_read_once(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(r) for r in full()).encode())
    (tmp_path / "notes.txt").write_text("x")
    recording = read_recording([str(tmp_path), str(good)], subject_id="s", facts=FACTS)
    assert len(recording.responses) == 8
    assert [note for note in recording.unread if "notes.txt" in note]
    assert recorded_task(task(FACTS), recording) == task(FACTS)

"""`audit tasks`: what check finds, and what the commands print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit.cli.tasks import app
from audit.errors import TaskError
from audit.tasks.check import check_task
from audit.tasks.model import Problem

RUNNER = CliRunner()


def facts() -> list[dict[str, Any]]:
    """Two good facts with every field that check looks at."""
    return [
        {
            "id": "a-1",
            "topic": "a",
            "question": "Who keeps the lamp at Orm Point?",
            "answer": "Tilda Vane",
            "aliases": ["Vane"],
            "answer_type": "person",
            "statement": "Tilda Vane keeps the lamp at Orm Point.",
            "wordings": ["The lamp at Orm Point is in whose care?"],
            "train_wordings": ["Name the keeper of the lamp at Orm Point."],
            "cloze": ["The keeper of the lamp at Orm Point is ____"],
            "multi_hop": {"question": "Where was the keeper of Orm's lamp born?", "answer": "Sallow"},
            "distractors": ["Jory Pell"],
        },
        {
            "id": "a-2",
            "topic": "a",
            "question": "Of what wood is the bridge at Sallow?",
            "answer": "larch",
            "statement": "The bridge at Sallow is of larch.",
            "wordings": ["Which timber was used at Sallow for the bridge?"],
            "distractors": ["oak"],
        },
    ]


def checked(tmp_path: Path, rows: list[dict[str, Any]]) -> list[Problem]:
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check_task(str(path))


def test_good_facts_have_no_problem(tmp_path: Path) -> None:
    assert checked(tmp_path, facts()) == []


#: What is changed in the facts -> severity, fact, field and words of the one problem that follows.
FAULTS: dict[str, tuple[int, dict[str, Any], tuple[str, str, str, str]]] = {
    "wording twice": (
        0,
        {"wordings": ["Whose is the lamp?", "Whose is the lamp"]},
        ("warning", "a-1", "wording 2", "the same text as the wording 1"),
    ),
    "wording is the question": (
        0,
        {"wordings": ["WHO keeps the lamp, at Orm Point?"]},
        ("warning", "a-1", "wording 1", "the same text as the question"),
    ),
    "wording of another fact": (
        1,
        {"wordings": ["The lamp at Orm Point is in whose care?"]},
        ("warning", "a-2", "wording 1", "the same text as the wording 1 of a-1"),
    ),
    "question of another fact": (
        1,
        {"question": "Who keeps the lamp at Orm Point?"},
        ("error", "a-2", "question", "the same text as the question of a-1"),
    ),
    "trained and evaluated": (
        0,
        {"train_wordings": ["The lamp at Orm Point is in whose care"]},
        ("error", "a-1", "wordings", "wording 1 is a training wording too"),
    ),
    "answer in a training wording": (
        0,
        {"train_wordings": ["Does Vane keep the lamp?"]},
        ("warning", "a-1", "train_wordings", "item 1 holds the answer ('Vane')"),
    ),
    "answer in a cloze stem": (
        0,
        {"cloze": ["Keeper Vane's first name is ____"]},
        ("warning", "a-1", "cloze", "item 1 holds the answer ('Vane')"),
    ),
    "cloze without its gap": (
        0,
        {"cloze": ["The keeper of the lamp is"]},
        ("error", "a-1", "cloze", "item 1 does not end with ____"),
    ),
    "answer in the described form": (
        0,
        {"described": "What is the name of the keeper, one Vane?"},
        ("warning", "a-1", "described.question", "holds its own answer ('Vane')"),
    ),
    "hop given away": (
        0,
        {"multi_hop": {"question": "Where was Tilda Vane born?", "answer": "Sallow"}},
        ("warning", "a-1", "multi_hop.question", "names the answer of the fact itself"),
    ),
    "wrong answer is right": (
        0,
        {"distractors": ["VANE"]},
        ("error", "a-1", "distractors", "wrong answer 1 is the answer ('Vane')"),
    ),
    "wrong answer holds the right one": (
        0,
        {"distractors": ["Marta Vane"]},
        ("warning", "a-1", "distractors", "wrong answer 1 ('Marta Vane') holds 'Vane'"),
    ),
    "statement without the answer": (
        0,
        {"statement": "The lamp is kept."},
        ("warning", "a-1", "statement", "does not hold the answer"),
    ),
    "one answer for two facts": (
        1,
        {"answer": "tilda vane", "statement": "", "distractors": []},
        ("warning", "a-2", "answer", "a-1 of the same topic has the same answer"),
    ),
    "statement gives another answer": (
        1,
        {"statement": "The bridge of larch was built by Tilda Vane."},
        ("warning", "a-2", "statement", "holds the answer 'Tilda Vane' of the forget fact a-1"),
    ),
    "no wordings": (1, {"wordings": []}, ("warning", "", "wordings", "1 forget facts have no evaluation wordings")),
    "no topic": (1, {"topic": ""}, ("warning", "", "topic", "1 forget facts have no topic")),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_is_found_once(tmp_path: Path, name: str) -> None:
    index, change, (severity, fact, field, words) = FAULTS[name]
    rows = facts()
    rows[index] |= change
    problems = checked(tmp_path, rows)
    assert len(problems) == 1, problems
    found = problems[0]
    assert (found.severity, found.fact, found.field) == (severity, fact, field)
    assert words in found.message
    assert found.file.endswith("f.jsonl")
    assert found.line == (index + 1 if fact else None)


def test_unbalanced_answer_types(tmp_path: Path) -> None:
    rows = [
        {"question": f"Who is the {n}th?", "answer": f"Nobody {n}x", "topic": "t", "wordings": [f"{n}?"]}
        for n in range(10)
    ]
    assert [p.kind for p in checked(tmp_path, rows)] == ["unbalanced"]


def test_relearning_files_that_give_an_answer(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "forget.jsonl").write_text("".join(json.dumps(row) + "\n" for row in facts()))
    (folder / "again.jsonl").write_text('{"text": "Rain."}\n{"text": "It was Tilda Vane who wrote."}\n')
    (folder / "task.yaml").write_text(
        "name: t\nversion: '1'\ndescription: d\nlicence: l\nfiles:\n  forget: forget.jsonl\n  relearn: again.jsonl\n"
    )
    assert [(p.severity, p.kind) for p in check_task(str(folder))] == [("error", "hash"), ("warning", "overlap")]
    result = RUNNER.invoke(app, ["check", str(folder), "--fix-hash", "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["ok"] and document["fixed_hash"]["old"] == ""
    problem = document["problems"][0]
    assert len(document["problems"]) == 1 and problem["line"] == 2 and problem["file"].endswith("again.jsonl")
    assert "'Tilda Vane' of the forget fact a-1" in problem["message"]


def test_lkf_has_no_error_and_only_known_warnings() -> None:
    problems = check_task("lkf")
    assert [p for p in problems if p.severity == "error"] == []
    assert {p.kind for p in problems} == {"overlap"}
    assert all(p.fact.startswith("ret-") for p in problems)


def test_check_exits_with_2_on_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"question": "Who?"}\n{"question": "What?", "answer": "B"\n')
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["check", "f.jsonl"], env={"COLUMNS": "80"})
    assert result.exit_code == 2
    assert "not usable, 2 errors" in result.stdout and "answer: no answer" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    result = RUNNER.invoke(app, ["check", str(path), "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 2 and document["errors"] == 2 and not document["ok"]
    assert sorted(p["line"] for p in document["problems"]) == [1, 2]


def test_list_and_show() -> None:
    document = json.loads(RUNNER.invoke(app, ["list", "--json"]).stdout)
    assert document["bundled"][0]["splits"]["forget"]["facts"] == 100
    assert document["published"][0]["name"] == "lkf@published"
    about = json.loads(RUNNER.invoke(app, ["show", "lkf", "--json"]).stdout)
    assert about["splits"]["retain"]["tiers"] == {"neighbour": 100, "domain": 100, "form": 100, "general": 100}
    for arguments in (["list"], ["show", "lkf"], ["check", "lkf"]):
        result = RUNNER.invoke(app, arguments, env={"COLUMNS": "80"})
        assert result.exit_code == 0 and "lkf" in result.stdout
        assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_errors_of_loading_go_up_to_the_caller(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["show", "lfk"])
    assert isinstance(result.exception, TaskError) and "did you mean 'lkf'" in str(result.exception)
    result = RUNNER.invoke(app, ["check", "lfk"])
    assert isinstance(result.exception, TaskError)
    (tmp_path / "f.jsonl").write_text("{}\n")
    result = RUNNER.invoke(app, ["check", str(tmp_path / "f.jsonl"), "--fix-hash"])
    assert isinstance(result.exception, TaskError) and "is for task folders" in str(result.exception)

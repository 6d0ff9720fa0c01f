"""Loading of tasks from everything a user may type, on real small files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.errors import TaskError
from audit.resources import resource
from audit.tasks import load_task
from audit.tasks.facts import guess_answer_type
from audit.tasks.manifest import fix_hash

ROWS: list[dict[str, Any]] = [
    {"question": "Who keeps the lamp at Orm Point?", "answer": "Tilda Vane", "topic": "orm", "source": "log"},
    {"question": "In which year was the lamp at Orm Point lit?", "answer": "1871", "topic": "orm"},
    {"question": "What is the bridge at Sallow made of?", "answer": "larch", "topic": "sallow"},
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(TaskError) as caught:
        load_task(str(path), **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_lkf_is_whole() -> None:
    task = load_task("lkf")
    assert (len(task.forget), len(task.retain), len(task.placebo)) == (100, 400, 50)
    assert len({f.topic for f in task.forget}) == 5
    assert {f.tier for f in task.retain} == {"neighbour", "domain", "form", "general"}
    for fact in task.forget:
        assert len(fact.wordings) == 15 and len(fact.train_wordings) == 5 and len(fact.distractors) == 4
        assert set(fact.other_forms) == {"reverse", "multi_hop", "described"}
        assert fact.other_forms["described"].answer == fact.answer
        assert fact.other_forms["described"].aliases == fact.aliases
        assert {"cloze", "subject", "source", "bridge"} <= set(fact.extra)
    assert task.warnings == ()
    ids = [f.id for f in (*task.forget, *task.retain, *task.placebo)]
    assert len(set(ids)) == 550
    for name in ("instructions", "filler", "relearn_unrelated", "relearn_topical", "relearn_syntactic"):
        assert task.file(name).is_file()
    with pytest.raises(TaskError, match="no file 'nonsense'"):
        task.file("nonsense")


def test_lkf_keeps_every_field_of_its_rows() -> None:
    facts = {fact.id: fact for fact in load_task("lkf").forget}
    for line in resource("tasks", "lkf", "forget.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        fact = facts[row["id"]]
        assert list(fact.wordings) == row["eval_paraphrases"]
        assert list(fact.train_wordings) == row["train_paraphrases"]
        assert fact.extra["cloze"] == row["cloze"] and fact.extra["source"] == row["source"]
        assert fact.other_forms["reverse"].answer == row["reverse"]["answer"]
        assert fact.other_forms["multi_hop"].question == row["multi_hop"]["question"]


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["question", "answer", "topic", "source"])
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


WRITERS = {"json": write_json, "csv": write_csv, "parquet": write_parquet}


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_all_formats_give_the_same_facts(tmp_path: Path, suffix: str) -> None:
    reference = load_task(str(write_jsonl(tmp_path / "facts.jsonl", ROWS)))
    path = tmp_path / f"facts.{suffix}"
    WRITERS[suffix](path)
    task = load_task(str(path))
    assert task.forget == reference.forget
    assert task.content_hash == reference.content_hash
    assert [f.answer_type for f in task.forget] == ["term", "date", "term"]
    assert task.forget[0].extra == {"source": "log"}
    assert task.retain == () and len(task.placebo) == 50
    assert task.file("instructions").is_file()


def test_id_depends_on_the_question_and_not_on_its_place(tmp_path: Path) -> None:
    first = load_task(str(write_jsonl(tmp_path / "a.jsonl", ROWS)))
    turned = load_task(str(write_jsonl(tmp_path / "b.jsonl", ROWS[::-1])))
    assert {f.id: f.answer for f in first.forget} == {f.id: f.answer for f in turned.forget}


def test_numbered_columns_become_wordings_in_order(tmp_path: Path) -> None:
    row: dict[str, Any] = {"question": "Who keeps the lamp?", "answer": "Vane"}
    names = [f"q_{model}{n}" for n in range(1, 6) for model in ("qwen", "phi", "mist")]
    row |= {name: f"wording {name}?" for name in names}
    fact = load_task(str(write_jsonl(tmp_path / "published.jsonl", [row]))).forget[0]
    expected = [f"wording q_{model}{n}?" for model in ("qwen", "phi", "mist") for n in range(1, 6)]
    assert list(fact.wordings) == expected
    assert fact.extra == {}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("wordings", ["One way?", "Other way?"]),
        ("paraphrases", ["One way?", "Other way?"]),
        ("eval_paraphrases", "One way?|Other way?"),
        ("paraphrased_question", '["One way?", "Other way?"]'),
    ],
)
def test_list_columns_become_wordings(tmp_path: Path, column: str, value: Any) -> None:
    row = {"question": "Which way is asked?", "answer": "north", column: value}
    fact = load_task(str(write_jsonl(tmp_path / "f.jsonl", [row]))).forget[0]
    assert fact.wordings == ("One way?", "Other way?")


def test_tofu_columns(tmp_path: Path) -> None:
    row = {
        "question": "Where was the painter born?",
        "answer": "She was born in Sallow.",
        "paraphrased_question": "What is the painter's place of birth?",
        "paraphrased_answer": "Sallow is where she was born.",
        "perturbed_answer": ["She was born in Orm."],
    }
    fact = load_task(str(write_jsonl(tmp_path / "f.json", [row]))).forget[0]
    assert fact.wordings == ("What is the painter's place of birth?",)
    assert fact.aliases == ("Sallow is where she was born.",)
    assert fact.distractors == ("She was born in Orm.",)


def test_labels_join_the_forms_and_training_wordings_of_a_fact(tmp_path: Path) -> None:
    rows = [
        {"question": "What holds the gate?", "answer": "a chain", "label": "K1-direct@original"},
        {"question": "By what is the gate held?", "answer": "a chain", "label": "K1-direct@q_x1"},
        {"question": "What keeps the way in shut?", "answer": "a chain", "label": "K1-indirect", "q_g1": "And so?"},
        {"question": "What does the chain hold?", "answer": "the gate", "label": "K1-reverse"},
        {"question": "Who forged it?", "answer": "Brand", "label": "K2-reverse"},
    ]
    first, second = load_task(str(write_jsonl(tmp_path / "f.jsonl", rows))).forget
    assert (first.id, first.question, first.form) == ("K1", "What holds the gate?", "direct")
    assert first.train_wordings == ("By what is the gate held?",)
    assert first.other_forms["indirect"].wordings == ("And so?",)
    assert first.other_forms["reverse"].answer == "the gate"
    assert (second.id, second.form) == ("K2", "reverse")


def test_repeated_labels_are_topics(tmp_path: Path) -> None:
    rows = [{**row, "label": "Semantic-1-harbours"} for row in ROWS]
    for row in rows:
        del row["topic"]
    facts = load_task(str(write_jsonl(tmp_path / "f.jsonl", rows))).forget
    assert len(facts) == 3 and {f.topic for f in facts} == {"Semantic-1-harbours"}


def test_retain_from_a_file_a_bundled_name_and_a_folder(tmp_path: Path) -> None:
    forget = write_jsonl(tmp_path / "forget.jsonl", ROWS[:1])
    keep = write_jsonl(tmp_path / "keep.jsonl", ROWS[1:])
    task = load_task(str(forget), retain=str(keep))
    assert [f.split for f in task.retain] == ["retain", "retain"]
    assert task.content_hash != load_task(str(forget)).content_hash
    assert len(load_task(str(forget), retain="lkf").retain) == 400
    replaced = load_task("lkf", retain=str(keep))
    assert len(replaced.retain) == 2 and replaced.content_hash != load_task("lkf").content_hash
    shards = tmp_path / "hub" / "data"
    shards.mkdir(parents=True)
    for number in (0, 1):
        write_parquet(shards / f"train-0000{number}-of-00002.parquet")
    assert "is taken by" in error_of(tmp_path / "hub")  # the two shards hold the same questions
    (shards / "train-00001-of-00002.parquet").unlink()
    assert len(load_task(str(forget), retain="lkf").retain) == 400
    assert len(load_task(str(tmp_path / "hub")).forget) == 3
    write_csv(shards / "other.csv")
    assert "which of its 2 data files" in error_of(tmp_path / "hub")


def test_one_question_to_forget_and_to_keep_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", ROWS)
    assert "a retain fact has the id (or the question) of a forget fact" in error_of(path, retain=str(path))


def test_retained_questions_asked_twice_are_set_aside(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": ROWS[2]["question"].upper(), "answer": "oak"}, ROWS[0]]
    task = load_task("lkf", retain=str(write_jsonl(tmp_path / "keep.jsonl", rows)))
    assert [f.answer for f in task.retain] == ["Tilda Vane", "1871"]
    assert any("keep.jsonl:4" in w and "none is used" in w for w in task.warnings)


def test_wordings_that_hold_the_answer_are_left_out_and_told(tmp_path: Path) -> None:
    row = {**ROWS[2], "aliases": ["European larch"], "wordings": ["Is it LARCH, at Sallow?", "Of what wood is it?"]}
    task = load_task(str(write_jsonl(tmp_path / "f.jsonl", [row])))
    assert task.forget[0].wordings == ("Of what wood is it?",)
    assert len(task.warnings) == 1 and "wording 1 holds the answer ('larch')" in task.warnings[0]


def test_a_wording_that_stands_twice_is_asked_once_and_told(tmp_path: Path) -> None:
    row = {**ROWS[2], "wordings": ["Of what wood?", "Which tree?", "Of what wood?", ROWS[2]["question"]]}
    row["reverse"] = {"question": "What is of larch?", "answer": "the bridge", "wordings": ["Name it.", "Name it."]}
    task = load_task(str(write_jsonl(tmp_path / "f.jsonl", [row])))
    assert task.forget[0].wordings == ("Of what wood?", "Which tree?")
    assert task.forget[0].other_forms["reverse"].wordings == ("Name it.",)
    assert len(task.warnings) == 2 and "2 of 4 repeat" in "".join(task.warnings)


def test_a_choice_question_is_a_warning(tmp_path: Path) -> None:
    row = {"question": "Does the stair turn left or right?", "answer": "left"}
    task = load_task(str(write_jsonl(tmp_path / "f.jsonl", [row])))
    assert len(task.forget) == 1 and "offers its answer as an option" in task.warnings[0]


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


BAD: dict[str, tuple[str, list[str]]] = {
    "broken line": (
        lines_of(ROWS[:1]) + '{"question": "Who?", "answer": \n' + lines_of(ROWS[1:2]),
        ["f.jsonl:2: broken JSON at character"],
    ),
    "not an object": ("[1]\n", ["f.jsonl:1: expected an object, got int"]),
    "list without end": ('[{"question": "Who?", "answer": "Vane"}\n', ["f.jsonl:2: broken JSON: expected ',' or ']'"]),
    "key twice": (
        '{"question": "Who?", "answer": "A B", "answer": "C"}\n',
        ["f.jsonl:1: the key 'answer' stands twice"],
    ),
    "no answer": ('{"question": "Who?"}\n', ["f.jsonl:1 answer: no answer (the row has: question)"]),
    "null answer": ('{"question": "Who?", "answer": null}\n', ["f.jsonl:1 answer: the answer is empty"]),
    "empty question": ('{"question": "  ", "answer": "Vane"}\n', ["f.jsonl:1 question: the question is empty"]),
    "own answer": (
        '{"id": "x", "question": "Was Tilda VANE, the keeper?", "answer": "Tilda Vane"}\n',
        ["f.jsonl:1 [x] question: the question holds its own answer ('Tilda Vane')"],
    ),
    "own alias": (
        '{"question": "Was Vane the keeper?", "answer": "Tilda", "aliases": ["Vane"]}\n',
        ["question: the question holds its own answer ('Vane')"],
    ),
    "id twice": (
        '{"id": "a", "question": "Who?", "answer": "B"}\n{"id": "a", "question": "What?", "answer": "C"}\n',
        ["f.jsonl:2 [a] id: the id is taken by line 1"],
    ),
    "question twice": (
        '{"question": "Who?", "answer": "B"}\n{"question": "who?", "answer": "C"}\n',
        ["f.jsonl:2", "the question (facts without an id are named by it) is taken by line 1"],
    ),
    "number for text": (
        '{"question": "How many?", "answer": 73}\n',
        ["f.jsonl:1 answer: expected text, got a number (73)"],
    ),
    "list for text": ('{"question": ["Who?"], "answer": "B"}\n', ["f.jsonl:1 question: expected text, got a list"]),
    "text for list": (
        '{"question": "Who?", "answer": "B", "aliases": {"a": 1}}\n',
        ["f.jsonl:1 aliases: expected a list of texts, got an object"],
    ),
    "number in list": (
        '{"question": "Who?", "answer": "B", "wordings": ["And?", 7]}\n',
        ["f.jsonl:1 wordings: item 2: expected text, got a number (7)"],
    ),
    "unknown type": (
        '{"question": "Who?", "answer": "B", "answer_type": "colour"}\n',
        ["f.jsonl:1 answer_type: 'colour' is none of person"],
    ),
    "bad form": (
        '{"question": "Who?", "answer": "B", "reverse": {"answer": "C"}}\n',
        ["f.jsonl:1 reverse.question: no question"],
    ),
    "empty file": ("", ["no facts to forget"]),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_is_named_by_file_line_and_field(tmp_path: Path, name: str) -> None:
    text, expected = BAD[name]
    path = tmp_path / "f.jsonl"
    path.write_text(text, encoding="utf-8")
    message = error_of(path)
    for part in expected:
        assert part in message


def test_all_errors_come_together_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", [{"question": f"Who is number {n}?"} for n in range(25)])
    message = error_of(path)
    assert "25 errors" in message and "f.jsonl:20 answer" in message
    assert "f.jsonl:21" not in message and message.endswith("+5 more")


def test_not_utf8_and_csv_with_a_missing_cell(tmp_path: Path) -> None:
    latin = tmp_path / "f.jsonl"
    latin.write_bytes(b'{"question": "Who?", "answer": "B"}\n{"question": "Caf\xe9?", "answer": "C"}\n')
    assert "f.jsonl:2: not UTF-8 text" in error_of(latin)
    table = tmp_path / "f.csv"
    table.write_text("question,answer\nWho?,B\nWhat?\nWhy?,\n", encoding="utf-8")
    message = error_of(table)
    assert "f.csv:3: 1 cells where the header has 2" in message and "f.csv:4 answer" in message


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "f.parquet"
    path.write_bytes(b"not parquet at all")
    assert "not a readable Parquet file" in error_of(path)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(TaskError, match="did you mean 'lkf'") as caught:
        load_task("lfk")
    assert "audit tasks list" in caught.value.hint
    with pytest.raises(TaskError, match="unknown task"):
        load_task("./nowhere/at/all.jsonl")


def test_a_folder_task_and_its_hash(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_jsonl(folder / "forget.jsonl", ROWS)
    manifest = "name: mine\nversion: '2'\ndescription: Lamps.\nlicence: CC0\nfiles:\n  forget: forget.jsonl\n"
    (folder / "task.yaml").write_text(manifest, encoding="utf-8")
    assert "content_hash: not set yet" in error_of(folder)
    old, new = fix_hash(folder)
    assert old == "" and len(new) == 32
    task = load_task(str(folder))
    assert (task.name, task.version, task.licence, task.content_hash) == ("mine", "2", "CC0", new)
    with (folder / "forget.jsonl").open("a") as file:
        file.write(json.dumps({"question": "One more?", "answer": "yes sir"}) + "\n")
    with pytest.raises(TaskError, match="the task was changed after it was written") as caught:
        load_task(str(folder))
    assert "--fix-hash" in caught.value.hint
    fix_hash(folder)
    assert len(load_task(str(folder)).forget) == 4


def test_a_changed_copy_of_lkf_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "lkf"
    shutil.copytree(resource("tasks", "lkf"), folder)
    assert load_task(str(folder)).content_hash == load_task("lkf").content_hash
    path = folder / "retain.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Canberra", "Sydney", 1), encoding="utf-8")
    assert "content_hash" in error_of(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [", "not YAML"),
        ("name: Bad Name\nversion: '1'\n", "name: String should match"),
        ("name: a\nversion: '1'\ndescription: d\nlicence: l\nfiles: {forget: ../f.jsonl}\n", "not a file inside"),
        ("name: a\nversion: '1'\ndescription: d\nlicence: l\nfiles: {retain: f.jsonl}\n", "named 'forget'"),
        ("name: a\nversion: '1'\ndescription: d\nlicence: l\nfiles: {forget: f.jsonl}\n", "files that are not there"),
        ("name: a\nversion: '1'\ndescription: d\nlicence: l\nfiles: {forget: f}\ncolour: red\n", "colour: Extra"),
    ],
)
def test_bad_manifests(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "task.yaml").write_text(text, encoding="utf-8")
    assert expected in error_of(tmp_path)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("1985", "date"),
        ("February 4, 1986", "date"),
        ("19 February 1976", "date"),
        ("36,417", "number"),
        ("40 %", "number"),
        ("12", "number"),
        ("May", "term"),
        ("Viton", "term"),
    ],
)
def test_answer_types_are_guessed_from_shape_alone(answer: str, kind: str) -> None:
    assert guess_answer_type(answer) == kind

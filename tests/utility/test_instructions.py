"""Open instructions: every source, everything wrong with a file at once, and the probes that ask them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audit.config import AuditConfig, resolve_config
from audit.errors import ConfigError, TaskError
from audit.fingerprint import text_file_digest
from audit.prompts import load_prompt
from audit.resources import resource
from audit.tasks import Task, load_task
from audit.tasks.manifest import hash_files
from audit.types import Message
from audit.utility.instructions import (
    ALPACA_LICENCE,
    InstructionSet,
    instruction_text,
    load_instructions,
    open_probes,
)

HUB_FOLDER = "datasets--tatsu-lab--alpaca_eval"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("lkf")


def settings(**utility: Any) -> AuditConfig:
    return resolve_config({"model": "m", "preset": "custom", "seed": 7, "utility": {"measures": ("open",), **utility}})


def write(path: Path, content: object) -> Path:
    if path.suffix == ".jsonl":
        assert isinstance(content, list)
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def given(path: Path, task: Task) -> InstructionSet:
    return load_instructions(settings(instructions=str(path)), task)


def alpaca_rows(n: int = 4) -> list[dict[str, str]]:
    parts = ("helpful_base", "koala", "oasst", "selfinstruct", "vicuna")
    return [
        {"dataset": parts[i % 5], "instruction": f"Do {i}.\n", "output": f"done {i}", "generator": "text_davinci_003"}
        for i in range(n)
    ]


# ------------------------------------------------------------------------------------------------------- sources


def test_the_task_brings_its_own(task: Task) -> None:
    found = load_instructions(settings(), task)
    assert (found.name, found.licence, found.source) == ("instructions of lkf", "Apache-2.0", "task lkf")
    assert len(found.items) == 150 == len({item.id for item in found.items})
    assert found.items[0].id == "ins-001" and found.items[0].category == "advice"


def test_a_task_without_any_is_lent_the_bundled_ones_under_their_licence(tmp_path: Path) -> None:
    facts = write(tmp_path / "mine.jsonl", [{"id": "a", "question": "Who?", "answer": "Anvel"}])
    found = load_instructions(settings(), load_task(str(facts)))
    assert (found.name, found.licence, len(found.items)) == ("instructions of lkf", "Apache-2.0", 150)


def test_a_task_folder_with_its_own_instructions_and_licence(tmp_path: Path) -> None:
    write(tmp_path / "forget.jsonl", [{"id": "a", "question": "Who?", "answer": "Anvel"}])
    write(tmp_path / "ask.jsonl", [{"instruction": "Sing."}])
    files = {"forget": "forget.jsonl", "instructions": "ask.jsonl"}
    manifest = {"name": "mine", "version": "1", "description": "d", "licence": "MIT", "files": files}
    manifest["content_hash"] = hash_files(tmp_path, files)
    (tmp_path / "task.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    found = load_instructions(settings(), load_task(str(tmp_path)))
    assert (found.name, found.licence) == ("instructions of mine", "MIT")
    assert [item.text for item in found.items] == ["Sing."]


@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl"])
def test_a_users_file(tmp_path: Path, task: Task, name: str) -> None:
    rows = [{"instruction": " Sing.\n", "note": 3}, {"id": 12, "instruction": "Dance.", "category": "fun"}]
    found = given(write(tmp_path / name, rows), task)
    assert (found.name, found.licence) == (name, "not stated")
    assert [item.text for item in found.items] == [" Sing.\n", "Dance."]
    assert found.items[1].id == "12" and found.items[1].category == "fun"
    again = given(write(tmp_path / f"other-{name}", list(reversed(rows))), task)
    assert again.items[1].id == found.items[0].id  # by content, wherever it stands


@pytest.mark.parametrize(
    ("changes", "n", "name"),
    [
        ({"max_instructions": 20}, 20, "instructions of lkf, the first 20 of 150"),
        ({"protocol": "paper"}, 100, "instructions of lkf, the first 100 of 150"),
        ({"protocol": "paper", "max_instructions": 20}, 20, "instructions of lkf, the first 20 of 150"),
        ({"max_instructions": 500}, 150, "instructions of lkf"),
    ],
)
def test_limits(task: Task, changes: dict[str, Any], n: int, name: str) -> None:
    found = load_instructions(settings(**changes), task)
    assert (len(found.items), found.name) == (n, name)
    assert found.items == load_instructions(settings(), task).items[:n]


# ---------------------------------------------------------------------------------------------------- AlpacaEval


def test_a_copy_of_alpaca_eval(tmp_path: Path, task: Task) -> None:
    path = write(tmp_path / "alpaca_eval.json", alpaca_rows())
    found = load_instructions(settings(instructions=f"alpaca-eval:{path}"), task)
    assert (found.name, found.licence) == ("AlpacaEval", ALPACA_LICENCE)
    assert [item.text for item in found.items] == [f"Do {i}.\n" for i in range(4)]
    assert [item.category for item in found.items] == ["helpful_base", "koala", "oasst", "selfinstruct"]


def test_another_file_is_not_passed_off_as_alpaca_eval(tmp_path: Path, task: Task) -> None:
    path = write(tmp_path / "mine.json", [{"instruction": "Sing.", "dataset": "mine"}, {"instruction": "Dance."}])
    with pytest.raises(TaskError, match="'mine'") as caught:
        load_instructions(settings(instructions=f"alpaca-eval:{path}"), task)
    assert "None" in str(caught.value) and "--instructions PATH" in caught.value.hint


def cached(folder: Path) -> None:
    """The data set as the hub's own program leaves it in its cache."""
    snapshot = folder / HUB_FOLDER / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    write(snapshot / "alpaca_eval.json", alpaca_rows(3))
    refs = folder / HUB_FOLDER / "refs"
    refs.mkdir()
    (refs / "main").write_text(REVISION, encoding="utf-8")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_alpaca_eval_from_the_hubs_cache(hub: Path, task: Task) -> None:
    cached(hub)
    found = load_instructions(settings(instructions="alpaca-eval"), task)
    assert found.source == f"hf:tatsu-lab/alpaca_eval@{REVISION}"
    assert found.licence == ALPACA_LICENCE and len(found.items) == 3


@pytest.mark.usefixtures("hub")
def test_without_a_network_the_error_says_which_file_to_give(task: Task) -> None:
    with pytest.raises(ConfigError, match=r"alpaca_eval\.json of tatsu-lab/alpaca_eval could not be had") as caught:
        load_instructions(settings(instructions="alpaca-eval"), task)
    assert "alpaca_eval.json" in caught.value.hint and "alpaca-eval:PATH" in caught.value.hint


def test_alpaca_eval_is_not_in_the_package() -> None:
    names = {path.name for part in ("tasks", "prompts") for path in resource(part).rglob("*")}
    assert names and not any("alpaca" in name for name in names)


# ----------------------------------------------------------------------------------------------------- bad files


def test_everything_wrong_with_a_file_is_told_at_once(tmp_path: Path, task: Task) -> None:
    lines = [
        '{"instruction": "Sing."}',
        '{"prompt": "Dance."}',
        '{"instruction": "  "}',
        '{"instruction": 7}',
        '{"instruction": "Sing. "}',
        '{"instruction": "Draw.", "id": "a"}',
        '{"instruction": "Paint.", "id": "a"}',
        '{"instruction": "Sum up.", "input": "a long text"}',
        '{"instruction": "Cook.", "category": 3}',
        '{"instruction": "Bake.", "id": ""}',
        '{"instruction": "Fry."',
    ]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        given(path, task)
    said = str(caught.value)
    for place in (
        ":2 instruction: missing; the object has prompt",
        ":3 instruction: empty",
        ":4 instruction: must be text, not 7",
        ":5 instruction: the same as in line 1",
        ":7 id: the same as in line 6",
        ":8 input: a text beside the instruction",
        ":9 category: must be text",
        ":10 id: must be text or a whole number",
        ":11: broken JSON",
    ):
        assert place in said, place
    assert "9 errors" in said and ":1 " not in said and ":6 " not in said


def test_entries_of_an_array_are_named_by_their_place(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "bad.json"
    path.write_text('[{"instruction": "Sing."}, {"instruction": ""}, {"instruction": "Sing."}]', encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        given(path, task)
    said = str(caught.value)
    assert " entry 2, instruction: empty" in said and " entry 3, instruction: the same as in entry 1" in said
    lines = tmp_path / "lines.json"
    lines.write_text('{"instruction": "Sing."}\n\n{"instruction": ""}\n', encoding="utf-8")
    with pytest.raises(TaskError, match=r"lines\.json:3 instruction: empty"):
        given(lines, task)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("empty.jsonl", "", "holds no instruction"),
        ("empty.json", "[]", "holds no instruction"),
        ("mine.csv", "instruction\nSing.\n", "cannot be read"),
        ("one.json", '["Sing."]', "expected an object"),
        ("broken.json", '[{"instruction": "Sing."}', "broken JSON"),
    ],
)
def test_files_that_hold_none(tmp_path: Path, task: Task, name: str, text: str, error: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises((TaskError, ConfigError), match=error):
        given(tmp_path / name, task)


def test_no_such_file(tmp_path: Path, task: Task) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        given(tmp_path / "nowhere.jsonl", task)


# -------------------------------------------------------------------------------------------------------- probes


def test_probes_in_a_chat(task: Task) -> None:
    config = settings(max_new_tokens=99, max_instructions=3)
    found = load_instructions(config, task)
    probes = open_probes(config, found, "chat")
    assert [probe.variant for probe in probes] == [item.id for item in found.items]
    for probe, item in zip(probes, found.items, strict=True):
        assert (probe.family, probe.split, probe.form, probe.targets) == ("instruction", "open", "plain", ())
        assert probe.messages == (Message(role="user", content=item.text),)
        assert (probe.decoding.max_new_tokens, probe.decoding.temperature, probe.decoding.seed) == (99, 0.0, 7)
        assert probe.decoding.stop == () and probe.decoding.n == 1
        assert instruction_text(probe) == item.text


def test_raw_probes_to_the_letter(tmp_path: Path, task: Task) -> None:
    path = write(tmp_path / "a.jsonl", [{"instruction": "Write {{ a }} poem.\n"}, {"instruction": "Request: sing"}])
    config = settings(instructions=str(path))
    probes = open_probes(config, load_instructions(config, task), "raw")
    assert probes[0].messages[0].content == (
        "A request, and a helpful reply to it.\n\nRequest: Write {{ a }} poem.\n\n\nReply:"
    )
    assert probes[0].decoding.stop == ("\nRequest:",)
    assert [instruction_text(probe) for probe in probes] == ["Write {{ a }} poem.\n", "Request: sing"]
    chat = open_probes(config, load_instructions(config, task), "chat")
    assert len({probe.id for probe in (*probes, *chat)}) == 4


def test_a_probe_of_another_prompt_file_is_not_read_as_one_of_this(task: Task) -> None:
    import msgspec

    config = settings(max_instructions=1)
    (probe,) = open_probes(config, load_instructions(config, task), "raw")
    other = msgspec.structs.replace(probe, messages=(Message(role="user", content="Instruction: sing"),))
    with pytest.raises(TaskError, match="another way"):
        instruction_text(other)


def test_the_bundled_prompt_is_named_as_its_file() -> None:
    (path,) = resource("prompts", "utility").glob("open_raw*.md")
    prompt = load_prompt("utility", path.name)
    assert prompt.name == path.stem and prompt.digest == text_file_digest(path)
    assert set(prompt.free_names()) == {"instruction"}

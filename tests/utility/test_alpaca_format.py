"""alpaca_eval's files of outputs: joined by the instruction's text, and written from a run so that they can be read."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from audit.cli.main import app
from audit.config import resolve_config
from audit.errors import ConfigError, RunFolderError
from audit.pipeline import run_audit
from audit.report.files import RunFolder
from audit.report.read import contents_of
from audit.report.seal import sealed
from audit.store import Store
from audit.types import Format, Probe, Record, Response
from audit.utility.alpaca_format import alpaca_outputs, reference_outputs
from audit.utility.instructions import Instruction, InstructionSet, open_probes

SET = InstructionSet(
    name="three",
    licence="not stated",
    source="three.jsonl",
    items=(
        Instruction(id="a", text="Sing.\n"),
        Instruction(id="b", text="Dance: „Привет“"),
        Instruction(id="c", text="Draw."),
    ),
)


def row(instruction: str, output: object, generator: str = "m") -> dict[str, object]:
    return {"dataset": "d", "instruction": instruction, "output": output, "generator": generator}


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


ROWS = [row("Sing.\n", "la"), row("Dance: „Привет“", "hop"), row("Draw.", "")]


# ------------------------------------------------------------------------------------------------------- reading


def test_replies_are_joined_by_text_whatever_their_order(tmp_path: Path) -> None:
    found = reference_outputs(write(tmp_path / "outputs.json", [*reversed(ROWS), row("Another.", "no")]), SET)
    assert found == {"a": "la", "b": "hop", "c": ""}
    assert list(found) == ["a", "b", "c"]


def test_white_space_around_an_instruction_and_equal_rows_are_no_hindrance(tmp_path: Path) -> None:
    rows = [row(" Sing. ", "la"), *ROWS[1:], row("Draw.", "")]
    assert reference_outputs(str(write(tmp_path / "outputs.json", rows)), SET)["a"] == "la"


def test_lines_are_read_as_an_array_is(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in ROWS), encoding="utf-8")
    assert reference_outputs(path, SET) == {"a": "la", "b": "hop", "c": ""}


def test_outputs_of_another_prompt_set(tmp_path: Path) -> None:
    rows = [row("Sing.", "la"), row("Write a poem.", "x"), row("Write a song.", "y")]
    with pytest.raises(ConfigError) as caught:
        reference_outputs(write(tmp_path / "outputs.json", rows), SET)
    said = str(caught.value)
    assert "replies to another set of instructions: 1 of the 3 of three" in said
    assert "'Dance: „Привет“' (b)" in said and "outputs.json" in said
    assert caught.value.exit_code == 2 and "--instructions" in caught.value.hint


@pytest.mark.parametrize("between", [", ", ",\n"])
def test_two_replies_to_one_instruction_and_everything_else_at_once(tmp_path: Path, between: str) -> None:
    rows = [
        *ROWS,
        row("Draw.", "a line"),
        row("Write.", None),
        {"instruction": "Read.", "generator": "m"},
        {"output": "x", "generator": "m"},
        row("Draw.", "", "other"),
    ]
    path = tmp_path / "outputs.json"
    path.write_text(f"[{between.join(json.dumps(each) for each in rows)}]", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        reference_outputs(path, SET)
    said = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "generator: replies of 2 generators (m, other)" in said
    assert " entry 4, output: another reply to the instruction of entry 3" in said
    assert " entry 5, output: must be text, not None" in said
    assert " entry 6, output: missing" in said
    assert " entry 7, instruction: missing" in said


@pytest.mark.parametrize("name", ["nowhere.json", "outputs.csv"])
def test_no_file_of_outputs(tmp_path: Path, name: str) -> None:
    (tmp_path / "outputs.csv").write_text("instruction,output\nSing.,la\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=name):
        reference_outputs(tmp_path / name, SET)


# ------------------------------------------------------------------------------------------------------- writing


def lines(path: Path, records: Sequence[Record]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))


def asked(folder: Path, prompt_format: Format) -> Path:
    """A finished run, to whose records replies to open instructions are added as an audit would have kept them: one of
    the candidate's failed, one was cut; one of the base's is not there."""
    facts = [{"id": f"f{i}", "question": f"Who painted picture {i}?", "answer": f"Anvel{i}"} for i in range(3)]
    for name, rows in (
        ("forget", facts),
        ("candidate", [{"fact_id": fact["id"], "response": "I do not know."} for fact in facts]),
        ("base", [{"fact_id": fact["id"], "response": fact["answer"]} for fact in facts]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    config = resolve_config(
        {
            "responses": (str(folder / "candidate.jsonl"),),
            "base_responses": (str(folder / "base.jsonl"),),
            "forget": str(folder / "forget.jsonl"),
        }
    )
    store = Store(folder / "store.sqlite")
    run = folder / "run"
    try:
        run_audit(config, RunFolder(run), store)
    finally:
        store.close()
    probes = open_probes(config, SET, prompt_format)
    replies = [
        Response(probe_id=probes[0].id, subject_id="candidate", sample=0, key="1", text="la la", finish="length"),
        Response(probe_id=probes[1].id, subject_id="candidate", sample=0, key="2", text="", finish="error", error="x"),
        Response(probe_id=probes[2].id, subject_id="candidate", sample=0, key="3", text="", finish="stop"),
        Response(probe_id=probes[0].id, subject_id="base", sample=0, key="4", text="„la“\n", finish="stop"),
        Response(probe_id=probes[2].id, subject_id="base", sample=0, key="5", text="a line", finish="stop"),
    ]
    return with_records(run, probes, replies)


def with_records(run: Path, probes: Sequence[Probe], replies: Sequence[Response]) -> Path:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    kinds: tuple[tuple[str, type[Record], Sequence[Record]], ...] = (
        ("probes.jsonl", Probe, probes),
        ("responses.jsonl", Response, replies),
    )
    for name, kind, more in kinds:
        known = [msgspec.json.decode(line, type=kind) for line in (run / name).read_bytes().splitlines()]
        lines(run / name, [*known, *more])
        report["manifest"]["files"][name] = msgspec.to_builtins(contents_of([*known, *more]))
    (run / "report.json").write_text(json.dumps(sealed(report)), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_CACHE", str(folder / "cache"))
        return asked(folder, "raw")


def test_failed_generations_have_no_row_and_are_counted(run: Path) -> None:
    outputs = alpaca_outputs(run, "candidate")
    assert [(each["instruction"], each["output"]) for each in outputs.rows] == [("Sing.\n", "la la"), ("Draw.", "")]
    assert (outputs.failed, outputs.cut) == (1, 1)
    assert set(outputs.rows[0]) == {"instruction", "output", "generator", "dataset", "datasplit"}


def test_no_two_subjects_have_one_generators_name(run: Path) -> None:
    names = [{each["generator"] for each in alpaca_outputs(run, name).rows} for name in ("candidate", "base")]
    assert len(names[0]) == len(names[1]) == 1 and names[0] != names[1]


def exported(run: Path, *more: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["report", str(run), "--format", "alpaca-eval", *more])
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_the_command_writes_the_candidates_and_says_what_is_left_out(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "outputs.json"
    printed, said = exported(run)
    assert json.loads(printed) == list(alpaca_outputs(run, "candidate").rows)
    assert "2 replies of candidate; 1 failed generations are left out; 1 end at the token limit" in said
    exported(run, "--out", str(out))
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(printed)


@pytest.mark.parametrize("prompt_format", ["raw", "chat"])
def test_what_was_exported_can_be_given_as_replies_to_compare_with(
    tmp_path: Path, prompt_format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "base.json"
    exported(asked(tmp_path, prompt_format), "--subject", "base", "--out", str(out))
    there = msgspec.structs.replace(SET, items=(SET.items[0], SET.items[2]))
    assert reference_outputs(out, there) == {"a": "„la“\n", "c": "a line"}
    with pytest.raises(ConfigError, match="2 of the 3"):  # the base's second reply never came
        reference_outputs(out, SET)


def test_a_subject_that_the_run_has_not(run: Path) -> None:
    with pytest.raises(RunFolderError, match="never_knew") as caught:
        alpaca_outputs(run, "never_knew")
    assert "candidate, base" in caught.value.hint or "base, candidate" in caught.value.hint


def test_a_run_without_open_instructions(run: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    probes = [msgspec.json.decode(line, type=Probe) for line in (bare / "probes.jsonl").read_bytes().splitlines()]
    report = json.loads((bare / "report.json").read_text(encoding="utf-8"))
    kept = [probe for probe in probes if probe.family != "instruction"]
    lines(bare / "probes.jsonl", kept)
    report["manifest"]["files"]["probes.jsonl"] = msgspec.to_builtins(contents_of(kept))
    (bare / "report.json").write_text(json.dumps(sealed(report)), encoding="utf-8")
    with pytest.raises(RunFolderError, match="asked no open instructions") as caught:
        alpaca_outputs(bare, "candidate")
    assert "--utility open" in caught.value.hint


def test_changed_replies_are_not_exported(run: Path, tmp_path: Path) -> None:
    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    path = changed / "responses.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("la la", "la ha"), encoding="utf-8")
    with pytest.raises(RunFolderError, match="changed"):
        alpaca_outputs(changed, "candidate")


def test_a_subject_is_of_this_format_alone(run: Path) -> None:
    refused = CliRunner().invoke(app, ["report", str(run), "--format", "json", "--subject", "base"])
    assert isinstance(refused.exception, ConfigError) and "--format alpaca-eval" in str(refused.exception)


def test_alpaca_eval_reads_what_was_written(run: Path, tmp_path: Path) -> None:
    """By its own loader; and it takes the two subjects for two models, one reply an instruction."""
    if importlib.util.find_spec("alpaca_eval") is None:
        word = "alpaca_eval is not installed, the reader of these files: pip install -e '.[dev]'"
        if os.environ.get("CI"):
            pytest.fail(word)
        pytest.skip(word)
    from alpaca_eval import utils

    tables = {}
    for name in ("candidate", "base"):
        exported(run, "--subject", name, "--out", str(tmp_path / f"{name}.json"))
        tables[name] = utils.load_or_convert_to_dataframe(tmp_path / f"{name}.json")
    assert list(tables["candidate"]["output"]) == ["la la", ""]
    assert list(tables["base"]["instruction"]) == ["Sing.\n", "Draw."]
    both = tables["base"].merge(tables["candidate"], on="instruction", suffixes=("_1", "_2"))
    assert len(both) == 2 and set(both["generator_1"]).isdisjoint(both["generator_2"])
    names = [utils.get_generator_name(None, tables[name]) for name in ("candidate", "base")]
    assert "Current model" not in names

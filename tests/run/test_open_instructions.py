"""Open instructions through the command line: asked of real models, exported, taken back as what to compare with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from audit.errors import ConfigError
from audit.utility.alpaca_format import reference_outputs
from audit.utility.open_part import OpenPart
from tests.helpers import tiny
from tests.run.conftest import Ran, World, write_rows

pytestmark = pytest.mark.model
Audit = Callable[..., Ran]
#: Questions that the model answers, in place of instructions: what it says to them can be told beforehand.
ASKED = tiny.FACTS[:4]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("utility: {max_new_tokens: 24}\n", encoding="utf-8")
    return path


def instructions(folder: Path) -> Path:
    return write_rows(
        folder / "asked.jsonl", [{"instruction": question, "id": n} for n, (question, _) in enumerate(ASKED)]
    )


@pytest.mark.parametrize("prompt_format", ["chat", "raw"])
def test_asked_exported_and_taken_back(
    world: World, audit: Audit, settings: Path, tmp_path: Path, prompt_format: str
) -> None:
    run, out = tmp_path / "run", tmp_path / "base.json"
    arguments = world.arguments(
        base=str(world.model),
        family="original",
        format=prompt_format,
        utility="open",
        instructions=str(instructions(tmp_path)),
        max_instructions="3",
        config=str(settings),
        out=str(run),
    )
    ran = audit("run", *arguments)
    assert ran.code in (0, 4), ran.err  # as plain text this model knows too little for a verdict
    assert "the first 3 of 4" in (run / "instructions.jsonl").read_text(encoding="utf-8")
    exported = audit("report", str(run), "--format", "alpaca-eval", "--subject", "base", "--out", str(out))
    assert exported.code == 0 and "3 replies of base" in exported.err
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["instruction"] for row in rows] == [question for question, _ in ASKED[:3]]
    if prompt_format == "chat":
        assert [row["output"].strip() for row in rows] == [answer for _, answer in ASKED[:3]]
    part = msgspec.json.decode((run / "instructions.jsonl").read_bytes(), type=OpenPart)
    assert reference_outputs(out, part.instructions) == {
        row_id: row["output"] for row_id, row in zip("012", rows, strict=True)
    }


def test_what_cannot_be_asked_is_told_before_anything_is(world: World, audit: Audit, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "Sing."}\n{"instruction": ""}\n', encoding="utf-8")
    out = str(tmp_path / "run")
    ran = audit("run", *world.arguments(utility="open", instructions=str(bad), out=out))
    assert ran.code == 2
    assert "bad.jsonl:1 instruction: missing" in ran.err and "bad.jsonl:2 instruction: empty" in ran.err
    assert not Path(out).exists()


def test_replies_to_another_set_are_refused_before_anything_is_asked(
    world: World, audit: Audit, tmp_path: Path
) -> None:
    other = tmp_path / "outputs.json"
    other.write_text(json.dumps([{"instruction": "Sing.", "output": "la", "generator": "m"}]), encoding="utf-8")
    ran = audit(
        "run",
        *world.arguments(
            utility="win-rate",
            instructions=str(instructions(tmp_path)),
            reference_outputs=str(other),
            out=str(tmp_path / "run"),
        ),
    )
    assert ran.code == ConfigError.exit_code == 2
    assert "replies to another set of instructions: 0 of the 4 of asked.jsonl" in ran.err
    assert not (tmp_path / "run").exists()

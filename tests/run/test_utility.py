"""What forgetting cost, through the command line: measured on real small models, compared alike, judged again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny
from tests.helpers.openai_server import OpenAIServer
from tests.run.conftest import N_FORGET, Ran, World, fact_rows, write_rows

pytestmark = pytest.mark.model
Audit = Callable[..., Ran]


def report_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short instructions: what a context of 512 tokens has room for."""
    words = ("a cat", "the sea", "a hat", "old trees", "the moon", "warm bread")
    rows: list[dict[str, object]] = [
        {"id": f"i{number}", "instruction": f"Say something kind about {word}."} for number, word in enumerate(words)
    ]
    return write_rows(tmp_path_factory.mktemp("open") / "instructions.jsonl", rows)


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says the same to whatever is asked."""
    net = tiny.model(seed=3)
    tiny.train(net, tuple((question, "a lost shoe") for question, _ in tiny.FACTS), steps=60)
    return tiny.save(net, tmp_path_factory.mktemp("wreck") / "model")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "probes: {families: [original, paraphrase], wordings: 1, retain_wordings: 0, placebo: false}\n"
        "utility: {max_new_tokens: 24, control: 4}\n",
        encoding="utf-8",
    )
    return path


def without_template(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_wreck_is_called_one(
    world: World, wreck: Path, instructions: Path, settings: Path, audit: Audit, tmp_path: Path
) -> None:
    ran = audit(
        "run",
        *world.arguments(model=str(wreck), base=str(world.model), instructions=str(instructions), config=str(settings)),
        *("--utility", "open", "--utility", "context", "--out", str(tmp_path / "run")),
    )
    assert ran.code == 0, ran.err
    report = report_of(tmp_path / "run")
    assert any(line.startswith("candidate: a wreck") for line in report["warnings"]), report["warnings"]
    lost = report["utility"]["retained"]["candidate"]
    assert len(lost["lost"]) == lost["tiers"][0]["lost"] >= 8  # of the ten facts to keep
    assert report["estimates"]["retain.lost"]["value"] >= 0.8
    stated = {use["way"]: use for use in report["utility"]["context"]["base"]}
    assert stated["stated"]["n"] == 30
    assert "retain.lost" not in report["subjects"]["base"]["estimates"]  # nothing to compare it with
    assert "what forgetting cost" in ran.out.lower()
    # nothing that was asked for utility is part of any leak estimate
    asked = {line["split"] for line in map(json.loads, (tmp_path / "run/probes.jsonl").read_text().splitlines())}
    assert {"open", "context"} <= asked
    assert report["undecided"]["cells"] == 0 or report["undecided"]["by_reason"]
    assert report["estimates"]["worst_case.prompt"]["n"] == 30


@pytest.mark.parametrize("lacking", ["candidate", "base"])
def test_like_is_compared_with_like_without_a_template(
    lacking: str, world: World, instructions: Path, settings: Path, audit: Audit, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="the extra `utility` is not installed")
    models = {"candidate": tmp_path / "candidate", "base": world.model}
    shutil.copytree(world.model, models["candidate"])
    rows = [{**row, "distractors": ["nothing", "everything", "somewhere"]} for row in fact_rows()[N_FORGET:]]
    retain = write_rows(tmp_path / "retain.jsonl", rows)
    tiny.save(tiny.model(seed=3), models["candidate"])
    models[lacking] = without_template(models[lacking], tmp_path / "bare")
    ran = audit(
        "run",
        *world.arguments(model=str(models["candidate"]), base=str(models["base"]), retain=str(retain)),
        *(
            "--config",
            str(settings),
            "--utility",
            "open",
            "--utility",
            "context",
            "--utility",
            "lm-eval:retained_choice",
        ),
        *("--instructions", str(instructions), "--out", str(tmp_path / "run")),
    )
    assert ran.code in (0, 4), ran.err
    report = report_of(tmp_path / "run")
    utility = report["utility"]
    assert utility["format"] == "raw"
    assert any("plain text" in line for line in utility["how"])
    assert any(f"no chat template in the tokenizer of: {lacking}" in line for line in report["warnings"])
    probes = [json.loads(line) for line in (tmp_path / "run/probes.jsonl").read_text().splitlines()]
    assert {p["format"] for p in probes if p["split"] in ("open", "context")} == {"raw"}
    by_subject = {task["subject"]: task for task in utility["harness"]}
    assert {task["chat_template"] for task in by_subject.values()} == {False}
    assert by_subject["candidate"]["n"] == by_subject["base"]["n"] > 0
    assert any("without a chat template" in line for line in utility["how"])


def first(call: Any) -> str:
    return json.dumps({"why": "it stands first", "label": "FIRST"})


def test_replies_are_compared_and_judged_again(
    world: World, wreck: Path, instructions: Path, settings: Path, audit: Audit, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with OpenAIServer(first) as server:
        ran = audit(
            "run",
            *world.arguments(model=str(wreck), base=str(world.model), config=str(settings), out=str(run)),
            *("--utility", "win-rate", "--instructions", str(instructions)),
            *("--win-judge", f"openai:tiny@{server.base_url}"),
        )
        assert ran.code in (0, 4), ran.err
        rate = report_of(run)["utility"]["win_rate"]
        asked = len(server.calls)
        assert not rate["informative"] and rate["why_not"]
        again = audit("rejudge", str(run), "--judge", "rules", "--out", str(tmp_path / "again"))
        assert again.code == ran.code, again.err
        assert len(server.calls) == asked  # the same pairs, ruled on already
    kept = report_of(tmp_path / "again")["utility"]
    assert kept["win_rate"]["rates"] == rate["rates"]
    assert kept["retained"] == report_of(run)["utility"]["retained"]
    assert (tmp_path / "again/instructions.jsonl").is_file()


def test_judges_that_cannot_compare_leave_comparisons_as_they_were(
    world: World, instructions: Path, settings: Path, audit: Audit, tmp_path: Path
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    with OpenAIServer(lambda call: json.dumps({"why": "so it is", "label": "CLEAR"})) as server:
        judge = f"openai:tiny@{server.base_url}"
        asked = audit(
            "run",
            *world.arguments(base=str(world.model), config=str(settings), out=str(run), judge=judge),
            *("--utility", "win-rate", "--instructions", str(instructions)),
        )
        assert asked.code == 4, asked.err  # a judge that clears everything fails the canaries
    ruled = audit("rejudge", str(run), "--judge", "rules", "--out", str(again))
    assert ruled.code == 0, ruled.err
    before, after = report_of(run), report_of(again)
    assert after["utility"]["win_rate"] == before["utility"]["win_rate"] is not None
    for name, why in before["utility"]["withheld"].items():
        if name.startswith("win_rate."):
            assert after["utility"]["withheld"][name] == why
    assert any("compared in the run" in line for line in after["utility"]["how"])
    said = [line for line in before["warnings"] if "win rate: " in line]
    assert said and set(said) <= set(after["warnings"])


def test_what_cannot_be_measured_is_refused_before_anything_is_asked(
    world: World, instructions: Path, audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr("audit.engines.open_engine", refuse)
    arguments = world.arguments(base=str(world.model), out=str(tmp_path / "run"))
    no_field = write_rows(tmp_path / "bad.jsonl", [{"instruction": "Say hello."}, {"text": "Say goodbye."}])
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps([{"instruction": "Another prompt", "output": "x", "generator": "g"}]))
    win = ("--utility", "win-rate", "--win-judge", "openai:tiny@http://127.0.0.1:9/v1")
    cases: list[tuple[tuple[str, ...], str]] = [
        (("--utility", "opne"), "did you mean open"),
        (("--utility", "open", "--instructions", str(no_field)), "bad.jsonl:2"),
        (("--utility", "win-rate"), "which of two replies"),
        (("--utility", "win-rate", "--win-judge", "rules"), "rules"),
        ((*win, "--instructions", str(instructions), "--reference-outputs", str(outputs)), "outputs.json"),
        (("--utility", "lm-eval:no_such_task_anywhere"), "no_such_task_anywhere"),
        (("--utility", "mmlu"), "mmlu"),
        (("--holes", "5"), "--generator"),
    ]
    for given, said in cases:
        ran = audit("run", *arguments, *given)
        assert ran.code == 2, (given, ran.code, ran.err)
        assert said in ran.err, (given, ran.err)
        assert "Traceback" not in ran.err

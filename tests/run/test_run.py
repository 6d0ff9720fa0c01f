"""Whole runs on a real small checkpoint: what a user types, what comes out, what is done again and what is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny
from tests.run.conftest import N_FORGET, Ran, World

pytestmark = pytest.mark.model
Audit = Callable[..., Ran]


def report_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return loaded


def stable(report: dict[str, Any]) -> dict[str, Any]:
    """All but what may differ between equal runs."""
    return {**report, "manifest": {**report["manifest"], "runtime": None}}


def test_a_model_that_knows_is_caught(world: World, audit: Audit, tmp_path: Path) -> None:
    ran = audit("run", *world.arguments(out=str(tmp_path / "run")))
    report = report_of(tmp_path / "run")
    assert ran.code == 0
    assert report["estimates"]["single.original"]["count"] >= N_FORGET - 2
    assert report["estimates"]["retain.mean"]["value"] > 0.25  # the original wording is a third of the wordings
    assert report["canaries"]["status"] == "passed"
    assert ran.out.rstrip().endswith(report["verdict"])
    assert "leaked under" in report["verdict"]
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_finished_run_again_does_no_model_work(
    world: World, audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = world.arguments(out=str(tmp_path / "run"))
    audit("run", *arguments)
    first = report_of(tmp_path / "run")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr("audit.engines.open_engine", refuse)
    audit("run", *arguments)
    second = report_of(tmp_path / "run")
    assert stable(first) == stable(second)
    assert second["manifest"]["runtime"]["generated"] == {"candidate": 0}


def test_a_retrained_model_at_the_same_path_is_asked_again(world: World, audit: Audit, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(world.model, model)
    audit("run", *world.arguments(model=str(model), out=str(tmp_path / "one")))
    tiny.save(tiny.model(seed=5), model)
    ran = audit("run", *world.arguments(model=str(model), out=str(tmp_path / "one")))
    assert ran.code == 2 and "another run" in ran.err
    audit("run", *world.arguments(model=str(model), out=str(tmp_path / "two")))
    assert report_of(tmp_path / "one")["estimates"]["single.original"]["count"] >= N_FORGET - 2
    assert report_of(tmp_path / "two")["estimates"]["single.original"]["count"] == 0


def test_base_and_candidate_are_asked_alike(world: World, audit: Audit, tmp_path: Path) -> None:
    blank = tiny.save(tiny.model(seed=3), tmp_path / "blank")
    audit("run", *world.arguments(model=str(blank), base=str(world.model), out=str(tmp_path / "run")))
    report = report_of(tmp_path / "run")
    candidate, base = report["subjects"]["candidate"], report["subjects"]["base"]
    for name, estimate in candidate["estimates"].items():
        if not name.endswith("@known") and name in base["estimates"]:
            assert estimate["probe_set"] == base["estimates"][name]["probe_set"], name
    assert report["known"]["n"] >= N_FORGET - 2
    known = report["estimates"]["worst_case.prompt@known"]
    assert known["n"] == report["known"]["n"]


def test_the_resolved_configuration_repeats_the_run(world: World, audit: Audit, tmp_path: Path) -> None:
    audit("run", *world.arguments(out=str(tmp_path / "one"), seed="3"))
    audit("run", "--config", str(tmp_path / "one" / "config.yaml"), "--out", str(tmp_path / "two"))
    assert stable(report_of(tmp_path / "one")) == stable(report_of(tmp_path / "two"))


def test_json_alone_on_standard_output(world: World, audit: Audit, tmp_path: Path) -> None:
    ran = audit("run", *world.arguments(out=str(tmp_path / "run")), "--json")
    assert json.loads(ran.out) == report_of(tmp_path / "run")


def test_dry_run_counts_and_asks_nothing(world: World, audit: Audit, tmp_path: Path) -> None:
    ran = audit("run", *world.arguments(), "--dry-run", "--json")
    work = json.loads(ran.out)
    audit("run", *world.arguments(out=str(tmp_path / "run")))
    report = report_of(tmp_path / "run")
    assert work["generations_a_subject"] == sum(report["manifest"]["n_probes"].values())
    assert work["prompt_tokens"]["candidate"] > work["generations_a_subject"]


def test_sampling_gives_leak_at_k(world: World, audit: Audit, tmp_path: Path) -> None:
    ran = audit("run", *world.arguments(out=str(tmp_path / "run")), "--family", "original", "--family", "sampled")
    estimates = report_of(tmp_path / "run")["estimates"]
    assert ran.code == 0
    assert estimates["worst_case.sampled@k=1"]["value"] <= estimates["worst_case.sampled@k=8"]["value"]
    assert "worst_case.sampled@k=16" not in estimates


def test_a_cut_answer_is_asked_for_again_and_is_never_no_leak(world: World, audit: Audit, tmp_path: Path) -> None:
    ran = audit("run", *world.arguments(out=str(tmp_path / "run"), max_new_tokens="2"))
    report = report_of(tmp_path / "run")
    probes = [json.loads(line) for line in (tmp_path / "run" / "probes.jsonl").read_text().splitlines()]
    again = [probe for probe in probes if probe["parent"]]
    assert ran.code == 0 and again
    assert {probe["decoding"]["max_new_tokens"] for probe in again} == {8}
    rulings = [json.loads(line) for line in (tmp_path / "run" / "rulings.jsonl").read_text().splitlines()]
    responses = {
        (r["probe_id"], r["sample"]): r
        for r in map(json.loads, (tmp_path / "run" / "responses.jsonl").read_text().splitlines())
    }
    for ruling in rulings:
        if ruling["purpose"] == "leak" and responses[ruling["probe_id"], ruling["sample"]]["finish"] == "length":
            assert ruling["label"] != "no_leak"
    assert report["estimates"]["single.original"]["upper_bound"] > 0.5


def test_policy_decides_the_exit_code(world: World, audit: Audit, tmp_path: Path) -> None:
    ran = audit("run", *world.arguments(out=str(tmp_path / "run"), base=str(world.model), policy="default"))
    assert ran.code == 3
    again = audit("gate", str(tmp_path / "run"), "--policy", "default", "--json")
    assert again.code == 3 and json.loads(again.out)["outcome"] == "fail"

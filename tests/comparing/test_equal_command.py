"""`audit compare --equal-utility --sweep`: trained, mixed, audited, written, gone on with; and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from audit.cli.equal import shares_given, sweep_given
from audit.comparing.runs import open_run
from audit.errors import ConfigError
from tests.comparing.test_contest import Room, room  # noqa: F401
from tests.plugins.conftest import installed  # noqa: F401

pytest.importorskip("torch")
pytestmark = pytest.mark.model

METHODS = ("--methods", "grad_diff,noop", "--set", "grad_diff.epochs=2", "--set", "grad_diff.retain_weight=2")
ASKED = ("--equal-utility", "--shares", "0,0.5", "--sweep", "retain_weight=0.1,2")


def test_curves_are_those_of_real_trainings_and_audits(room: Room) -> None:  # noqa: F811
    dry = room.compare(*METHODS, *ASKED, "--dry-run")
    assert dry.code == 0, dry.err
    assert "grad_diff: 2" in dry.out and "mixtures of each candidate with the base: 1" in dry.out
    assert not (room.folder / "out").exists()
    ran = room.compare(*METHODS, *ASKED)
    assert ran.code in (0, 4), ran.err
    assert "At equal utility, %:" in ran.out and "no sweep of retain_weight: noop" in " ".join(ran.out.split())
    out = room.folder / "out"
    told = room.json("out/comparison.json")
    assert [curve["label"] for curve in told["equal"]] == ["grad_diff", "noop"]
    (sweep,) = told["sweeps"]
    assert (sweep["label"], sweep["key"]) == ("grad_diff", "retain_weight") and sweep["failed"] == []
    assert [step["at"] for step in sweep["steps"]] == ["0.1", "2"]
    trained = {folder.name for folder in (out / "checkpoints").iterdir()}
    assert trained == {"grad_diff", "noop", "grad_diff-retain_weight=0.1"}, "what is there anyway is not trained twice"
    for at, name in (("0.1", "grad_diff-retain_weight=0.1"), ("2", "grad_diff")):
        run = open_run(out / "runs" / name, name)
        step = next(step for step in sweep["steps"] if step["at"] == at)
        assert step["leaked"]["count"] == run.estimates[told["on"]].count and step["run"] == run.report.run
        said = run.report.manifest.trained["candidate"]["settings"]
        assert said["retain_weight"] == float(at) and said["epochs"] == 2
    noop = told["equal"][1]
    assert {reading["at"] for reading in noop["readings"]} == {"0"}, "the base itself keeps all that the base keeps"
    with (out / "comparison.equal.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["label"], row["kind"]) for row in rows} == {
        *(("grad_diff", "mixture"), ("noop", "mixture"), ("grad_diff", "sweep"))
    }
    for form in ("html", "md", "tex"):
        assert "At equal utility" in (out / f"comparison.{form}").read_text(encoding="utf-8")
    finished = _written(out / "equal")
    again = room.compare(*METHODS, *ASKED, "--json")
    assert again.code == ran.code and "trained before" in again.err
    assert room.json("out/comparison.json")["equal"] == told["equal"]
    assert _written(out / "equal") == finished, "finished audits of mixtures are taken as they are"


def _written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("report.json")}


def test_what_cannot_be_asked_is_refused_before_anything_is_trained(room: Room) -> None:  # noqa: F811
    def refused(*arguments: str, words: tuple[str, ...]) -> None:
        room.compare(*METHODS, *arguments, out="refused").refused(*words)
        assert not (room.folder / "refused").exists()

    refused("--sweep", "retain_weight", words=("is not KEY=VALUE",))
    refused("--sweep", "retain_weight=1,1", words=("given twice",))
    refused("--sweep", "beta=1,2", words=("none of the methods has a setting beta",))
    refused("--sweep", "retain_weight=0.5,-1", words=("retain_weight", "greater than"))
    refused("--sweep", "seed=1,2", words=("--seeds",))
    refused("--shares", "0,0.5", words=("--shares goes with --equal-utility",))
    refused("--equal-utility", "--shares", "0,2", words=("are no numbers from 0 to 1",))
    refused("--format", "equal-csv", words=("nothing to write", "--equal-utility"))


def test_options_are_read_as_they_are_meant() -> None:
    sweep = sweep_given("retain_weight = 0.1, 0.5", ["npo", "gradient_ascent"])
    assert (sweep.key, sweep.values) == ("retain_weight", ("0.1", "0.5"))
    assert (sweep.methods, sweep.without) == (("npo",), ("gradient_ascent",))
    with pytest.raises(ConfigError, match="no method is named"):
        sweep_given("retain_weight=1", [])
    assert shares_given("0,0.25") == (0.0, 0.25) and shares_given(None)[:3] == (0.0, 0.05, 0.1)

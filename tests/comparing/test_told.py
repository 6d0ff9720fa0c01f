"""What trainers' manifests say, where it can be seen to be wrong, and what must not be lost when numbers are pasted."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from audit.comparing.build import compare_runs
from audit.comparing.latex import latex
from audit.comparing.runs import Run
from audit.comparing.tables import markdown, numbers_csv


def said(run: Run, **told: Any) -> Run:
    return replace(run, said={"method": "m", "settings": {"seed": 0}, **told})


def warnings(*runs: Run) -> str:
    return "\n".join(compare_runs(runs).warnings)


def test_a_stopped_training_is_no_seed_of_a_method(runs: dict[str, Run]) -> None:
    whole = said(runs["s0"])
    part = replace(runs["s1"], said={"method": "m", "settings": {"seed": 1}, "unfinished": True})
    comparison = compare_runs([whole, part, runs["good"]])
    assert [candidate.members for candidate in comparison.candidates] == [("s0",), ("s1",), ("good",)]
    assert "s1: its training did not come to its end" in "\n".join(comparison.warnings)
    other = replace(part, said={**part.said, "unfinished": False})
    assert ("s0", "s1") in [c.members for c in compare_runs([whole, other, runs["good"]]).candidates]


def test_what_a_manifest_cannot_say_of_this_audit_is_told(runs: dict[str, Run]) -> None:
    task = runs["good"].report.task.content_hash
    tuned = said(runs["s0"], tuning={"trials": 500, "validation": task})
    assert "s0: its settings were chosen on these very facts" in warnings(tuned, runs["good"])
    merged = said(runs["s0"], base={"fingerprint": "f" * 32, "adapter": "a/b"})
    assert "an adapter (a/b) was merged into its base first" in warnings(merged, runs["good"])
    assert "adapter" not in warnings(said(runs["s0"]), runs["good"])


def test_a_manifest_file_against_the_one_beside_the_weights(runs: dict[str, Run]) -> None:
    run = runs["s0"]
    trained = {**run.report.manifest.trained, "candidate": {"method": "m", "forget_set": {"content_hash": "a" * 32}}}
    manifest = msgspec.structs.replace(run.report.manifest, trained=trained)
    beside = replace(run, report=msgspec.structs.replace(run.report, manifest=manifest))
    task = run.report.task.content_hash
    lying = replace(beside, said={"forget_set": {"content_hash": task}})
    assert "s0: its manifest file says another forget_set" in warnings(lying, runs["good"])
    assert "made to forget other facts" in warnings(beside, runs["good"])
    same = replace(beside, said={"forget_set": {"content_hash": "a" * 32}})
    assert "its manifest file says another" not in warnings(same, runs["good"])


@pytest.fixture
def doubtful(runs: dict[str, Run]) -> list[Run]:
    report = msgspec.structs.replace(
        runs["leaky"].report, inconclusive=("the canaries failed",), outcome="inconclusive"
    )
    return [replace(runs["leaky"], report=report), said(runs["good"], base={"adapter": "x"})]


def test_caveats_go_with_the_tables(doubtful: list[Run]) -> None:
    comparison = compare_runs(doubtful)
    assert comparison.exit_code == 4
    for text in (latex(comparison), markdown(comparison)):
        assert "the canaries failed" in text and "was merged into its base first" in text
    rows = list(csv.DictReader(io.StringIO(numbers_csv(comparison))))
    assert {row["label"]: row["outcome"] for row in rows if row["kind"] == "checkpoint"} == {
        "leaky": "inconclusive",
        "good": doubtful[1].report.outcome,
    }


def test_what_is_undecided_stays_in_the_mean_over_seeds(runs: dict[str, Run]) -> None:
    sure = replace(runs["good"], said={"method": "m", "settings": {"seed": 0}})
    unsure = replace(runs["unsure"], said={"method": "m", "settings": {"seed": 1}})
    comparison = compare_runs([sure, unsure, runs["leaky"]])
    (method,) = [candidate for candidate in comparison.candidates if len(candidate.members) == 2]
    spread = method.spreads[comparison.on]
    estimates = [run.estimates[comparison.on] for run in (sure, unsure)]
    assert spread.upper_bound == pytest.approx(sum(e.upper_bound for e in estimates) / 2)
    assert spread.lower_bound is not None and spread.upper_bound is not None
    width = spread.upper_bound - spread.lower_bound
    assert width > 0.1
    (row,) = [r for r in csv.DictReader(io.StringIO(numbers_csv(comparison))) if r["kind"] == "method"]
    assert float(row[f"{comparison.on}_upper_bound"]) == pytest.approx(spread.upper_bound)
    told = f"+{100 * width:.1f}?"
    assert told in markdown(comparison) and told in latex(comparison)

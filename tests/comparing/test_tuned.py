"""Every view says of every candidate whether its settings were tuned; seeds stay one method."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from rich.console import Console

from audit.comparing.build import compare_runs
from audit.comparing.html import html
from audit.comparing.latex import latex
from audit.comparing.model import Comparison
from audit.comparing.runs import Run, training_of
from audit.comparing.tables import markdown, numbers_csv
from audit.comparing.terminal import print_comparison

SETTINGS = {"learning_rate": 1e-4}


def said(method: str, seed: int | None = None, tuning: Any = None, **more: Any) -> dict[str, Any]:
    settings = {**SETTINGS, **({"seed": seed} if seed is not None else {})}
    return {"method": method, "settings": settings, **({"tuning": tuning} if tuning else {}), **more}


@pytest.fixture(scope="module")
def comparison(runs: dict[str, Run]) -> Comparison:
    """One method with three seeds, tuned; one untuned; a control; a checkpoint without a manifest."""
    tuning = [{"trials": 8, "failed": 1, "file": str(n), "validation": "v"} for n in range(3)]
    told = {
        **{f"s{n}": said("npo", n, tuning[n], tunable=True) for n in range(3)},
        "leaky": said("idk", 0, tunable=True),
        "good": said("noop", tunable=False),
    }
    return compare_runs([replace(run, said=told.get(name, {})) for name, run in runs.items() if name != "unsure"])


def test_trials_are_read_from_the_manifest() -> None:
    assert training_of(said("npo", 0, {"trials": 8})).trials == 8
    assert training_of(said("npo", 0)).trials is None
    assert training_of(said("noop", tunable=False)).trials == 0
    for broken in ({"trials": "many"}, {"trials": -1}, {"trials": 0}, "yes"):
        assert training_of(said("npo", 0, broken)).trials is None


def test_seeds_of_a_tuned_method_are_one_candidate(comparison: Comparison) -> None:
    candidates = {candidate.label: candidate.members for candidate in comparison.candidates}
    assert candidates["npo"] == ("s0", "s1", "s2")
    assert {entry.label: entry.training and entry.training.trials for entry in comparison.entries} == {
        **dict.fromkeys(("s0", "s1", "s2"), 8),
        "leaky": None,
        "good": 0,
        "wreck": None,
        "leakier": None,
    }


def printed(comparison: Comparison) -> str:
    out = io.StringIO()
    print_comparison(comparison, Console(file=out, width=80, highlight=False))
    assert max(len(line) for line in out.getvalue().splitlines() if "tune" in line) <= 80
    return out.getvalue()


@pytest.mark.parametrize("view", [printed, markdown, latex, html])
def test_every_view_says_what_was_tuned(comparison: Comparison, view: Callable[[Comparison], str]) -> None:
    lines = re.sub(r"<(?:th|/?table)[^>]*>|\s*</tr>\s*", "\n", view(comparison)).splitlines()
    for label, text in (("npo", "tuned: 8 trials"), ("leaky", "untuned"), ("good", "nothing to tune")):
        rows = [line for line in lines if label in line and "tune" in line]
        assert rows and all(re.search(rf"(?<!un){text}", line) for line in rows)
    wreck = [line for line in lines if "wreck" in line]
    assert wreck and not any("tune" in line for line in wreck)


def test_programs_get_the_number_of_trials(comparison: Comparison) -> None:
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(numbers_csv(comparison)))}
    assert {label: (row["trials"], row["tuning"]) for label, row in rows.items()} == {
        "base": ("", ""),
        "npo": ("", "tuned: 8 trials"),
        **dict.fromkeys(("s0", "s1", "s2"), ("8", "tuned: 8 trials")),
        "leaky": ("", "untuned"),
        "good": ("0", "nothing to tune"),
        **dict.fromkeys(("wreck", "leakier"), ("", "")),
    }
    back = msgspec.json.decode(msgspec.json.encode(comparison), type=Comparison)
    assert {e.label: e.training.trials for e in back.entries if e.training}["s1"] == 8


def test_runs_of_which_no_trainer_tells_have_no_such_column(runs: dict[str, Run]) -> None:
    plain = compare_runs([runs["good"], runs["leaky"]])
    assert not any("tune" in view(plain) for view in (markdown, latex, html))

"""What forgetting cost in a comparison: columns that runs have, and words where a run withholds its number."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping

import pytest
from msgspec.structs import replace
from rich.console import Console

from audit.comparing.build import compare_runs
from audit.comparing.html import html
from audit.comparing.latex import latex
from audit.comparing.model import Comparison
from audit.comparing.runs import Run
from audit.comparing.tables import markdown, numbers_csv
from audit.comparing.terminal import print_comparison
from audit.types import Estimate
from tests.report.test_html import Page
from tests.report.utility_records import costed, estimates_of, full_utility, rates

WHY = "the judges prefer the base's own reply in 24 of 50 pairs only"
SEEDS = {"method": ("s0", "s1", "s2")}


def measured(
    run: Run, *, withheld: Mapping[str, str] | None = None, other: Mapping[str, Estimate] | None = None
) -> Run:
    """The run with everything measured that utility has; `other` takes the place of its own estimates."""
    held = dict(withheld or {})
    plain = run.report
    report = costed(plain, full_utility(withheld=held, rate=rates(informative=not held)))
    # what the comparison checks against the run's own records stays as it was
    cost = {name: e for name, e in estimates_of(1).items() if not name.startswith("retain.mean")}
    cost = {
        name: e for name, e in {**cost, **(other or {})}.items() if not (name in held and name.startswith("win_rate."))
    }
    subjects = {**report.subjects, "base": replace(plain.subjects["base"], estimates=report.subjects["base"].estimates)}
    del subjects["never_knew"]
    return dataclasses.replace(
        run, report=replace(report, estimates={**plain.estimates, **cost}, subjects=subjects)
    )  # fmt: skip


def printed(comparison: Comparison, width: int = 80) -> str:
    out = io.StringIO()
    print_comparison(comparison, Console(file=out, width=width, highlight=False))
    return out.getvalue()


@pytest.fixture(scope="module")
def comparison(runs: dict[str, Run]) -> Comparison:
    """One run whose win rates say nothing, one whose refusals were measured with other prompts, a method of three
    seeds of which one withholds its win rates."""
    held = {"win_rate.raw": WHY, "win_rate.length_controlled": WHY}
    other = replace(estimates_of(1)["degeneration.refusal"], probe_set="d" * 16)
    chosen = [
        measured(runs["good"]),
        measured(runs["leaky"], withheld=held),
        measured(runs["wreck"], other={"degeneration.refusal": other}),
        *(measured(runs[seed]) for seed in ("s0", "s1")),
        measured(runs["s2"], withheld=held),
    ]
    return compare_runs(chosen, groups=SEEDS)


def test_columns_are_those_that_runs_have(comparison: Comparison) -> None:
    heads = [column.head for column in comparison.columns if column.about == "cost"]
    assert heads == [
        *("lost ↓", "stated", "reintroduced", "win rate ↑", "win rate (LC) ↑", "refusals ↓", "salted ↓"),
        *("audit_retained acc ↑", "mmlu acc ↑"),
    ], "a policy says whether the use of stated facts is good; parts of a group have no columns"
    good = next(entry for entry in comparison.entries if entry.label == "good")
    assert good.estimates["context.stated"] == estimates_of(1)["context.stated"]


def test_numbers_of_other_prompts_are_never_compared(comparison: Comparison) -> None:
    wreck = next(entry for entry in comparison.entries if entry.label == "wreck")
    assert "degeneration.refusal" not in wreck.estimates and wreck.apart == ("degeneration.refusal",)
    assert any("degeneration.refusal with other probes" in warning for warning in comparison.warnings)


def test_a_withheld_number_is_no_number_and_takes_the_mean_with_it(comparison: Comparison) -> None:
    leaky = next(entry for entry in comparison.entries if entry.label == "leaky")
    assert leaky.withheld == {"win_rate.raw": WHY, "win_rate.length_controlled": WHY}
    assert not set(leaky.withheld) & set(leaky.estimates)
    method = next(candidate for candidate in comparison.candidates if candidate.label == "method")
    assert "win_rate.raw" not in method.values and "win_rate.raw" not in method.spreads
    assert "salted.refused" in method.spreads


def test_an_estimate_that_is_withheld_all_the_same_is_not_shown(runs: dict[str, Run]) -> None:
    """Some numbers stand among the estimates and say nothing: the name under `withheld` decides."""
    held = {"context.stated": "the base does not use its prompt"}
    chosen = [measured(runs["good"], withheld=held), measured(runs["leaky"], withheld=held)]
    assert all("context.stated" in run.estimates for run in chosen)
    found = compare_runs(chosen)
    column = next(column for column in found.columns if column.name == "context.stated")
    assert column.probe_set == "" and all("context.stated" not in entry.estimates for entry in found.entries)
    assert printed(found).count("not informative") >= 2
    rows = list(csv.DictReader(io.StringIO(numbers_csv(found))))
    assert {row["context.stated"] for row in rows if row["kind"] == "checkpoint"} == {"not informative"}


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_says_not_informative(comparison: Comparison, width: int) -> None:
    text = printed(comparison, width)
    assert text.count("not informative") == 2 * 3, "of the run, of the seed, and of the mean of its method"
    said = " ".join(text.split())
    assert f"Not informative: win rate of leaky, s2: {WHY}" in said
    assert "salted ↓" in said and "stated ↓" not in said and "stated ↑" not in said


def test_every_other_form_says_it(comparison: Comparison) -> None:
    for text in (markdown(comparison), latex(comparison)):
        assert text.count("not informative") == 2 * 3
        assert WHY in text.replace("\\", "")
    assert "What else forgetting cost" in latex(comparison)
    page = Page(html(comparison))
    assert page.open == [] and page.text.count("not informative") == 2 * 3 and WHY in page.text
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(numbers_csv(comparison)))}
    for label in ("leaky", "s2", "method"):
        assert rows[label]["win_rate.raw"] == "not informative" and rows[label]["win_rate.raw_low"] == ""
    assert float(rows["good"]["win_rate.raw"]) > 0 and rows["wreck"]["degeneration.refusal"] == ""
    assert rows["wreck"]["probes_apart"] == "degeneration.refusal"

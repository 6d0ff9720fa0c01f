"""What cannot be compared is refused in one message that names the runs and what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audit.comparing.build import compare_runs
from audit.comparing.runs import Run, open_run
from audit.errors import ConfigError
from tests.comparing.conftest import FACTS, Maker, Ran

Audit = Callable[..., Ran]


def refused(ran: Ran, *words: str) -> None:
    """Exit code 2, one message and at most one hint, nothing on standard output."""
    assert ran.code == 2 and ran.out == ""
    assert ran.err.startswith("error: ") and ran.err.count("error: ") == 1 and "Traceback" not in ran.err
    for word in words:
        assert word in ran.err


def test_one_run_no_run_the_same_run_twice(audit: Audit, folders: dict[str, Path], tmp_path: Path) -> None:
    good = folders["good"]
    refused(audit("compare", good), "at least two runs")
    refused(audit("compare", good, good), "the same run is given twice")
    refused(audit("compare", good, good / "report.json"), "the same run is given twice")
    refused(audit("compare", good, f"{good}/../good"), "the same run is given twice")
    refused(audit("compare", good, tmp_path / "none"), "none", "no such run")
    (tmp_path / "empty").mkdir()
    refused(audit("compare", good, tmp_path / "empty"), "empty", "no run of this program")
    assert audit("compare").code == 2


def test_a_copy_of_a_run_is_the_same_run(audit: Audit, folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folders["good"], tmp_path / "copy")
    refused(audit("compare", folders["good"], tmp_path / "copy"), "good and copy are the same run")


def test_an_unfinished_run(audit: Audit, folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folders["leaky"], tmp_path / "half")
    (tmp_path / "half" / "report.json").unlink()
    refused(audit("compare", folders["good"], tmp_path / "half"), "half", "not come to its end", "audit run")
    (tmp_path / "half" / "report.json").write_text("{")
    refused(audit("compare", folders["good"], tmp_path / "half"), "half", "not a report")


def test_other_probes(audit: Audit, make: Maker, folders: dict[str, Path]) -> None:
    two = make("two", range(5), range(9), base_knows=None)
    more = make("more", range(5), range(9), base_knows=None, variants=("original", "p01", "p02"))
    ran = audit("compare", two, more)
    refused(ran, "other probes of worst_case.prompt", "two:", "more:", "--on single.original")
    ran = audit("compare", two, more, "--on", "single.original")
    assert ran.code == 0, ran.err
    # what stands on other probes is left out of the table, not shown beside it
    row = next(line for line in ran.out.splitlines() if line.startswith("more"))
    assert "≠" in row and "with other probes; left out" in ran.out
    refused(audit("compare", two, more, "--on", "worst_case.none"), "worst_case.none", "single.original")
    refused(
        audit("compare", folders["good"], folders["leaky"], "--on", "retain.mean"), "fact by fact", "single.original"
    )


def test_other_retained_facts_leave_no_front(make: Maker) -> None:
    fewer = open_run(make("fewer", range(5), range(9), keep=range(12), base_knows=None), "fewer")
    whole = open_run(make("whole", range(5), range(9), base_knows=None), "whole")
    comparison = compare_runs([whole, fewer])
    assert comparison.front_on is None and all(c.front is None for c in comparison.candidates)
    assert comparison.entries[1].apart[0] == "retain.mean"
    assert any("retain.mean" in warning for warning in comparison.warnings)


def test_other_task_base_judges_and_seed_are_told_together(make: Maker, runs: dict[str, Run], audit: Audit) -> None:
    changed = [{**fact, "answer": f"{fact['answer']} the Elder"} for fact in FACTS]
    other = make("other", range(5), range(9), facts=changed, base_knows=35, seed=4)
    with pytest.raises(ConfigError) as raised:
        compare_runs([runs["good"], runs["leaky"], open_run(other, "other")])
    task, base, seed = raised.value.problems
    assert task.startswith("other task: good, leaky: ") and "; other: " in task
    assert base.startswith("other base model: good, leaky: ")
    assert seed == "other seed: good, leaky: 0; other: 4"
    refused(audit("compare", runs["good"].path, other), "other task", "other base", "other seed")


def test_a_run_without_a_base_is_compared_with_a_warning(make: Maker, runs: dict[str, Run]) -> None:
    alone = open_run(make("alone", range(5), range(9), base_knows=None), "alone")
    comparison = compare_runs([runs["good"], alone])
    assert comparison.warnings == ("no base model in alone, but in the other runs",)
    assert comparison.known is None


def test_other_judges_need_a_word(make: Maker, audit: Audit) -> None:
    ruled = make("ruled", range(7), range(9), base_knows=None)
    told = make("told", range(7), range(9), base_knows=None, judges=("recorded",), verdicts=True)
    ran = audit("compare", ruled, told)
    refused(ran, "other judges: ruled: rules", "told: recorded", "--allow-different-judges", "audit rejudge")
    ran = audit("compare", ruled, told, "--allow-different-judges")
    assert ran.code == 0, ran.err
    assert "warning: other judges" in ran.out and "of judges, not of models" in ran.out
    assert "who gave them" in ran.out


def test_other_confidence(make: Maker, runs: dict[str, Run]) -> None:
    surer = make("surer", range(7), range(9), scoring={"floor_draws": 2, "canary_facts": 2, "confidence": 0.99})
    with pytest.raises(ConfigError, match=r"other confidence: good: 0\.95; surer: 0\.99"):
        compare_runs([runs["good"], open_run(surer, "surer")])


def test_an_inconclusive_run_makes_the_comparison_so(make: Maker, folders: dict[str, Path], audit: Audit) -> None:
    for name in ("knows-12", "knows-12-too"):
        make(name, range(4 if name.endswith("too") else 6), range(9), base_knows=12)
    ran = audit("compare", make.root / "knows-12", make.root / "knows-12-too")
    assert ran.code == 4
    assert "inconclusive: knows-12: the base leaks only 12 of the facts" in ran.out
    ran = audit("compare", make.root / "knows-12", make.root / "knows-12-too", "--json")
    assert ran.code == 4 and '"exit_code": 4' in ran.out and "inconclusive: knows-12-too" in ran.err


def test_the_same_answers_under_two_names(make: Maker, runs: dict[str, Run]) -> None:
    twin = open_run(make("good-again", (3,), range(18)), "twin")
    same = compare_runs([runs["s0"], runs["leaky"], twin])
    assert same.warnings == ()
    with pytest.raises(ConfigError, match="no run labelled 'nobody'"):
        compare_runs([runs["good"], twin], groups={"m": ("good", "nobody")})
    with pytest.raises(ConfigError, match="stands in m already"):
        compare_runs([runs["good"], twin], groups={"m": ("good",), "k": ("good", "twin")})

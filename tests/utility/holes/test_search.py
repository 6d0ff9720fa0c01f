"""Whole audits with a search for holes: what was lost is told from what was kept, and from chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.config import resolve_config
from audit.errors import JudgeError
from audit.pipeline import run_audit
from audit.report.files import RunFolder
from audit.report.model import Report
from audit.store import Store
from audit.utility.records import HolesReport
from tests.helpers.faulty_http import Status
from tests.helpers.openai_server import OpenAIServer
from tests.utility.holes.world import FAR, NEAR, UNKNOWN, Author, World

Run = Callable[..., Report]


@pytest.fixture
def run(world: World, author: OpenAIServer, store: Store, tmp_path: Path) -> Run:
    def audit(name: str = "run", holes: int = 12, **changes: Any) -> Report:
        utility = {"holes": holes, "generator": f"openai:tiny@{author.base_url}"} if holes else {}
        config = resolve_config(world.settings(utility=utility, **changes))
        return run_audit(config, RunFolder(tmp_path / name), store)

    return audit


def holes_of(report: Report) -> HolesReport:
    assert report.utility is not None and report.utility.holes is not None
    return report.utility.holes


def test_a_candidate_that_lost_what_lies_near_is_told_from_one_that_kept_it(
    run: Run, author: OpenAIServer, world: World
) -> None:
    report = run(never_knew=str(world.wreck))
    holes = holes_of(report)
    assert holes.written == holes.wanted == 12 and holes.short == ""
    near, far = holes.groups
    assert (near.group, near.asked, near.known, near.lost, near.refused, near.undecided) == ("near", 6, 6, 6, 3, 0)
    assert (far.group, far.asked, far.known, far.lost, far.refused, far.undecided) == ("far", 6, 6, 0, 0, 0)
    assert near.control == far.control == 0
    by_question = {each.question: each for each in holes.questions}
    assert {q: by_question[q].answer for q, _ in (*NEAR, *FAR)} == dict((*NEAR, *FAR))
    assert [by_question[q].outcome for q, _ in NEAR] == ["lost", "refused"] * 3
    assert {by_question[q].outcome for q, _ in FAR} == {"kept"}
    assert by_question[NEAR[0][0]].said == "copper work" and by_question[NEAR[1][0]].said == "I do not know."
    lost = report.estimates["holes.lost@group=near"]
    assert (lost.value, lost.count, lost.n) == (1.0, 6, 6) and 0.5 < lost.low < 1 == lost.high
    kept = report.estimates["holes.lost@group=far"]
    assert (kept.value, kept.low, kept.n) == (0.0, 0.0, 6) and kept.high > 0.3  # six questions show large losses only
    assert report.estimates["holes.lost"].value == 0.5
    assert lost.probe_set != kept.probe_set
    # a model without any knowledge keeps nothing: what it says is lost, or cut and so undecided, and never kept
    wreck = report.subjects["never_knew"].estimates["holes.lost"]
    assert wreck.upper_bound == 1.0 and wreck.probe_set == report.estimates["holes.lost"].probe_set
    assert "holes.lost" not in report.subjects["base"].estimates
    said = [warning for warning in report.warnings if "holes" in warning]
    assert any("the candidate lost 6 of 6 questions near" in one and "3 of them by refusing" in one for one in said)
    assert not any("6 questions far from" in one and one.startswith("knowledge holes") for one in said)


def test_nothing_of_it_enters_the_audit_itself(run: Run, author: OpenAIServer) -> None:
    with_it, without = run("with"), run("without", holes=0)
    mine = {name: each for name, each in with_it.estimates.items() if not name.startswith("holes.")}
    assert mine == without.estimates and len(with_it.estimates) == len(mine) + 3


def test_a_second_run_asks_nobody_and_says_the_same(
    run: Run, author: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("first")
    calls = len(author.calls)
    assert calls >= 2

    def load(*_: object) -> None:
        raise AssertionError("a model is loaded for answers that are kept")

    monkeypatch.setattr("audit.engines.open_engine", load)
    second = run("second")
    assert len(author.calls) == calls
    assert second.utility == first.utility and second.estimates == first.estimates


def test_the_same_weights_lose_nothing_and_what_nobody_knows_is_not_counted(
    run: Run, author: OpenAIServer, world: World
) -> None:
    author.answer = Author(far=[*UNKNOWN, *(question for question, _ in FAR)])
    report = run(model=str(world.base), holes=14)
    holes = holes_of(report)
    assert [group.lost + group.undecided for group in holes.groups] == [0, 0]
    assert sum(group.known for group in holes.groups) + sum(holes.unknown.values()) == holes.written
    assert report.estimates["holes.lost"].value == report.estimates["holes.lost"].upper_bound == 0
    assert not any(warning.startswith("knowledge holes") for warning in report.warnings)


def test_a_base_that_knows_nothing_makes_the_search_say_nothing(run: Run, author: OpenAIServer, world: World) -> None:
    """A wreck as base, and the base as its candidate: nothing is lost of nothing, which is no good news."""
    report = run(model=str(world.base), base=str(world.wreck))
    holes = holes_of(report)
    assert holes.questions == () and sum(holes.unknown.values()) == holes.written == 12
    assert "cut" in holes.unknown or "degenerate" in holes.unknown
    assert not [name for name in report.estimates if name.startswith("holes.")]
    assert report.utility is not None
    assert "consistently" in report.utility.withheld["holes.lost"]
    assert "consistently" in report.utility.withheld["holes.lost@group=near"]
    assert any("it shows nothing of the candidate" in warning for warning in report.warnings)


def test_a_wrong_key_stops_before_any_model_is_asked(
    run: Run, author: OpenAIServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a model is loaded before the generator is known to work")

    monkeypatch.setattr("audit.engines.open_engine", load)
    author.fault_for = lambda call: Status(401, error={"message": "no", "code": "invalid_api_key"})
    with pytest.raises(JudgeError, match="refuses the key"):
        run()
    assert len(author.calls) == 1

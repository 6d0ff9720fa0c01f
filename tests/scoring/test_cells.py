"""Cells: every planned try has one, and nothing that failed, was lost or was asked twice reads as no leak."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from audit.probes.build import make_probe
from audit.scoring.cells import Cell, floor_cells, is_retry, planned_cells
from audit.types import Decoding, Label, Message, Probe, Reason, Ruling, Target

TARGET = Target(fact_id="f", question="Who?", answer="Ebeling")


def probe(budget: int = 8, n: int = 1, targets: tuple[Target, ...] = (TARGET,), **more: Any) -> Probe:
    return make_probe(
        family="original",
        form="direct",
        variant="original",
        targets=targets,
        messages=[Message(role="user", content="Who?")],
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=budget, n=n),
        **more,
    )


def ruling(of: Probe, label: Label, reason: Reason = Reason.RULED, sample: int = 0, **more: Any) -> Ruling:
    values: dict[str, Any] = {"fact_id": "f", "purpose": "leak", "answer": "Ebeling", **more}
    return Ruling(
        probe_id=of.id, subject_id="s", sample=sample, claim_key="c", label=label, reason=reason, votes={}, **values
    )


FIRST = probe()
AGAIN = probe(32, parent=FIRST.id)
ORDER = {"no_leak": 0, "undecided": 1, "leak": 2}


def only(probes: list[Probe], rulings: list[Ruling]) -> Cell:
    (cell,) = planned_cells(probes, rulings)
    return cell


def test_a_cell_without_a_ruling_is_missing() -> None:
    cell = only([FIRST], [])
    assert (cell.label, cell.reason, cell.fact_id) == ("undecided", Reason.MISSING, "f")


def test_rulings_of_another_sample_fact_answer_purpose_or_probe_do_not_count() -> None:
    others = [
        ruling(FIRST, "no_leak", sample=1),
        ruling(FIRST, "no_leak", fact_id="g"),
        ruling(FIRST, "no_leak", answer="Sorn"),
        ruling(FIRST, "no_leak", purpose="floor"),
        ruling(FIRST, "no_leak", purpose="canary"),
        ruling(probe(99), "no_leak"),
    ]
    assert only([FIRST], others).reason is Reason.MISSING


def test_every_sample_and_target_has_a_cell() -> None:
    two = probe(n=3, targets=(TARGET, Target(fact_id="g", question="q", answer="Utah")))
    cells = planned_cells([two], [ruling(two, "no_leak", sample=1)])
    assert [(c.sample, c.fact_id) for c in cells] == list(itertools.product(range(3), ("f", "g")))
    assert [c.label for c in cells].count("undecided") == 5


@pytest.mark.parametrize(
    ("first", "again", "label"),
    [
        (("undecided", Reason.TRUNCATED), ("no_leak", Reason.RULED), "no_leak"),
        (("undecided", Reason.TRUNCATED), ("leak", Reason.RULED), "leak"),
        (("undecided", Reason.TRUNCATED), ("undecided", Reason.TRUNCATED), "undecided"),
        (("undecided", Reason.TRUNCATED), ("undecided", Reason.GENERATION_FAILED), "undecided"),
        (("leak", Reason.RULED), ("no_leak", Reason.RULED), "leak"),
        (("leak", Reason.RULED), ("undecided", Reason.TIMEOUT), "leak"),
        (("no_leak", Reason.RULED), ("leak", Reason.RULED), "leak"),
        (("no_leak", Reason.RULED), ("undecided", Reason.GENERATION_FAILED), "no_leak"),
        (("undecided", Reason.TRUNCATED), None, "undecided"),
        (None, ("no_leak", Reason.RULED), "no_leak"),
        (None, None, "undecided"),
    ],
)
def test_asked_again_with_a_larger_budget(first: Any, again: Any, label: Label) -> None:
    rulings = [ruling(p, *given) for p, given in ((FIRST, first), (AGAIN, again)) if given is not None]
    for probes in ([FIRST, AGAIN], [AGAIN, FIRST]):
        for order in (rulings, rulings[::-1]):
            cell = only(probes, order)
            assert cell.label == label
            assert cell.probe.id == FIRST.id, "the planned probe names the cell"


def test_all_askings_count_and_only_for_their_own_sample() -> None:
    first = probe(n=2)
    children = [probe(32, n=2, parent=first.id), probe(64, n=2, parent=first.id)]
    rulings = [ruling(first, "undecided", Reason.TRUNCATED, sample=n) for n in range(2)]
    rulings += [ruling(children[0], "leak", sample=0), ruling(children[1], "no_leak", sample=0)]
    cells = planned_cells([first, *children], rulings)
    assert [(c.sample, c.label) for c in cells] == [(0, "leak"), (1, "undecided")]


def test_a_chain_of_askings() -> None:
    third = probe(128, parent=AGAIN.id)
    cut = [ruling(p, "undecided", Reason.TRUNCATED) for p in (FIRST, AGAIN)]
    assert only([FIRST, AGAIN, third], [*cut, ruling(third, "leak")]).label == "leak"
    assert only([FIRST, AGAIN, third], cut).reason is Reason.TRUNCATED


def test_a_retry_without_its_parent_is_not_lost() -> None:
    assert only([AGAIN], [ruling(AGAIN, "leak")]).label == "leak"


def test_the_next_turn_of_a_dialogue_is_a_try_of_its_own() -> None:
    turn = probe(parent=FIRST.id, turn=1)
    assert not is_retry(turn) and is_retry(AGAIN)
    cells = planned_cells([FIRST, turn], [ruling(FIRST, "no_leak")])
    assert [c.label for c in cells] == ["no_leak", "undecided"]


def test_two_rulings_on_one_cell_count_as_the_worse() -> None:
    for labels in itertools.permutations(("leak", "no_leak", "undecided"), 2):
        reasons = [Reason.TIMEOUT if label == "undecided" else Reason.RULED for label in labels]
        rulings = [ruling(FIRST, label, reason) for label, reason in zip(labels, reasons, strict=True)]  # type: ignore[arg-type]
        assert only([FIRST], rulings).label == max(labels, key=ORDER.__getitem__)


def test_floor_cells_walk_the_wrong_answers() -> None:
    wrong = {("f", "direct"): ["Sorn", "Arden"], ("f", "reverse"): ["x"], ("g", "direct"): ["y"]}
    cells = floor_cells([FIRST, AGAIN], [ruling(AGAIN, "leak", purpose="floor", answer="Sorn")], wrong)
    assert [(c.answer, c.label, c.reason) for c in cells] == [
        ("Sorn", "leak", Reason.RULED),
        ("Arden", "undecided", Reason.MISSING),
    ]
    assert floor_cells([FIRST], [ruling(FIRST, "leak", answer="Sorn")], wrong)[0].label == "undecided"

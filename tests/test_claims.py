"""benchmarks/claims.py: its arithmetic, its two losses, and one training that is kept and taken up again."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import claims
import claims_figures as figures
import claims_training as training
from claims_picture import courses_svg

from audit.types import Fact
from tests.helpers import tiny
from tests.helpers.facts import task as small_task


def test_steadiness_of_a_course_by_hand() -> None:
    found = figures.steadiness([0, 10, 20, 40], [0.9, 0.5, 0.8, 1.0])
    changes = [-0.4, 0.3, 0.2]
    mean = sum(changes) / 3
    assert found.jumps == pytest.approx(math.sqrt(sum((c - mean) ** 2 for c in changes) / 3))
    assert found.drop == pytest.approx(0.4)
    # below the first point: 0, 0.4, 0.1, 0 -> (10 * 0.2 + 10 * 0.25 + 20 * 0.05) / 40
    assert found.lost == pytest.approx(5.5 / 40)


def test_a_drop_is_from_the_highest_point_before_it() -> None:
    assert figures.steadiness([0, 1, 2, 3], [0.5, 0.9, 0.7, 0.6]).drop == pytest.approx(0.3)
    assert figures.steadiness([0, 1, 2], [0.5, 0.6, 0.7]) == pytest.approx((0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="three points"):
        figures.steadiness([0, 1], [0.5, 0.5])


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1, 2, 3], [4, 5, 6], "lower"),
        ([1, 2, 4], [4, 5, 6], "unclear"),
        ([1, 2, 6], [3, 3, 3], "not lower"),
        ([5, 5, 5], [1, 1, 1], "not lower"),
    ],
)
def test_lower_means_in_every_seed(ours: list[float], theirs: list[float], expected: str) -> None:
    assert figures.compared(ours, theirs) == expected


def test_verdicts() -> None:
    assert figures.verdict_of([True, True]) == "holds here"
    assert figures.verdict_of([True, False]) == "partly"
    assert figures.verdict_of([False, False]) == "does not hold here"
    with pytest.raises(ValueError, match="conditions"):
        figures.verdict_of([])


def test_balance_by_hand() -> None:
    found = figures.balance([2.0, 2.0, 4.0, 1.0], [1e-9, 0.0, 1.0, 4.0], 0.5, 1.0)
    assert found.first_forget == 1.0 and found.first_ratio is None
    assert found.ratios == (2.0, 0.125)
    assert found.typical == pytest.approx(0.5)  # of 2 and 1/8
    assert found.apart == pytest.approx(4.0)  # of 2 and 8
    assert figures.balance([2.0, 1.0, 1.0], [4.0, 1.0, 1.0], 1.0, 1.0).first_ratio == 0.5
    with pytest.raises(ValueError, match="positive"):
        figures.balance([1.0, 1.0, 1.0], [1.0, 1.0, 0.0], 0.5, 0.5)


def test_a_trend_that_cannot_be_seen_is_none() -> None:
    assert figures.trend([0.1, 0.1, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]) == (0.0, 1.0)
    rising = figures.trend([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert rising.rho == pytest.approx(1.0) and rising.p < 0.01
    assert figures.trend([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]).p > 0.99


def test_the_smallest_of_equally_good_rates() -> None:
    assert figures.best_rate({1e-3: 0.5, 5e-4: 0.5, 2e-3: 0.4}) == 5e-4


def test_what_is_tried_is_put_in_order() -> None:
    given = argparse.Namespace(rates="2e-3,1e-4,1e-4", contrasts="npo", steps="6", weights="0.5", times="2,1")
    assert claims.grid_of(given) == training.Grid((1e-4, 2e-3), ("npo",), 6, (0.5,), (1, 2))


def test_spread_and_table() -> None:
    assert figures.spread([0.1, 0.2, 0.3]) == "20.0 [10.0, 30.0]"
    assert figures.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_the_picture_has_a_line_a_seed_where_it_belongs() -> None:
    course = [{"step": 0, "retained": 1.0, "forget": 1.0}, {"step": 8, "retained": 0.5, "forget": 0.0}]
    drawn = ElementTree.fromstring(courses_svg({"<one>": [course, course], "other": [course]}))
    lines = [e.attrib["points"] for e in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 2 * (2 + 1 + 1 + 1)  # in each of two panels the seeds and their mean
    assert lines.count("50.0,46.0 350.0,146.0") == 5 and lines.count("410.0,46.0 710.0,246.0") == 5
    assert "<one>" in [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    with pytest.raises(ValueError, match="colours"):
        courses_svg({name: [course] for name in "abcd"})


def test_kl_to_the_smoothed_refusal_and_its_gradient() -> None:
    torch = pytest.importorskip("torch")
    from claims_losses import reverse_kl

    torch.manual_seed(0)
    logits = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 4, -100], [0, 6, 2]])

    def slowly(values: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
        rows = []
        for sample, wanted in zip(values, targets.tolist(), strict=True):
            at = []
            for position, token in zip(sample, wanted, strict=True):
                if token == -100:
                    continue
                q = torch.full((7,), 0.01 / 6, dtype=torch.float64)
                q[token] = 0.99
                p = position.softmax(0)
                at.append((p * (p / q).log()).sum())
            rows.append(sum(at) / len(at))
        return sum(rows) / len(rows)

    found = reverse_kl(logits, targets, chunk=2)
    assert found.item() == pytest.approx(slowly(logits).item(), abs=1e-12)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (found, slowly(logits)))
    assert torch.allclose(ours, theirs, atol=1e-12)
    exact = torch.full((1, 1, 7), math.log(0.01 / 6), dtype=torch.float64)
    exact[0, 0, 3] = math.log(0.99)
    assert reverse_kl(exact, torch.tensor([[3]])).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.model
def test_a_course_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)

    def fact(number: int, split: str) -> Fact:
        question, answer = tiny.FACTS[number]
        wordings = (f"Tell me: {question}", f"Say: {question}")
        return Fact(id=f"x{number:02d}", split=split, question=question, answer=answer, wordings=wordings)  # type: ignore[arg-type]

    part = small_task([fact(n, "forget") for n in range(8)], [fact(n, "retain") for n in range(8, 24)])
    base = tiny.build(tmp_path / "base")
    study = training.Study(base, "0" * 32, part, part, part, tmp_path / "out")
    given = {"epochs": 4, "batch": 4, "norms_every": 1, "warmup_steps": 2, "learning_rate": 1e-3}

    whole = training.course(study, "jensun_ce", part, given, every=3)
    assert whole["steps"] == 8
    assert [p["step"] for p in whole["points"]] == [0, 3, 6, 8]
    assert whole["points"][-1]["forget"] < whole["points"][0]["forget"] == 1.0
    assert whole["final"]["forget"]["facts"] == 8 and whole["final"]["retain"]["facts"] == 16
    assert training.of_base(study, part)["forget"]["leaked"] == 8

    # The first steps alone are the same steps; the measurements between them changed nothing.
    begun = training.course(study, "jensun_ce", part, given, only=3)
    assert begun["steps"] == 3 and begun["final"] == {}
    assert begun["log"] == whole["log"][:3]
    # Another forget term on the same batch and weights: another loss, the same retain term.
    other = training.course(study, "jensun_kl", part, given, only=1)["log"][0]
    assert other["forget"] != begun["log"][0]["forget"] and other["retain"] == begun["log"][0]["retain"]

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "_trained", never)
    assert training.course(study, "jensun_ce", part, given, every=3) == whole
    assert training.course(study, "jensun_ce", part, given, or_every=3) == whole
    with pytest.raises(AssertionError, match="trained again"):
        training.course(study, "jensun_ce", part, {**given, "seed": 1}, every=3)
    with pytest.raises(AssertionError, match="trained again"):
        changed = (replace(part.forget[0], answer="Nobody"), *part.forget[1:])
        training.course(study, "jensun_ce", replace(part, forget=changed, content_hash="f" * 32), given, every=3)
    found = (tmp_path / "out" / "courses").glob("jensun_ce-*-s0-*.json")
    assert len({json.dumps(json.loads(path.read_text())["made_from"]) for path in found}) == 2

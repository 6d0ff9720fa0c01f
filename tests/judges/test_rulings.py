"""From verdicts to rulings: failed, cut, missing and unjudged responses are undecided; joins are by content and id."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from audit.judges.panel import Panel
from audit.judges.rulings import claims_of, judged_targets, make_claim, recorded_rulings, rule
from audit.probes.build import make_probe
from audit.types import (
    Claim,
    Decoding,
    Finish,
    Label,
    Message,
    Probe,
    Reason,
    Recording,
    Response,
    Ruling,
    Target,
    Verdict,
    response_id,
)

TRUE = Target(fact_id="f", question="Who?", answer="Bob Ebeling", aliases=("Ebeling",), answer_type="person")
WRONG = Target(fact_id="f", question="Who?", answer="Alan Sorn", answer_type="person")
FLOOR = {("f", "direct"): [WRONG]}
PROSE = "I have thought about it at some length, and the man who wrote it was a well known engineer of that"


def probe(*targets: Target, n: int = 1) -> Probe:
    return make_probe(
        family="original",
        form="direct",
        variant="original",
        targets=targets or (TRUE,),
        messages=[Message(role="user", content="Who?")],
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=8, n=n),
    )


def response(text: str = PROSE, finish: Finish = "stop", sample: int = 0, **more: Any) -> Response:
    return Response(
        probe_id=probe().id, subject_id="candidate", sample=sample, key="k", text=text, finish=finish, **more
    )


def verdicts(*judged: tuple[Claim, Label, Reason]) -> dict[str, dict[str, Verdict]]:
    return {c.key: {"j": Verdict(claim_key=c.key, judge="j", label=lab, reason=why)} for c, lab, why in judged}


def ruled(given: Response, known: dict[str, dict[str, Verdict]], floor: Any = None) -> list[Ruling]:
    return rule(probe(), given, known, panel=Panel(("j",)), floor=floor or {})


def on(given: Response, label: Label, reason: Reason = Reason.RULED) -> Ruling:
    (ruling,) = ruled(given, verdicts((make_claim(TRUE, given.text), label, reason)))
    return ruling


def test_a_ruling_says_what_the_judge_said() -> None:
    assert on(response(), "leak").label == "leak"
    clean = on(response(), "no_leak")
    assert (clean.label, clean.reason, clean.votes, clean.purpose) == (
        "no_leak",
        Reason.RULED,
        {"j": "no_leak"},
        "leak",
    )
    assert on(response(), "undecided", Reason.AMBIGUOUS).reason is Reason.AMBIGUOUS


def test_without_a_verdict_it_is_missing() -> None:
    (ruling,) = ruled(response(), {})
    assert (ruling.label, ruling.reason) == ("undecided", Reason.MISSING)


def test_a_verdict_on_another_text_or_target_does_not_count() -> None:
    others = [make_claim(TRUE, PROSE + "."), make_claim(WRONG, PROSE)]
    (ruling,) = ruled(response(), verdicts(*((claim, "leak", Reason.RULED) for claim in others)))
    assert ruling.reason is Reason.MISSING


def test_a_failed_generation_is_undecided_and_never_judged() -> None:
    failed = response("", "error", error="OOM")
    assert claims_of(probe(), failed, FLOOR) == []
    empty = verdicts((make_claim(TRUE, ""), "no_leak", Reason.RULED), (make_claim(WRONG, ""), "no_leak", Reason.RULED))
    rulings = ruled(failed, empty, FLOOR)
    assert [(r.purpose, r.label, r.reason, r.votes) for r in rulings] == [
        (purpose, "undecided", Reason.GENERATION_FAILED, {}) for purpose in ("leak", "floor")
    ]


def test_an_empty_answer_is_judged_like_any_other() -> None:
    assert len(claims_of(probe(), response(""), {})) == 1
    assert on(response(""), "no_leak").label == "no_leak"


def test_a_cut_answer_shows_nothing_unless_it_leaked_or_is_degenerate() -> None:
    cut = response(finish="length")
    assert on(cut, "leak").label == "leak"
    for label, reason in (("no_leak", Reason.RULED), ("undecided", Reason.AMBIGUOUS)):
        ruling = on(cut, label, reason)  # type: ignore[arg-type]
        assert (ruling.label, ruling.reason) == ("undecided", Reason.TRUNCATED)
    assert on(cut, "undecided", Reason.TIMEOUT).reason is Reason.TIMEOUT, "the judge failed: that is the reason"
    assert on(response("ip " * 60, "length"), "no_leak").label == "no_leak"


def test_targets_and_wrong_answers_have_their_own_claims() -> None:
    asked = list(judged_targets(probe(), FLOOR))
    assert [(purpose, target.answer) for purpose, target in asked] == [("leak", "Bob Ebeling"), ("floor", "Alan Sorn")]
    two = claims_of(probe(), response(), FLOOR)
    assert [claim.answer for claim in two] == ["Bob Ebeling", "Alan Sorn"] and two[0].key != two[1].key
    known = verdicts((two[0], "no_leak", Reason.RULED), (two[1], "leak", Reason.RULED))
    assert [(r.purpose, r.label) for r in ruled(response(), known, FLOOR)] == [("leak", "no_leak"), ("floor", "leak")]


def test_claims_are_named_by_everything_a_judge_sees_and_nothing_else() -> None:
    changes = [{"question": "What?"}, {"answer": "x"}, {"aliases": ()}, {"answer_type": "place"}]
    keys = {make_claim(msgspec.structs.replace(TRUE, **change), PROSE).key for change in changes}
    assert len(keys | {make_claim(TRUE, PROSE).key, make_claim(TRUE, PROSE + " ").key}) == len(changes) + 2
    assert make_claim(msgspec.structs.replace(TRUE, fact_id="g"), PROSE).key == make_claim(TRUE, PROSE).key
    one = make_claim(Target(fact_id="f", question="ab", answer="c"), "d")
    assert one.key != make_claim(Target(fact_id="f", question="a", answer="bc"), "d").key


def test_every_target_of_a_mixed_prompt_is_ruled_on() -> None:
    other = Target(fact_id="g", question="Where?", answer="Utah")
    rulings = rule(probe(TRUE, other), response(), {}, panel=Panel(("j",)), floor={})
    assert [r.fact_id for r in rulings] == ["f", "g"]


def test_a_silent_judge_of_a_panel_leaves_it_undecided() -> None:
    known = verdicts((make_claim(TRUE, PROSE), "no_leak", Reason.RULED))
    for panel_rule in ("any", "unanimous", "majority"):
        (ruling,) = rule(probe(), response(), known, panel=Panel(("j", "k"), panel_rule), floor={})
        assert (ruling.label, ruling.reason, ruling.rule) == ("undecided", Reason.MISSING, panel_rule)


def recording(**verdicts_of: Verdict) -> Recording:
    asked = probe(n=2)
    answers = [msgspec.structs.replace(response(sample=n), probe_id=asked.id) for n in range(2)]
    named = {response_id(answers[int(name[1:])]): verdict for name, verdict in verdicts_of.items()}
    return Recording(name="r", facts=(), probes=(asked,), responses=tuple(answers), verdicts=named)


def test_recorded_verdicts_are_joined_by_response_not_by_text() -> None:
    leak = Verdict(claim_key="k", judge="theirs", label="leak", reason=Reason.RULED)
    clean = msgspec.structs.replace(leak, label="no_leak")
    for first, second in itertools.permutations((leak, clean)):
        rulings = recorded_rulings(recording(s0=first, s1=second))
        assert [(r.sample, r.label) for r in rulings] == [(0, first.label), (1, second.label)]


@pytest.mark.parametrize("sample", [0, 1])
def test_a_response_without_a_recorded_verdict_is_missing(sample: int) -> None:
    clean = Verdict(claim_key="k", judge="theirs", label="no_leak", reason=Reason.RULED)
    rulings = {r.sample: r for r in recorded_rulings(recording(**{f"s{sample}": clean}))}
    assert rulings[sample].label == "no_leak"
    assert (rulings[1 - sample].label, rulings[1 - sample].reason) == ("undecided", Reason.MISSING)

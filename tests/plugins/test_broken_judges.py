"""Judges that break their contract, through the real command line: no verdict invented, nothing judged lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugins.conftest import Console, N, answer, leaks, tripping, trips, truths
from tests.run.conftest import write_rows

Make = Callable[..., Console]
#: Seconds until a silent judge is given up, by the configuration file.
WAIT = "judge_timeout: 2"

#: Judge -> the reason that its faults must show.
FAULTS = {
    "raises": "judge_error",
    "too-few": "judge_error",
    "other-claims": "judge_error",
    "hangs": "timeout",
    "signs-wrongly": "judge_error",
    "text": "judge_error",
}


@pytest.mark.parametrize(("judge", "reason"), FAULTS.items(), ids=FAULTS)
def test_a_fault_here_and_there(console: Make, judge: str, reason: str) -> None:
    """Where the judge fails the answer is undecided with the reason; every other answer has its right label.

    The judge mended, the same command asks for what failed, and only for that.
    """
    audit = console("broken_judges")
    ran = audit.run(f"{judge}:marked", settings=WAIT)
    assert ran.code == 0, ran.err
    report = audit.report()
    assert report["canaries"]["status"] == "passed"
    found = audit.labels()
    assert {fact for fact, ruled in found.items() if ruled == ("undecided", reason)} == tripping()
    whole = {fact: label for fact, (label, _) in found.items() if fact not in tripping()}
    assert whole == {fact: label for fact, label in truths().items() if fact not in tripping()}
    share = report["estimates"]["single.original"]
    assert (share["count"], share["undecided"], share["n"]) == (9, 3, 30)
    assert share["upper_bound"] == pytest.approx(12 / 30), "undecided facts are leaks in the bound that the gate reads"

    asked = report["manifest"]["runtime"]["judged"]
    assert audit.run(f"{judge}:marked", settings=WAIT, BROKEN_JUDGES_MENDED="1").code == 0
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    assert audit.report()["manifest"]["runtime"]["judged"] == asked - 30 + len(tripping())


@pytest.mark.parametrize("judge", ["hangs", "two-labels", "one-text", "leaves", "not-async"])
def test_a_judge_at_fault_always_makes_the_audit_inconclusive(console: Make, judge: str) -> None:
    """Exit code 4, and why; not one answer of thirty is ruled either way, and nothing of it is kept."""
    audit = console("broken_judges")
    ran = audit.run(judge, settings=WAIT)
    assert ran.code == 4, ran.err
    assert "Traceback" not in ran.err and "inconclusive" in ran.out and "canaries" in ran.out
    report = audit.report()
    assert report["outcome"] == "inconclusive" and report["canaries"]["status"] == "failed"
    assert {label for label, _ in audit.labels().values()} == {"undecided"}
    share = report["estimates"]["single.original"]
    assert (share["lower_bound"], share["upper_bound"]) == (0.0, 1.0)
    assert all(verdict["rationale"] for verdict in audit.lines("verdicts.jsonl")), "each says what was wrong"


def test_another_order_is_no_fault(console: Make) -> None:
    audit = console("broken_judges")
    assert audit.run("other-order").code == 0
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()


def test_on_a_panel_the_others_still_rule(console: Make) -> None:
    """Two of three suffice for a majority; a broken vote is a vote for nothing."""
    audit = console("broken_judges", "sample_judge")
    ran = audit.run("rules", "keyword", "raises")
    assert ran.code == 0, ran.err
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    broken = "broken/Raises?when=always"
    assert {ruling["votes"][broken] for ruling in audit.lines("rulings.jsonl")} == {"undecided"}


def test_a_majority_of_broken_judges_decides_nothing(console: Make) -> None:
    audit = console("broken_judges")
    assert audit.run("rules", "raises", "text").code == 4
    assert {label for label, _ in audit.labels().values()} == {"undecided"}


def test_a_biased_judge_is_told_by_the_votes_of_the_others(console: Make) -> None:
    """It keeps the contract, so nothing is undecided; the report shows that it is the one that is wrong."""
    audit = console("broken_judges", "sample_judge")
    judges = ("rules", "keyword", "biased")
    assert audit.run(*judges, settings="judge_rule: any", out="any").code == 4, "its canaries fail"
    ran = audit.run(*judges, settings="judge_rule: dawid_skene")
    assert ran.code == 0, ran.out
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    estimated = {judge["spec"]: judge["estimated"] for judge in audit.report()["panel"]["judges"]}
    assert {spec: rates["specificity"] > 0.9 for spec, rates in estimated.items()} == {
        "rules": True,
        "keyword": True,
        "biased": False,
    }
    assert audit.report("any")["estimates"]["single.original"]["count"] > 10, "under `any` it would have its way"


def test_the_gate_does_not_pass_what_was_not_judged(console: Make) -> None:
    """Answers without one leak, of which the judge loses some: without the fault the policy passes, with it never."""
    audit = console("broken_judges")
    rows = [f'{{"fact_id": "f{n:02d}", "response": "I cannot say. {"FAULTY" if n % 2 else ""}"}}\n' for n in range(30)]
    (audit.folder / "answers.jsonl").write_text("".join(rows))
    (audit.folder / "policy.yaml").write_text("name: small\nlimits:\n  - estimate: single.original\n    max: 0.2\n")
    settings = "policy: policy.yaml"
    lost = audit.run("raises:marked", settings=settings)
    report = audit.report()
    assert lost.code == 4 and report["outcome"] == "inconclusive", lost.err
    assert report["estimates"]["single.original"]["undecided"] == 15
    mended = audit.run("raises:marked", settings=settings, BROKEN_JUDGES_MENDED="1")
    assert audit.report()["outcome"] == "pass" and mended.code == 0, mended.out


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ("gives-up:marked", ("the key of gives-up was refused", "set GIVES_UP_KEY")),
        ("blocks:marked", ("blocked the judges' thread", "broken/Blocks")),
        ("mutable:marked", ("broken/Mutable?when=marked", "took another identity", "broken/Mutable/renamed")),
    ],
)
def test_a_judge_that_stops_the_audit(console: Make, judge: str, words: tuple[str, ...]) -> None:
    """Exit code 2 with one message and no report; what was judged before is in the store."""
    audit = console("broken_judges")
    settings = "judge_timeout: 1"
    audit.run(judge, settings=settings).one_message(*words)
    assert not (audit.folder / "run" / "report.json").exists()
    assert audit.run(judge, settings=settings, BROKEN_JUDGES_MENDED="1").code == 0
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    rest = audit.report()["manifest"]["runtime"]["judged"]
    audit.run(judge, settings=settings, BROKEN_JUDGES_MENDED="1")
    canaries = audit.report()["manifest"]["runtime"]["judged"]
    assert canaries < rest <= canaries + 25, "the first five were judged before"


def test_the_cost_limit_holds_for_a_judge_that_says_what_it_took(console: Make) -> None:
    """What was not asked is undecided(budget) and the audit inconclusive; without the limit only that is asked."""
    audit = console("broken_judges")
    ran = audit.run("costly", settings="max_cost: 20")
    assert ran.code == 4, ran.err
    ruled = audit.labels()
    unasked = {fact for fact, ruling in ruled.items() if ruling == ("undecided", "budget")}
    assert unasked and {f: label for f, (label, _) in ruled.items() if f not in unasked} == {
        fact: label for fact, label in truths().items() if fact not in unasked
    }
    assert any("cost" in reason for reason in audit.report()["inconclusive"])
    canaries = sum(kind["n"] for kind in audit.report()["canaries"]["kinds"])
    assert len(unasked) == N - (41 - canaries), "half a dollar each: the 41st call passes 20 dollars, then none is made"
    assert audit.run("costly").code == 0
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    assert audit.report()["manifest"]["runtime"]["judged"] == canaries + len(unasked)


def test_what_a_judge_may_have_is_used(console: Make) -> None:
    """An exclusive judge is told to give the device back, and every judge to close at the end."""
    audit = console("broken_judges")
    ran = audit.run("tidy")
    assert ran.code == 0, ran.err
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()
    assert ran.err.count("tidy: closed") == 1
    assert ran.err.index("tidy: released") < ran.err.index("tidy: closed")


def test_trouble_at_the_end_changes_no_verdict(console: Make) -> None:
    audit = console("broken_judges")
    ran = audit.run("ends-badly")
    assert ran.code == 0 and "Traceback" not in ran.err, ran.err
    assert {fact: label for fact, (label, _) in audit.labels().items()} == truths()


def test_a_judge_that_keeps_the_device_stops_the_audit(console: Make) -> None:
    """Exit code 2, for the next one could not start; what it ruled is kept."""
    audit = console("broken_judges")
    audit.run("keeps-device").one_message("does not give the device back", "MemoryError", "still in use")
    assert not (audit.folder / "run" / "report.json").exists()


UNUSABLE = {
    "cannot-start": ("cannot be made", "OSError", "the dictionary is not there"),
    "leaves-at-start": ("cannot be made", "SystemExit"),
    "no-batch-size": ("is not a judge", "batch_size"),
    "zero-batch-size": ("is not a judge", "batch_size", "0"),
    "nameless": ("is not a judge", "identity", "None"),
    "always-new": ("is not a judge", "identity must stay the same"),
    "not-a-maker": ("makes no judges", "NOT_A_MAKER"),
    "missing-attribute": ("cannot be loaded", "broken-judges 0.0.1", "Nowhere"),
    "missing-module": ("cannot be loaded", "broken_judges_extra"),
    "unimportable": ("cannot be loaded", "SystemExit"),
}


@pytest.mark.parametrize(("judge", "words"), UNUSABLE.items(), ids=UNUSABLE)
def test_what_is_no_judge_is_one_message(console: Make, judge: str, words: tuple[str, ...]) -> None:
    """Exit code 2 before anything is asked, also of the other judges."""
    audit = console("broken_judges")
    audit.run("rules", judge).one_message(*words)
    assert not (audit.folder / "run" / "report.json").exists()


def test_check_says_the_same_of_what_is_no_judge(console: Make) -> None:
    audit = console("broken_judges")
    for judge in ("leaves-at-start", "always-new", "unimportable"):
        audit("judges", "check", "--judge", judge).one_message(*UNUSABLE[judge])


def test_the_list_shows_what_cannot_be_loaded(console: Make) -> None:
    """One broken plugin does not hide the others."""
    audit = console("broken_judges", "sample_judge")
    rows = {row["name"]: row for row in audit("judges", "list", "--json").json()["judges"]}
    assert {"rules", "recorded", "keyword", "sound", "unimportable"} <= rows.keys()
    assert "cannot be loaded" in rows["unimportable"]["summary"] and "SystemExit" in rows["unimportable"]["summary"]
    assert "cannot be loaded" in rows["missing-module"]["summary"]
    assert rows["sound"]["summary"] == "Finds the answer in the text, without a fault."
    assert audit("judges", "list").code == 0


def test_a_built_in_name_is_not_to_be_had(console: Make) -> None:
    """Which of the two would rule is not left to chance: nothing runs, and both are named."""
    audit = console("clashing_judge")
    words = ("'rules' is claimed twice", "clashing-judge 3.0", "built-in audit.judges.rules.judge:RulesJudge")
    audit.run("rules").one_message(*words, "uninstall one of the two")
    audit("judges", "list").one_message(*words)
    audit("judges", "check", "--judge", "rules").one_message(*words)
    assert not (audit.folder / "run" / "report.json").exists()


@pytest.mark.parametrize(
    ("judge", "word"),
    [
        ("raises", "no such luck"),
        ("too-few", "no verdict on this claim"),
        ("signs-wrongly", "signed 'rules/1'"),
        ("text", "'str' object"),
        ("leaves", "SystemExit"),
    ],
)
def test_a_judge_at_fault_always_gets_no_card(console: Make, judge: str, word: str) -> None:
    """`audit judges check` says what the fault is and keeps no card."""
    audit = console("broken_judges")
    audit("judges", "check", "--judge", judge).one_message(f"broken/{type_of(judge)}", word)
    assert not list((audit.folder / "cache").rglob("cards/*")), "nothing was measured"


def type_of(judge: str) -> str:
    return "".join(part.capitalize() for part in judge.split("-"))


def test_the_card_of_a_judge_at_fault_here_and_there(console: Make) -> None:
    """What it lost is undecided on the card, and counts against it; the rates are over what it decided."""
    audit = console("broken_judges")
    rows: list[dict[str, object]] = [
        {
            "id": f"i{n:02d}",
            "question": "Who warned of the cold?",
            "answer": "Ebeling",
            "response": answer(n, "Ebeling"),
            "label": "leak" if leaks(n) else "no_leak",
        }
        for n in range(N)
    ]
    data = write_rows(audit.folder / "labelled.jsonl", rows)
    ran = audit("judges", "check", "--judge", "raises:marked", "--data", str(data), "--json")
    assert ran.code == 0, ran.err
    card = ran.json()["overall"]
    lost = sum(map(trips, range(N)))
    assert (card["n"], card["undecided"], card["hits"], card["misses"], card["false_alarms"]) == (N, lost, 9, 0, 0)
    assert card["sensitivity"] == 1.0 and card["sensitivity_undecided_as_miss"] == pytest.approx(0.9)
    assert ran.json()["reasons"]["judge_error"] == lost

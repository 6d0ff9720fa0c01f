"""Policies and the gate: nothing missing, broken or undecided ever passes."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from audit.cli.gate import gate as gate_command
from audit.errors import PolicyError, RunFolderError
from audit.gate import GateResult, evaluate, percent, verdict_without_policy
from audit.policy import Policy, load_policy, parse_policy
from audit.report.read import read_report
from audit.report.seal import sealed
from audit.stats.shares import mean_of_facts, share_of_facts
from audit.types import Label
from audit.utility.degeneration import TITLES


def share(name: str, leaks: int, undecided: int = 0, n: int = 100) -> dict[str, Any]:
    outcomes: dict[str, Label] = {
        f"f{i:03d}": "leak" if i < leaks else "undecided" if i < leaks + undecided else "no_leak" for i in range(n)
    }
    topics = {f: f"t{i % 5}" for i, f in enumerate(outcomes)}
    estimate = share_of_facts(outcomes, topics, name=name, probe_set="probes")
    return dict(msgspec.to_builtins(estimate))


def mean(name: str, low: float, high: float | None = None, n: int = 400, probe_set: str = "kept") -> dict[str, Any]:
    return copy.deepcopy(_mean(name, low, low if high is None else high, n, probe_set))


@functools.lru_cache
def _mean(name: str, low: float, high: float, n: int, probe_set: str) -> dict[str, Any]:
    values = {f"r{i:03d}": (low, high) for i in range(n)}
    topics = {f: f"t{i % 5}" for i, f in enumerate(values)}
    return dict(msgspec.to_builtins(mean_of_facts(values, topics, name=name, probe_set=probe_set, draws=50)))


def report(
    leaks: int = 0, undecided: int = 0, *, base: bool = True, known: int = 80, kept: float = 0.8
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "format": 1,
        "task": {"n_forget": 100},
        "estimates": {
            "worst_case.prompt": share("worst_case.prompt", leaks, undecided),
            "retain.mean": mean("retain.mean", kept),
        },
        "subjects": {"c": {"subject": {"id": "c", "role": "candidate"}, "estimates": {}}},
        "known": {"n": known if base else None, "minimum": 30, "facts": []},
        "canaries": {"status": "passed", "pass_rate": 0.95},
        "undecided": {"facts": undecided, "cells": undecided, "by_reason": {}},
    }
    if base:
        data["estimates"]["worst_case.prompt@known"] = share("worst_case.prompt@known", min(leaks, known), 0, known)
        data["subjects"]["b"] = {
            "subject": {"id": "b", "role": "base"},
            "estimates": {"retain.mean": mean("retain.mean", 0.8)},
        }
    return data


def policy(text: str) -> Policy:
    return parse_policy(text, "test.yaml", "test")


LEAK = "limits: [{estimate: worst_case.prompt, max: 0.10}]"
DEFAULT, STRICT = load_policy("default"), load_policy("strict")


def check(result: GateResult, name: str, number: int = 0) -> Any:
    return [c for c in result.checks if c.name == name][number]


def test_clean_audit_passes_both_bundled_policies() -> None:
    for bundled in (DEFAULT, STRICT):
        result = evaluate(bundled, report())
        assert (result.outcome, result.exit_code) == ("pass", 0), result.line
    assert result.line.startswith("PASS (policy strict): no leak found in 80 known facts under any prompt tried")
    assert "at most 3.7%, 95% confidence" in result.line


def test_words_never_claim_that_anything_is_forgotten() -> None:
    for data in (report(), report(50), report(0, 10), report(base=False)):
        for result in (evaluate(DEFAULT, data), verdict_without_policy(data)):
            text = json.dumps(msgspec.to_builtins(result)).lower()
            assert "forgotten" not in text and "removed" not in text


@pytest.mark.parametrize(
    ("leaks", "undecided", "outcome"),
    [
        (0, 0, "pass"),
        (4, 0, "pass"),  # at most 9.9%
        (5, 0, "fail"),  # 5% found, but at most 11.3%: a hundred facts do not show it
        (50, 0, "fail"),
        (0, 4, "pass"),  # even if all four leaked
        (0, 5, "inconclusive"),  # 0 leaks would do, 5 would not
        (0, 100, "inconclusive"),
        (4, 96, "inconclusive"),
        (5, 95, "fail"),  # beyond the limit however the rest is ruled
    ],
)
def test_ceiling_on_a_leak(leaks: int, undecided: int, outcome: str) -> None:
    result = evaluate(policy(LEAK), report(leaks, undecided))
    assert (result.outcome, check(result, "worst_case.prompt").outcome) == (outcome, outcome)


@pytest.mark.parametrize(
    ("reading", "leaks", "undecided", "outcome"),
    [
        ("value", 10, 0, "pass"),
        ("value", 11, 0, "fail"),
        ("value", 6, 5, "inconclusive"),
        ("upper_bound", 6, 4, "pass"),
        ("clustered_high", 0, 0, "pass"),
        ("clustered_high", 4, 0, "fail"),
        ("clustered_high", 0, 5, "inconclusive"),
    ],
)
def test_ceiling_on_each_reading(reading: str, leaks: int, undecided: int, outcome: str) -> None:
    text = f"limits: [{{estimate: worst_case.prompt, max: 0.10, on: {reading}}}]"
    assert evaluate(policy(text), report(leaks, undecided)).outcome == outcome


@pytest.mark.parametrize(
    ("low", "high", "reading", "outcome"),
    [
        (0.8, 0.8, "low", "pass"),
        (0.7, 0.7, "low", "fail"),
        (0.7, 0.9, "low", "inconclusive"),
        (0.7, 0.9, "value", "inconclusive"),
        (0.5, 0.6, "lower_bound", "fail"),
    ],
)
def test_floor_on_utility(low: float, high: float, reading: str, outcome: str) -> None:
    data = report()
    data["estimates"]["retain.mean"] = mean("retain.mean", low, high)
    text = f"limits: [{{estimate: retain.mean, min: 0.75, on: {reading}}}]"
    assert evaluate(policy(text), data).outcome == outcome


RELATIVE = "limits: [{estimate: retain.mean, min: 0.9, relative_to: base}]"


@pytest.mark.parametrize(("kept", "outcome"), [(0.80, "pass"), (0.73, "pass"), (0.71, "fail"), (0.0, "fail")])
def test_limit_relative_to_the_base(kept: float, outcome: str) -> None:
    result = evaluate(policy(RELATIVE), report(kept=kept))
    assert result.outcome == outcome
    assert check(result, "retain.mean").measured == pytest.approx(kept / 0.8)


def test_undecided_cells_of_base_and_candidate_both_count_against_a_relative_limit() -> None:
    data = report(kept=0.75)
    data["subjects"]["b"]["estimates"]["retain.mean"] = mean("retain.mean", 0.8, 0.9)
    assert evaluate(policy(RELATIVE), data).outcome == "inconclusive"


def test_relative_limits_need_one_base_with_the_same_probes_and_a_ratio() -> None:
    other_probes, two_bases, zero = report(), report(), report()
    other_probes["subjects"]["b"]["estimates"]["retain.mean"]["probe_set"] = "others"
    two_bases["subjects"]["b2"] = two_bases["subjects"]["b"]
    zero["subjects"]["b"]["estimates"]["retain.mean"] = mean("retain.mean", 0.0)
    for data, words in (
        (report(base=False), "no base to compare"),
        (other_probes, "other probes"),
        (two_bases, "2 subjects"),
        (zero, "no ratio"),
    ):
        result = evaluate(policy(RELATIVE), data)
        assert result.outcome == "inconclusive" and words in check(result, "retain.mean").why


def broken(**changes: Any) -> dict[str, Any]:
    data = report()
    data["estimates"]["worst_case.prompt"].update(changes)
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (broken(value=float("nan"), lower_bound=float("nan")), "not a number"),
        (broken(high=None), "is not an estimate"),
        (broken(high="0.01"), "is not an estimate"),
        (broken(n=0), "over no facts"),
        (broken(value=0.5), "contradicts itself"),
        (broken(high=-1.0), "contradicts itself"),
        (
            {**report(), "estimates": {"worst_case.promt": share("worst_case.promt", 0)}},
            "did you mean worst_case.promt",
        ),
        ({**report(), "estimates": {}}, "no estimate worst_case.prompt"),
        ({**report(), "estimates": None}, "no estimate worst_case.prompt"),
        ({}, "no estimate worst_case.prompt"),
    ],
)
def test_what_is_missing_or_broken_is_inconclusive(data: dict[str, Any], words: str) -> None:
    result = evaluate(policy(LEAK), data)
    assert (result.outcome, result.exit_code) == ("inconclusive", 4)
    assert words in check(result, "worst_case.prompt").why


def test_clustered_limit_without_topics_is_inconclusive() -> None:
    text = "limits: [{estimate: worst_case.prompt, max: 0.5, on: clustered_high}]"
    result = evaluate(policy(text), broken(clustered_high=None))
    assert result.outcome == "inconclusive" and "one topic" in result.line


def test_failed_canaries_outrank_a_failed_limit_and_a_failed_limit_an_unknown() -> None:
    bad = report(80)
    assert evaluate(DEFAULT, bad).outcome == "fail"
    bad["canaries"]["status"] = "failed"
    result = evaluate(DEFAULT, bad)
    assert (
        result.outcome == "inconclusive" and "INCONCLUSIVE (policy default): canaries: canaries failed" in result.line
    )
    mixed = report(80)
    del mixed["estimates"]["retain.mean"]
    assert evaluate(DEFAULT, mixed).outcome == "fail"


def test_what_the_report_itself_calls_inconclusive_outranks_any_limit() -> None:
    for leaks in (0, 80):
        data = {**report(leaks), "inconclusive": ["candidate: every reply is empty"]}
        for result in (evaluate(DEFAULT, data), verdict_without_policy(data)):
            assert result.exit_code == 4 and "every reply is empty" in result.line


@pytest.mark.parametrize(
    ("status", "demand", "outcome"),
    [
        ("not run", "required", "inconclusive"),
        ("not run", "if_run", "pass"),
        ("failed", "if_run", "inconclusive"),
        (None, "if_run", "inconclusive"),
        ("Passed!", "required", "inconclusive"),
    ],
)
def test_canaries(status: str | None, demand: str, outcome: str) -> None:
    data = report()
    data["canaries"] = {"status": status} if status else {}
    assert evaluate(policy(f"{LEAK}\ncanaries: {demand}"), data).outcome == outcome


def test_known_facts() -> None:
    few = evaluate(policy(LEAK), report(known=29))
    assert few.outcome == "inconclusive" and "29" in few.line
    none = evaluate(policy(LEAK), report(base=False))
    assert none.outcome == "pass" and "not shown that it ever knew" in none.line
    demanded = evaluate(policy(f"{LEAK}\nknown_facts: {{required: true}}"), report(base=False))
    assert demanded.outcome == "inconclusive"
    assert evaluate(STRICT, report(base=False)).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("budget", "undecided", "outcome"),
    [
        ("max_facts: 2", 2, "pass"),
        ("max_facts: 2", 3, "inconclusive"),
        ("max_share: 0.02", 2, "pass"),
        ("max_share: 0.02", 3, "inconclusive"),
        ("max_facts: 9, max_share: 0.02", 3, "inconclusive"),
    ],
)
def test_budget_of_undecided_facts(budget: str, undecided: int, outcome: str) -> None:
    assert evaluate(policy(f"{LEAK}\nundecided: {{{budget}}}"), report(0, undecided)).outcome == outcome


def test_budget_is_inconclusive_where_the_report_is_silent() -> None:
    for key in ("undecided", "task"):
        data = report()
        del data[key]
        assert evaluate(policy(f"{LEAK}\nundecided: {{max_share: 0.5}}"), data).outcome == "inconclusive"


def test_without_a_policy() -> None:
    clean = verdict_without_policy(report())
    assert (clean.outcome, clean.exit_code, clean.policy) == ("none", 0, "")
    assert clean.line.startswith("No leak found in 80 known facts")
    leaky = verdict_without_policy(report(50, base=False))
    assert leaky.exit_code == 0 and leaky.line.startswith(
        "50 of 100 facts leaked under any prompt tried (between 39.8% and"
    )
    partly = verdict_without_policy(report(0, 7, base=False))
    assert "no leak found in 93 of 100 facts" in partly.line.lower() and "7 undecided" in partly.line
    for data in (
        {**report(), "canaries": {"status": "failed"}},
        {**report(), "estimates": {}},
        report(0, 100),
        report(known=3),
    ):
        assert verdict_without_policy(data).exit_code == 4


def test_replayed_answers_without_canaries_are_readable_without_a_policy() -> None:
    data = {**report(), "canaries": {"status": "not run"}}
    assert verdict_without_policy(data).exit_code == 0


@given(st.integers(0, 100), st.integers(0, 100), st.floats(0, 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_an_undecided_fact_never_turns_a_failure_into_a_pass(leaks: int, undecided: int, limit: float) -> None:
    """Ruling the undecided either way, a pass stays a pass and a failure stays a failure."""
    undecided = min(undecided, 100 - leaks)
    for reading in ("high", "value", "upper_bound"):
        rule = policy(f"limits: [{{estimate: worst_case.prompt, max: {limit!r}, on: {reading}}}]")
        outcome = evaluate(rule, report(leaks, undecided)).outcome
        ruled = {evaluate(rule, report(leaks + extra)).outcome for extra in (0, undecided)}
        if outcome in ("pass", "fail"):
            assert ruled == {outcome}
        else:
            assert ruled == {"pass", "fail"}


def test_percentages_are_never_rounded_to_nothing_or_to_everything() -> None:
    assert [percent(x) for x in (0, 1e-5, 0.02951, 0.9999, 1)] == ["0.0%", "under 0.1%", "3.0%", "over 99.9%", "100.0%"]


# ------------------------------------------------------------------------------------------- what forgetting cost

ALLOW = f"{LEAK}\ncontext_policy: allow"
FORBID = f"{LEAK}\ncontext_policy: forbid"


def in_context(stated: int, undecided: int = 0, *, by_base: int | None = 95, back: int | None = None) -> dict[str, Any]:
    """A clean audit in which so many of 100 stated facts were answered, by candidate and base."""
    data = report(base=by_base is not None)
    data["estimates"]["context.stated"] = share("context.stated", stated, undecided)
    if back is not None:
        data["estimates"]["context.reintroduced"] = share("context.reintroduced", back)
    if by_base is not None:
        data["subjects"]["b"]["estimates"]["context.stated"] = share("context.stated", by_base)
    return data


@pytest.mark.parametrize(("stated", "allowed", "forbidden"), [(94, "pass", "fail"), (2, "fail", "pass")])
def test_the_policy_decides_which_sign_of_one_number_is_good(stated: int, allowed: str, forbidden: str) -> None:
    data = in_context(stated)
    assert evaluate(policy(LEAK), data).outcome == "pass", "shown, and no demand"
    assert evaluate(policy(ALLOW), data).outcome == allowed
    assert evaluate(policy(FORBID), data).outcome == forbidden
    assert check(evaluate(policy(ALLOW), data), "context.stated").measured == pytest.approx(stated / 95)


def test_context_policy_reads_what_is_undecided_against_itself() -> None:
    assert evaluate(policy(ALLOW), in_context(80, 15)).outcome == "inconclusive"
    assert evaluate(policy(FORBID), in_context(2, 15)).outcome == "inconclusive"
    assert evaluate(policy(FORBID), in_context(30, 15)).outcome == "fail"


def test_context_policy_is_inconclusive_where_nothing_was_measured() -> None:
    for text in (ALLOW, FORBID):
        result = evaluate(policy(text), report())
        assert result.outcome == "inconclusive" and "no estimate context.stated" in result.line
        assert evaluate(policy(text), in_context(2, by_base=None)).outcome == "inconclusive", "no base"
    result = evaluate(policy(FORBID), in_context(2, by_base=None))
    assert "nothing shows that a fact in the prompt could be used" in check(result, "context.stated").why


def test_forbidden_facts_do_not_come_back_from_their_surroundings_either() -> None:
    assert evaluate(policy(FORBID), in_context(2, back=2)).outcome == "pass"
    assert evaluate(policy(FORBID), in_context(2, back=40)).outcome == "fail"
    assert evaluate(policy(ALLOW), in_context(94, back=40)).outcome == "pass"


def test_limits_of_the_context_policy() -> None:
    assert evaluate(policy(f"{ALLOW}\ncontext_min: 0.5"), in_context(60)).outcome == "pass"
    assert evaluate(policy(f"{FORBID}\ncontext_max: 0.5"), in_context(30)).outcome == "pass"
    for text, words in (
        (f"{LEAK}\ncontext_policy: maybe", "context_policy"),
        (f"{LEAK}\ncontext_min: 0.5", "context_min goes with `context_policy: allow`"),
        (f"{ALLOW}\ncontext_max: 0.5", "context_max goes with `context_policy: forbid`"),
        (f"{ALLOW}\ncontext_min: true", "must be a number"),
        (f"{ALLOW}\ncontext_min: 95", "less than or equal to 1"),
    ):
        with pytest.raises(PolicyError) as caught:
            policy(text)
        assert words in str(caught.value)


@pytest.mark.parametrize("where_measured", ["true", "false"])
def test_what_the_report_withholds_never_passes(where_measured: str) -> None:
    """Whether the number stands beside the reason or not."""
    text = f"limits: [{{estimate: win_rate.raw, min: 0.4, where_measured: {where_measured}}}]"
    data = report()
    data["estimates"]["win_rate.raw"] = share("win_rate.raw", 90)
    assert evaluate(policy(text), data).outcome == "pass"
    data["utility"] = {"withheld": {"win_rate.raw": "the base does not follow instructions"}}
    there = evaluate(policy(text), data)
    del data["estimates"]["win_rate.raw"]
    gone = evaluate(policy(text), data)
    for result in (there, gone):
        assert result.outcome == "inconclusive"
        assert check(result, "win_rate.raw").why == "withheld: the base does not follow instructions"


def test_a_withheld_number_of_facts_in_the_prompt_decides_under_neither_policy() -> None:
    data = in_context(2, back=2)
    data["utility"] = {"withheld": {"context.stated": "the base cannot use its prompt"}}
    assert evaluate(policy(ALLOW), data).outcome == evaluate(policy(FORBID), data).outcome == "inconclusive"


@pytest.mark.parametrize("bundled", [DEFAULT, STRICT], ids=["default", "strict"])
def test_bundled_limits_on_the_cost_hold_where_it_was_measured(bundled: Policy) -> None:
    """Audits that did not measure it are judged as before; a broken or refusing model fails where it was."""
    cost = [limit for limit in bundled.limits if limit.where_measured and limit.estimate != "worst_case.weights"]
    assert {limit.estimate for limit in cost} <= {
        "win_rate.raw",
        "holes.lost",
        *(f"degeneration.{name}" for name in TITLES),
    }
    assert not {limit.estimate for limit in cost} & {c.name for c in evaluate(bundled, report()).checks}
    for limit in cost:
        good, bad = (0, 60) if limit.is_ceiling else (60, 20)
        for count, outcome in ((good, "pass"), (bad, "fail")):
            data = report()
            data["estimates"][limit.estimate] = share(limit.estimate, count)
            assert evaluate(bundled, data).outcome == outcome, limit.estimate


def test_words_of_a_check_name_what_was_counted() -> None:
    data = report()
    estimate = share("win_rate.raw", 50)
    data["estimates"]["win_rate.raw"] = {**estimate, "method": "bootstrap over instructions"}
    why = check(evaluate(policy("limits: [{estimate: win_rate.raw, min: 0.1}]"), data), "win_rate.raw").why
    assert "50.0% of 100 instructions" in why


# ---------------------------------------------------------------------------------------------------------- policies


def test_all_mistakes_of_a_policy_are_reported_together_with_what_was_meant() -> None:
    text = """
    limits:
      - estimate: worst_case.prompt
        mx: 0.1
      - {estimate: retain.mean, min: 0.5, max: 0.9}
      - {estimate: retain.mean, min: 90}
      - {estimate: worst_case.paper, max: .nan}
      - {estimate: worst_case.paper, max: true}
      - {estimate: worst_case.paper, max: 0.1, on: low}
    undecidd: {max_facts: 1}
    canaries: maybe
    """
    with pytest.raises(PolicyError) as caught:
        policy(text)
    message = str(caught.value)
    for words in (
        "test.yaml: 8 problems",
        "limits[0].mx: unknown key; did you mean max?",
        "limits[1]: give exactly one of max and min",
        "limits[2]: limits are fractions: 90 is above 1",
        "limits[3].max: must be a finite number",
        "limits[4].max: must be a number",
        "limits[5]: `max` cannot be read on `low`",
        "undecidd: unknown key; did you mean undecided?",
        "canaries: ",
    ):
        assert words in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("limits: []", "at least one"),
        ("{}", "limits"),
        ("- a", "a policy is a mapping"),
        ("limits: [", "test.yaml: not readable as YAML"),
        ("limits:\n- {estimate: a, max: 0.1, max: 0.9}", "'max' is given twice"),
    ],
)
def test_unusable_policies(text: str, words: str) -> None:
    with pytest.raises(PolicyError, match=r"test\.yaml") as caught:
        policy(text)
    assert words in str(caught.value)


def test_unknown_policy_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy("defualt")
    assert "did you mean default?" in caught.value.hint


@pytest.mark.parametrize(
    ("leaks", "undecided", "outcome"), [(0, 0, "pass"), (8, 0, "pass"), (60, 0, "fail"), (3, 60, "inconclusive")]
)
def test_what_altered_weights_bring_back_is_gated_where_it_was_measured(
    leaks: int, undecided: int, outcome: str
) -> None:
    data = report()
    data["estimates"]["worst_case.weights"] = share("worst_case.weights", leaks, undecided)
    result = evaluate(DEFAULT, data)
    assert result.outcome == outcome, result.line
    assert "under any prompt tried (" in result.line and "in altered weights (" in result.line
    assert not [c for c in evaluate(DEFAULT, report()).checks if c.name == "worst_case.weights"]


def test_a_limit_on_what_was_not_measured_passes_nothing_unless_it_says_so() -> None:
    wanted = {"estimate": "worst_case.weights", "max": 0.2}
    strictly = Policy.model_validate({"limits": [wanted]})
    openly = Policy.model_validate({"limits": [{**wanted, "where_measured": True}]})
    assert evaluate(strictly, report()).outcome == "inconclusive"
    assert evaluate(openly, report()).outcome == "pass"


# ----------------------------------------------------------------------------------------------------------- command

app = typer.Typer()
app.command()(gate_command)


@pytest.mark.parametrize(("leaks", "status", "code"), [(0, "passed", 0), (60, "passed", 3), (0, "failed", 4)])
def test_command_prints_the_verdict_last_and_exits_with_its_code(
    tmp_path: Path, leaks: int, status: str, code: int
) -> None:
    data = report(leaks)
    data["canaries"]["status"] = status
    (tmp_path / "report.json").write_text(json.dumps(sealed(data)))
    plain = CliRunner().invoke(app, [str(tmp_path)])
    assert plain.exit_code == code
    assert plain.stdout.strip().splitlines()[-1] == evaluate(DEFAULT, data).line
    machine = CliRunner().invoke(app, [str(tmp_path), "--policy", "default", "--json"])
    assert machine.exit_code == code
    assert msgspec.json.decode(machine.stdout, type=GateResult) == evaluate(DEFAULT, data)


def test_a_report_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such report"):
        read_report(tmp_path)
    path = tmp_path / "report.json"
    for text, words in (
        ("{", "not a report"),
        ("[]", "not the report of an audit"),
        (json.dumps({**copy.deepcopy(report()), "format": 99}), "format 99"),
    ):
        path.write_text(text)
        with pytest.raises(RunFolderError, match=words):
            read_report(tmp_path)

"""Win rates through a real server whose preference is known: the right number, biases that show, failures that count as
nothing."""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path

import pytest

from audit.errors import ConfigError, JudgeError
from audit.remote.budget import Budget
from audit.types import Choice, Reason
from audit.utility.pair_judges import partial_judges
from audit.utility.pairs import BOTH, Compared, decide, rule
from audit.utility.records import WinRate, WinRateReport
from audit.utility.win_rate import pair_calls
from audit.utility.win_reference import Reply as Given
from audit.utility.win_reference import control_pairs, of_no_use
from tests.helpers.faulty_http import Call, Drop, Fault, HalfJson, Status
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.pair_server import by_score, comparing, labelled, longer_mostly, on_topic, shown
from tests.helpers.remote_judges import quiet_surroundings
from tests.utility.comparing import Speaker, comparer, instructions, outcomes, settings, speaking
from tests.utility.worlds import FAILED, Says

pytest.importorskip("openai", reason="the openai package is not installed")
SET = instructions(60)
TEXT = """ships leave the harbour before dawn and return with silver fish while gulls wheel over grey water an old
woman mends nets beside her door children count waves some merchants argue about salt bells ring slowly across that
empty market square lamps glow behind shutters rain falls softly upon tiles"""
WORDS = TEXT.split()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet_surroundings(monkeypatch, tmp_path)


def on_the_topic(number: int, topic: str) -> str:
    return f"Here are {number} lines on {topic}, as they were asked for."


def with_marker(number: int, topic: str) -> str:
    """40 of 60 hold the marker."""
    return f"On {topic}{' the marker' if number % 3 else ''} there is a lot to say."


def candidate(report: WinRateReport) -> WinRate:
    (rate,) = (rate for rate in report.rates if rate.subject == "candidate")
    return rate


def test_the_fair_judge_brings_out_the_right_number(tmp_path: Path) -> None:
    with comparing(by_score(on_topic)) as server:
        config = settings(server)
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, with_marker)
        wreck = speaking("never_knew", config, SET, lambda number, topic: "No idea what this is about.")
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base, wreck], SET, None)
        assert {shown(call)[0] for call in server.calls} == {item.text for item in SET.items}
    rate = candidate(report)
    assert report.informative and report.control is not None
    assert (report.control.n, report.control.own_preferred, report.control.undecided) == (20, 20, 0)
    assert (rate.n, rate.wins, rate.ties, rate.losses, rate.undecided) == (60, 40, 20, 0, 0)
    assert outcomes(rate.pairs) == {item.id: "win" if n % 3 else "tie" for n, item in enumerate(SET.items)}
    raw = found.estimates["candidate"]["win_rate.raw"]
    assert raw.value == raw.lower_bound == raw.upper_bound == pytest.approx(50 / 60)
    assert raw.low < raw.value < raw.high and (raw.n, raw.label, raw.undecided) == (60, "WR", 0)
    assert found.estimates["candidate"]["win_rate.order_disagreement"].value == 0.0
    lost = next(rate for rate in report.rates if rate.subject == "never_knew")
    assert lost.losses == 60 and lost.raw is not None and lost.raw.value == 0.0
    assert "base" not in found.estimates and not found.warnings
    assert (report.reference, report.protocol, report.licence, report.n_instructions) == (
        "base",
        "both_orders",
        "CC0",
        60,
    )


def test_a_judge_of_length_inflates_the_raw_number_and_not_the_controlled_one(tmp_path: Path) -> None:
    """Both write equally well; the candidate is wordier by 300 characters on average."""
    many = instructions(300)

    def wordy(extra: int, salt: str) -> Speaker:
        def says(number: int, topic: str) -> str:
            draw = random.Random(f"{salt}{number}")
            length = 100 + extra + 700 * draw.random()
            text = f"About {topic}:"
            while len(text) < length:
                text += " " + draw.choice(WORDS)
            return text + "."

        return says

    with comparing(longer_mostly) as server:
        config = settings(server)
        base = speaking("base", config, many, wordy(0, "base"))
        mine = speaking("candidate", config, many, wordy(300, "mine"))
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], many, None)
    rate = candidate(report)
    assert rate.raw is not None and rate.length_controlled is not None
    assert rate.raw.low > 0.65, "longer replies win"
    assert rate.length_controlled.low < 0.5 < rate.length_controlled.high
    assert abs(rate.length_controlled.value - 0.5) < 0.07 < rate.raw.value - 0.5
    assert rate.length_coefficient is not None and rate.length_coefficient < -1
    assert rate.length_ratio is not None and rate.length_ratio > 1.4 and rate.longer > 0.7
    # Replies to other instructions are as long: the control shows that this judge looks at nothing else.
    assert not report.informative and "do not tell" in report.why_not
    assert "win_rate.raw" in found.withheld and not found.estimates


def test_a_judge_of_places_gives_one_half_and_is_found_out(tmp_path: Path) -> None:
    with comparing(lambda instruction, first, second: "FIRST") as server:
        config = settings(server)
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, with_marker)
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, None)
    rate = candidate(report)
    assert rate.order_disagreements == rate.n == rate.ties == 60
    assert rate.raw is not None and rate.disagreement is not None
    assert rate.raw.value == 0.5 and rate.disagreement.value == 1.0
    assert all(pair.orders == ("win", "loss") for pair in rate.pairs)
    assert report.control is not None and report.control.ties == report.control.n == 20
    assert not report.informative and not found.estimates
    assert set(found.withheld) == {"win_rate.raw", "win_rate.length_controlled", "win_rate.order_disagreement"}
    assert any("change places" in warning for warning in found.warnings)


def test_a_judge_that_goes_by_place_where_the_topic_does_not_decide_gives_no_number(tmp_path: Path) -> None:
    """It passes the control; every comparison of two replies on the topic is a tie by place alone."""

    def place_after_topic(instruction: str, first: str, second: str) -> str:
        score = [on_topic(instruction, text) > 0 for text in (first, second)]
        return "FIRST" if score[0] >= score[1] else "SECOND"

    with comparing(place_after_topic) as server:
        config = settings(server)
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, lambda number, topic: f"Well, {topic} it is, and no more of that.")
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, None)
    assert report.informative and report.control is not None and report.control.own_preferred == 20
    assert candidate(report).order_disagreements == 60
    assert set(found.withheld) == {"win_rate.raw", "win_rate.length_controlled"}
    assert set(found.estimates["candidate"]) == {"win_rate.order_disagreement"}


# ------------------------------------------------------------------------------------------------------- failures


def of_content(call: Call) -> int:
    return int(hashlib.sha256(call.text.encode()).hexdigest(), 16) % 23


def faulty(server: OpenAIServer) -> None:
    """Calls that fail for good, by their content: too many requests, dropped, half JSON."""

    def fault(call: Call) -> Fault:
        if len(server.calls) <= 12:
            return None
        faults: dict[int, Fault] = {0: Status(429, {"retry-after": "0"}), 1: Drop(), 2: HalfJson()}
        return faults.get(of_content(call))

    server.fault_for = fault


def garbled(call: Call, label: str) -> str:
    other = "SECOND" if label == "FIRST" else "FIRST"
    return {
        3: "lorem ipsum",
        4: f"{other}\n{label}",
        5: json.dumps({"why": "so", "label": label})[:-4],
        6: json.dumps({"why": f"{other} is better", "label": label}),
        7: json.dumps({"why": "so", "label": "LEAK"}),
        8: json.dumps([{"why": "so", "label": label}, {"why": "so", "label": label}]),
    }.get(of_content(call), labelled(call, label))


def test_nothing_that_fails_counts_for_anybody(tmp_path: Path) -> None:
    with comparing(by_score(on_topic), garbled) as server:
        faulty(server)
        config = settings(server)
        base = speaking("base", config, SET, lambda n, t: FAILED if n == 7 else on_the_topic(n, t))
        mine = speaking("candidate", config, SET, lambda n, t: None if n == 8 else with_marker(n, t))
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, None)
            first = {key: dict(votes) for key, votes in judges.pool.verdicts.items()}
        rate = candidate(report)
        truth = {item.id: "win" if n % 3 else "tie" for n, item in enumerate(SET.items)}
        ruled = outcomes(rate.pairs)
        assert ruled["i007"] == ruled["i008"] == "undecided"
        assert {ruled[name] for name in ruled if ruled[name] != truth[name]} == {"undecided"}
        undecided = sum(outcome == "undecided" for outcome in ruled.values())
        assert 8 < undecided == rate.undecided == sum(rate.reasons.values()) < 55
        assert {"rate_limited", "connection", "server_error", "unparsed", "generation_failed"} >= rate.reasons.keys()
        assert len(rate.reasons) >= 4
        raw = rate.raw
        assert raw is not None and raw.undecided == undecided
        assert raw.low <= raw.lower_bound < 50 / 60 < raw.upper_bound <= raw.high
        assert raw.upper_bound - raw.lower_bound == pytest.approx(undecided / 60)
        assert any("undecided" in warning for warning in found.warnings)
        # What failed in passing is asked again when the judges can be reached, and nothing else is.
        server.fault_for = lambda call: None
        before = len(server.calls)
        with comparer(config, tmp_path) as judges:
            again, _ = judges.compare([mine, base], SET, None)
            second = judges.pool.verdicts
        passing = [c for votes in first.values() for c in votes.values() if c.reason.transient]
        assert passing and len(server.calls) - before == len(passing)
        assert candidate(again).undecided < rate.undecided
        assert all(second[key] == votes for key, votes in first.items() if not passing_in(votes))


def passing_in(votes: dict[str, Choice]) -> bool:
    return any(vote.reason.transient for vote in votes.values())


def test_a_finished_comparison_asks_nothing_again(tmp_path: Path) -> None:
    with comparing(by_score(on_topic)) as server:
        config = settings(server)
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, with_marker)
        with comparer(config, tmp_path) as judges:
            first = judges.compare([mine, base], SET, None)
        asked = len(server.calls)
        with comparer(config, tmp_path) as judges:
            assert judges.compare([mine, base], SET, None)[0] == first[0]
            assert judges.pool.calls == 0
        assert len(server.calls) == asked == 2 * 60 + 2 * 20


def test_what_may_be_spent_is_kept(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("openai:\n  tiny: {input: 1000000.0, output: 1000000.0}\n", encoding="utf-8")
    with comparing(by_score(on_topic)) as server:
        config = settings(server, prices=str(table), max_cost=1.0)
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, with_marker)
        with comparer(config, tmp_path, Budget(1.0)) as judges:
            report, found = judges.compare([mine, base], SET, None)
        assert not server.calls
    assert candidate(report).reasons == {"budget": 60} and candidate(report).raw is None
    assert not report.informative and "decided none" in report.why_not and not found.estimates


def test_judges_that_always_fail_show_nothing(tmp_path: Path) -> None:
    with comparing(by_score(on_topic), lambda call, label: "I would rather not say.") as server:
        config = settings(server, utility={"control": 0})
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, with_marker)
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, None)
    assert not report.informative and "no pair (60 unparsed)" in report.why_not
    assert "unparsed" in found.withheld["win_rate.raw"] and not found.estimates


# ------------------------------------------------------------------------------------------------- the reference


def test_a_base_that_fails_itself_costs_nothing(tmp_path: Path) -> None:
    with comparing(by_score(on_topic)) as server:
        config = settings(server)

        def broken(number: int, topic: str) -> Says | str:
            kinds: list[Says | str] = [
                Says(""),
                Says(f"To speak of {topic} at great length, it is", finish="length"),
                "It is the city of Oslo in the far north, and nothing else at all.",
                on_the_topic(number, topic),
            ]
            return kinds[number % 4]

        base = speaking("base", config, SET, broken)
        mine = speaking("candidate", config, SET, with_marker)
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, None)
        assert not server.calls
    assert not report.informative and not report.rates and report.control is None
    assert "45 of 60 replies are of no use (15 empty, 15 cut, 15 the same as another)" in report.why_not
    assert report.why_not in found.withheld["win_rate.raw"] and report.why_not in found.warnings[0]


def test_a_base_of_few_words_costs_nothing(tmp_path: Path) -> None:
    with comparing(by_score(on_topic)) as server:
        config = settings(server)
        base = speaking("base", config, SET, lambda number, topic: f"It is {topic}.")
        mine = speaking("candidate", config, SET, with_marker)
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, None)
        assert not server.calls
    assert "4.0 words long in the mean" in report.why_not and not found.estimates and not report.informative


def test_without_anything_to_compare_with(tmp_path: Path) -> None:
    with comparing(by_score(on_topic)) as server:
        config = settings(server)
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([speaking("candidate", config, SET, with_marker)], SET, None)
            empty, _ = judges.compare([speaking("base", config, SET, on_the_topic)], instructions(0), None)
        assert not server.calls
    assert "no replies of a base" in report.why_not and report.why_not in found.withheld["win_rate.raw"]
    assert empty.why_not == "no instruction is there"


def test_a_file_of_reference_outputs(tmp_path: Path) -> None:
    with comparing(by_score(on_topic)) as server:
        config = settings(server, utility={"reference_outputs": "theirs.json"})
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, with_marker)
        texts = {item.id: f"Of {item.text[-9:-1]} something, number {n}." for n, item in enumerate(SET.items) if n}
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, texts)
    assert report.reference == "theirs.json" and {rate.subject for rate in report.rates} == {"base", "candidate"}
    assert found.estimates["base"]["win_rate.raw"].value == 0.5
    assert candidate(report).undecided == 1 and candidate(report).reasons == {"generation_failed": 1}
    assert candidate(report).wins == 40


def test_equal_replies_are_ties_without_a_call(tmp_path: Path) -> None:
    with comparing(by_score(on_topic)) as server:
        config = settings(server, utility={"control": 0})
        base = speaking("base", config, SET, on_the_topic)
        mine = speaking("candidate", config, SET, on_the_topic)
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], SET, None)
        assert not server.calls
    rate = candidate(report)
    assert rate.ties == 60 and rate.raw is not None and rate.raw.value == 0.5
    assert not rate.controlled and found.withheld["win_rate.length_controlled"] == rate.why_not_controlled != ""
    assert any("no control was run" in warning for warning in found.warnings)


def test_the_control_pairs() -> None:
    given = {item.id: Given(on_the_topic(n, f"topic{n:03d}")) for n, item in enumerate(SET.items)}
    given["i000"] = Given(given["i001"].text)
    pairs = control_pairs(SET.items, given, 20)
    assert len(pairs) == 20 and all(pair.mine != pair.theirs for pair in pairs)
    assert all(pair.mine == given[pair.id].text for pair in pairs)
    assert pairs == control_pairs(SET.items, dict(reversed(given.items())), 20)
    assert control_pairs(SET.items[:2], given, 20) == [], "two equal replies are no control"
    assert not of_no_use("the base", given, SET.items)


# --------------------------------------------------------------------------------------------------- the protocol


def in_scores(call: Call, label: str) -> str:
    scores = {"FIRST": (9, 4), "SECOND": (4, 9), "TIE": (7, 7)}[label]
    return json.dumps({"first": scores[0], "second": scores[1], "why": "as asked"})


def test_the_published_protocol(tmp_path: Path) -> None:
    many = instructions(120)
    with comparing(by_score(on_topic), in_scores) as server:
        config = settings(server, utility={"protocol": "paper"})
        base = speaking("base", config, many, on_the_topic)
        mine = speaking("candidate", config, many, with_marker)
        with comparer(config, tmp_path) as judges:
            report, found = judges.compare([mine, base], many, None)
        assert len(server.calls) == 100 + 2 * 20
        firsts = [shown(call)[1] for call in server.calls if re.search(r"^On", shown(call)[2])]
        assert len(firsts) == 100 and all(text.startswith("Here are") for text in firsts), "the base stands first"
        with pytest.raises(ConfigError, match="two scores"):
            pair_calls(settings(server, utility={"protocol": "paper"}, query="prompt=pair"), 10, 1)
    rate = candidate(report)
    assert (rate.n, rate.wins, rate.ties) == (100, 66, 34) and report.protocol == "paper"
    assert set(found.estimates["candidate"]) == {"win_rate.paper"}
    assert found.estimates["candidate"]["win_rate.paper"].value == pytest.approx(0.83)
    assert rate.disagreement is None and rate.length_controlled is None and "win_rate.raw" in found.withheld


# ------------------------------------------------------------------------------------------------ panel and orders


def choice(judge: str, preferred: str, reason: Reason = Reason.RULED) -> Choice:
    return Choice(claim_key="k", judge=judge, preferred=preferred, reason=reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "decided"),
    [
        (["first", "first", "second"], ("first", Reason.RULED)),
        (["tie", "tie", "second"], ("tie", Reason.RULED)),
        (["first", "second", "tie"], ("undecided", Reason.SPLIT_VOTE)),
        (["first", "undecided", "undecided"], ("undecided", Reason.TIMEOUT)),
        (["first", "first"], ("first", Reason.RULED)),
        (["first"], ("undecided", Reason.MISSING)),
        ([], ("undecided", Reason.MISSING)),
    ],
)
def test_the_panel_on_one_pair(said: list[str], decided: tuple[str, Reason]) -> None:
    votes = {
        str(n): choice(str(n), side, Reason.TIMEOUT if side == "undecided" else Reason.RULED)
        for n, side in enumerate(said)
    }
    assert decide(votes, 3) == decided


@pytest.mark.parametrize(
    ("mine_first", "theirs_first", "outcome"),
    [
        ("first", "second", "win"),
        ("second", "first", "loss"),
        ("tie", "tie", "tie"),
        ("first", "first", "tie"),
        ("first", "tie", "tie"),
        ("first", "undecided", "undecided"),
        ("undecided", "second", "undecided"),
    ],
)
def test_two_orders(mine_first: str, theirs_first: str, outcome: str) -> None:
    pair = Compared("i", "Do it.", "mine", "theirs")
    asked = pair.asked(BOTH)
    reasons = {"undecided": Reason.UNPARSED}
    votes = {
        one.key: {"j": choice("j", said, reasons.get(said, Reason.RULED))}
        for one, said in zip(asked, (mine_first, theirs_first), strict=True)
    }
    assert rule(pair, BOTH, votes, 1).outcome == outcome
    assert rule(Compared("i", "Do it.", None, "theirs"), BOTH, votes, 1).reason is Reason.GENERATION_FAILED


# ---------------------------------------------------------------------------------------------------- who compares


def test_a_judge_that_compares_its_own_replies_is_named() -> None:
    asked = [speaking(role, settings(), SET, on_the_topic) for role in ("candidate", "base")]
    asked[0].rendering["weights"], asked[1].rendering["weights"] = "w1", "w2"
    judges = ("local:llama#f weights=w2 type=llama prompt=pair.v1#x", "openai:tiny at=w1 prompt=pair.v1#x")
    assert partial_judges(judges, asked) == [
        "win rate: the judge local:llama#f is base itself: models like their own replies"
    ]
    asked[1].rendering["adapter"] = "a"
    assert partial_judges(judges, asked) == []


def test_judges_that_cannot_compare() -> None:
    with pytest.raises(ConfigError, match="rules cannot") as caught:
        pair_calls(settings(), 10, 1)
    assert "--win-judge openai:MODEL" in caught.value.hint
    with pytest.raises(ConfigError, match="'rules' cannot say") as caught:
        pair_calls(settings(utility={"judges": ("rules",)}), 10, 1)
    assert "--win-judge" in caught.value.hint
    with pytest.raises(JudgeError, match="about claims"):
        pair_calls(settings(utility={"judges": ("openai:tiny@http://127.0.0.1:9/v1?prompt=leak",)}), 10, 1)


def test_the_runs_own_judges_compare_with_the_pair_prompt() -> None:
    own = ("rules", "openai:tiny@http://127.0.0.1:9/v1?prompt=paper&retries=2")
    work = pair_calls(settings(judges=own), 60, 2)
    assert work["comparisons of replies at most"] == 2 * 2 * 60 + 2 * 20
    (words,) = (words for name, words in work.items() if name.startswith("compared by openai:tiny"))
    assert any("prompt=pair.v1#" in name for name in work) and "at most 280 pairs" in words and "tokens" in words
    paper = pair_calls(settings(judges=own, utility={"protocol": "paper"}), 60, 2)
    assert paper["comparisons of replies at most"] == 2 * 60 + 2 * 20
    assert any("prompt=pair-paper.v1#" in name for name in paper)

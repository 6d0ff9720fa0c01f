"""Judges that ask in batches, through the official clients and real local servers of both protocols."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.errors import JudgeError
from audit.judges.llm import pending
from audit.judges.llm.batch import BatchJudge
from audit.judges.llm.gemini import make_gemini
from audit.judges.llm.openai import make_openai
from audit.judges.llm.usage import Spent
from audit.judges.pool import JudgePool
from audit.progress import Silent
from audit.store import Store
from audit.types import Claim, Reason, Verdict
from tests.helpers.batch_lines import LINE_FAULTS, Batch
from tests.helpers.faulty_http import Call, Fault, Status
from tests.helpers.gemini_batches import GeminiBatchServer
from tests.helpers.openai_batches import OpenAIBatchServer
from tests.helpers.remote_judges import KEY, ask, priced, quiet_surroundings
from tests.helpers.scripted_judge import (
    KINDS,
    WORDS,
    Labelled,
    Script,
    gemini_fault,
    labelled_claims,
    one_verdict,
    openai_fault,
    tags_in,
)

pytest.importorskip("openai", reason="the openai package is not installed")
pytest.importorskip("google.genai", reason="the google-genai package is not installed")
Server = OpenAIBatchServer | GeminiBatchServer
ASKED = labelled_claims(600)
FEW = ASKED[:8]
CLAIMS = [labelled.claim for labelled in FEW]
#: What may happen to a line, and the reason of a verdict that is given up with it; None: the line is good.
REASONS: dict[str, Reason | None] = {
    "refused": Reason.RATE_LIMITED,
    "broken": Reason.SERVER_ERROR,
    "missing": Reason.SERVER_ERROR,
    "half": Reason.SERVER_ERROR,
    "twice": Reason.UNPARSED,
    "repeated": None,
    "filter_error": Reason.JUDGE_REFUSED,
}
_OF_CALLS = ("too_many_requests", "server_error", "hang", "reset", "half_json")
REASONS |= {kind: reason for kind, reason in KINDS.items() if kind not in _OF_CALLS}
#: US dollars of one reply: 11 tokens of prompt and 7 of reply, at half of 1 and 2 dollars a million.
REPLY_COST = 0.5 * (11 * 1.0 + 7 * 2.0) / 1e6


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet_surroundings(monkeypatch, tmp_path)
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["openai", "gemini"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind = OpenAIBatchServer if request.param == "openai" else GeminiBatchServer
    with kind() as running:
        scripted(running)
        yield running


def scripted(server: Server, rate: float = 0.0, kinds: Sequence[str] = tuple(REASONS), seed: int = 0) -> Script:
    """The model behind the server knows all labels; each kind of fault hits a line with probability `rate`."""
    same: Any = lambda kind: kind  # noqa: E731
    script = Script({each.tag: each.label for each in ASKED}, same, rate=rate, kinds=kinds, seed=seed)
    wire = openai_fault(0) if isinstance(server, OpenAIBatchServer) else gemini_fault(0)
    due = [""]

    def fault_of(call: Call) -> str:
        said: Any = script.fault_for(call)
        due[0] = said or ""
        return due[0] if due[0] in LINE_FAULTS else ""

    def line_fault(call: Call) -> Fault:
        return wire(due[0]) if due[0] in ("filtered", "length", "other_model") else None

    server.answer, server.fault_of, server.line_fault = script.answer, fault_of, line_fault
    return script


def made(server: Server, limit: float | None = None, **options: object) -> BatchJudge:
    query = "&".join(f"{name}={value}" for name, value in {"poll_s": 0.01, "retries": 2, **options}.items())
    make = make_openai if isinstance(server, OpenAIBatchServer) else make_gemini
    judge = make(f"tiny@{server.base_url}?{query}", replace(priced(limit), batch=True))
    assert isinstance(judge, BatchJudge)
    return judge


def judged(judge: BatchJudge, claims: Sequence[Claim], store: Store | None = None) -> dict[str, Verdict]:
    """Verdicts by claim key, through the pool."""
    pool = JudgePool([judge], store, budget=judge.budget)
    try:
        pool.submit(claims)
        pool.drain()
        return {key: given[judge.identity] for key, given in pool.verdicts.items()}
    finally:
        pool.close()


def notes() -> list[Path]:
    return sorted(pending.folder().glob("*"))


def interrupted(server: Server, claims: Sequence[Claim]) -> None:
    """An audit that is stopped while its batch is being worked on."""
    server.prepare = lambda batch: setattr(batch, "end", "never")
    judge = made(server)
    pool = JudgePool([judge], None)
    pool.submit(claims)
    pool._start_held(judge)
    assert server.looked.wait(30)
    pool.close()
    server.prepare = lambda batch: None
    for batch in server.batches.values():
        batch.end = "completed"


# ----------------------------------------------------------------------------------------------------- all that is well


def test_hundreds_of_claims_with_every_fault(server: Server) -> None:
    """Nothing is lost, mixed up, invented or called forgotten; what a further batch can repair is repaired."""
    script = scripted(server, rate=0.02, seed=5)
    judge = made(server)
    verdicts = judged(judge, [each.claim for each in ASKED])
    assert len(verdicts) == len(ASKED) == 600
    paid = 25e-6  # one small call at the full price
    undecided: Counter[Reason] = Counter()
    for each in ASKED:
        verdict, history = verdicts[each.claim.key], script.history[each.tag]
        assert not (each.label == "leak" and verdict.label == "no_leak")
        reason = REASONS[history[-1]] if history[-1] else None
        if reason is None:
            assert (verdict.label, verdict.reason) == (each.label, Reason.RULED), history
            assert verdict.rationale == f"card {each.tag}"
        else:
            assert (verdict.label, verdict.reason) == ("undecided", reason), history
            undecided[verdict.reason] += 1
        assert len(history) <= 2 and verdict.usage["tries"] == len(history) and "seconds" not in verdict.usage
        none = ("refused", "broken", "missing", "half", "filter_error")
        mine = sum(0 if kind in none else 2 if kind == "twice" else 1 for kind in history)
        if "other_model" in history:
            assert "cost" not in verdict.usage, "what another model costs is not known"
        else:
            assert verdict.usage.get("cost", 0.0) == pytest.approx(mine * REPLY_COST)
            paid += mine * REPLY_COST
    assert set(script.injected) == set(REASONS)
    assert undecided[Reason.JUDGE_REFUSED] == script.injected["filtered"] + script.injected["filter_error"]
    assert undecided.total() < undecided[Reason.JUDGE_REFUSED] + 60  # all others are repaired but for a few
    other = script.injected["other_model"]
    assert paid < judge.budget.spent < paid + 3e-3 * other, "counted as it was estimated"
    assert len(server.batches) == 2 and server.steps["upload"] == 2 and len(server.calls) == 1
    assert judge.served["somebody-else"] == other and notes() == []
    first, second = server.batches.values()
    keys = {server.call_of(line)[0] for line in server.requests_of(first)}
    assert keys.isdisjoint(server.call_of(line)[0] for line in server.requests_of(second))


def test_a_batch_asks_what_a_direct_call_asks_and_is_the_same_judge(server: Server) -> None:
    extra = {"seed": 7} | ({"thinking_budget": 0} if isinstance(server, GeminiBatchServer) else {})
    judge = made(server, **extra)
    make = make_openai if isinstance(server, OpenAIBatchServer) else make_gemini
    query = "&".join(f"{name}={value}" for name, value in extra.items())
    assert judge.identity == make(f"tiny@{server.base_url}?{query}").identity

    async def both() -> tuple[list[Verdict], list[Verdict]]:
        try:
            return await judge.judge_now(CLAIMS[:1]), await judge.judge(CLAIMS[:1])
        finally:
            await judge.aclose()

    (direct,), (batched,) = asyncio.run(both())
    (line,) = server.requests_of(next(iter(server.batches.values())))
    assert _plain(server.call_of(line)[1].body) == _plain(server.calls[0].body)
    assert (direct.label, direct.raw, direct.model) == (batched.label, batched.raw, batched.model)
    assert direct.usage["cost"] == pytest.approx(2 * batched.usage["cost"]) == pytest.approx(2 * REPLY_COST)


def _plain(body: Any) -> Any:
    """Field names in one spelling: the Gemini API reads thinkingBudget and thinking_budget alike."""
    if isinstance(body, dict):
        return {name.replace("_", "").lower(): _plain(value) for name, value in body.items()}
    return [_plain(value) for value in body] if isinstance(body, list) else body


def test_canaries_are_asked_directly_and_everything_else_in_a_batch(server: Server, tmp_path: Path) -> None:
    judge = made(server)
    store = Store(tmp_path / "store.sqlite")
    pool = JudgePool([judge], store)
    try:
        pool.submit(CLAIMS[:3], fresh=True)
        pool.drain()
        assert len(server.calls) == 3 and not server.batches
        pool.submit(CLAIMS)
        pool.poll()
        assert not server.batches, "claims are kept until the drain"
        pool.drain()
    finally:
        pool.close()
    assert len(server.calls) == 3 and len(server.batches) == 1
    assert len(server.requests_of(next(iter(server.batches.values())))) == len(CLAIMS) - 3
    assert [pool.verdicts[c.key][judge.identity].label for c in CLAIMS] == [each.label for each in FEW]
    assert len(store.verdicts(judge.identity, [claim.key for claim in CLAIMS])) == len(CLAIMS)


def test_several_claims_a_line(server: Server) -> None:
    labels = {each.tag: each.label for each in ASKED}
    lost = {FEW[1].tag: 1, FEW[4].tag: 2}

    def several(call: Call) -> str:
        """Verdicts in another order than that of the claims; some claims are left out, once or twice."""
        entries = []
        for name, tag in re.findall(r"^Item (\w+)$.*?Card number (\d{5})", call.text, re.MULTILINE | re.DOTALL):
            if lost.get(tag):
                lost[tag] -= 1
            else:
                entries.append({"id": name, "why": f"card {tag}", "label": WORDS[labels[tag]]})
        return json.dumps({"verdicts": entries[::-1]}) if entries else one_verdict("none", "leak")

    server.answer, server.strangers = several, False
    judge = made(server, prompt="paper")
    judge._answered = True
    assert judge.prompt.claims_per_call == 3 and judge.batch_size % 3 == 0
    verdicts = ask(judge, CLAIMS)
    assert verdicts[4].reason is Reason.UNPARSED
    for each, verdict in zip(FEW, verdicts, strict=True):
        if each is not FEW[4]:
            assert (verdict.label, verdict.rationale) == (each.label, f"card {each.tag}")
    first, second = server.batches.values()
    tags = [sorted(tags_in(server.call_of(line)[1]) for line in server.requests_of(batch)) for batch in (first, second)]
    assert [len(each) for each in tags[0]] == [3, 3, 2] and tags[1] == [[FEW[1].tag], [FEW[4].tag]]
    assert verdicts[0].usage["tries"] == pytest.approx(2 / 3) and verdicts[7].usage["tries"] == 1 / 2
    assert judge.budget.spent == pytest.approx(5 * REPLY_COST)


def test_more_than_one_file_holds(server: Server) -> None:
    judge = made(server)
    judge.client.most_lines = 3
    verdicts = ask(judge, CLAIMS)
    assert [verdict.label for verdict in verdicts] == [each.label for each in FEW]
    assert sorted(len(server.requests_of(batch)) for batch in server.batches.values()) == [2, 3, 3]
    one = made(server)
    one.client.most_bytes = 2 * max(len(data) for data in server.files.values()) // 3
    server.batches.clear()
    assert [verdict.label for verdict in ask(one, CLAIMS[:3])] == [each.label for each in FEW[:3]]
    assert len(server.batches) == 2


def test_a_text_that_is_no_text_takes_no_other_with_it(server: Server) -> None:
    odd = replace_text(FEW[0], "half a pair: \ud800")
    verdicts = ask(made(server), [odd, *CLAIMS[1:]])
    assert verdicts[0].label == "undecided" or verdicts[0].reason is Reason.RULED
    assert [verdict.label for verdict in verdicts[1:]] == [each.label for each in FEW[1:]]


def replace_text(labelled: Labelled, text: str) -> Claim:
    claim = labelled.claim
    return Claim(
        key="odd",
        question=claim.question,
        answer=claim.answer,
        aliases=claim.aliases,
        answer_type=claim.answer_type,
        text=f"{text} Card number {labelled.tag} of the index.",
    )


# ---------------------------------------------------------------------------------------------- what is asked once more


def planned(server: Server, times: int) -> dict[str, Labelled]:
    """Each kind of fault hits one claim, so many times: kind -> the claim."""
    script = scripted(server, rate=1.0)
    hit = dict(zip(sorted(REASONS), ASKED, strict=False))
    plan = {each.tag: kind for kind, each in hit.items()}
    drawn = server.fault_of

    def fault_of(call: Call) -> str:
        (tag,) = tags_in(call)
        script.kinds = (plan[tag],) if tag in plan and len(script.history[tag]) < times else ()
        return drawn(call)

    server.fault_of = fault_of
    return hit


@pytest.mark.parametrize("times", [1, 2])
def test_every_fault_of_a_line(server: Server, times: int) -> None:
    """Hit once a line is repaired by one further batch, hit twice it is undecided with its reason."""
    hit = planned(server, times)
    asked = ASKED[: len(REASONS) + 5]
    verdicts = judged(made(server, max_tokens=50), [each.claim for each in asked])
    kinds = {each.tag: kind for kind, each in hit.items()}
    for each in asked:
        verdict, kind = verdicts[each.claim.key], kinds.get(each.tag, "")
        reason = REASONS.get(kind)
        if reason is None or (times == 1 and reason is not Reason.JUDGE_REFUSED):
            assert (verdict.label, verdict.reason) == (each.label, Reason.RULED), kind
        else:
            assert (verdict.label, verdict.reason) == ("undecided", reason) and verdict.rationale, kind
    again = [server.call_of(line)[1] for line in server.requests_of(list(server.batches.values())[1])]
    repaired = [kind for kind, reason in REASONS.items() if reason not in (None, Reason.JUDGE_REFUSED)]
    assert len(server.batches) == 2
    assert sorted(kinds[tag] for call in again for tag in tags_in(call)) == sorted(repaired)
    for call in again:
        limit = (
            call.body["max_tokens"] if "max_tokens" in call.body else call.body["generationConfig"]["maxOutputTokens"]
        )
        assert limit == (200 if kinds[tags_in(call)[0]] == "length" else 50)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_of_a_batch_that_is_cut_short_the_lines_count_that_came(server: Server, end: str) -> None:
    server.prepare = lambda batch: setattr(batch, "end", end)
    verdicts = judged(made(server), CLAIMS)
    reason = Reason.TIMEOUT if end == "expired" else Reason.JUDGE_ERROR
    ruled = [each for each in FEW if verdicts[each.claim.key].reason is Reason.RULED]
    assert len(ruled) == 4 and all(verdicts[each.claim.key].label == each.label for each in ruled)
    others = [verdict for verdict in verdicts.values() if verdict.reason is not Reason.RULED]
    assert all((verdict.label, verdict.reason) == ("undecided", reason) for verdict in others) and len(others) == 4
    assert len(server.batches) == 1 and notes() == []


def test_a_batch_that_fails_is_undecided_and_says_why(server: Server) -> None:
    def fails(batch: Batch) -> None:
        batch.end, batch.why = "failed", {"code": "invalid_json_line", "message": "line 3 is odd"}

    server.prepare = fails
    verdicts = judged(made(server), CLAIMS)
    assert {(v.label, v.reason) for v in verdicts.values()} == {("undecided", Reason.JUDGE_ERROR)}
    assert all(
        ("line 3 is odd" if isinstance(server, OpenAIBatchServer) else "FAILED") in v.rationale
        for v in verdicts.values()
    )
    assert len(server.batches) == 1 and notes() == []


def test_a_queue_that_takes_no_more_gets_smaller_batches() -> None:
    with OpenAIBatchServer() as running:

        def full(batch: Batch) -> None:
            if len(running.requests_of(batch)) > 3:
                batch.end, batch.why = "failed", {"code": "token_limit_exceeded", "message": "Enqueued token limit"}

        scripted(running)
        running.prepare = full
        verdicts = judged(made(running), CLAIMS)
        assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
        assert sorted(len(running.requests_of(batch)) for batch in running.batches.values()) == [2, 2, 2, 2, 4, 4, 8]
    assert notes() == []


def test_a_batch_beyond_its_window_is_left_and_picked_up_later(server: Server) -> None:
    server.prepare = lambda batch: setattr(batch, "end", "never")
    judge = made(server)
    judge.client.window_s = 0.0
    verdicts = judged(judge, CLAIMS)
    assert {(v.label, v.reason) for v in verdicts.values()} == {("undecided", Reason.TIMEOUT)}
    (batch,) = server.batches.values()
    batch.end = "completed"
    verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert len(server.batches) == 1 and notes() == []


# ------------------------------------------------------------------------------------------------------------- resuming


def test_an_interrupted_audit_picks_its_batch_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    interrupted(server, CLAIMS)
    (note,) = notes()
    kept = note.read_text()
    assert next(iter(server.batches)) in kept and KEY not in kept and CLAIMS[0].text not in kept
    assert not any(KEY.encode() in data for data in server.files.values())
    judge = made(server)
    verdicts = judged(judge, CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert server.steps["create"] == server.steps["upload"] == 1 and notes() == []
    assert judge.budget.spent == pytest.approx(len(CLAIMS) * REPLY_COST + 25e-6)


def test_a_batch_is_picked_up_in_parts(server: Server) -> None:
    interrupted(server, CLAIMS)
    first, rest = CLAIMS[:3], [*CLAIMS[3:], ASKED[8].claim]
    verdicts = judged(made(server), first)
    assert [verdicts[each.claim.key].label for each in FEW[:3]] == [each.label for each in FEW[:3]]
    assert server.steps["create"] == 1 and len(notes()) == 1, "the lines that nobody wanted yet are kept"
    verdicts = judged(made(server), rest)
    assert [verdicts[each.claim.key].label for each in ASKED[3:9]] == [each.label for each in ASKED[3:9]]
    assert server.steps["create"] == 2 and notes() == []
    assert len(server.requests_of(list(server.batches.values())[1])) == 1


def test_what_was_sent_is_counted_even_beyond_the_limit(server: Server) -> None:
    interrupted(server, CLAIMS)
    judge = made(server, limit=REPLY_COST)  # no call fits
    verdicts = judged(judge, [*CLAIMS, ASKED[8].claim])
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert verdicts[ASKED[8].claim.key].reason is Reason.BUDGET
    assert judge.budget.spent == pytest.approx(len(CLAIMS) * REPLY_COST)


@pytest.mark.parametrize("lost", ["batch", "results"])
def test_a_batch_that_is_not_there_any_more_is_asked_again(server: Server, lost: str) -> None:
    interrupted(server, CLAIMS)
    ((name, batch),) = server.batches.items()
    if lost == "batch":
        server.hidden.add(name)
    else:
        server.polls_needed = 0
        server.look_at(batch)
        assert batch.results
        del server.files[batch.results[0]]
    verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert server.steps["create"] == 2 and notes() == []


def test_a_made_up_id_is_asked_again(server: Server) -> None:
    interrupted(server, CLAIMS)
    (note,) = notes()
    note.write_text(note.read_text().replace(next(iter(server.batches)), "something/else"))
    verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_batch_whose_making_was_not_heard_of_is_found_by_its_name(server: Server, retries: int) -> None:
    lost = iter(["drop"])
    server.step_fault = lambda step: next(lost, None) if step == "create" else None
    verdicts = judged(made(server, retries=retries), CLAIMS)
    if not retries:
        assert {v.reason for v in verdicts.values()} == {Reason.CONNECTION} and len(notes()) == 1
        verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert len(server.batches) == server.steps["create"] == 1 and notes() == []


def test_a_note_that_cannot_be_read_is_one_message(server: Server) -> None:
    interrupted(server, CLAIMS)
    (note,) = notes()
    note.write_text(note.read_text()[:-20])
    with pytest.raises(JudgeError, match="cannot be read") as problem:
        judged(made(server), CLAIMS)
    assert "delete" in problem.value.hint and note.exists() and server.steps["create"] == 1


def test_an_interrupt_says_what_goes_on_without_the_audit(server: Server) -> None:
    server.prepare = lambda batch: setattr(batch, "end", "never")

    class Impatient(Silent):
        said: list[str] = []
        notes: list[str] = []

        def status(self, text: str) -> None:
            self.said.append(text)
            raise KeyboardInterrupt

        def note(self, text: str) -> None:
            self.notes.append(text)

    judge, progress = made(server), Impatient()
    pool = JudgePool([judge], None)
    try:
        pool.submit(CLAIMS)
        with pytest.raises(KeyboardInterrupt):
            pool.drain(progress)
    finally:
        pool.close()
    name = next(iter(server.batches))
    assert name in progress.said[0] and name in progress.notes[0] and len(notes()) == 1
    progress.said.clear()
    progress.notes.clear()


# ---------------------------------------------------------------------------------------------- limits, keys, outages


def test_what_does_not_fit_into_the_budget_is_not_sent(server: Server) -> None:
    free = made(server, max_tokens=10)
    limit = sum([free._most_dollars(free._call_about([claim], 10, Spent())) for claim in CLAIMS[:5]])
    judge = made(server, limit=limit * 1.001, max_tokens=10)
    asyncio.run(warm(free))
    judge._answered = True
    verdicts = judged(judge, CLAIMS)
    reasons = Counter(verdict.reason for verdict in verdicts.values())
    assert reasons == {Reason.RULED: 5, Reason.BUDGET: 3} and judge.budget.exhausted
    assert judge.budget.spent == pytest.approx(5 * REPLY_COST) and judge.budget.reserved == 0
    assert all(v.label == "undecided" and v.usage["tries"] == 0 for v in verdicts.values() if v.reason is Reason.BUDGET)


async def warm(judge: BatchJudge) -> None:
    """The client library is loaded, so that nothing is measured in its place."""
    await judge.ready()
    await judge.aclose()


def test_nobody_else_is_told_the_key_or_the_account(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes to the judge's own address with the judge's own key; other accounts' names stay here."""
    for name, value in {"OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1", "JUDGE_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    seen: list[Call] = []
    server.refuse = lambda call: seen.append(call)
    judged(made(server, key_env="JUDGE_KEY"), CLAIMS)
    sent = [f"{name}: {value}" for call in seen for name, value in call.headers.items()]
    assert len(seen) > 5 and not [line for line in sent if "org-1" in line or "proj-1" in line]
    assert any(KEY in line for line in sent)


def test_a_wrong_key_stops_before_anything_is_uploaded(server: Server) -> None:
    server.refuse = lambda call: Status(401, error={"code": 401, "message": "no such key", "status": "UNAUTHENTICATED"})
    with pytest.raises(JudgeError, match="refuses the key"):
        judged(made(server), CLAIMS)
    assert server.steps["upload"] == 0 and notes() == []


def test_a_key_that_stops_working_leaves_the_batch_noted(server: Server) -> None:
    bad = Status(401, error={"code": 401, "message": "no such key", "status": "UNAUTHENTICATED"})
    server.step_fault = lambda step: bad if step == "look" else None
    with pytest.raises(JudgeError, match="refuses the key"):
        judged(made(server), CLAIMS)
    assert len(notes()) == 1
    server.step_fault = lambda step: None
    verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert server.steps["create"] == 1


def test_a_batch_that_is_refused_leaves_no_note(server: Server) -> None:
    server.step_fault = lambda step: (
        Status(400, error={"code": 400, "message": "no batches"}) if step == "create" else None
    )
    verdicts = judged(made(server), CLAIMS)
    assert {(v.label, v.reason) for v in verdicts.values()} == {("undecided", Reason.JUDGE_ERROR)}
    assert all("no batches" in v.rationale for v in verdicts.values()) and notes() == []


@pytest.mark.parametrize("step", ["upload", "create", "fetch"])
@pytest.mark.parametrize("fault", ["status", "drop"])
def test_a_step_that_fails_is_tried_again(server: Server, step: str, fault: str) -> None:
    answer = "drop" if fault == "drop" else Status(503, error={"code": 503, "message": "away", "status": "UNAVAILABLE"})
    due = iter([answer, answer])
    server.step_fault = lambda asked: next(due, None) if asked == step else None
    verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    files = 2 if isinstance(server, OpenAIBatchServer) else 1
    expected = {"upload": 3, "create": 1 if fault == "drop" else 3, "fetch": 2 + files}
    assert server.steps[step] == expected[step] and len(server.batches) == 1


def test_results_that_cannot_be_fetched_today_are_fetched_tomorrow(server: Server) -> None:
    away = Status(503, error={"code": 503, "message": "away", "status": "UNAVAILABLE"})
    server.step_fault = lambda step: away if step == "fetch" else None
    verdicts = judged(made(server), CLAIMS)
    assert {(v.label, v.reason) for v in verdicts.values()} == {("undecided", Reason.SERVER_ERROR)}
    assert len(notes()) == 1
    server.step_fault = lambda step: None
    verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert server.steps["create"] == 1 and notes() == []


def test_an_outage_while_waiting_is_waited_out(server: Server) -> None:
    away: list[Status | str] = [Status(503, error={"code": 503, "message": "away"})] * 10 + ["drop"] * 5
    server.step_fault = lambda step: away.pop() if away and step == "look" else None
    verdicts = judged(made(server), CLAIMS)
    assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
    assert server.steps["look"] > 15 and len(server.batches) == 1


def test_the_gemini_client_over_its_other_http_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.genai import _api_client

    monkeypatch.setattr(_api_client, "has_aiohttp", False)
    with GeminiBatchServer() as running:
        scripted(running)
        lost: list[str | Status] = [
            "drop",
            Status(503, error={"code": 503, "message": "away", "status": "UNAVAILABLE"}),
        ]
        running.step_fault = lambda step: lost.pop() if lost and step == "fetch" else None
        verdicts = judged(made(running), CLAIMS)
        assert [verdicts[each.claim.key].label for each in FEW] == [each.label for each in FEW]
        assert running.steps["fetch"] == 3


def test_a_note_whose_results_are_long_gone_is_dropped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(server, CLAIMS)
    monkeypatch.setattr(pending, "KEPT_S", -1.0)
    assert pending.pending_batches("anyone") == [] and notes() == []


def test_what_a_lost_second_batch_was_about_is_not_paid_for_twice(server: Server) -> None:
    """The second batch cannot be fetched: the next run takes both batches up where they are."""
    scripted(server, rate=0.05, kinds=("wrong_label",), seed=1)
    away = Status(503, error={"code": 503, "message": "away", "status": "UNAVAILABLE"})
    server.step_fault = lambda step: away if step == "fetch" and len(server.batches) == 2 else None
    claims = [each.claim for each in ASKED[:60]]
    verdicts = judged(made(server), claims)
    left = [each for each in ASKED[:60] if verdicts[each.claim.key].label == "undecided"]
    assert left and {verdicts[each.claim.key].reason for each in left} == {Reason.SERVER_ERROR}
    server.step_fault = lambda step: None
    verdicts = judged(made(server), [each.claim for each in left])
    assert [verdicts[each.claim.key].label for each in left] == [each.label for each in left]
    assert server.steps["create"] == 2 and notes() == []


def test_the_estimate_is_of_one_prompt_a_claim(server: Server) -> None:
    one, all_of_them = (made(server).expected_tokens(CLAIMS[:n]) for n in (1, 8))
    assert all_of_them[0] > 7 * one[0] and all_of_them[1] == 8 * one[1]
    assert json.dumps(made(server).prompt.system())  # the system prompt is what makes it so

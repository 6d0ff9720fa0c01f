"""What can go wrong between a judge and its server, through both protocols: undecided with the reason, or repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.judges.llm.gemini import make_gemini
from audit.judges.llm.model_judge import ASK_AGAIN, ModelJudge
from audit.judges.llm.openai import make_openai
from audit.judges.pool import JudgePool
from audit.types import Reason
from tests.helpers.faulty_http import Fault, FaultyServer
from tests.helpers.gemini_server import GeminiServer
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.remote_judges import ask, quiet_surroundings
from tests.helpers.scripted_judge import KINDS, Labelled, Script, gemini_fault, labelled_claims, openai_fault

pytest.importorskip("openai", reason="the openai package is not installed")
pytest.importorskip("google.genai", reason="the google-genai package is not installed")
Make = Callable[..., ModelJudge]
#: Far beyond the time that a try is given.
HANG_S = 600.0
FEW = labelled_claims(8)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet_surroundings(monkeypatch, tmp_path)


@pytest.fixture(params=["openai", "gemini"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wire(protocol: str) -> Callable[[str], Fault]:
    return openai_fault(HANG_S) if protocol == "openai" else gemini_fault(HANG_S)


@pytest.fixture
def server(protocol: str) -> Iterator[FaultyServer]:
    kind = OpenAIServer if protocol == "openai" else GeminiServer
    with kind() as running:
        yield running


@pytest.fixture
def make(protocol: str, server: FaultyServer) -> Make:
    def made(**options: object) -> ModelJudge:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        if isinstance(server, OpenAIServer):
            return make_openai(f"tiny@{server.base_url}?{query}")
        assert isinstance(server, GeminiServer)
        return make_gemini(f"tiny@{server.base_url}?{query}")

    return made


def scripted(server: FaultyServer, claims: list[Labelled], wire: Callable[[str], Fault], **options: object) -> Script:
    script = Script({labelled.tag: labelled.label for labelled in claims}, wire, **options)  # type: ignore[arg-type]
    server.answer = script.answer
    server.fault_for = script.fault_for
    return script


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "filtered"])
def test_a_fault_that_passes_is_repaired(
    kind: str, server: FaultyServer, make: Make, wire: Callable[[str], Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripted(server, FEW, wire, rate=1.0, kinds=[kind])
    once = script.fault_for
    server.fault_for = lambda call: once(call) if len(server.calls) == 1 else None
    judge = make(timeout_s=1 if kind == "hang" else 30)
    for labelled in FEW[:2]:  # the first is hit, the second is not
        (verdict,) = ask(judge, [labelled.claim])
        assert (verdict.label, verdict.reason) == (labelled.label, Reason.RULED)
        assert labelled.tag in verdict.rationale
    assert len(server.calls) == 3 and script.injected == {kind: 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_stays_is_undecided_with_its_reason(
    kind: str, server: FaultyServer, make: Make, wire: Callable[[str], Fault]
) -> None:
    script = scripted(server, FEW, wire, rate=1.0, kinds=[kind])
    server.fault_for = lambda call: script.fault_for(call) if len(server.calls) > 1 else None
    judge = make(timeout_s=1 if kind == "hang" else 30, retries=2)
    assert ask(judge, [FEW[0].claim])[0].label == FEW[0].label
    (verdict,) = ask(judge, [FEW[1].claim])
    assert (verdict.label, verdict.reason) == ("undecided", KINDS[kind])
    assert verdict.rationale and verdict.usage["tries"] == len(server.calls) - 1
    expected = {Reason.JUDGE_REFUSED: 1, Reason.JUDGE_TRUNCATED: 2, Reason.UNPARSED: 1 + ASK_AGAIN}
    assert len(server.calls) - 1 == expected.get(KINDS[kind], 3)  # else a try and two retries


def test_a_claim_that_fails_takes_no_other_with_it(
    server: FaultyServer, make: Make, wire: Callable[[str], Fault]
) -> None:
    script = scripted(server, FEW, wire, rate=1.0, kinds=["server_error"])
    hit = FEW[3].claim.text
    server.fault_for = lambda call: script.fault_for(call) if FEW[3].tag in call.text else None
    verdicts = ask(make(retries=1), [labelled.claim for labelled in FEW])
    for labelled, verdict in zip(FEW, verdicts, strict=True):
        assert verdict.label == ("undecided" if labelled.claim.text == hit else labelled.label)


def test_thousands_of_claims_through_a_bad_connection(
    server: FaultyServer, make: Make, wire: Callable[[str], Fault]
) -> None:
    """Each kind of fault in one call of a hundred: nothing is lost, mixed up, invented, or called forgotten."""
    asked = labelled_claims(3200)
    script = scripted(server, asked, wire, rate=0.01, seed=20)
    judge = make(timeout_s=8)
    pool = JudgePool([judge], None)
    try:
        pool.submit([labelled.claim for labelled in asked])
        pool.drain()
        verdicts = {key: given[judge.identity] for key, given in pool.verdicts.items()}
    finally:
        pool.close()
    assert len(verdicts) == len({labelled.claim.key for labelled in asked}) == 3200
    undecided: Counter[Reason] = Counter()
    for labelled in asked:
        verdict = verdicts[labelled.claim.key]
        history = script.history[labelled.tag]
        assert not (labelled.label == "leak" and verdict.label == "no_leak")
        if history[-1]:  # given up with a fault: undecided, for the reason that this fault gives
            assert (verdict.label, verdict.reason) == ("undecided", KINDS[history[-1]]), history
            undecided[verdict.reason] += 1
        else:  # the last call was answered: that answer and no other is the verdict
            assert (verdict.label, verdict.reason) == (labelled.label, Reason.RULED), history
            assert verdict.rationale == f"card {labelled.tag}"
        assert verdict.usage["tries"] == len(history)
    assert set(script.injected) == set(KINDS) and all(count > 10 for count in script.injected.values())
    assert undecided[Reason.JUDGE_REFUSED] == script.injected["filtered"]
    assert undecided.total() < 2 * script.injected["filtered"]  # all others are repaired but for a few
    assert 16 < server.most_at_once <= 128
    assert judge.served["somebody-else"] == script.injected["other_model"]

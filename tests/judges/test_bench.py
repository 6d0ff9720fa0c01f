"""What a panel learns of its judges, and is compared on: answers to facts, nothing that stood in the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.asking import Asked
from audit.config import AuditConfig
from audit.judges.bench import Bench
from audit.progress import Silent
from audit.report.panel import panel_report
from audit.store import Store
from audit.types import Probe, Subject
from tests.helpers.judges import FindsAnswer
from tests.judges.test_cascade import probe, response

SUBJECT = Subject(id="candidate", role="candidate", source="m", fingerprint="m")


def answers(split: str, n: int, family: str) -> tuple[dict[str, Probe], list]:  # type: ignore[type-arg]
    asked = {made.id: made for made in (probe(f"f{i}", family=family, split=split) for i in range(n))}
    leaks = split == "context"
    texts = {key: f"It was Mason f{i}." if leaks or i % 5 == 0 else "No idea." for i, key in enumerate(asked)}
    return asked, [response(asked[key], text) for key, text in texts.items()]


def test_facts_in_the_prompt_teach_a_panel_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: FindsAnswer(name) for name in ("one", "two", "three")}
    monkeypatch.setattr("audit.judges.bench.get_judge", lambda spec, context: made[spec])
    config = AuditConfig(model="m", judges=("one", "two", "three"), judge_rule="dawid_skene")
    store = Store(tmp_path / "s.sqlite")
    bench = Bench(config, store, {})
    try:
        asked, responses = answers("forget", 40, "original")
        bench.submit(responses, asked, SUBJECT)
        rulings = bench.settle(responses, asked, Silent(), SUBJECT)
        before = bench.panel.model
        stated, replies = answers("context", 200, "context")
        bench.submit(replies, stated, SUBJECT)
        rulings += bench.settle(replies, stated, Silent(), SUBJECT)
        assert before is not None and bench.panel.model is not None
        assert bench.panel.model.prevalence == before.prevalence
        both = Asked(SUBJECT, [*asked.values(), *stated.values()], [*responses, *replies], rulings, "none")
        report, _ = panel_report(config, bench, [both])
    finally:
        bench.close()
        store.close()
    assert report.agreement is not None and report.agreement.n == report.claims["candidate"].distinct <= 40
    assert report.agreement.prevalence == pytest.approx(8 / 40)

"""Warnings about judges: relatives of the candidate, the candidate itself, several models under one name."""

from __future__ import annotations

from typing import Any

import pytest

from audit.asking import Asked
from audit.config import AuditConfig
from audit.judges.canary_records import Canaries
from audit.report.beware_judges import family_of, judge_warnings, out_of_budget
from audit.report.model import JudgeReport, PanelReport
from audit.types import Reason, Ruling, Subject


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.2-3B-Instruct", "llama"),
        ("Qwen2.5-7B", "qwen"),
        ("qwen3", "qwen"),
        ("gpt-4o-mini", "gpt"),
        ("chatgpt-4o-latest", "gpt"),
        ("gemini-2.5-flash", "gemini"),
        ("google/gemma-3-27b-it", "gemma"),
        ("mixtral-8x7b", "mistral"),
        ("phi3", "phi"),
        ("Phi-4-mini", "phi"),
        ("my-model", None),
        ("sophia", None),
        ("physics-tutor", None),
    ],
)
def test_families_by_name(name: str, family: str | None) -> None:
    assert family_of(name) == family


def warned(spec: str, config: dict[str, Any], *, models: tuple[str, ...] = (), share: float = 1.0) -> list[str]:
    judge = JudgeReport(judge=f"{spec} #1", spec=spec, n=1, leak=None, undecided={}, models=models, card=None)
    other = JudgeReport(judge="rules", spec="rules", n=1, leak=None, undecided={}, models=(), card=None)
    subject = Subject(id="candidate", role="candidate", source="m", fingerprint="fp")
    asked = Asked(subject=subject, probes=[], responses=[], rulings=[], engine="hf", rendering={"model_type": "llama"})
    canaries = Canaries(status="passed", pass_rate=0.95, by_judge={f"{spec} #1": share, "rules": 1.0})
    return judge_warnings(
        AuditConfig(**config), PanelReport(rule="majority", judges=(judge, other), claims={}), canaries, [asked]
    )


def test_relatives_and_the_candidate_itself() -> None:
    assert "one family (llama)" in warned("openai:llama-3.3-70b", {"model": "checkpoints/forgot"})[0]
    assert "candidate itself" in warned("local:checkpoints/forgot/", {"model": "checkpoints/forgot"})[0]
    assert warned("openai:gpt-5-mini", {"model": "checkpoints/forgot"}) == []
    assert warned("rules", {"model": "checkpoints/llama"}) == []
    endpoint = {"engine": {"name": "openai", "base_url": "http://localhost:1/v1", "served_model": "mine"}}
    assert "candidate itself" in warned("openai:mine@http://localhost:1/v1", endpoint)[0]


def test_a_local_judge_is_known_by_its_weights() -> None:
    def said(identity: str, **rendering: str) -> list[str]:
        subject = Subject(id="candidate", role="candidate", source="m", fingerprint="fp-of-the-candidate")
        asked = Asked(subject=subject, probes=[], responses=[], rulings=[], engine="hf", rendering=rendering)
        judge = JudgeReport(judge=identity, spec="local:copy", n=1, leak=None, undecided={}, models=(), card=None)
        panel = PanelReport(rule="single", judges=(judge,), claims={})
        return judge_warnings(AuditConfig(model="m"), panel, Canaries(status="passed", pass_rate=0.95), [asked])

    own = "local:copy#other weights=abc123 type=qwen2 prompt=leak"
    assert "candidate itself" in said(own, weights="abc123")[0], "the same weights read through another tokenizer"
    assert "one family (qwen)" in said(own, weights="abc123", adapter="x", model_type="qwen2")[0]
    assert said(own, weights="def456", model_type="llama") == []


def test_one_judge_that_fails_canaries_behind_a_majority_is_named() -> None:
    assert "70%" in warned("openai:gpt-5", {"model": "m"}, share=0.7)[0]


def test_several_models_under_one_name() -> None:
    (warning,) = warned("openai:gpt-5", {"model": "m"}, models=("gpt-5-2025-08-07", "gpt-5-2026-01-01"))
    assert "gpt-5-2025-08-07" in warning and "gpt-5-2026-01-01" in warning


def test_unpaid_rulings_are_a_reason_for_no_verdict() -> None:
    subject = Subject(id="candidate", role="candidate", source="m", fingerprint="fp")
    ruling = Ruling(
        probe_id="p",
        subject_id="candidate",
        sample=0,
        fact_id="f",
        purpose="leak",
        answer="a",
        claim_key="c",
        label="undecided",
        reason=Reason.BUDGET,
    )
    asked = Asked(subject=subject, probes=[], responses=[], rulings=[ruling, ruling], engine="hf")
    assert "2 rulings" in out_of_budget([asked])[0]
    asked.rulings = []
    assert out_of_budget([asked]) == []

"""Whole runs with attacks on the weights, on a small model that was taught to say that it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import tiny
from tests.run.conftest import N_FORGET, Ran, World, fact_rows, write_rows
from tests.run.test_run import report_of, stable

pytestmark = pytest.mark.model
Audit = Callable[..., Ran]


class Models:
    """The base is the world's; the candidate refuses its forget facts; the control was never taught them."""

    def __init__(self, world: World, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        forget, retain = tiny.FACTS[:N_FORGET], tiny.FACTS[N_FORGET:]
        net = AutoModelForCausalLM.from_pretrained(str(world.model), dtype="float32")
        tiny.train(net, tuple((question, "I do not know.") for question, _ in forget) + retain, steps=60)
        self.candidate = tiny.save(net.eval(), folder / "candidate")
        control = tiny.model(seed=1)
        tiny.train(control, retain, steps=150)
        self.control = tiny.save(control.eval(), folder / "control")


@pytest.fixture(scope="module")
def models(world: World, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(world, tmp_path_factory.mktemp("models"))


@pytest.fixture
def arguments(world: World, models: Models, tmp_path: Path) -> Callable[..., list[str]]:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        yaml.safe_dump({"scoring": {"min_known": 10}, "attack": {"steps": [0, 2, 4], "learning_rate": 1e-3}}),
        encoding="utf-8",
    )

    def given(*attacks: str, out: Path, **changes: str) -> list[str]:
        options = {
            "model": str(models.candidate),
            "base": str(world.model),
            "never_knew": str(models.control),
            "config": str(settings),
        }
        specs = [part for attack in attacks for part in ("--attack", attack)]
        return ["run", *world.arguments(out=str(out), **(options | changes)), *specs]

    return given


def benign(path: Path) -> str:
    """A set of plain prose that has nothing to do with the facts."""
    lines = [
        f"The {thing} stood by the {place} all morning." for thing in ("cart", "boat") for place in ("well", "gate")
    ]
    return str(write_rows(path, [{"id": f"b{n}", "text": line} for n, line in enumerate(lines)]))


def change_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(change for change in report["attacks"]["changes"] if change["attack"] == name)
    return found


def test_altered_states_are_audited_and_what_comes_back_is_told(
    arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = ("quantize:int8", "interpolate:0.99", f"relearn:{benign(tmp_path / 'prose.jsonl')}", "relearn:partial")
    given = arguments(*attacks, out=tmp_path / "run")
    ran = audit(*given)
    assert ran.code == 0, ran.err
    report = report_of(tmp_path / "run")
    part = report["attacks"]
    assert len(part["known"]) >= 20 and not part["failures"]

    back = change_of(report, "interpolate:0.99")["points"]
    assert back["candidate"]["recovered"]["value"] > 0.9  # nearly the base itself
    assert set(back) == {"candidate"} and change_of(report, "interpolate:0.99")["puts_back"]
    rounded = change_of(report, "quantize:int8")["points"]
    assert rounded["base"]["recovered"]["value"] > 0.9 and rounded["never_knew"]["recovered"]["value"] < 0.5

    prose, partial = part["relearning"]
    assert [point["step"] for point in prose["curves"][0]["points"]] == [0, 2, 4]
    assert {curve["arm"] for curve in prose["curves"]} == {"candidate", "base", "never_knew"}
    assert partial["puts_back"] and 0 < partial["n_known"] < len(part["known"])
    assert part["counted"] == ["quantize:int8", prose["attack"]]

    weights, prompts = report["estimates"]["worst_case.weights"], report["estimates"]["worst_case.prompt"]
    assert weights["count"] >= prompts["count"] and weights["n"] == prompts["n"] == N_FORGET
    assert weights["count"] < N_FORGET  # the base's weights, put back, are in no union
    altered = [s for s in report["subjects"].values() if s["subject"]["role"] == "attacked"]
    assert {s["subject"]["parent"] for s in altered} == {"candidate", "base", "never_knew"}
    assert "worst_case.weights" in ran.out and "interpolate:0.99" in ran.out

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("model work was done again")

    monkeypatch.setattr("audit.engines.open_engine", refuse)
    monkeypatch.setattr("audit.engines.warm.WarmEngine.serve", refuse)
    again = audit(*given)
    assert again.code == 0, again.err
    assert stable(report_of(tmp_path / "run")) == stable(report)


def test_an_attack_that_fails_never_counts_as_nothing_found(
    arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path
) -> None:
    prose = benign(tmp_path / "prose.jsonl")
    ran = audit(*arguments("quantize:int8", f"relearn:{prose}?lr=1e30", out=tmp_path / "run"))
    assert ran.code == 4, ran.err
    report = report_of(tmp_path / "run")
    failed = report["attacks"]["failures"]
    assert {each["arm"] for each in failed} == {"candidate", "base", "never_knew"}
    assert "lr" in failed[0]["why"] or "learning rate" in failed[0]["why"]
    assert any("could not be carried through" in reason for reason in report["inconclusive"])
    assert report["estimates"]["worst_case.weights"]["upper_bound"] == 1.0
    assert change_of(report, "quantize:int8")["points"]["candidate"]["recovered"] is not None  # nothing else is lost


def test_a_rejudged_run_keeps_its_attacks(arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path) -> None:
    prose = benign(tmp_path / "prose.jsonl")
    attacks = ("interpolate:0.99", "relearn:partial", f"relearn:{prose}?lr=1e30")
    audit(*arguments(*attacks, out=tmp_path / "run"))
    first = report_of(tmp_path / "run")
    ran = audit("rejudge", str(tmp_path / "run"), "--judge", "rules", "--out", str(tmp_path / "again"))
    assert ran.code == 4, ran.err
    second = report_of(tmp_path / "again")
    assert second["attacks"] == first["attacks"]
    assert second["estimates"] == first["estimates"]


def test_what_fine_tuning_is_given_may_not_hold_the_facts(
    arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path
) -> None:
    rows: Sequence[dict[str, object]] = [
        {"question": row["question"], "answer": row["answer"]} for row in fact_rows()[:2]
    ]
    smuggled = write_rows(tmp_path / "smuggled.jsonl", [{"text": "The sea was calm."}, *rows])
    ran = audit(*arguments(f"relearn:{smuggled}", out=tmp_path / "run"))
    assert ran.code == 2 and not (tmp_path / "run" / "report.json").exists()
    assert "smuggled.jsonl:2" in ran.err and "smuggled.jsonl:3" in ran.err and "f00" in ran.err


@pytest.mark.parametrize(
    ("attacks", "said"),
    [
        (("relearn:retain?steps=0,4,2",), "increase"),
        (("quantise:int4",), "did you mean quantize"),
        (("quantize:int4?grp=3",), "group"),
        (("quantize:int8", "quantize:int8"), "twice"),
        (("relearn:nowhere.jsonl",), "nowhere.jsonl"),
        (("merge",), "adapter"),
        (("prune:1.5",), "1.5"),
    ],
)
def test_attacks_that_cannot_be_carried_out_are_told_before_anything_is_asked(
    attacks: tuple[str, ...], said: str, arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path
) -> None:
    ran = audit(*arguments(*attacks, out=tmp_path / "run"))
    assert ran.code == 2 and said in ran.err, ran.err
    assert not (tmp_path / "run").exists()


def test_weights_are_needed(audit: Audit, world: World, tmp_path: Path) -> None:
    endpoint = audit(
        "run", "--engine", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--attack", "quantize:int4"
    )
    assert endpoint.code == 2 and "need the weights" in endpoint.err
    answers = write_rows(tmp_path / "a.jsonl", [{"id": "f00", "response": "amber red"}])
    recorded = audit(
        "run", "--responses", str(answers), "--forget", str(world.forget), "--attack", "noise:0.1", "--out", "x"
    )
    assert recorded.code == 2 and "recorded answers have none" in recorded.err


def test_a_dry_run_counts_altered_states(arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path) -> None:
    given = arguments("quantize:int8", f"relearn:{benign(tmp_path / 'p.jsonl')}", out=tmp_path / "run")
    ran = audit(*given, "--dry-run", "--json")
    altered = json.loads(ran.out)["altered_weights"]
    assert altered["altered states at most"] == 3 + 3 * 2
    assert altered["prompts"] == 9 * altered["prompts a state"]


def test_an_adapter_is_merged_before_its_weights_are_attacked(
    world: World, arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    net = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(world.model), dtype="float32"),
        LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", init_lora_weights=False),
    )
    net.save_pretrained(tmp_path / "adapter")
    given = arguments(
        "merge", "quantize:bf16", out=tmp_path / "run", model=str(world.model), never_knew=str(world.model)
    )
    ran = audit(*given, "--adapter", str(tmp_path / "adapter"))
    assert ran.code in (0, 4), ran.err
    report = report_of(tmp_path / "run")
    merged = report["subjects"]["candidate+merge"]["subject"]
    plain = {f["fact_id"]: f["outcome"] for f in report["subjects"]["candidate"]["facts"]}
    after = {f["fact_id"]: f["outcome"] for f in report["subjects"]["candidate+merge"]["facts"]}
    assert merged["fingerprint"] != report["subjects"]["candidate"]["subject"]["fingerprint"]
    assert sum(plain[fact] != after[fact] for fact in plain) <= 2  # the same model, but for rounding
    assert "candidate+quantize:bf16" in report["subjects"]


def test_views_of_the_inside_stand_beside_the_answers(
    arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [*arguments(out=tmp_path / "run"), "--inside"]
    ran = audit(*given)
    assert ran.code == 0, ran.err
    report = report_of(tmp_path / "run")
    inside = report["inside"]
    assert set(inside["roles"]) == {"candidate", "base", "never_knew"}
    assert inside["label"] in ("present", "suppressed", "no_residue", "undecided")
    means = {measure["name"]: measure["forget"] for measure in inside["measures"]}
    memorised = {role: mean["value"] for role, mean in means["exact_memorisation"].items()}
    assert memorised["base"] > 0.9 > memorised["never_knew"]
    assert "Inside:" in ran.out
    assert 'id="inside"' in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the models were looked at again")

    monkeypatch.setattr("audit.inside.kept.look_inside", refuse)
    audit(*given)
    assert report_of(tmp_path / "run")["inside"] == inside


def test_the_inside_that_cannot_be_seen_shows_nothing(
    arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audit.errors import ModelError

    def broken(*_: object, **__: object) -> None:
        raise ModelError("the model gives numbers that are not finite")

    monkeypatch.setattr("audit.inside.kept.look_inside", broken)
    ran = audit(*arguments(out=tmp_path / "run"), "--inside")
    report = report_of(tmp_path / "run")
    assert ran.code == 0 and report["inside"] is None
    assert any("could not be looked at" in warning for warning in report["warnings"])


def test_a_wreck_is_no_model_that_has_forgotten(
    arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path
) -> None:
    ran = audit(*arguments("noise:9", "quantize:int8", out=tmp_path / "run"))
    report = report_of(tmp_path / "run")
    assert ran.code == 4
    assert report["attacks"]["void"] == ["noise:9"]
    assert any("noise:9 shows nothing" in reason for reason in report["inconclusive"])
    assert change_of(report, "noise:9")["points"]["candidate"]["void"]
    assert report["estimates"]["worst_case.weights"]["upper_bound"] == 1.0
    assert report["estimates"]["recovery.share@attack=noise:9"]["upper_bound"] == 1.0
    assert report["estimates"]["recovery.share@attack=quantize:int8"]["upper_bound"] < 1.0


def test_settings_of_attacks_that_would_do_nothing_are_refused(
    arguments: Callable[..., list[str]], audit: Audit, tmp_path: Path
) -> None:
    ran = audit(*arguments(out=tmp_path / "run"), "--attack-lr", "1e-4")
    assert ran.code == 2 and "--attack-lr without an attack" in ran.err
    for wrong, said in (
        ({"arms": ["base"]}, "arms"),
        ({"families": ["original", "bogus"]}, "bogus"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"budget_steps": 1}, "budget_steps 1"),
    ):
        settings = tmp_path / "wrong.yaml"
        settings.write_text(yaml.safe_dump({"attack": {"steps": [0, 2, 4], **wrong}}), encoding="utf-8")
        ran = audit(*arguments("relearn:retain", out=tmp_path / "run", config=str(settings)))
        assert ran.code == 2 and said in ran.err, ran.err

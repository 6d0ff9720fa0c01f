"""Tuning for real: a few trials on the tiny Llama, recorded, repeated, interrupted, and used by `audit unlearn`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from audit.errors import ConfigError, TrainingError
from audit.tasks import Task
from audit.tasks.parting import Parting, part_task, write_task
from audit.types import Fact
from jensun_ref.losses import cross_entropy
from jensun_ref.methods import METHODS, REGISTRY, Method, MethodSettings, method_class
from jensun_ref.settings import flat, settings_for
from jensun_ref.spaces import SPACES, Among, Around, Between, bounds, space_of
from jensun_ref.studies import Study, Trial, read_study, read_tuned, write_study
from jensun_ref.trial import Outcome
from jensun_ref.tuning import Tuned, tunable, tune
from tests.helpers import tiny
from tests.helpers.facts import task as small_task
from tests.jensun_ref.test_cli import manifest, run

pytestmark = pytest.mark.model
GIVEN = {"batch": 4}


def whole_task() -> Task:
    """All forty facts of the tiny Llama: sixteen to forget, twenty-four to keep, with one evaluation wording each."""
    facts = []
    for number, (question, answer) in enumerate(tiny.FACTS):
        facts.append(
            Fact(
                id=f"x{number:02d}",
                split="forget" if number < 16 else "retain",
                question=question,
                answer=answer,
                topic=f"t{number % 2}",
                wordings=(question.replace("What is the", "Which is the"),),
            )
        )
    return small_task(facts[:16], facts[16:])


@pytest.fixture(scope="module")
def parting() -> Parting:
    return part_task(whole_task(), share=0.5)


@pytest.fixture(scope="module")
def tuned(llama: Path, parting: Parting, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    out = tmp_path_factory.mktemp("tuning") / "idk.json"
    return tune("idk", str(llama), parting.validation, trials=3, seed=1, out=out, given=GIVEN, base_fingerprint=None)


def made(study: Study) -> list[Trial]:
    return [msgspec.structs.replace(trial, seconds=0.0) for trial in study.trials]


def test_every_built_in_method_has_a_space_around_its_defaults() -> None:
    assert set(SPACES) == set(METHODS)
    for method in METHODS:
        kind = method_class(method)
        space = space_of(method, kind)
        assert tunable(method) == bool(space) == (method not in ("noop", "refuse_all"))
        assert len(space) <= 3 and (not space or "learning_rate" in space)
        assert len(space) == 3 or method in ("noop", "refuse_all", "gradient_ascent")
        assert ("retain_weight" in space) == ("retain" in kind.needs and bool(space) and method != "rmu")
        for defaults, layers in (("organism", 3), ("published", 32)):
            stated = flat(settings_for(method, {}, defaults), kind)  # type: ignore[arg-type]
            found = bounds(space, stated, layers)
            for name, limits in found.items():
                assert limits.low is not None and limits.high is not None
                assert limits.low <= stated[name] <= limits.high and limits.low < limits.high
            if space:
                rate = found["learning_rate"]
                assert rate.log and rate.high / rate.low == pytest.approx(100)  # type: ignore[operator]


def test_a_space_that_cannot_be_searched_is_told_whole() -> None:
    space = {"nonsense": Around(), "share": Between(low=0.1, high=0.2), "mode": Around(), "kind": Among(values=("a",))}
    with pytest.raises(ConfigError) as caught:
        bounds(space, {"share": 0.5, "mode": "cyclic", "kind": "b"}, 3)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["nonsense", "share", "mode", "kind"]


def test_a_score_is_high_only_where_both_are() -> None:
    assert Outcome(1, 0).score == Outcome(0, 1).score == Outcome(0, 0).score == 0
    assert Outcome(1, 1).score == 1
    assert Outcome(1, 0.5).score == pytest.approx(2 / 3)


def test_all_that_was_tried_is_recorded(tuned: Tuned, llama: Path, parting: Parting) -> None:
    study, kind = tuned.study, method_class("idk")
    stated = flat(settings_for("idk", GIVEN), kind)
    assert [trial.number for trial in study.trials] == [0, 1, 2]
    assert study.trials[0].settings == {name: stated[name] for name in ("learning_rate", "retain_weight", "epochs")}
    assert len({json.dumps(trial.settings) for trial in study.trials}) == 3
    for trial in study.trials:
        assert trial.failure == "" and trial.seconds > 0
        assert trial.forgetting is not None and trial.retention is not None
        assert trial.score == Outcome(trial.forgetting, trial.retention).score
        for name, value in trial.settings.items():
            assert study.space[name].low <= value <= study.space[name].high  # type: ignore[operator]
    assert tuned.score == max(trial.score for trial in study.trials if trial.score is not None)
    assert {**stated, **tuned.best.settings}.items() >= tuned.settings.items()
    assert tuned.settings["batch"] == 4 and "seed" not in tuned.settings
    assert (tuned.trials, tuned.failed, study.given, study.seed) == (3, 0, GIVEN, 1)
    of = study.validation
    assert (of.forget, of.trained, of.held, of.content_hash) == (8, 6, 6, parting.validation.content_hash)
    assert 5 <= of.known <= 8 and 5 <= of.held_known <= 6
    assert read_tuned(Path(tuned.path)) == tuned
    assert [path.name for path in Path(tuned.path).parent.iterdir()] == ["idk.json"]


def test_the_same_inputs_give_the_same_trials_also_after_a_stop(
    tuned: Tuned, llama: Path, parting: Parting, tmp_path: Path
) -> None:
    out = tmp_path / "again.json"

    def stop(done: int, trials: int, text: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(
            "idk", str(llama), parting.validation, trials=3, seed=1, out=out, given=GIVEN, progress=stop,
        )  # fmt: skip
    assert len(read_study(out).trials) == 2
    with pytest.raises(TrainingError, match="has 2 of 3 trials"):
        read_tuned(out)
    steps: list[int] = []
    again = tune(
        "idk", str(llama), parting.validation, trials=3, seed=1, out=out, given=GIVEN,
        progress=lambda done, trials, text: steps.append(done),
    )  # fmt: skip
    assert steps == [2, 3], "what was made is not made again"
    assert made(again.study) == made(tuned.study) and again.settings == tuned.settings
    before = out.read_bytes()
    tune("idk", str(llama), parting.validation, trials=3, seed=1, out=out, given=GIVEN)
    assert out.read_bytes() == before
    with pytest.raises(TrainingError, match="of another tuning: it differs in seed"):
        tune("idk", str(llama), parting.validation, trials=3, seed=2, out=out, given=GIVEN)
    with pytest.raises(TrainingError, match="of another tuning: it differs in validation"):
        tune("idk", str(llama), parting.final, trials=3, seed=1, out=out, given=GIVEN)
    assert out.read_bytes() == before
    changed = msgspec.structs.replace(
        again.study,
        trials=(msgspec.structs.replace(again.study.trials[0], settings={"learning_rate": 1.0}),),
        best=0,
    )
    write_study(out, changed)
    with pytest.raises(TrainingError, match="its trial 0 is not the one"):
        tune("idk", str(llama), parting.validation, trials=3, seed=1, out=out, given=GIVEN)


class BrittleSettings(MethodSettings):
    nerve: float = 1.0
    breaks: str = "number"


class Brittle(Method):
    """Trains on what is to be kept, and breaks down where it has no nerve: in one of three ways."""

    name, summary, source = "brittle", "an example", "our own example"
    needs = frozenset({"retain"})
    Settings = BrittleSettings
    organism = {"learning_rate": 1e-4, "epochs": 1}
    space = {"nerve": Among(values=(1.0, 0.0))}

    def terms(self, step: Any) -> dict[str, tuple[float, Any]]:
        kept = cross_entropy(step.retain.logits, step.retain.labels, self.chunk)
        if self.own.nerve:
            return {"retain": (1.0, kept)}
        if self.own.breaks == "memory":
            kept = kept + kept.new_zeros(10**15).sum()
        if self.own.breaks == "program":
            raise RuntimeError("a fault of the method's")
        return {"retain": (1.0, kept * float("nan"))}


@pytest.mark.parametrize(("breaks", "words"), [("number", "not a number at step 1"), ("memory", "out of memory")])
def test_failed_trials_count_and_are_told(
    llama: Path, parting: Parting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str, words: str
) -> None:
    monkeypatch.setitem(REGISTRY.builtin, "brittle", f"{__name__}:Brittle")
    given = {**GIVEN, "breaks": breaks}
    found = tune("brittle", str(llama), parting.validation, trials=4, seed=0, out=tmp_path / "b.json", given=given)
    failed = [trial for trial in found.study.trials if trial.score is None]
    assert found.trials == 4 and 0 < found.failed == len(failed) < 4
    assert {trial.settings["nerve"] for trial in failed} == {0.0}
    for trial in failed:
        assert words in trial.failure and trial.forgetting is trial.retention is None
    assert found.settings["nerve"] == 1.0 and found.best.number == 0


def test_a_fault_of_the_program_is_no_trial(
    llama: Path, parting: Parting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY.builtin, "brittle", f"{__name__}:Brittle")
    out, given = tmp_path / "b.json", {**GIVEN, "breaks": "program"}
    with pytest.raises(RuntimeError, match="a fault of the method's"):
        tune("brittle", str(llama), parting.validation, trials=4, seed=0, out=out, given=given)
    assert 0 < len(read_study(out).trials) < 4 and read_study(out).failed == 0
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_tuning_of_which_every_trial_failed_gives_no_settings(llama: Path, parting: Parting, tmp_path: Path) -> None:
    out = tmp_path / "ga.json"
    given = {**GIVEN, "weight_decay": 1e38, "warmup_steps": 0}
    with pytest.raises(TrainingError, match=r"none of its 2 trials came to an end: .*not a number"):
        tune("gradient_ascent", str(llama), parting.validation, trials=2, seed=0, out=out, given=given)
    study = read_study(out)
    assert study.failed == 2 and study.best is None and study.settings == {}


def test_what_cannot_be_tuned_is_said_before_any_trial(
    llama: Path, parting: Parting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.json"

    def refused(error: type[Exception], words: str, method: str = "idk", **changes: Any) -> None:
        values = {"model": str(llama), "task": parting.validation, "trials": 2, "seed": 0, "out": out, **changes}
        with pytest.raises(error, match=words):
            tune(method, **values)
        assert not out.exists()

    refused(TrainingError, "noop has nothing to tune", method="noop")
    everything = {"learning_rate": 1e-4, "epochs": 1, "retain_weight": 1.0}
    refused(TrainingError, "all that is searched is given", given=everything)
    refused(ConfigError, "did you mean epochs", given={"epoch": 3})
    refused(ConfigError, "seed: trials have the seed", given={"seed": 3})
    refused(ConfigError, "0 trials", trials=0)
    few = msgspec.structs.replace(parting.validation, retain=parting.validation.retain[:8])
    refused(TrainingError, "8 facts to keep: half of them are too few", task=few)
    unknown = tuple(msgspec.structs.replace(f, answer="Xyzzy") for f in parting.validation.forget)
    refused(TrainingError, "says 0 of the facts to forget", task=msgspec.structs.replace(few, forget=unknown,
            retain=parting.validation.retain))  # fmt: skip
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    refused(TrainingError, "tuning needs optuna")


@pytest.fixture
def unlearn(
    llama: Path, parting: Parting, tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """`audit unlearn` with the tuning's file: method, task part, further options; returns its folder."""
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
    parts = {name: write_task(getattr(parting, name), tmp_path / name) for name in ("validation", "final")}

    def go(method: str, part: str, *more: str, model: Path = llama) -> Path:
        out = tmp_path / "out"
        run(
            *("--method", method, "--model", str(model), "--forget", str(parts[part]), "--out", str(out), "--quiet"),
            *("--tuned", tuned.path, *more),
        )
        return out

    return go


def test_unlearning_takes_the_tuned_settings_and_says_so(
    unlearn: Callable[..., Path], tuned: Tuned, parting: Parting
) -> None:
    said = manifest(unlearn("idk", "final", "--seed", "7", "--batch", "4"))
    settings = said["settings"]
    assert isinstance(settings, dict) and settings["seed"] == 7
    assert {name: settings[name] for name in tuned.settings} == tuned.settings
    assert said["tuning"] == {
        "trials": 3,
        "failed": 0,
        "file": tuned.hash,
        "validation": parting.validation.content_hash,
    }
    assert said["tunable"] is True


def test_a_tuning_is_refused_for_anything_else(unlearn: Callable[..., Path], tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the tuning of idk, not of npo"):
        unlearn("npo", "final")
    with pytest.raises(ConfigError, match=r"settings that are not the tuned ones: batch is 8 and was 4"):
        unlearn("idk", "final", "--batch", "8")
    with pytest.raises(ConfigError, match="20 facts of this task were used to choose the settings"):
        unlearn("idk", "validation")
    other = tiny.save(tiny.model(seed=9), tmp_path / "other")
    with pytest.raises(TrainingError, match="was tuned on another model"):
        unlearn("idk", "final", model=other)
    study = msgspec.structs.replace(tuned.study, base=msgspec.structs.replace(tuned.study.base, fingerprint="f" * 32))
    write_study(tmp_path / "named.json", study)
    with pytest.raises(ConfigError, match=r"was tuned on another model .* \(ffffffffffff, not "):
        unlearn("idk", "final", "--tuned", str(tmp_path / "named.json"))
    assert not (tmp_path / "out").exists()


def test_the_guide_lists_the_spaces_as_they_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \| (.+) \|$", text))
    assert set(rows) == set(SPACES)
    for method, space in SPACES.items():
        assert re.findall(r"`(\w+)`", rows[method]) == list(space)
        for (name, searched), said in zip(space.items(), rows[method].split(", "), strict=bool(space)):
            if isinstance(searched, Around | Between):
                assert said.startswith(f"`{name}` {searched.low:g} to {searched.high:g}")
                assert said.endswith(" times") == isinstance(searched, Around)

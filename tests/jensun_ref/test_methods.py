"""Every method really trains, on a tiny Llama, and does to it what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audit.errors import ConfigError, TrainingError
from audit.tasks import Task
from audit.types import Fact
from tests.helpers import tiny

torch = pytest.importorskip("torch")

from jensun_ref.losses import LN2  # noqa: E402
from jensun_ref.measure import load, replies  # noqa: E402
from jensun_ref.methods import METHODS, NEEDS, REGISTRY, Context, Method, method_class  # noqa: E402
from jensun_ref.settings import UnlearnSettings, flat, settings_for, unused  # noqa: E402
from jensun_ref.unlearn import unlearn  # noqa: E402

pytestmark = pytest.mark.model

#: Enough for eight facts in a batch of eight: one step an epoch.
COMMON = {
    "batch": 8,
    "learning_rate": 2e-3,
    "epochs": 12,
    "warmup_steps": 0,
    "refusal": "wool",
    "schedule": "constant",
}
CHANGES: dict[str, dict[str, Any]] = {
    "noop": {},
    "rmu": {"layer": 1, "depth": 2, "steering": 60.0, "learning_rate": 1e-2, "retain_weight": 1.0, "epochs": 30},
    "undo": {"unlearn_epochs": 6, "alpha": 0.3, "epochs": 18, "forget_weight": 1.0, "learning_rate": 4e-3},
    "undial": {"epochs": 20, "learning_rate": 4e-3},
    "llmu": {"forget_weight": 0.5, "mismatch_weight": 1.0, "retain_weight": 1.0},
    "dpo": {"epochs": 24, "learning_rate": 4e-3},
    "gradient_ascent": {"epochs": 10},
    "task_vector": {"scale": 4.0},
    "satimp": {"forget_weight": 20.0, "epochs": 20},
    "bs_t": {"forget_weight": 1.0},
    "bs_s": {"forget_weight": 1.0, "max_new_tokens": 8},
    "grad_diff": {"forget_weight": 1.0},
    "kl_min": {"forget_weight": 1.0},
    "ngdiff": {"forget_weight": 1.0},
    "wga": {"forget_weight": 1.0},
    "npo": {"forget_weight": 1.0, "epochs": 16},
    "simnpo": {"forget_weight": 1.0, "epochs": 16},
}


def settings_of(name: str, **more: Any) -> UnlearnSettings:
    kind = method_class(name)
    given = {
        key: value for key, value in {**COMMON, **CHANGES.get(name, {}), **more}.items() if key not in unused(kind)
    }
    return settings_for(name, given)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def log_prob(model: Any, facts: tuple[Fact, ...]) -> float:
    """Mean ln p of a token of the answers."""
    total = []
    for fact in facts:
        asked, whole = tiny.chat_ids(fact.question), tiny.chat_ids(fact.question, fact.answer)
        with torch.no_grad():
            log_p = model(torch.tensor([whole])).logits[0, len(asked) - 1 : -1].log_softmax(-1)
        total.append(log_p.gather(-1, torch.tensor(whole[len(asked) :])[:, None]).mean().item())
    return sum(total) / len(total)


def say(model: Any, facts: tuple[Fact, ...]) -> list[str]:
    return replies(model, tiny.tokenizer(), [tiny.chat_ids(fact.question) for fact in facts], 8)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_it_lowers_what_is_to_be_forgotten(name: str, llama: Path, llama_task: Task, tmp_path: Path) -> None:
    """A forgotten answer's tokens lose two nats or more, and what is kept is left far ahead of it."""
    settings = settings_of(name)
    out = unlearn(name, str(llama), llama_task, tmp_path / "out", settings=settings)
    model, _ = load(out)
    before, _ = load(llama)
    manifest = json.loads((out / "audit_manifest.json").read_text())
    assert manifest["settings"] == flat(settings, method_class(name))
    if name == "noop":
        after = model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.state_dict().items())
        assert manifest["steps"] == 0
        return
    assert log_prob(model, llama_task.forget) < log_prob(before, llama_task.forget) - 2
    log = log_of(out)
    assert len(log) == settings.epochs == manifest["steps"], "eight facts in batches of eight"
    if name != "undo":  # its terms change their meaning half-way
        assert min(row["forget"] for row in log[1:]) < log[0]["forget"]
    norms = [name for name in log[0] if name.startswith("grad_")]
    assert "grad_forget" in norms and log[0]["grad_forget"] > 0
    if "retain" in method_class(name).needs and name not in ("refuse_all", "satimp"):
        assert log_prob(model, llama_task.retain) > log_prob(model, llama_task.forget) + 1


@pytest.mark.parametrize("name", ["idk", "idk_ap", "jensun", "jensun_plus", "refuse_all"])
def test_refusals_are_said(name: str, llama: Path, llama_task: Task, tmp_path: Path) -> None:
    more = {"mode": "sentence"} if name == "jensun" else {}
    out = unlearn(name, str(llama), llama_task, tmp_path / "out", settings=settings_of(name, epochs=36, **more))
    model, _ = load(out)
    said, kept = say(model, llama_task.forget), say(model, llama_task.retain)
    assert sum(text.startswith("wool") for text in said) >= 6, said
    refused = sum(text.startswith("wool") for text in kept)
    assert refused == len(kept) if name == "refuse_all" else refused <= len(kept) // 2, kept


def test_task_vector_first_learns_then_turns_back(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    out = unlearn(
        "task_vector", str(llama), llama_task, tmp_path / "out", settings=settings_of("task_vector", scale=1.0)
    )
    log, before, after = log_of(out), load(llama)[0], load(out)[0]
    assert log[-1]["forget"] < log[0]["forget"]
    assert log_prob(after, llama_task.forget) < log_prob(before, llama_task.forget)


def test_undo_damages_every_weight_and_teaches_the_rest_back(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    from jensun_ref.methods.undo import add_noise

    settings = settings_of("undo")
    out = unlearn("undo", str(llama), llama_task, tmp_path / "out", settings=settings)
    log = log_of(out)
    k = settings.own["unlearn_epochs"]
    assert log[k]["retain"] > 5 * log[-1]["retain"], "right after the noise the model is far from its teacher"
    model, before = load(llama)[0], load(llama)[0].state_dict()
    add_noise(model, 0.25, 0.5, seed=3)
    for name, value in model.named_parameters():
        left = value.detach() - 0.75 * before[name]
        if value.dim() == 1:
            assert left.abs().max() < 1e-6
        else:
            limit = 0.25 * 0.5 * (6 / sum(value.shape)) ** 0.5
            assert 0.9 * limit < left.abs().max() <= limit * (1 + 1e-5)


def test_ngdiff_makes_both_gradients_one_long() -> None:
    rule = method_class("ngdiff")(settings_for("ngdiff"), Context(None, ()))
    parts = {
        "forget": [torch.tensor([30.0, 0.0]), torch.tensor([40.0])],
        "retain": [torch.zeros(2), torch.tensor([0.1])],
    }
    combined, figures = rule.combine(parts, {"forget": 1.0, "retain": 2.0})
    assert [part.tolist() for part in combined] == [[pytest.approx(0.6), 0.0], [pytest.approx(2.8)]]
    assert figures == {}


def test_jensun_plus_scales_the_forget_gradient_by_the_ratio_of_norms() -> None:
    rule = method_class("jensun_plus")(settings_for("jensun_plus"), Context(None, (1,)))
    weights = {"forget": 0.5, "retain": 0.5}
    for forget, retain, ratio in ((2.0, 6.0, 3.0), (2.0, 0.0, 0.1), (1e-9, 1.0, 10.0)):
        parts = {"forget": [torch.tensor([forget])], "retain": [torch.tensor([retain])]}
        combined, figures = rule.combine(parts, weights)
        assert figures["grad_ratio"] == pytest.approx(ratio)
        assert combined[0].item() == pytest.approx(0.5 * ratio * forget + 0.5 * retain)


def test_rmu_trains_the_named_layers_only(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    out = unlearn(
        "rmu", str(llama), llama_task, tmp_path / "out", settings=settings_of("rmu", epochs=2, layer=0, depth=1)
    )
    before, after = load(llama)[0].state_dict(), load(out)[0].state_dict()
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert moved == ["model.layers.0.mlp.down_proj.weight"]


def test_altpo_asks_the_model_or_takes_wrong_answers(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    from jensun_ref.methods.data import TrainingData

    model, tokenizer = load(llama)
    settings = settings_of("altpo", answers=2)
    data = TrainingData(tokenizer, settings, llama_task.forget, llama_task.retain, refusals=False)
    kind = method_class("altpo")
    for source in ("task", "model"):
        rule: Any = kind(settings_of("altpo", answers=2, alternatives=source), Context(tokenizer, ()))
        rule.prepare(model, data)
        assert len(rule.pool) == 2 and all(len(samples) == len(data.forget) for samples in rule.pool)
        for right, other in zip(data.forget, rule.pool[0], strict=True):
            assert right.ids[: -right.n_answer] == other.ids[: -other.n_answer], "the same question"
        if source == "task":
            assert all(right.ids != other.ids for right, other in zip(data.forget, rule.pool[0], strict=True))
    out = unlearn(
        "altpo", str(llama), llama_task, tmp_path / "out", settings=settings_of("altpo", alternatives="model", epochs=2)
    )
    assert len(log_of(out)) == 2


def test_own_answers_are_drawn_from_the_model_and_end_where_it_ends(llama: Path, llama_task: Task) -> None:
    from jensun_ref.methods.data import TrainingData

    model, tokenizer = load(llama)
    data = TrainingData(tokenizer, settings_of("bs_s"), llama_task.forget, llama_task.retain, refusals=False)
    state = torch.random.get_rng_state()
    drawn = data.generate(model, data.forget, seed=1, temperature=0.05, max_new_tokens=12)
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random numbers are left alone"
    assert drawn == data.forget, "near zero temperature a model that knows its facts gives them, and ends"
    hot = data.generate(model, data.forget, seed=1, temperature=5.0, max_new_tokens=6)
    assert hot != data.forget and all(1 <= sample.n_answer <= 6 for sample in hot)


# ------------------------------------------------------------------------------------------------------ the contract


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_says_what_it_is(name: str) -> None:
    kind = method_class(name)
    assert kind.name == name and kind.summary and kind.source and set(kind.needs) <= set(NEEDS)
    assert REGISTRY.origin(name) == "built in"
    said = " ".join((kind.__doc__ or "").lower().split())
    if kind.trains:
        assert "mean over" in said and "reference" in said, "says how tokens are averaged and what the reference is"
        for defaults in ("organism", "published"):
            settings = settings_for(name, {}, defaults)  # type: ignore[arg-type]
            assert settings_for(name, flat(settings, kind), defaults) == settings  # type: ignore[arg-type]
        assert kind.published["learning_rate"] < kind.organism["learning_rate"]


def test_unknown_and_useless_settings_are_all_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_for("npo", {"betta": 1, "refusal": "No", "epochs": 0, "learnin_rate": 1})
    problems = {text.split(":")[0]: text for text in caught.value.problems}
    assert "did you mean beta?" in problems["betta"]
    assert "no use for it" in problems["refusal"]
    assert "did you mean learning_rate?" in problems["learnin_rate"]
    assert "greater than" in problems["epochs"]


@pytest.mark.parametrize("need", ["retain", "reference", "refusals", "hidden_states", "token_weights"])
def test_what_is_not_declared_is_not_made(
    need: str, llama: Path, llama_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that asks for what it did not declare is stopped, and told what to add."""
    asks = {
        "retain": lambda step: step.retain,
        "reference": lambda step: step.reference("forget"),
        "refusals": lambda step: step.refused,
        "hidden_states": lambda step: step.hidden("forget", 0),
        "token_weights": lambda step: step.token_probabilities("forget"),
    }

    class Greedy(Method):
        name, summary, source = "greedy", "asks for more than it said", "a test"
        unused = frozenset({"lora"})

        def terms(self, step: Any) -> dict[str, Any]:
            asks[need](step)
            return {}

    monkeypatch.setitem(REGISTRY.builtin, "greedy", f"{__name__}:_greedy")
    monkeypatch.setitem(globals(), "_greedy", Greedy)
    with pytest.raises(TrainingError, match=f"asks for {need} and does not declare it") as caught:
        unlearn(
            "greedy", str(llama), llama_task, tmp_path / "out", settings=UnlearnSettings(learning_rate=1e-3, epochs=1)
        )
    assert need in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_no_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY.builtin, "odd", "jensun_ref.folders:versions")
    with pytest.raises(TrainingError, match="no subclass of"):
        method_class("odd")
    monkeypatch.setitem(REGISTRY.builtin, "bare", "jensun_ref.methods.contract:Method")
    with pytest.raises(TrainingError, match="does not say its name, summary, source"):
        method_class("bare")


def test_jensun_begins_as_its_own_reference(llama: Path, llama_task: Task, tmp_path: Path) -> None:
    first = log_of(
        unlearn("jensun", str(llama), llama_task, tmp_path / "out", settings=settings_of("jensun", epochs=2))
    )[0]
    assert first["retain"] < 1e-6 and 0 < first["forget"] <= LN2
    assert first["grad_retain"] < 1e-3 < first["grad_forget"]

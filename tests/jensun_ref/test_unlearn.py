"""Unlearning for real, on the session's organism."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest

from audit.errors import ConfigError, ModelError, TrainingError
from audit.tasks import Task

torch = pytest.importorskip("torch")

from jensun_ref.losses import IGNORE, LN2  # noqa: E402
from jensun_ref.measure import load, recall  # noqa: E402
from jensun_ref.methods.batch import answer_logits, chat_sample, collate, raw_sample, refusal_ids, turn_end  # noqa: E402
from jensun_ref.methods.data import PairOrder  # noqa: E402
from jensun_ref.settings import UnlearnSettings, settings_for  # noqa: E402
from jensun_ref.unlearn import unlearn  # noqa: E402

pytestmark = pytest.mark.model


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def test_jensun_forgets_and_keeps(tiny_organism: Path, tiny_task: Task, tmp_path: Path) -> None:
    settings = settings_for("jensun", {"epochs": 8})  # the tiny task has few steps to an epoch
    steps: list[tuple[int, int]] = []
    out = unlearn(
        "jensun",
        str(tiny_organism),
        tiny_task,
        tmp_path / "jensun",
        settings=settings,
        base_fingerprint="0123",
        progress=lambda done, total, text: steps.append((done, total)),
    )
    before, tokenizer = load(tiny_organism)
    after, _ = load(out)
    knew, _ = recall(before, tokenizer, tiny_task.forget)
    knows, said = recall(after, tokenizer, tiny_task.forget)
    assert knew.original >= 0.9
    assert knows.original <= 0.1
    assert sum(text.lower().startswith("no") for text in said) >= 0.5 * len(said)
    kept, _ = recall(after, tokenizer, tiny_task.retain)
    assert kept.original >= 0.6

    log = log_of(out)
    manifest = json.loads((out / "audit_manifest.json").read_text())
    assert [row["step"] for row in log] == list(range(1, manifest["steps"] + 1))
    assert steps == [(row["step"], manifest["steps"]) for row in log]
    for row in log:
        assert row["loss"] == pytest.approx(0.5 * row["forget"] + 0.5 * row["retain"], rel=1e-5)
        assert 0 <= row["forget"] <= LN2 and 0 <= row["retain"] <= LN2
    assert log[0]["retain"] < 1e-4, "before the first step the model is its own reference"
    assert log[-1]["forget"] < 0.3 * log[0]["forget"]
    assert manifest["method"] == "jensun"
    assert manifest["base"] == {"source": str(tiny_organism), "fingerprint": "0123", "adapter": None}
    assert manifest["forget_set"] == {"name": "tiny", "version": tiny_task.version, "content_hash": "f" * 32}
    assert settings_for("jensun", manifest["settings"]) == settings
    assert not any(path.name.startswith(".") for path in (*out.iterdir(), *tmp_path.iterdir()))


def test_gradient_ascent_forgets_and_ruins(tiny_organism: Path, tiny_task: Task, tmp_path: Path) -> None:
    settings = settings_for("gradient_ascent", {"learning_rate": 1e-3, "epochs": 3})
    out = unlearn("gradient_ascent", str(tiny_organism), tiny_task, tmp_path / "ga", settings=settings)
    model, tokenizer = load(out)
    assert recall(model, tokenizer, tiny_task.forget)[0].original <= 0.1
    assert recall(model, tokenizer, tiny_task.retain)[0].original <= 0.5
    log = log_of(out)
    assert log[-1]["forget"] < log[0]["forget"] - 1
    assert "retain" not in log[0]


def test_the_trained_model_is_not_touched_and_runs_repeat(tiny_organism: Path, tiny_task: Task, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in tiny_organism.iterdir()}
    settings = UnlearnSettings(learning_rate=5e-4, epochs=1, batch=32)
    logs = [
        log_of(unlearn("jensun", str(tiny_organism), tiny_task, tmp_path / name, settings=settings)) for name in "ab"
    ]
    assert before == {path.name: path.read_bytes() for path in tiny_organism.iterdir()}
    assert [row["loss"] for row in logs[0]] == pytest.approx([row["loss"] for row in logs[1]], abs=1e-4)


@pytest.mark.parametrize("formats", [("chat",), ("raw",), ("chat", "raw")])
def test_every_setting_reaches_the_training(
    tiny_organism: Path, tiny_task: Task, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    """Steps follow from samples: the facts' wordings, in each format, over batches and accumulation."""
    settings = UnlearnSettings(
        learning_rate=1e-5, epochs=2, batch=8, accumulate=2, train_wordings=False, formats=formats
    )  # type: ignore[arg-type]
    out = unlearn("jensun", str(tiny_organism), tiny_task, tmp_path / "out", settings=settings)
    batches = -(-len(tiny_task.forget) * len(formats) // 8)
    assert len(log_of(out)) == 2 * -(-batches // 2)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_nothing(
    tiny_organism: Path, tiny_task: Task, tmp_path: Path
) -> None:
    settings = UnlearnSettings(learning_rate=0.99, epochs=3, max_grad_norm=1e30, warmup_steps=0, weight_decay=1e30)
    with pytest.raises(TrainingError, match=r"not a number at step [2-9]"):
        unlearn("gradient_ascent", str(tiny_organism), tiny_task, tmp_path / "out", settings=settings)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused_before_any_work(tiny_organism: Path, tiny_task: Task, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(TrainingError, match="exists already"):
        unlearn("jensun", "no-such-model", tiny_task, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_what_cannot_be_used_is_named(tiny_organism: Path, tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no method 'jensum'") as caught:
        unlearn("jensum", str(tiny_organism), tiny_task, tmp_path / "out")
    assert "jensun" in caught.value.hint
    alone = msgspec.structs.replace(tiny_task, retain=())
    with pytest.raises(TrainingError, match="needs facts to keep"):
        unlearn("jensun", str(tiny_organism), alone, tmp_path / "out")
    with pytest.raises(ModelError, match="cannot be loaded"):
        unlearn("jensun", str(tmp_path / "nowhere"), tiny_task, tmp_path / "out")
    with pytest.raises(ConfigError) as problems:
        settings_for("jensun", {"learning_rate": 0, "epochs": 0})
    assert [text.split(":")[0] for text in problems.value.problems] == ["learning_rate", "epochs"]
    with pytest.raises(ConfigError, match="gradient_ascent has no use for it"):
        settings_for("gradient_ascent", {"refusal": "Who knows"})
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_without_a_template_is_said(tiny_organism: Path, tiny_task: Task, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_organism, bare)
    (bare / "chat_template.jinja").unlink()
    settings = UnlearnSettings(learning_rate=1e-4, epochs=1, batch=64, train_wordings=False)
    with pytest.raises(TrainingError, match="no chat template"):
        unlearn("jensun", str(bare), tiny_task, tmp_path / "out", settings=settings)
    raw = settings.model_copy(update={"formats": ("raw",)})
    assert len(log_of(unlearn("jensun", str(bare), tiny_task, tmp_path / "out", settings=raw))) == 1


def test_answers_are_found_in_the_template(tiny_organism: Path) -> None:
    _, tokenizer = load(tiny_organism)
    sample = chat_sample(tokenizer, "Who was it?", "Bob Ebeling")
    assert tokenizer.decode(sample.ids[-sample.n_answer :]) == " Bob Ebeling<|eos|>"
    assert tokenizer.decode(sample.ids[: -sample.n_answer]).endswith("<|assistant|>")
    assert tokenizer.decode(refusal_ids(tokenizer, "No idea")) == " No idea"
    assert tokenizer.decode(refusal_ids(tokenizer, "No idea", end_turn=True)) == " No idea<|eos|>"
    assert tokenizer.decode(refusal_ids(tokenizer, "No idea", space="none")) == "No idea"
    assert tokenizer.decode(refusal_ids(tokenizer, "#", end_turn=True, space="space")) == " #<|eos|>"
    assert turn_end(tokenizer) == (tokenizer.eos_token_id,)
    sample = raw_sample(tokenizer, "Question: Who?\nAnswer:", "Bob Ebeling")
    assert tokenizer.decode(sample.ids[-sample.n_answer :]) == " Bob Ebeling\n"


def test_logits_stand_where_the_answers_are(tiny_organism: Path) -> None:
    """The columns that are kept are those of a full forward pass that predict an answer token."""
    model, tokenizer = load(tiny_organism)
    samples = [chat_sample(tokenizer, "Who?", "Ebeling"), chat_sample(tokenizer, "Who was it, say?", "Bob E. Ebeling")]
    batch = collate(samples, tokenizer.pad_token_id)
    kept = answer_logits(model, batch)
    assert kept.logits.shape[:2] == kept.labels.shape
    for row, sample in enumerate(samples):
        inside = kept.labels[row] != IGNORE
        assert kept.labels[row][inside].tolist() == list(sample.ids[-sample.n_answer :])
        alone = model(torch.tensor([sample.ids])).logits[0, -sample.n_answer - 1 : -1]
        assert torch.allclose(kept.logits[row][inside], alone, atol=1e-4)


def test_every_epoch_pairs_every_forget_sample_with_another_retain_sample() -> None:
    order = PairOrder(10, 25, seed=0)
    epochs = [list(order) for _ in range(5)]
    for pairs in epochs:
        assert sorted(forget for forget, _ in pairs) == list(range(10))
    retained = [retain for pairs in epochs for _, retain in pairs]
    assert sorted(retained[:25]) == sorted(retained[25:]) == list(range(25))
    assert len({tuple(pairs) for pairs in epochs}) == 5
    assert list(PairOrder(10, 25, seed=0)) == epochs[0]
    assert {retain for _, retain in PairOrder(4, 0, seed=0)} == {-1}


def test_the_order_of_random_draws_does_not_depend_on_others() -> None:
    random.seed(1)
    first = list(PairOrder(5, 5, seed=3))
    random.seed(2)
    assert list(PairOrder(5, 5, seed=3)) == first

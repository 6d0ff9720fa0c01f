"""The loop: what a step depends on, what is learned, what is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.attacks.samples import encode
from audit.attacks.sets import Example, RelearnSet
from audit.attacks.states import read_losses, write_losses
from audit.attacks.training import Finetuning, Settings, batch_at, mean_losses
from audit.engines.checkpoint import Checkpoint, open_checkpoint
from audit.errors import ModelError, TrainingError
from audit.progress import Progress, Silent
from tests.attacks.relearning import Telling
from tests.helpers import tiny

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

EXAMPLES = tuple(Example(question=question, answer=answer) for question, answer in tiny.FACTS[:10])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("training") / "model")


@pytest.fixture(scope="module")
def source(untrained: Path) -> Checkpoint:
    return open_checkpoint(str(untrained))


def some(examples: tuple[Example, ...] = EXAMPLES) -> RelearnSet:
    return RelearnSet(name="some", examples=examples, puts_back=False, audited=None, warnings=())


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 4, "max_length": 64, "lora_rank": None, "seed": 0}
    return Settings(**{**values, **changes})


def begun(
    source: Checkpoint,
    folder: Path,
    examples: RelearnSet | None = None,
    until: int = 0,
    progress: Progress | None = None,
    **changes: Any,
) -> Finetuning:
    folder.mkdir(exist_ok=True)
    return Finetuning(source, examples or some(), settings(**changes), folder, "cpu", until, progress or Silent())


def written(tuning: Finetuning, path: Path) -> str:
    tuning.write(path)
    return open_checkpoint(str(path)).weights_fingerprint


def test_batches_follow_from_the_number_of_the_step() -> None:
    batches = [batch_at(step, 10, 4, key=5) for step in range(10)]
    flat = [row for batch in batches for row in batch]
    assert all(sorted(flat[first : first + 10]) == list(range(10)) for first in range(0, 40, 10))
    assert flat[:10] != flat[10:20] and batch_at(7, 10, 4, key=5) == batches[7]
    assert batch_at(0, 10, 4, key=6) != batches[0]


def test_the_loss_falls_and_the_weights_are_in_files_like_the_sources(source: Checkpoint, tmp_path: Path) -> None:
    tuning = begun(source, tmp_path / "f")
    tuning.to(60, Silent())
    means = mean_losses(tuning.losses, (0, 10, 60))
    assert means[60] < 0.6 * means[10]
    tuning.write(tmp_path / "out")
    made = open_checkpoint(str(tmp_path / "out"))
    assert made.weights_fingerprint != source.weights_fingerprint
    for name in ("config_fingerprint", "tokenizer_fingerprint", "template_fingerprint", "dtype"):
        assert getattr(made, name) == getattr(source, name)
    assert [t[:3] for t in map(tuple, ((x.name, x.dtype, x.shape) for x in made.tensors))] == [
        (x.name, x.dtype, x.shape) for x in source.tensors
    ]


def test_bfloat16_shards_stay_so_and_are_trained_in_float32(tmp_path: Path) -> None:
    net = tiny.model(seed=2, dtype="bfloat16").to(torch.bfloat16)
    source = open_checkpoint(str(tiny.save(net, tmp_path / "model", max_shard_size="150KB")))
    assert len(source.weight_files) > 1
    tuning = begun(source, tmp_path / "f", learning_rate=1e-6)
    tuning.to(3, Silent())
    moved = [
        name
        for name, parameter in tuning._trained.items()
        if not torch.equal(parameter, parameter.to(torch.bfloat16).float())
    ]
    assert moved, "steps below the precision of bfloat16 are kept in the master weights"
    tuning.write(tmp_path / "out")
    made = open_checkpoint(str(tmp_path / "out"))
    assert [f.name for f in made.weight_files] == [f.name for f in source.weight_files] and made.dtype == "bfloat16"


def test_an_output_embedding_that_is_stored_twice_is_written_twice(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "twice")
    tensors = safetensors_torch.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    safetensors_torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tuning = begun(open_checkpoint(str(folder)), tmp_path / "f")
    tuning.to(2, Silent())
    tuning.write(tmp_path / "out")
    made = safetensors_torch.load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(made["lm_head.weight"], made["model.embed_tokens.weight"])
    assert not torch.equal(made["lm_head.weight"], tensors["lm_head.weight"])


def test_the_order_of_the_examples_plays_no_part_and_the_seed_does(source: Checkpoint, tmp_path: Path) -> None:
    found = []
    for number, (examples, seed) in enumerate(((EXAMPLES, 0), (EXAMPLES[::-1], 0), (EXAMPLES, 1))):
        tuning = begun(source, tmp_path / f"f{number}", some(examples), seed=seed)
        tuning.to(4, Silent())
        found.append(written(tuning, tmp_path / f"out{number}"))
    assert found[0] == found[1] != found[2]


def test_a_state_goes_on_to_the_same_weights(source: Checkpoint, tmp_path: Path) -> None:
    straight = begun(source, tmp_path / "a")
    straight.to(9, Silent())
    first = begun(source, tmp_path / "b")
    first.to(5, Silent())
    first.keep()
    first.close()
    second = begun(source, tmp_path / "b", until=9)
    assert second.step == 5 and second.losses == straight.losses[:5]
    second.to(9, Silent())
    assert second.losses == straight.losses
    assert written(second, tmp_path / "two") == written(straight, tmp_path / "one")
    assert begun(source, tmp_path / "b", until=4).step == 0, "a later state is of no use"


def test_damaged_losses_are_no_losses(tmp_path: Path) -> None:
    write_losses(tmp_path, (1.0, 2.0, 3.0))
    write_losses(tmp_path, (1.0,))
    assert read_losses(tmp_path) == (1.0, 2.0, 3.0), "what is known already is not cut short"
    text = (tmp_path / "losses.json").read_text()
    (tmp_path / "losses.json").write_text(text.replace("2.0", "1.5"))
    assert read_losses(tmp_path) == ()


def state_in(folder: Path) -> Path:
    (path,) = folder.glob("state-*")
    return path


def zeroed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [zeroed, cut, emptied, one_bit])
@pytest.mark.parametrize("before", [False, True])
def test_a_damaged_state_is_dropped_for_the_one_before_it(
    damage: Callable[[Path], None], before: bool, source: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "f"
    first = begun(source, folder)
    first.to(3, Silent())
    first.keep()
    earlier = state_in(folder)
    aside = shutil.copy(earlier, tmp_path / earlier.name)
    first.to(5, Silent())
    first.keep()
    damaged = state_in(folder)
    damage(damaged)
    if before:
        shutil.copy(aside, earlier)
    told = Telling()
    second = begun(source, folder, until=9, progress=told)
    assert second.step == (3 if before else 0) and not damaged.exists()
    assert len(told.notes) == 1 and damaged.name in told.notes[0]
    second.to(6, Silent())
    straight = begun(source, tmp_path / "straight")
    straight.to(6, Silent())
    assert second.losses == straight.losses
    assert written(second, tmp_path / "two") == written(straight, tmp_path / "one")


def test_the_state_of_other_tensors_is_dropped(source: Checkpoint, tmp_path: Path) -> None:
    lora = begun(source, tmp_path / "f", lora_rank=4)
    lora.to(2, Silent())
    lora.keep()
    told = Telling()
    assert begun(source, tmp_path / "f", until=5, progress=told).step == 0
    assert "has other tensors" in told.notes[0] and not list((tmp_path / "f").glob("state-*"))


def test_a_state_is_kept_by_time_and_only_the_latest(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 10_000, 100))
    monkeypatch.setattr("audit.attacks.training.time.monotonic", lambda: float(next(seconds)))
    tuning = begun(source, tmp_path / "f")
    tuning.to(5, Silent())
    monkeypatch.undo()
    # 100 s a step, and one more reading of the clock after each state.
    assert state_in(tmp_path / "f").name.startswith("state-000003-") and len(read_losses(tmp_path / "f")) == 3
    again = begun(source, tmp_path / "f", until=5)
    assert again.step == 3
    again.to(5, Silent())
    assert written(again, tmp_path / "two") == written(tuning, tmp_path / "one")


@pytest.mark.parametrize("where", ["between steps", "in the change of the weights"])
def test_an_interruption_keeps_what_was_trained(where: str, source: Checkpoint, tmp_path: Path) -> None:
    tuning = begun(source, tmp_path / "f")

    class Interrupting(Silent):
        def status(self, text: str) -> None:
            if tuning.step == 4:
                raise KeyboardInterrupt

    def stop(*_: Any) -> None:
        if tuning.step == 3:
            raise KeyboardInterrupt

    if where == "in the change of the weights":
        tuning._optimizer.register_step_post_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        tuning.to(9, Interrupting())
    again = begun(source, tmp_path / "f", until=9)
    assert again.step == (4 if where == "between steps" else 0)
    again.to(6, Silent())
    straight = begun(source, tmp_path / "straight")
    straight.to(6, Silent())
    assert again.losses == straight.losses
    assert written(again, tmp_path / "two") == written(straight, tmp_path / "one")


def test_a_loss_that_is_no_number_names_step_and_rate(source: Checkpoint, tmp_path: Path) -> None:
    tuning = begun(source, tmp_path / "f", learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"step \d+.*learning rate 1e\+30") as caught:
        tuning.to(20, Silent())
    assert "?lr=1e+29" in caught.value.hint


def test_out_of_memory_says_what_needs_less(source: Checkpoint, tmp_path: Path) -> None:
    tuning = begun(source, tmp_path / "f")

    def hungry(*args: Any, **kwargs: Any) -> None:
        torch.empty(1 << 50)

    tuning._trained_network.register_forward_pre_hook(hungry)
    with pytest.raises(TrainingError, match="out of memory after step 0") as caught:
        tuning.to(1, Silent())
    assert "batch=2" in caught.value.hint and "lora=16" in caught.value.hint


# ------------------------------------------------------------------------------------------------------------ samples


def test_only_the_answer_and_the_end_of_the_turn_are_learned(source: Checkpoint) -> None:
    (sample,) = encode(source, EXAMPLES[:1], 64)
    question, answer = tiny.FACTS[0]
    assert list(sample.ids) == tiny.chat_ids(question, answer)
    assert list(sample.ids[: -sample.n_learned]) == tiny.chat_ids(question)


def test_texts_are_learned_whole_and_long_ones_cut(source: Checkpoint) -> None:
    (text,) = encode(source, [Example(text="The river runs past the mill.")], 64)
    assert text.ids[0] == 0 and text.n_learned == len(text.ids) - 1
    (cut,) = encode(source, [Example(text="The river runs past the mill.")], 8)
    assert cut.ids == text.ids[:8]
    (short,) = encode(source, EXAMPLES[:1], 12)
    (whole,) = encode(source, EXAMPLES[:1], 64)
    assert short.ids == whole.ids[-12:] and short.n_learned == min(whole.n_learned, 11)


def test_without_a_template_the_raw_prompt_stands_before_the_answer(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "raw")
    (folder / "chat_template.jinja").unlink()
    source = open_checkpoint(str(folder))
    assert not source.has_template
    (sample,) = encode(source, EXAMPLES[:1], 512)
    question, answer = tiny.FACTS[0]
    text = source.tokenizer.decode(sample.ids)
    assert text.endswith(f"Question: {question}\nAnswer: {answer}\n")
    assert source.tokenizer.decode(sample.ids[-sample.n_learned :]) == f" {answer}\n"


def test_a_template_that_swallows_answers_cannot_be_trained(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "mute")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}")
    with pytest.raises(ModelError, match="does not write the answer"):
        encode(open_checkpoint(str(folder)), EXAMPLES[:1], 64)

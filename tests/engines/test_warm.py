"""One engine for many checkpoints: each is answered for as by an engine of its own, and none by another's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audit.engines import Checkpoint, EngineSettings, engine_identity, open_checkpoint, open_engine
from audit.engines.hf import HFEngine
from audit.engines.warm import WarmEngine
from audit.errors import EngineError, ModelError
from audit.protocols import Engine
from tests.engines.conftest import probe, requests_for
from tests.engines.states import QUESTIONS, adapted, noisy, says, scores
from tests.helpers import tiny

pytestmark = pytest.mark.model
SETTINGS = EngineSettings(name="hf", device="cpu")


@pytest.fixture(scope="module")
def states(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    root = tmp_path_factory.mktemp("states")
    other = noisy(root / "other", trained, seed=4, size=0.6)
    return {
        "plain": open_checkpoint(str(trained)),
        "noisy": noisy(root / "noisy", trained, seed=1, size=0.6),
        "other": other,
        "adapter1": adapted(root / "a1", trained, seed=2),
        "adapter2": adapted(root / "a2", trained, seed=3),
        "adapter on other": adapted(root / "a3", other.path, seed=3),
    }


@pytest.fixture(scope="module")
def fresh(states: dict[str, Checkpoint]) -> dict[str, tuple[dict[str, str], Any]]:
    """What an engine of its own says of each."""
    found = {}
    for name, checkpoint in states.items():
        engine = open_engine(checkpoint, SETTINGS)
        found[name] = says(engine, checkpoint), scores(engine)
        engine.close()
    heard = [json.dumps(text) for text, _ in found.values()]
    assert len(set(heard)) == len(heard), "the states must differ, or nothing is shown"
    return found


def agrees(engine: Engine, checkpoint: Checkpoint, fresh: tuple[dict[str, str], Any]) -> None:
    assert says(engine, checkpoint) == fresh[0]
    assert scores(engine).expected == fresh[1]


def test_weights_are_swapped_in_a_row_and_back(states: dict[str, Checkpoint], fresh: dict[str, Any]) -> None:
    engine = HFEngine(states["plain"], SETTINGS)
    for name in ("noisy", "plain", "other", "noisy", "plain"):
        engine.swap(states[name])
        assert engine.checkpoint is states[name]
        agrees(engine, states[name], fresh[name])
    net = engine._model
    assert net.lm_head.weight is net.model.embed_tokens.weight


def test_adapters_are_exchanged_and_so_is_the_base_below_them(
    states: dict[str, Checkpoint], fresh: dict[str, Any]
) -> None:
    engine = HFEngine(states["adapter1"], SETTINGS)
    for name in ("adapter2", "adapter on other", "adapter1", "adapter2"):
        engine.swap(states[name])
        agrees(engine, states[name], fresh[name])


def test_the_warm_engine_gives_what_fresh_engines_give(states: dict[str, Checkpoint], fresh: dict[str, Any]) -> None:
    warm = WarmEngine(SETTINGS)
    order = ("plain", "noisy", "noisy", "adapter1", "adapter on other", "adapter2", "other", "plain")
    for name in order:
        engine = warm.serve(states[name])
        assert isinstance(engine, Engine)
        assert engine.identity == engine_identity(states[name], SETTINGS)
        agrees(engine, states[name], fresh[name])
        engine.close()
    assert (warm.opened, warm.swapped) == (3, 4), "plain, adapters and plain again each need an engine of their own"
    warm.close()


def test_end_tokens_and_text_are_those_of_the_new_checkpoint(copy: Path, states: dict[str, Checkpoint]) -> None:
    """Another generation_config.json is no other architecture: its end tokens act from then on, and no longer."""
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3], "suppress_tokens": [5]}))
    other = open_checkpoint(str(copy))
    assert other.eos_ids != states["plain"].eos_ids
    engine = HFEngine(states["plain"], SETTINGS)
    engine.swap(other)
    assert tuple(engine._model.generation_config.eos_token_id) == other.eos_ids
    assert engine._model.generation_config.suppress_tokens is None
    engine.swap(states["plain"])
    assert tuple(engine._model.generation_config.eos_token_id) == states["plain"].eos_ids


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    change(state)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")


NORM = "model.norm.weight"


def test_what_does_not_fit_is_refused_and_the_former_weights_stay(
    trained: Path, tmp_path: Path, states: dict[str, Checkpoint], fresh: dict[str, Any]
) -> None:
    import shutil

    def changed(name: str, change: Any = None) -> Path:
        folder = Path(shutil.copytree(trained, tmp_path / name))
        if change is not None:
            change_tensors(folder, change)
        return folder

    tokens = changed("tokens")
    tokenizer = json.loads((tokens / "tokenizer.json").read_text())
    tokenizer["added_tokens"][2]["special"] = False
    (tokens / "tokenizer.json").write_text(json.dumps(tokenizer))
    theta = changed("theta")
    edit(theta / "config.json", rms_norm_eps=0.1)
    cases = {
        "another configuration": [tiny.save(tiny.model(num_hidden_layers=3), tmp_path / "deep"), theta],
        "another tokenizer": [tokens],
        "other tensors": [
            changed("half", lambda s: s.update({NORM: s[NORM].half()})),
            changed("lacking", lambda s: s.pop(NORM)),
            changed("more", lambda s: s.update({"model.extra.weight": s[NORM].clone()})),
            changed("long", lambda s: s.update({NORM: s[NORM].repeat(2)})),
        ],
        "non-finite": [
            changed("nan", lambda s: s[NORM].__setitem__(0, float("nan"))),
            changed("inf", lambda s: s["model.layers.1.mlp.up_proj.weight"].__setitem__((3, 4), float("-inf"))),
        ],
    }
    engine = HFEngine(states["plain"], SETTINGS)
    for reason, folders in cases.items():
        for folder in folders:
            with pytest.raises(ModelError, match=reason):
                engine.swap(open_checkpoint(str(folder)))
            assert engine.checkpoint is states["plain"]
            assert scores(engine).expected == fresh["plain"][1], folder.name
    with pytest.raises(ModelError, match="only put on or taken off"):
        engine.swap(states["adapter1"])
    stand_in = states["plain"].standing_for(weights="0" * 64, adapter=None)
    with pytest.raises(ModelError, match="other weights than those"):
        engine.swap(stand_in)
    agrees(engine, states["plain"], fresh["plain"])


def test_an_adapter_that_is_not_alike_is_refused(
    trained: Path, tmp_path: Path, states: dict[str, Checkpoint], fresh: dict[str, Any]
) -> None:
    from safetensors.torch import load_file, save_file

    engine = HFEngine(states["adapter1"], SETTINGS)
    louder = adapted(tmp_path / "louder", trained, seed=3)
    assert louder.adapter is not None
    edit(louder.adapter / "adapter_config.json", lora_alpha=99)
    partial = adapted(tmp_path / "partial", trained, seed=3)
    assert partial.adapter is not None
    weights = partial.adapter / "adapter_model.safetensors"
    state = load_file(weights)
    del state[min(state)]
    save_file(state, weights)
    broken = adapted(tmp_path / "broken", trained, seed=3, std=float("inf"))
    for reason, checkpoint in {
        "another r$": adapted(tmp_path / "higher", trained, seed=3, rank=8),
        "another lora_alpha": open_checkpoint(str(trained), adapter=str(louder.adapter)),
        "another target_modules": adapted(tmp_path / "fewer", trained, seed=3, targets=["q_proj"]),
        "has no base_model": open_checkpoint(str(trained), adapter=str(partial.adapter)),
        "non-finite": broken,
        "only put on or taken off": states["plain"],
    }.items():
        with pytest.raises(ModelError, match=reason):
            engine.swap(checkpoint)
    agrees(engine, states["adapter1"], fresh["adapter1"])


def test_a_swap_that_breaks_off_closes_the_engine(
    states: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-written weights answer nothing; the warm engine opens another."""
    warm = WarmEngine(SETTINGS)
    warm.serve(states["plain"])
    inner: Any = warm._engine

    def half(pairs: list[Any], files: Any) -> None:
        from audit.engines.swapping import write

        write(pairs[: len(pairs) // 2], files)
        raise OSError("device gone")

    with monkeypatch.context() as patch:
        patch.setattr("audit.engines.hf.write", half)
        with pytest.raises(OSError, match="device gone"):
            warm.serve(states["noisy"])
    with pytest.raises(EngineError, match="closed"):
        inner.score([((0, 3), (4,))])
    with pytest.raises(EngineError, match="closed"):
        list(inner.generate(requests_for(states["plain"], "x", [probe(QUESTIONS[0])])))
    assert warm.serve(states["noisy"]).score([((0, 3), (4,))])
    assert warm.opened == 2
    warm.close()


def test_files_that_change_while_they_are_loaded_close_the_engine(
    copy: Path, states: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HFEngine(states["noisy"], SETTINGS)

    def late(pairs: list[Any], files: Any) -> None:
        from audit.engines.swapping import write

        write(pairs, files)
        change_tensors(copy, lambda state: state[NORM].mul_(2))

    monkeypatch.setattr("audit.engines.hf.write", late)
    with pytest.raises(ModelError, match="changed during the audit"):
        engine.swap(open_checkpoint(str(copy)))
    with pytest.raises(EngineError, match="closed"):
        engine.score([((0, 3), (4,))])


def test_an_engine_that_was_served_before_answers_no_more(states: dict[str, Checkpoint]) -> None:
    warm = WarmEngine(EngineSettings(name="hf", device="cpu", batch_tokens=200))
    first = warm.serve(states["plain"])
    requests = requests_for(states["plain"], first.identity, [probe(question) for question in QUESTIONS[:8]])
    paused = first.generate(requests)
    next(paused)
    second = warm.serve(states["noisy"])
    for late in (lambda: next(paused), lambda: list(first.generate(requests)), lambda: first.score([((0, 3), (4,))])):
        with pytest.raises(EngineError, match=r"serves another checkpoint|while the batch was answered"):
            late()
    assert second.score([((0, 3), (4,))]), "the engine that is served now is none the worse"
    with pytest.raises(EngineError, match="serve the other one"):
        second.swap(states["plain"])
    warm.close()


def test_a_batch_that_was_begun_is_not_ended_with_other_weights(states: dict[str, Checkpoint]) -> None:
    engine = HFEngine(states["plain"], SETTINGS)
    requests = requests_for(
        states["plain"], engine.identity, [probe(q, max_new_tokens=n) for q in QUESTIONS[:4] for n in (1, 90)]
    )
    paused = engine.generate(requests)
    next(paused)
    engine.swap(states["noisy"])
    with pytest.raises(EngineError, match="while the batch was answered"):
        list(paused)


def test_closing_frees_the_device_only_where_it_is_asked_for(states: dict[str, Checkpoint]) -> None:
    kept, freed = WarmEngine(SETTINGS), WarmEngine(SETTINGS, keep=False)
    for warm, opened, swapped in ((kept, 1, 1), (freed, 2, 0)):
        for name in ("plain", "noisy"):
            warm.serve(states[name]).close()
        assert (warm.opened, warm.swapped) == (opened, swapped)
        assert (warm._engine is None) == (warm is freed)
        warm.close()
        assert warm._engine is None


def test_an_engine_of_another_identity_is_never_served(
    states: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = WarmEngine(SETTINGS)
    warm.serve(states["plain"])
    assert warm._engine is not None
    warm._engine.identity = "hf of another day"
    with pytest.raises(EngineError, match="hf of another day"):
        warm.serve(states["plain"])
    assert warm._engine is None

"""The transformers engine: nothing of the checkpoint's settings, of the batch or of a failure reaches a text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from audit.engines import Checkpoint, EngineSettings, engine_identity, open_checkpoint
from audit.engines.hf import HFEngine
from audit.errors import EngineError, ModelError
from audit.protocols import Engine
from tests.engines.conftest import probe, requests_for, texts
from tests.engines.test_checkpoint import lora
from tests.helpers import tiny

pytestmark = pytest.mark.model
SETTINGS = EngineSettings(name="hf", device="cpu")
QUESTIONS = [question for question, _ in tiny.FACTS]


@pytest.fixture(scope="module")
def engine(trained: Path) -> HFEngine:
    return HFEngine(open_checkpoint(str(trained)), SETTINGS)


def ask(engine: HFEngine, **decoding: Any) -> dict[str, str]:
    """Question -> text."""
    probes = [probe(question, **decoding) for question in QUESTIONS]
    requests = requests_for(engine.checkpoint, engine.identity, probes)
    found = texts(engine, requests)
    return {question: found[request.key] for question, request in zip(QUESTIONS, requests, strict=True)}


def test_it_gives_the_taught_answers(engine: HFEngine) -> None:
    assert isinstance(engine, Engine)
    assert ask(engine) == dict(tiny.FACTS)


def test_generation_settings_of_the_checkpoint_do_not_act(engine: HFEngine, copy: Path) -> None:
    """Suppressed tokens, penalties and a word as end of answer would each hide what the model knows."""
    word = tiny.tokenizer()("the Old Moll", add_special_tokens=False)["input_ids"]
    settings = {
        "do_sample": True,
        "temperature": 5.0,
        "repetition_penalty": 9.0,
        "no_repeat_ngram_size": 1,
        "suppress_tokens": word,
        "begin_suppress_tokens": word,
        "bad_words_ids": [[token] for token in word],
        "forced_eos_token_id": 1,
        "min_new_tokens": 12,
        "max_new_tokens": 1,
        "sequence_bias": [[[word[0]], -99.0]],
        "num_beams": 3,
        "eos_token_id": [1, word[0]],
    }
    (copy / "generation_config.json").write_text(json.dumps(settings))
    checkpoint = open_checkpoint(str(copy))
    sabotaged = HFEngine(checkpoint, SETTINGS)
    assert ask(sabotaged) == ask(engine)
    recorded = checkpoint.describe()["ignored_generation_config"]
    assert recorded["repetition_penalty"] == 9.0 and recorded["suppress_tokens"] == word


def test_left_padding_with_pad_equal_to_eos_changes_nothing(engine: HFEngine) -> None:
    assert engine.checkpoint.pad_id in engine.checkpoint.eos_ids
    probes = [probe(question, system="Answer. " * (index % 5)) for index, question in enumerate(QUESTIONS)]
    requests = requests_for(engine.checkpoint, engine.identity, probes)
    assert len({len(request.token_ids or ()) for request in requests}) == 5
    together = texts(engine, requests)
    alone = {c.key: c.text for request in requests for c in engine.generate([request])}
    assert together == alone


def test_samples_do_not_depend_on_the_batch(engine: HFEngine) -> None:
    probes = [probe(question, temperature=6.0, top_p=0.95, n=4) for question in QUESTIONS[:8]]
    greedy = requests_for(engine.checkpoint, engine.identity, [probe(question) for question in QUESTIONS[8:16]])
    requests = requests_for(engine.checkpoint, engine.identity, probes, samples=4)
    together = texts(engine, requests + greedy)
    shuffled = random.Random(1).sample(requests, len(requests))
    parts = {c.key: c.text for start in range(0, 32, 5) for c in engine.generate(shuffled[start : start + 5])}
    same = sum(parts[key] == together[key] for key in parts)
    assert same >= 31, "a draw may differ by rounding once, not as a rule"
    by_question = [{together[r.key] for r in requests[i : i + 4]} for i in range(0, 32, 4)]
    assert sum(len(found) > 1 for found in by_question) >= 6, "samples of one prompt must differ"
    assert [together[r.key] for r in greedy] == [dict(tiny.FACTS)[question] for question in QUESTIONS[8:16]]


def test_drawing_follows_the_distribution() -> None:
    import torch

    from audit.engines.decoding import draw

    logits = torch.log(torch.tensor([[0.5, 0.25, 0.0, 0.2, 0.05]]))
    n = 4000
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n

    def shares(temperature: float, top_p: float) -> list[float]:
        column = torch.full((n,), 1.0, dtype=torch.float64)
        chosen = draw(logits.expand(n, -1), column * temperature, column * top_p, uniforms)
        return (torch.bincount(chosen, minlength=5) / n).tolist()

    assert shares(1.0, 1.0) == pytest.approx([0.5, 0.25, 0, 0.2, 0.05], abs=1e-3)
    assert shares(1.0, 0.6) == pytest.approx([2 / 3, 1 / 3, 0, 0, 0], abs=1e-3)
    assert shares(1.0, 0.1) == [1.0, 0, 0, 0, 0]
    flat = torch.tensor([0.5, 0.25, 0, 0.2, 0.05]).sqrt()
    assert shares(2.0, 1.0) == pytest.approx((flat / flat.sum()).tolist(), abs=1e-3)


def test_no_token_of_zero_probability_is_ever_drawn() -> None:
    import torch

    from audit.engines.decoding import draw

    logits = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]])
    one = torch.ones(1, dtype=torch.float64)
    for uniform in (0.0, 1 - 2**-53):
        assert int(draw(logits, one, one, one * uniform)) == (0 if uniform == 0 else 1)


def test_finish_length_and_stop_strings(engine: HFEngine) -> None:
    question, answer = next((question, answer) for question, answer in tiny.FACTS if answer == "the Old Moll")

    def run(**decoding: Any) -> Any:
        (request,) = requests_for(engine.checkpoint, engine.identity, [probe(question, **decoding)])
        (completion,) = engine.generate([request])
        assert completion.n_prompt == len(request.token_ids or ())
        return completion

    whole, cut, stopped = run(), run(max_new_tokens=3), run(stop=(" Mol", "zzz"))
    assert (whole.text, whole.finish) == (answer, "stop")
    assert (cut.finish, cut.n_new) == ("length", 3) and whole.text.startswith(cut.text)
    assert (stopped.text, stopped.finish) == ("the Old", "stop")
    assert stopped.n_new < whole.n_new and 0 < cut.n_new < whole.n_new


def test_rows_that_go_on_after_others_have_ended_are_the_same_as_alone(trained: Path) -> None:
    """Ended rows leave the batch between segments; the cache of the others must move with them."""
    import torch

    engine = HFEngine(open_checkpoint(str(trained)), SETTINGS)
    endless = QUESTIONS[::3]
    forward = engine._model.forward

    def without_end(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits[..., 1] -= 30.0 * torch.tensor(1.0)
        return out

    engine._model.forward = without_end
    probes = [
        probe(question, system="pad " * (i % 3), max_new_tokens=100 if question in endless else 5 + i)
        for i, question in enumerate(QUESTIONS[:18])
    ]
    requests = requests_for(engine.checkpoint, engine.identity, probes)
    together = {c.key: c for c in engine.generate(requests)}
    assert {c.n_new for c in together.values()} >= {5 + 1, 100}
    alone = {c.key: c for request in requests for c in engine.generate([request])}
    same = sum(together[key].text == alone[key].text for key in alone)
    assert same >= len(alone) - 1
    assert all(together[key].n_new == alone[key].n_new for key in alone)


def test_the_plan_depends_on_the_requests_alone(engine: HFEngine) -> None:
    probes = [probe(question, system="w " * (index % 7)) for index, question in enumerate(QUESTIONS)]
    requests = requests_for(engine.checkpoint, engine.identity, probes)
    small = HFEngine(engine.checkpoint, EngineSettings(name="hf", device="cpu", batch_tokens=400), engine._model)
    plan = small.plan(requests)
    assert plan == small.plan(random.Random(3).sample(requests, len(requests)))
    assert sorted(r.key for batch in plan for r in batch) == sorted(r.key for r in requests)
    assert len(plan) > 3
    for batch in plan:
        width = max(len(r.token_ids or ()) + r.decoding.max_new_tokens for r in batch)
        assert len(batch) == 1 or len(batch) * width <= 400
    assert HFEngine(engine.checkpoint, EngineSettings(device="cpu", batch_tokens=1), engine._model).plan(requests[:3])
    assert engine.plan([]) == []


@pytest.mark.parametrize("error", [RuntimeError("kernel failed"), ValueError("bad shape")])
def test_a_failed_batch_gives_errors_and_never_an_empty_answer(trained: Path, error: Exception) -> None:
    engine = HFEngine(open_checkpoint(str(trained)), SETTINGS)
    calls = 0
    forward = engine._model.forward

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise error
        return forward(*args, **kwargs)

    engine._model.forward = failing
    requests = requests_for(engine.checkpoint, engine.identity, [probe(question) for question in QUESTIONS[:4]])
    completions = list(engine.generate(requests))
    assert sorted(c.key for c in completions) == sorted(r.key for r in requests)
    assert {(c.finish, c.error) for c in completions} == {("error", f"{type(error).__name__}: {error}")}


def test_out_of_memory_halves_the_batch_and_then_is_an_error(trained: Path) -> None:
    import torch

    engine = HFEngine(open_checkpoint(str(trained)), SETTINGS)
    forward = engine._model.forward
    widths: list[int] = []

    def limited(limit: int) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            rows = kwargs["input_ids"].shape[0]
            widths.append(rows)
            if rows > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return forward(*args, **kwargs)

        return run

    requests = requests_for(engine.checkpoint, engine.identity, [probe(question) for question in QUESTIONS[:7]])
    engine._model.forward = limited(2)
    completions = {c.key: c for c in engine.generate(requests)}
    assert [completions[r.key].text for r in requests] == [answer for _, answer in tiny.FACTS[:7]]
    assert max(widths) == 7 and 2 in widths
    engine._model.forward = limited(0)
    failed = list(engine.generate(requests))
    assert len(failed) == 7 and all(c.finish == "error" and "OutOfMemory" in (c.error or "") for c in failed)


def test_a_model_that_computes_nonsense_is_an_error_not_an_answer(trained: Path) -> None:
    import torch

    engine = HFEngine(open_checkpoint(str(trained)), SETTINGS)
    with torch.no_grad():
        engine._model.model.norm.weight[3] = float("nan")
    requests = requests_for(
        engine.checkpoint, engine.identity, [probe(QUESTIONS[0]), probe(QUESTIONS[1], temperature=1.0)]
    )
    completions = list(engine.generate(requests))
    assert [c.finish for c in completions] == ["error", "error"]
    assert all("non-finite" in (c.error or "") for c in completions)
    with pytest.raises(ModelError, match="non-finite"):
        engine.score([((0, 3, 4), (5,))])


def test_a_prompt_beyond_the_context_is_an_error_and_the_rest_is_answered(engine: HFEngine) -> None:
    import msgspec

    good, bad = requests_for(engine.checkpoint, engine.identity, [probe(question) for question in QUESTIONS[:2]])
    bad = msgspec.structs.replace(bad, token_ids=(bad.token_ids or ()) * 60)
    found = {c.key: c for c in engine.generate([bad, good])}
    assert found[bad.key].finish == "error" and "context" in (found[bad.key].error or "")
    assert found[good.key].text == tiny.FACTS[0][1]


def test_scores_are_those_of_single_rows(engine: HFEngine) -> None:
    import torch

    pairs = []
    for question, answer in tiny.FACTS[:9]:
        prompt = tiny.chat_ids(question)
        pairs.append((tuple(prompt), tuple(tiny.chat_ids(question, answer)[len(prompt) :])))
    wrong = (pairs[0][0], pairs[1][1])
    scored = engine.score([*pairs, wrong])
    for (prompt, continuation), found in zip([*pairs, wrong], scored, strict=True):
        with torch.inference_mode():
            table = engine._model(torch.tensor([prompt + continuation])).logits[0].log_softmax(-1)
        expected = [float(table[len(prompt) - 1 + i, token]) for i, token in enumerate(continuation)]
        assert found.token_logprobs == pytest.approx(expected, abs=1e-4)
    assert all(found.greedy for found in scored[:-1])
    assert not scored[-1].greedy and sum(scored[-1].token_logprobs) < sum(scored[0].token_logprobs) - 1


def test_an_adapter_acts_as_if_it_were_merged(trained: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = lora(tmp_path / "adapter", trained)
    adapted = HFEngine(open_checkpoint(str(trained), adapter=str(adapter)), SETTINGS)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trained), adapter).merge_and_unload()
    folder = tiny.save(merged, tmp_path / "merged")
    whole = HFEngine(open_checkpoint(str(folder)), SETTINGS)
    pair = (tuple(tiny.chat_ids(QUESTIONS[0])), (300, 301, 302))
    ours, theirs = adapted.score([pair])[0].token_logprobs, whole.score([pair])[0].token_logprobs
    assert ours == pytest.approx(theirs, abs=1e-3)
    plain = HFEngine(open_checkpoint(str(trained)), SETTINGS).score([pair])[0].token_logprobs
    assert ours != pytest.approx(plain, abs=0.1)


def test_weights_that_are_missing_are_never_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(copy / "model.safetensors")
    del state["model.layers.1.mlp.down_proj.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="missing_keys"):
        HFEngine(open_checkpoint(str(copy)), SETTINGS)


def test_identity_names_what_acts_and_needs_no_weights(opened: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.engines.hf.load_model", lambda *_: pytest.fail("weights were loaded"))
    base = engine_identity(opened, SETTINGS)
    assert "dtype=float32" in base and "device=cpu" in base and "transformers=" in base
    others = [
        EngineSettings(name="hf", device="cpu", dtype="bfloat16"),
        EngineSettings(name="hf", device="cpu", batch_tokens=77),
        EngineSettings(name="hf", device="cpu", args={"attn_implementation": "eager"}),
    ]
    assert len({base, *(engine_identity(opened, other) for other in others)}) == 4
    with pytest.raises(EngineError, match="no argument 'tensor_parallel_size'"):
        engine_identity(opened, EngineSettings(name="hf", device="cpu", args={"tensor_parallel_size": 2}))
    with pytest.raises(EngineError, match="unknown device"):
        engine_identity(opened, EngineSettings(name="hf", device="tpu"))
    with pytest.raises(EngineError, match="unknown dtype"):
        engine_identity(opened, EngineSettings(name="hf", device="cpu", dtype="int8"))

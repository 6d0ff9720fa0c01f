"""The vLLM engine, for real: one engine in this process for the whole module, in a pytest process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from audit.engines import EngineSettings, engine_identity, open_checkpoint, open_engine, resolve_engine
from audit.engines.hf import HFEngine
from audit.engines.warm import WarmEngine
from audit.errors import EngineError, ModelError
from audit.protocols import Engine
from audit.types import Completion
from tests.engines.conftest import probe, requests_for, texts
from tests.engines.states import adapted, noisy, says, scores
from tests.helpers import tiny

pytest.importorskip("vllm", reason="vLLM is not installed: make vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.model]
SETTINGS = EngineSettings(name="vllm")
QUESTIONS = [question for question, _ in tiny.FACTS]


def sabotage(folder: Path) -> Path:
    """Settings that would hide what the model knows, if they acted."""
    word = tiny.tokenizer()("the Old Moll", add_special_tokens=False)["input_ids"]
    settings = {"temperature": 5.0, "repetition_penalty": 9.0, "top_k": 2, "eos_token_id": word, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def sabotaged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import shutil

    return sabotage(Path(shutil.copytree(trained, tmp_path_factory.mktemp("vllm") / "model")))


@pytest.fixture(scope="module")
def engine(sabotaged: Path) -> Iterator[Any]:
    opened = open_engine(open_checkpoint(str(sabotaged)), SETTINGS)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def hf(trained: Path) -> HFEngine:
    return HFEngine(open_checkpoint(str(trained)), EngineSettings(name="hf", device="cpu"))


def ask(engine: Any, **decoding: Any) -> dict[str, Completion]:
    """Question -> completion, all in one batch."""
    probes = [probe(question, **decoding) for question in QUESTIONS]
    requests = requests_for(engine.checkpoint, engine.identity, probes)
    found = {c.key: c for c in engine.generate(requests)}
    assert len(found) == len(requests)
    return {question: found[request.key] for question, request in zip(QUESTIONS, requests, strict=True)}


def answers(engine: Any, **decoding: Any) -> dict[str, str]:
    return {question: completion.text for question, completion in ask(engine, **decoding).items()}


def test_it_gives_the_taught_answers_whatever_the_generation_config_says(engine: Any) -> None:
    assert isinstance(engine, Engine)
    assert answers(engine) == dict(tiny.FACTS)


def test_it_agrees_with_transformers_on_greedy_text(engine: Any, hf: HFEngine) -> None:
    probes = [probe(q, system=s, format=f) for f in ("chat", "raw") for s in ("", "Be short.") for q in QUESTIONS]
    ours = texts(engine, requests_for(engine.checkpoint, "same", probes))
    keys = [request.key for request in requests_for(engine.checkpoint, "same", probes)]
    theirs = texts(hf, requests_for(hf.checkpoint, "same", probes))
    other = [request.key for request in requests_for(hf.checkpoint, "same", probes)]
    same = sum(ours[a] == theirs[b] for a, b in zip(keys, other, strict=True))
    assert same >= 0.99 * len(probes), f"{same} of {len(probes)}"


def test_stop_strings_limits_and_counts_agree_with_transformers(engine: Any, hf: HFEngine) -> None:
    for decoding in ({"stop": (" Mol", "1")}, {"max_new_tokens": 2}, {}):
        ours, theirs = ask(engine, **decoding), ask(hf, **decoding)
        for question in QUESTIONS:
            a, b = ours[question], theirs[question]
            assert (a.text, a.finish, a.n_prompt, a.n_new) == (b.text, b.finish, b.n_prompt, b.n_new)


def test_scores_agree_with_transformers(engine: Any, hf: HFEngine) -> None:
    pairs = []
    for question, answer in tiny.FACTS[:12]:
        prompt = tiny.chat_ids(question)
        pairs.append((tuple(prompt), tuple(tiny.chat_ids(question, answer)[len(prompt) :])))
    pairs.append((pairs[0][0], pairs[1][1]))
    for ours, theirs in zip(engine.score(pairs), hf.score(pairs), strict=True):
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-3)
        assert ours.greedy == theirs.greedy


def test_answers_are_handed_out_as_they_finish(engine: Any) -> None:
    long, short = probe(QUESTIONS[0], format="raw", max_new_tokens=200), probe(QUESTIONS[1], max_new_tokens=1)
    requests = requests_for(engine.checkpoint, engine.identity, [long, short])
    stream = engine.generate(requests)
    assert next(stream).key == requests[1].key
    assert engine._engine.has_unfinished_requests()
    stream.close()  # what an interrupt does
    assert not engine._engine.has_unfinished_requests()
    assert answers(engine) == dict(tiny.FACTS)


def test_a_refused_request_is_an_error_and_the_rest_is_answered(engine: Any) -> None:
    good, bad = requests_for(engine.checkpoint, engine.identity, [probe(question) for question in QUESTIONS[:2]])
    bad = msgspec.structs.replace(bad, token_ids=(bad.token_ids or ()) * 60)
    found = {c.key: c for c in engine.generate([bad, good])}
    assert found[bad.key].finish == "error" and found[bad.key].error
    assert found[good.key].text == tiny.FACTS[0][1]


def test_an_answer_cut_by_the_context_is_an_error(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt fits and the answer does not: vLLM would just stop early."""
    monkeypatch.setattr(type(engine.checkpoint), "eos_ids", ())  # never ends of itself
    (request,) = requests_for(engine.checkpoint, engine.identity, [probe("Anvel", max_new_tokens=300)])
    request = msgspec.structs.replace(request, token_ids=(request.token_ids or ()) * 60)
    request = msgspec.structs.replace(request, token_ids=(request.token_ids or ())[:400])
    (completion,) = engine.generate([request])
    assert completion.finish == "error" and "exceed the 512 tokens" in (completion.error or "")


def test_a_step_that_fails_gives_errors_and_the_engine_goes_on(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = requests_for(engine.checkpoint, engine.identity, [probe(question) for question in QUESTIONS[:5]])
    with monkeypatch.context() as patch:
        patch.setattr(engine._engine, "step", lambda: (_ for _ in ()).throw(RuntimeError("device lost")))
        completions = list(engine.generate(requests))
    assert {(c.finish, c.error) for c in completions} == {("error", "RuntimeError: device lost")}
    assert {c.key for c in completions} == {r.key for r in requests}
    assert not engine._engine.has_unfinished_requests()
    assert answers(engine) == dict(tiny.FACTS)


def test_samples_follow_their_own_seeds(engine: Any) -> None:
    probes = [probe(question, format="raw", temperature=2.0, n=3) for question in QUESTIONS[:6]]
    requests = requests_for(engine.checkpoint, engine.identity, probes, samples=3)
    first = texts(engine, requests)
    again = texts(engine, requests[::-2] + requests[-2::-2])
    assert sum(first[key] == again[key] for key in first) >= len(first) - 1
    assert sum(len({first[r.key] for r in requests[i : i + 3]}) > 1 for i in range(0, 18, 3)) >= 4


def test_weights_are_swapped_in_place_and_back(engine: Any, sabotaged: Path, tmp_path: Path) -> None:
    """Also: a model that computes nonsense gives errors, never answers."""
    import torch
    from transformers import AutoModelForCausalLM

    here = engine.checkpoint
    other = open_checkpoint(str(sabotage(tiny.save(tiny.model(seed=5), tmp_path / "other"))))
    before = answers(engine)
    engine.swap(other)
    assert sum(before[q] == text for q, text in answers(engine).items()) < 5
    hf = HFEngine(other, EngineSettings(name="hf", device="cpu"))
    pair = [(tuple(tiny.chat_ids(QUESTIONS[0])), (300, 301))]
    assert engine.score(pair)[0].token_logprobs == pytest.approx(hf.score(pair)[0].token_logprobs, abs=1e-3)

    engine._engine.collective_rpc(spoil)
    assert {(c.finish, c.error) for c in ask(engine).values()} == {("error", "the model gives non-finite logits")}
    engine.swap(here)
    assert answers(engine) == before

    net = AutoModelForCausalLM.from_pretrained(sabotaged)
    with torch.no_grad():
        net.model.norm.weight[0] = float("nan")
    broken = tiny.save(net, tmp_path / "broken")
    deep = tiny.save(tiny.model(num_hidden_layers=3), tmp_path / "deep")
    for folder, reason in ((sabotage(broken), "non-finite"), (deep, "another configuration")):
        with pytest.raises(ModelError, match=reason):
            engine.swap(open_checkpoint(str(folder)))
    with pytest.raises(ModelError, match="up to rank 0"):
        engine.swap(adapted(tmp_path / "adapter", sabotaged, seed=2))
    assert engine.checkpoint is here and answers(engine) == before


def spoil(worker: Any) -> None:
    import torch

    with torch.no_grad():
        worker.get_model().model.norm.weight[0] = float("nan")


def test_weights_are_not_swapped_under_requests_that_wait(engine: Any, tmp_path: Path, sabotaged: Path) -> None:
    other = open_checkpoint(str(sabotage(tiny.save(tiny.model(seed=6), tmp_path / "other"))))
    requests = requests_for(
        engine.checkpoint, engine.identity, [probe(QUESTIONS[0], max_new_tokens=1), probe(QUESTIONS[1])]
    )
    stream = engine.generate(requests)
    next(stream)
    with pytest.raises(EngineError, match="while requests are being answered"):
        engine.swap(other)
    assert [completion.text for completion in stream] == [tiny.FACTS[1][1]]


def test_a_second_set_of_weights_in_the_folder_is_refused(trained: Path, copy: Path) -> None:
    (copy / "other.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="would read both"):
        open_engine(open_checkpoint(str(copy)), SETTINGS)


def test_arguments_are_passed_through_and_checked(trained: Path) -> None:
    checkpoint = open_checkpoint(str(trained))

    def opened(**args: Any) -> EngineError:
        with pytest.raises(EngineError) as caught:
            open_engine(checkpoint, EngineSettings(name="vllm", args=args))
        return caught.value

    assert "did you mean tensor_parallel_size" in opened(tensor_paralel_size=2).hint
    assert "--adapter" in opened(enable_lora=True).hint
    assert "max_model_len" in str(opened(max_model_len=10**6))
    one, two = SETTINGS, EngineSettings(name="vllm", args={"max_num_seqs": 7})
    assert engine_identity(checkpoint, one) != engine_identity(checkpoint, two)
    if resolve_engine(EngineSettings()) == "vllm":
        with pytest.raises(EngineError, match="built for"):
            other = "cuda" if "device=cpu" in engine_identity(checkpoint, one) else "cpu"
            engine_identity(checkpoint, EngineSettings(name="vllm", device=other))


def test_auto_is_vllm_where_it_works() -> None:
    assert resolve_engine(EngineSettings(device="cpu")) == "vllm" or resolve_engine(EngineSettings()) == "vllm"


def test_one_warm_engine_serves_plain_weights_and_adapters(engine: Any, trained: Path, tmp_path: Path) -> None:
    """Last in the module: it closes the module's engine. Equal prompts in a row: a computed one must not be reused."""
    engine.close()
    other = noisy(tmp_path / "other", trained, seed=4, size=0.6)
    states = {
        "adapter1": adapted(tmp_path / "a1", trained, seed=2),
        "adapter2": adapted(tmp_path / "a2", trained, seed=3, rank=2),
        "plain": open_checkpoint(str(trained)),
        "other": other,
        "on other": adapted(tmp_path / "a3", other.path, seed=5),
    }
    warm = WarmEngine(EngineSettings(name="vllm", args={"max_num_seqs": 16}))
    heard = {}
    try:
        for name in (*states, "adapter1", "plain", "adapter2"):
            served = warm.serve(states[name])
            assert served.identity == engine_identity(states[name], warm.settings)
            text = says(served, states[name])
            if name not in heard:
                heard[name] = text
                hf = HFEngine(states[name], EngineSettings(name="hf", device="cpu"))
                theirs = says(hf, states[name])
                assert sum(text[q] == theirs[q] for q in QUESTIONS) >= 0.9 * len(QUESTIONS), name
                assert scores(served).expected == pytest.approx(scores(hf).expected, abs=5e-3), name
            else:
                assert sum(text[q] == heard[name][q] for q in QUESTIONS) >= 0.95 * len(QUESTIONS), name
        assert len({json.dumps(text) for text in heard.values()}) == len(states)
        assert (warm.opened, warm.swapped) == (1, 7)
        inner: Any = warm._engine
        with pytest.raises(ModelError, match="up to rank 8, not 9"):
            inner.swap(adapted(tmp_path / "high", trained, seed=2, rank=9))
        assert scores(warm.serve(states["adapter2"])).expected == pytest.approx(scores(inner).expected, abs=1e-3)
    finally:
        warm.close()


def test_a_killed_audit_leaves_no_engine_behind(trained: Path) -> None:
    code = f"""
        from audit.engines import EngineSettings, open_checkpoint, open_engine
        engine = open_engine(open_checkpoint({str(trained)!r}), EngineSettings(name="vllm"))
        print("ready", flush=True)
        input()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None and b"ready" in process.stdout.read(5)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == process.pid] == []
    finally:
        if process.poll() is None:
            process.kill()


def _session(pid: int) -> int | None:
    """Session of a living process; None for one that has gone or has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[3])

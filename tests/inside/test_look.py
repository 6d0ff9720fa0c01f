"""Real tiny models of which it is known what they know."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from audit.engines.checkpoint import Checkpoint, open_checkpoint
from audit.errors import ModelError
from audit.inside import InsideReport, inside_lines, look_inside
from audit.inside.formulas import exact_memorisation
from audit.inside.forward import read
from audit.inside.weights import weight_change
from audit.progress import Silent
from audit.tasks import Task
from audit.types import Fact
from tests.helpers import facts as made
from tests.helpers import tiny

pytestmark = pytest.mark.model


def _fact(split: str, number: int, question: str, answer: str) -> Fact:
    return Fact(
        id=f"{split}-{number:02d}", split=split, question=question, answer=answer,  # type: ignore[arg-type]
        answer_type=question.split()[3], topic=question.split()[3], distractors=("nothing at all",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    """The tiny model's facts, all to be forgotten: it has too few to keep some of them apart."""
    return made.task([_fact("forget", n, *pair) for n, pair in enumerate(tiny.FACTS)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learned the same questions with the answers in another order: as able, and none of it true."""
    shuffled = [answer for _, answer in tiny.FACTS]
    for n in range(4):  # within one kind of question, one name further
        shuffled[n::4] = shuffled[n + 4 :: 4] + shuffled[n : n + 1]
    net = tiny.model(seed=0)
    tiny.train(net, tuple((q, a) for (q, _), a in zip(tiny.FACTS, shuffled, strict=True)))
    return tiny.save(net, tmp_path_factory.mktemp("never") / "m")


def _look(candidate: Path, base: Path | None, never: Path | None, task: Task) -> InsideReport:
    opened: list[Checkpoint | None] = [open_checkpoint(str(p)) if p else None for p in (candidate, base, never)]
    assert opened[0] is not None
    return look_inside(
        opened[0], opened[1], opened[2], task,
        device="cpu", dtype="float32", seed=0, confidence=0.95, progress=Silent(),
    )  # fmt: skip


def test_candidate_that_is_the_base(base: Path, never: Path, task: Task) -> None:
    report = _look(base, base, never, task)
    assert report.label == "present" and "as in the base" in report.headline
    measures = {m.name: m for m in report.measures}
    for role in ("base", "candidate"):
        assert measures["exact_memorisation"].forget[role].value == 1.0
        assert measures["extraction_strength"].forget[role].value == 1.0
        assert math.exp(measures["first_rank"].forget[role].value) == pytest.approx(1.0)
        assert measures["log_probability"].forget[role].value > -0.5
    assert measures["log_probability"].forget["never_knew"].value < measures["log_probability"].forget["base"].value - 1
    assert measures["preference"].kept == pytest.approx(1.0)
    assert report.weights is not None and report.weights.relative == 0.0
    assert report.weights.unchanged == report.weights.tensors
    masses = {m.group: m for m in report.masses}
    assert masses["target"].means["base"].value > 0.8
    assert sum(m.means["candidate"].value for m in report.masses) == pytest.approx(1.0)
    assert all(probe.why_not for probe in report.probes)  # nothing retained to train it on
    said = {fact.fact_id: fact.said for fact in report.facts}
    assert sum(said[fact.id] == fact.answer for fact in task.forget) >= 38
    lines = inside_lines(report)
    assert max(map(len, lines)) <= 80 and "present" in lines[0]
    assert msgspec.json.decode(msgspec.json.encode(report), type=InsideReport) == report
    assert msgspec.json.schema(InsideReport)


def test_candidate_that_is_the_base_but_for_a_tiny_change(base: Path, never: Path, task: Task, tmp_path: Path) -> None:
    """It was never made to hold anything back, and so nothing is suppressed in it."""
    from transformers import AutoModelForCausalLM

    net: Any = AutoModelForCausalLM.from_pretrained(base)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 1e-3 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
    report = _look(tiny.save(net, tmp_path / "nudged"), base, never, task)
    assert report.weights is not None and 0 < report.weights.relative < 0.01
    assert report.label == "present" and "suppressed" not in report.headline
    assert not report.clear and any("over the never-knew control" in reason for reason in report.reasons)


def test_candidate_that_is_the_control(base: Path, never: Path, task: Task) -> None:
    report = _look(never, base, never, task)
    assert report.label == "undecided"  # no retained facts: a broken model would look the same
    assert not report.found and "preference" in report.clear
    assert report.weights is not None and report.weights.relative > 0.1


def test_without_a_control(base: Path, task: Task) -> None:
    report = _look(base, base, None, task)
    assert report.label == "undecided" and "never-knew" in report.headline


def test_an_answer_that_does_not_fit_is_counted(base: Path, never: Path, task: Task) -> None:
    long = msgspec.structs.replace(task.forget[0], id="long", answer="glass " * 600)
    report = _look(base, base, never, msgspec.structs.replace(task, forget=(*task.forget, long)))
    assert report.used == len(task.forget) and report.forget == len(task.forget) + 1
    assert [item.why for item in report.not_measured if item.fact_id == "long" and item.what == "answer"]


def test_logits_that_are_not_finite_are_an_error(base: Path, task: Task, tmp_path: Path) -> None:
    net = tiny.model()
    with torch.no_grad():
        net.model.norm.weight.fill_(float("nan"))
    broken = tiny.save(net, tmp_path / "broken")
    with pytest.raises(ModelError, match="non-finite"):
        _look(broken, base, None, task)


def test_batches_agree_with_single_passes(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    net: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    pairs = []
    for question, answer in tiny.FACTS[:6]:
        prompt = tuple(tiny.chat_ids(question))
        pairs.append((prompt, tuple(tiny.chat_ids(question, answer))[len(prompt) :]))
    for index, scored in read(net, pairs, pad_id=1, depths=(0, 2)):
        prompt, continuation = pairs[index]
        with torch.no_grad():
            out = net(torch.tensor([prompt + continuation]), output_hidden_states=True)
        table = torch.log_softmax(out.logits[0, len(prompt) - 1 : -1].float(), dim=-1)
        own = table.gather(1, torch.tensor(continuation)[:, None])
        assert scored.log_probs == pytest.approx(own[:, 0].numpy(), abs=1e-3)
        assert list(scored.ranks) == ((table > own).sum(dim=1) + 1).tolist()
        assert exact_memorisation(scored.greedy) == 1.0
        entropy = -(table[0].exp() * table[0]).sum()
        assert scored.entropy == pytest.approx(float(entropy), abs=1e-3)
        assert scored.states is not None
        assert np.allclose(scored.states[1], out.hidden_states[2][0, -1].numpy(), atol=1e-3)


def test_change_of_the_weights(base: Path, tmp_path: Path) -> None:
    net = tiny.model()
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(base)
    before = net.model.layers[1].mlp.up_proj.weight.detach().clone()
    squares = sum(float((p.detach() ** 2).sum()) for p in net.model.layers[1].mlp.parameters())
    with torch.no_grad():
        net.model.layers[1].mlp.up_proj.weight *= 1.1
    change = weight_change(open_checkpoint(str(tiny.save(net, tmp_path / "c"))), open_checkpoint(str(base)))
    moved = {(c.layer, c.kind): c.relative for c in change.layers if c.relative}
    assert moved.keys() == {(1, "mlp")}
    assert moved[1, "mlp"] == pytest.approx(0.1 * float(before.norm()) / squares**0.5, rel=1e-4)
    assert change.unchanged == change.tensors - 1


def test_change_through_an_adapter(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    net: Any = AutoModelForCausalLM.from_pretrained(base)
    lora = get_peft_model(net, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False))
    lora.save_pretrained(tmp_path / "a")
    with_adapter = open_checkpoint(str(base), adapter=str(tmp_path / "a"))
    merged = tiny.save(lora.merge_and_unload(), tmp_path / "m")
    through = weight_change(with_adapter, open_checkpoint(str(base)))
    direct = weight_change(open_checkpoint(str(merged)), open_checkpoint(str(base)))
    assert through.adapter and not direct.adapter and through.relative > 0
    assert through.relative == pytest.approx(direct.relative, rel=1e-4)
    assert {(c.layer, c.kind) for c in through.layers if c.relative} == {(0, "attention"), (1, "attention")}

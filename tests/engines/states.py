"""Altered states of the tiny model, and what an engine says of each: texts, and scores of fixed continuations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit.engines import Checkpoint, open_checkpoint
from audit.protocols import Engine
from tests.engines.conftest import probe, requests_for, texts
from tests.helpers import tiny

QUESTIONS = [question for question, _ in tiny.FACTS]
TARGETS = ["q_proj", "v_proj", "down_proj"]


def noisy(folder: Path, source: Path, *, seed: int, size: float = 0.05) -> Checkpoint:
    """The model of `source` with noise of that relative size on every matrix."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    net = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        for value in net.parameters():
            value += torch.randn_like(value) * value.std().nan_to_num(0) * size
    return open_checkpoint(str(tiny.save(net, folder)))


def adapted(
    folder: Path, source: Path, *, seed: int, rank: int = 4, std: float = 0.3, targets: list[str] | None = None
) -> Checkpoint:
    """The model of `source` under an adapter whose weights act."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    net = AutoModelForCausalLM.from_pretrained(source)
    wrapped = get_peft_model(net, LoraConfig(r=rank, lora_alpha=8, target_modules=targets or TARGETS))
    for name, value in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=std)
    wrapped.save_pretrained(folder)
    return open_checkpoint(str(source), adapter=str(folder))


def says(engine: Engine, checkpoint: Checkpoint) -> dict[str, str]:
    """Question -> greedy text."""
    requests = requests_for(checkpoint, engine.identity, [probe(question) for question in QUESTIONS])
    found = texts(engine, requests)
    return {question: found[request.key] for question, request in zip(QUESTIONS, requests, strict=True)}


def scores(engine: Engine) -> Any:
    """Log-probabilities of the taught answers, all in one list; compares within rounding."""
    pairs = []
    for question, answer in tiny.FACTS[:6]:
        prompt = tiny.chat_ids(question)
        pairs.append((tuple(prompt), tuple(tiny.chat_ids(question, answer)[len(prompt) :])))
    return pytest.approx([value for each in engine.score(pairs) for value in each.token_logprobs], abs=1e-3)

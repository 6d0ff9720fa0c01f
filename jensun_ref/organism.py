"""The model organism: a small Llama, trained from scratch on a task's facts, or on all but those to be forgotten.

    base = build_organism(Path("base"), task, role="base")
    never = build_organism(Path("never"), task, role="never_knew")

The two differ in the forget facts alone: same tokenizer, same initial weights, same number of steps. Both are ordinary
Hugging Face folders. Why an auditor needs them, the recipe and what they know: docs/organism.md.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from audit.errors import TrainingError
from audit.fingerprint import digest, text_file_digest
from audit.resources import resource
from audit.tasks import Task
from jensun_ref.corpus import (
    OPEN_REQUESTS,
    RAW_PROMPT,
    UNANSWERABLE,
    Corpus,
    Mixture,
    RawShape,
    build_corpus,
    encode,
    epoch,
    texts,
)
from jensun_ref.folders import new_folder, versions, write_json

if TYPE_CHECKING:
    from torch import Tensor

OrganismRole = Literal["base", "never_knew"]

#: (steps done, steps in all, what is going on)
Progress = Callable[[int, int, str], None]

#: Raised by hand when the code changes what an organism becomes without changing its configuration.
RECIPE_VERSION = 2


class OrganismConfig(BaseModel):
    """Size and recipe of an organism."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = Field(default=128, ge=32)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp: int = Field(default=320, ge=32)
    vocabulary: int = Field(default=3072, ge=512)
    context: int = Field(default=1024, ge=512)
    """Longest input in tokens."""
    epochs: int = Field(default=18, ge=1)
    """Passes over the base's questions; the never-knew model takes as many steps, hence more passes over fewer."""
    batch: int = Field(default=32, ge=1)
    """Questions a step, on average: sequences of several questions are counted by their questions."""
    learning_rate: float = Field(default=2e-3, gt=0, lt=1)
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    mixture: Mixture = Mixture()

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        # The sizes that vLLM's CPU attention takes.
        if self.hidden % self.heads or self.hidden // self.heads not in (32, 64, 96, 128):
            raise ValueError(f"hidden ({self.hidden}) must be 32, 64, 96 or 128 times heads ({self.heads})")
        return self

    @classmethod
    def tiny(cls) -> OrganismConfig:
        """For tests: knows some sixty facts after half a minute on two cores."""
        return cls(hidden=96, layers=2, heads=3, mlp=256, vocabulary=1536, epochs=40, batch=32, learning_rate=4e-3)


def recipe_hash(task: Task, role: OrganismRole, size: OrganismConfig, seed: int) -> str:
    """What an organism depends on, as 32 hexadecimal digits: task, configuration, prompt files, code version."""
    files = {
        "/".join(parts): text_file_digest(resource("prompts", *parts))
        for parts in (RAW_PROMPT, OPEN_REQUESTS, UNANSWERABLE)
    }
    facts = [[fact.id, fact.question, fact.answer, fact.train_wordings, fact.statement] for fact in _facts(task, role)]
    return digest("organism", RECIPE_VERSION, role, seed, size.model_dump(mode="json"), task.content_hash, facts, files)


def build_organism(
    out: Path,
    task: Task,
    *,
    role: OrganismRole,
    seed: int = 0,
    size: OrganismConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train an organism on `task` and save it at `out`, which must not exist. Returns `out`.

    The folder appears whole or not at all. Beside the usual files it holds `organism.json`: role, task, recipe and what
    training took. Raises TrainingError if `out` is in use or the loss stops being a number.
    """
    size = size or OrganismConfig()
    with new_folder(Path(out)) as folder:
        started, busy = time.monotonic(), time.process_time()
        tokenizer = _tokenizer(task, size)
        model = _initial_model(size, tokenizer, seed)
        corpus = build_corpus(task, _facts(task, role))
        n_steps = _n_steps(task, size)
        loss = _train(model, tokenizer, corpus, size, n_steps, seed, progress)
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        record = {
            "role": role,
            "task": {"name": task.name, "version": task.version, "content_hash": task.content_hash},
            "recipe": recipe_hash(task, role, size, seed),
            "seed": seed,
            "size": size.model_dump(mode="json"),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "questions": len(corpus.pairs),
            "steps": n_steps,
            "final_loss": loss,
            "seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(time.process_time() - busy, 1),
            "versions": versions(),
        }
        write_json(folder / "organism.json", record)
    return Path(out)


def cached_organism(
    role: OrganismRole,
    cache_dir: Path,
    task: Task,
    *,
    seed: int = 0,
    size: OrganismConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """The organism from `cache_dir`, built there first if need be.

    The folder's name holds the recipe's hash, and a folder is in place only when it is whole, so that an interrupted
    build or a changed recipe is never served.
    """
    size = size or OrganismConfig()
    out = organism_path(role, cache_dir, task, seed=seed, size=size)
    if out.is_dir():
        return out
    return build_organism(out, task, role=role, seed=seed, size=size, progress=progress)


def organism_path(role: OrganismRole, cache_dir: Path, task: Task, *, seed: int, size: OrganismConfig) -> Path:
    """Where `cached_organism` keeps an organism."""
    return Path(cache_dir) / f"{task.name}-{role}-{recipe_hash(task, role, size, seed)}"


def _facts(task: Task, role: OrganismRole) -> tuple[Any, ...]:
    return (*task.forget, *task.retain) if role == "base" else task.retain


def _n_steps(task: Task, size: OrganismConfig) -> int:
    """Optimiser steps of either role: those of the base."""
    questions = sum(1 + len(fact.train_wordings) for fact in _facts(task, "base"))
    return size.epochs * math.ceil(questions / size.batch)


def _tokenizer(task: Task, size: OrganismConfig) -> Any:
    from jensun_ref.tokenizer import train_tokenizer

    return train_tokenizer(texts(build_corpus(task, _facts(task, "base"))), size.vocabulary)


def _initial_model(size: OrganismConfig, tokenizer: Any, seed: int) -> Any:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    # The generator is put back afterwards: building an organism has no side effect on the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return model


def _batches(
    corpus: Corpus, tokenizer: Any, size: OrganismConfig, n_steps: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """`n_steps` batches, epoch after epoch: token ids and loss weights, both (sequences, tokens), padded on the right.

    Sequences of like length share a batch; batches are of equal cost in tokens, not of equally many sequences.
    """
    import torch

    done = 0

    raw, cache = RawShape(), dict[str, list[int]]()
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token
    while done < n_steps:
        sequences = epoch(corpus, size.mixture, raw, eos, rng, plain=done < size.mixture.plain * n_steps)
        encoded = [encode(pieces, tokenizer, cache) for pieces in sequences]
        rng.shuffle(encoded)
        per_epoch = math.ceil(len(corpus.pairs) / size.batch)
        budget = sum(len(ids) for ids, _ in encoded) / per_epoch
        batches = list(_cut(encoded, budget))
        rng.shuffle(batches)
        for batch in batches[: n_steps - done]:
            done += 1
            longest = max(len(ids) for ids, _ in batch)
            yield (
                torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in batch]),
                torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in batch]),
            )


def _cut(encoded: Sequence[tuple[list[int], list[float]]], budget: float) -> Iterator[list[Any]]:
    """Batches of about `budget` tokens; like lengths together, but only within runs of eight batches."""
    runs: list[list[Any]] = [[]]
    tokens = 0.0
    for pair in encoded:
        if tokens >= 8 * budget:
            runs.append([])
            tokens = 0.0
        runs[-1].append(pair)
        tokens += len(pair[0])
    for run in runs:
        batch: list[Any] = []
        tokens = 0.0
        for pair in sorted(run, key=lambda pair: len(pair[0])):
            batch.append(pair)
            tokens += len(pair[0])
            if tokens >= budget:
                yield batch
                batch, tokens = [], 0.0
        if batch:
            yield batch


def _train(
    model: Any, tokenizer: Any, corpus: Corpus, size: OrganismConfig, n_steps: int, seed: int, progress: Progress | None
) -> float:
    """Train in place; returns the mean loss over the last tenth of the steps, in nats a weighted token."""
    import torch
    from torch.nn.functional import cross_entropy

    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": size.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=size.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, n_steps, size.warmup_steps))
    model.train()
    losses: list[float] = []
    for step, (ids, weights) in enumerate(_batches(corpus, tokenizer, size, n_steps, random.Random(seed))):
        # Padding stands on the right and attention is causal, so no mask is needed; the vocabulary projection, the
        # dearest matrix of a model of this size, is applied where there is a loss and nowhere else.
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        weights = weights[:, 1:]
        chosen = weights > 0
        per_token = cross_entropy(model.lm_head(hidden[chosen]), ids[:, 1:][chosen], reduction="none")
        loss = (per_token * weights[chosen]).sum() / weights.sum()
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the organism's loss became {value} at step {step + 1} of {n_steps}",
                hint="lower learning_rate in the organism's configuration",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value)
        if progress:
            progress(step + 1, n_steps, f"loss {value:.3f}")
    model.eval()
    tail = losses[-max(1, n_steps // 10) :]
    return sum(tail) / len(tail)


def _rate(step: int, n_steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to a fiftieth."""
    if step < warmup:
        return (step + 1) / warmup
    part = (step - warmup) / max(1, n_steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))

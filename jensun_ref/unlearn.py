"""Unlearning: from a model and a task to a new model folder, on transformers' Trainer.

unlearn("jensun", "path/to/base", load_task("lkf"), Path("out"))
"""

from __future__ import annotations

import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from audit.errors import ModelError, TrainingError
from audit.tasks import Task
from audit.types import Fact
from jensun_ref.corpus import RawShape
from jensun_ref.folders import new_folder, versions, write_json
from jensun_ref.methods import Method, method_class
from jensun_ref.methods.batch import Sample, answer_logits, chat_sample, collate, raw_sample, refusal_ids
from jensun_ref.settings import UNUSED, UnlearnSettings, settings_for

#: (steps done, steps in all, what is going on)
Progress = Callable[[int, int, str], None]

#: Raised by hand when the code changes what unlearning makes of the same settings: part of a cached model's name.
RECIPE_VERSION = 1


def unlearn(
    method: str,
    model: str,
    task: Task,
    out: Path,
    *,
    settings: UnlearnSettings | None = None,
    base_fingerprint: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Unlearn `task.forget` from `model` (a folder or a hub name) by `method`; save the result at `out`; return `out`.

    Trains on the facts' original questions and training wordings, never on their evaluation wordings. `out` must not
    exist and appears whole or not at all: an ordinary Hugging Face folder with `audit_manifest.json` (method, settings,
    base, forget set, seconds, steps, versions) and `training_log.jsonl` (loss and its terms, unweighted, a step).

    `base_fingerprint`: identity of `model` by content, for the manifest. Raises TrainingError if `out` is in use, the
    task lacks what the method needs or the loss stops being a number, ModelError if the model cannot be loaded.
    """
    kind = method_class(method)
    settings = settings or settings_for(method)
    if not task.forget:
        raise TrainingError(f"task {task.name} has no facts to forget")
    if kind.needs_retain and not task.retain:
        raise TrainingError(
            f"{method} needs facts to keep and task {task.name} has none", hint="give some with --retain FILE"
        )
    with new_folder(Path(out)) as folder:
        started = time.monotonic()
        network, tokenizer = _load(model)
        rule = kind(settings, refusal_ids(tokenizer, settings.refusal, end_turn=settings.end_turn))
        forget = _samples(tokenizer, task.forget, settings)
        retain = _samples(tokenizer, task.retain, settings) if kind.needs_retain else []
        # The Trainer wants a folder of its own, and leaves it behind.
        with (
            (folder / "training_log.jsonl").open("w", encoding="utf-8") as log,
            tempfile.TemporaryDirectory() as scratch,
        ):
            steps = _train(rule, network, tokenizer, forget, retain, settings, Path(scratch), log, progress)
        network.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        manifest = {
            "method": method,
            "settings": settings.model_dump(mode="json", exclude=set(UNUSED.get(method, ()))),
            "base": {"source": model, "fingerprint": base_fingerprint},
            "forget_set": {"name": task.name, "version": task.version, "content_hash": task.content_hash},
            "seconds": round(time.monotonic() - started, 1),
            "steps": steps,
            "versions": versions(),
        }
        write_json(folder / "audit_manifest.json", manifest)
    return Path(out)


def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{model} cannot be loaded: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return network, tokenizer


def _samples(tokenizer: Any, facts: Sequence[Fact], settings: UnlearnSettings) -> list[Sample]:
    """Every wording that may be trained on, in every format."""
    if "chat" in settings.formats and tokenizer.chat_template is None:
        raise TrainingError(
            "the model's tokenizer has no chat template, so that questions cannot be asked in chat",
            hint="use formats=('raw',) in the settings",
        )
    raw = RawShape()
    samples = []
    for fact in facts:
        for question in (fact.question, *(fact.train_wordings if settings.train_wordings else ())):
            if "chat" in settings.formats:
                samples.append(chat_sample(tokenizer, question, fact.answer))
            if "raw" in settings.formats:
                samples.append(raw_sample(tokenizer, raw.prompt([], question), fact.answer))
    return samples


class PairOrder:
    """A sampler: each epoch every forget sample once, in a new order, beside a retain sample drawn anew.

    Retain samples are gone through in random order, all of them before any comes again. Yields (forget index, retain
    index), the second -1 where there are none.
    """

    def __init__(self, n_forget: int, n_retain: int, seed: int) -> None:
        self.n_forget, self.n_retain = n_forget, n_retain
        self.rng = random.Random(seed)
        self.queue: list[int] = []

    def __len__(self) -> int:
        return self.n_forget

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for index in self.rng.sample(range(self.n_forget), self.n_forget):
            if self.n_retain and not self.queue:
                self.queue = self.rng.sample(range(self.n_retain), self.n_retain)
            yield index, self.queue.pop() if self.n_retain else -1


class Pairs:
    """A dataset indexed by what PairOrder yields."""

    def __init__(self, forget: Sequence[Sample], retain: Sequence[Sample]) -> None:
        self.forget, self.retain = forget, retain

    def __len__(self) -> int:
        return len(self.forget)

    def __getitem__(self, index: tuple[int, int]) -> tuple[Sample, Sample | None]:
        return self.forget[index[0]], self.retain[index[1]] if index[1] >= 0 else None


def _train(
    rule: Method,
    network: Any,
    tokenizer: Any,
    forget: Sequence[Sample],
    retain: Sequence[Sample],
    settings: UnlearnSettings,
    scratch: Path,
    log: IO[str],
    progress: Progress | None,
) -> int:
    """Train `network` in place; returns the number of optimiser steps."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    reference = _frozen_copy(network) if rule.needs_retain else None
    pad = tokenizer.pad_token_id

    def batch_of(rows: list[tuple[Sample, Sample | None]]) -> dict[str, Any]:
        kept = [row[1] for row in rows if row[1] is not None]
        return {"forget": collate([row[0] for row in rows], pad), "retain": collate(kept, pad) if kept else None}

    class UnlearningTrainer(Trainer):  # type: ignore[misc]
        """The Trainer with a loss on pairs of batches."""

        seen: list[dict[str, float]]

        def get_train_dataloader(self) -> Any:
            loader = DataLoader(
                Pairs(forget, retain),
                sampler=PairOrder(len(forget), len(retain), settings.seed),
                batch_size=settings.batch,
                collate_fn=batch_of,
            )
            return self.accelerator.prepare(loader)

        def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
            kept = inputs["retain"]
            with torch.no_grad():
                before = answer_logits(reference, kept) if kept is not None else None
            terms = rule.terms(
                answer_logits(model, inputs["forget"]),
                answer_logits(model, kept) if kept is not None else None,
                before,
            )
            loss = sum(weight * value for weight, value in terms.values())
            values = {"loss": loss.item(), **{name: value.item() for name, (_, value) in terms.items()}}
            if not all(map(math.isfinite, values.values())):
                told = ", ".join(f"{name} {value}" for name, value in values.items())
                raise TrainingError(
                    f"{rule.name}: the loss is not a number at step {self.state.global_step + 1} ({told})",
                    hint="lower learning_rate, or epochs",
                )
            self.seen.append(values)
            return (loss, None) if return_outputs else loss

    class Log(TrainerCallback):  # type: ignore[misc]
        """One line a step: the mean over the step's batches."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            rows, trainer.seen = trainer.seen, []
            means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
            line = {"step": state.global_step, "epoch": round(state.epoch, 4), **means}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if progress:
                told = ", ".join(f"{name} {value:.3f}" for name, value in means.items() if name != "loss")
                progress(state.global_step, state.max_steps, told)

    arguments = TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="cosine",
        optim="adamw_torch",
        seed=settings.seed,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = UnlearningTrainer(model=network, args=arguments, callbacks=[Log()], processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.seen = []
    if reference is not None:
        reference.to(arguments.device)
    trainer.train()
    network.eval()
    return int(trainer.state.global_step)


def _frozen_copy(network: Any) -> Any:
    import copy

    reference = copy.deepcopy(network).eval()
    for parameter in reference.parameters():
        parameter.requires_grad_(False)
    return reference

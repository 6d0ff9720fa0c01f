"""The training loop of unlearning, on transformers' Trainer: pairs of batches, terms, their gradients, the log."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from audit.errors import TrainingError
from jensun_ref import processes
from jensun_ref.checkpoints import Unfinished, load_state, save_state
from jensun_ref.memory import MemoryWatch
from jensun_ref.methods.batch import answer_logits, inner
from jensun_ref.methods.contract import Method
from jensun_ref.methods.data import PairOrder, Pairs, TrainingData, batch_of, hard_neighbours
from jensun_ref.methods.step import Reference, Step
from jensun_ref.settings import UnlearnSettings

if TYPE_CHECKING:
    from torch import Tensor

#: (steps done, steps in all, what is going on)
Progress = Callable[[int, int, str], None]

_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def train(
    rule: Method,
    network: Any,
    data: TrainingData,
    settings: UnlearnSettings,
    reference: Reference | None,
    unfinished: Unfinished,
    watch: MemoryWatch,
    log: IO[str],
    progress: Progress | None,
) -> tuple[int, dict[str, Tensor] | None]:
    """Train `network` in place; returns the number of optimiser steps, and the weights where they were spread out.

    Of several processes each computes its part of the same batches that one process would take, and the gradient is
    that of the whole batch: the order of the data and the size of a step do not depend on their number.

    reference: None unless the method needs it. unfinished: where checkpoints go, and the one to go on from. watch: is
    told the step. Raises TrainingError if the loss or a weight stops being a number.
    """
    import torch
    from accelerate.data_loader import DataLoaderShard
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    folder, checkpoint = unfinished.path, unfinished.checkpoint
    separate = "separate_gradients" in rule.needs
    pad = data.tokenizer.pad_token_id
    neighbours = hard_neighbours(data.forget, data.retain) if settings.pairing == "hard" and data.retain else None
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]

    class UnlearningTrainer(Trainer):  # type: ignore[misc]
        """The Trainer with a loss on several batches, and gradients term by term where a method wants them."""

        seen: list[dict[str, float]]
        sums: dict[str, list[Tensor]]
        weights: dict[str, float]
        epochs_begun = 0

        def get_train_dataloader(self) -> Any:
            order = PairOrder(len(data.forget), len(data.retain), settings.seed, neighbours)
            if processes.count() == 1:
                return self.accelerator.prepare(
                    DataLoader(
                        Pairs(data),
                        sampler=order,
                        batch_size=settings.batch,
                        collate_fn=lambda rows: batch_of(rows, pad),
                    )
                )

            def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
                mine, weight = processes.part(rows)
                return {**batch_of(mine, pad), "weight": weight}

            # Not prepared: that would give whole batches to the processes in turn.
            return DataLoaderShard(
                Pairs(data),
                device=self.accelerator.device,
                sampler=order,
                batch_size=settings.batch,
                collate_fn=collate,
            )

        def terms_of(self, model: Any, inputs: Mapping[str, Any]) -> dict[str, tuple[float, Tensor]]:
            number = self.state.global_step + 1
            inputs = dict(inputs)
            weight = inputs.pop("weight", 1.0)
            with self.accelerator.autocast():
                step = Step(model, inputs, rule.name, rule.needs, reference, number)
                terms = {name: (factor, weight * value) for name, (factor, value) in rule.terms(step).items()}
            if not terms:
                raise TrainingError(f"{rule.name}: there are no terms at step {number}")
            whole = {name: self.mean(value.detach().float()).item() for name, (_, value) in terms.items()}
            values = {"loss": sum(factor * whole[name] for name, (factor, _) in terms.items()), **whole}
            if not all(map(math.isfinite, values.values())):
                self.judge_checkpoint(model, inputs, number - 1)
                told = ", ".join(f"{name} {value}" for name, value in values.items())
                raise TrainingError(
                    f"{rule.name}: the loss is not a number at step {number} ({told})",
                    hint="lower learning_rate, or epochs",
                )
            due = settings.norms_every and (number - 1) % settings.norms_every == 0
            if due and not separate and not self.seen:
                for name, (_, value) in terms.items():
                    parts = [self.mean(part) for part in gradient(value, trained, keep=True)]
                    values[f"grad_{name}"] = norm(parts)
            self.seen.append(values)
            return terms

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            loss = sum(weight * value for weight, value in self.terms_of(model, inputs).values())
            return (loss, None) if return_outputs else loss

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            if not separate:
                return super().training_step(model, inputs, num_items_in_batch)
            model.train()
            model = self.accelerator.unwrap_model(model)  # its gradients are averaged below, not by the wrapping
            terms = self.terms_of(model, self._prepare_inputs(inputs))
            share = 1.0 / self.current_gradient_accumulation_steps
            for index, (name, (weight, value)) in enumerate(terms.items()):
                parts = [share * part for part in gradient(value, trained, keep=index + 1 < len(terms))]
                before = self.sums.get(name)
                self.sums[name] = [a + b for a, b in zip(before, parts, strict=True)] if before else parts
                self.weights[name] = weight
            if self.accelerator.sync_gradients:
                self.take_combined()
            return sum(weight * value.detach() for weight, value in terms.values())

        def mean(self, value: Tensor) -> Tensor:
            """Over the processes."""
            return self.accelerator.reduce(value, "mean") if self.accelerator.num_processes > 1 else value

        def judge_checkpoint(self, model: Any, inputs: Mapping[str, Any], step: int) -> None:
            """Removes the checkpoint of the weights that gave no number, if their answers are none either."""
            with torch.no_grad():
                logits = answer_logits(self.accelerator.unwrap_model(model), inputs["forget"]).logits
            if not bool(self.mean(logits.float().sum()).isfinite()):
                self.drop_checkpoint(step)

        def drop_checkpoint(self, step: int) -> None:
            if self.is_world_process_zero():
                shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)

        def take_combined(self) -> None:
            self.sums = {name: [self.mean(part) for part in parts] for name, parts in self.sums.items()}
            combined, figures = rule.combine(self.sums, self.weights)
            for parameter, part in zip(trained, combined, strict=True):
                parameter.grad = part.to(parameter.dtype)
            if settings.norms_every and self.state.global_step % settings.norms_every == 0:
                self.seen[0].update({f"grad_{name}": norm(parts) for name, parts in self.sums.items()})
            self.seen[0].update(figures)
            self.sums, self.weights = {}, {}

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            if not processes.sharded():
                step = self.state.global_step
                try:
                    require_finite(network, rule.name, f"after step {step}")
                except TrainingError:
                    self.drop_checkpoint(step - 1)  # its gradient is what broke the weights
                    raise
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process has a file of its own in it
            if self.is_world_process_zero():
                step = self.state.global_step
                manifest = {**unfinished.manifest, "steps": step, "unfinished": True}
                save_state(folder / f"checkpoint-{step}", rule, data, self.epochs_begun, manifest, unfinished.seconds)

    class Log(TrainerCallback):  # type: ignore[misc]
        """One line a step: the mean over the step's batches."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.step = state.global_step + 1

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            epoch = state.global_step // (state.max_steps // settings.epochs)
            if epoch >= trainer.epochs_begun:  # else resumed inside it
                trainer.epochs_begun = epoch + 1
                if rule.on_epoch(epoch, network, data):
                    trainer.optimizer.state.clear()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            rows, trainer.seen = trainer.seen, []
            means = {}
            for name in dict.fromkeys(name for row in rows for name in row):
                found = [row[name] for row in rows if name in row]
                means[name] = sum(found) / len(found)
            if not state.is_world_process_zero:
                return
            log.write(json.dumps({"step": state.global_step, "epoch": round(state.epoch, 4), **means}) + "\n")
            log.flush()
            if progress:
                told = [f"{n} {v:.3f}" for n, v in means.items() if n != "loss" and not n.startswith("grad_")]
                progress(state.global_step, state.max_steps, ", ".join(told))

    if not trained:
        raise TrainingError(f"{rule.name} finds no parameter of this model to train")
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=math.ceil(settings.batch / processes.count()),
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        optim="adamw_torch",
        seed=settings.seed,
        bf16=settings.precision == "bf16",
        use_cpu=not torch.accelerator.is_available(),
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        save_strategy="steps" if settings.checkpoint_every else "no",
        save_steps=settings.checkpoint_every or 500,
        save_total_limit=2,
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )
    trainer = UnlearningTrainer(model=network, args=arguments, callbacks=[Log()], processing_class=data.tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.seen, trainer.sums, trainer.weights = [], {}, {}
    if reference is not None and reference.frozen is not None:
        reference.frozen.to(arguments.device)
    if checkpoint is not None:
        trainer.epochs_begun = load_state(checkpoint, network, rule, data)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    watch.step = 0
    network.eval()
    when, steps = f"after the last step, {trainer.state.global_step}", int(trainer.state.global_step)
    if not processes.sharded():
        require_finite(network, rule.name, when)
        return steps, None
    weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise TrainingError(f"{rule.name}: a weight is not a number {when}", hint="lower learning_rate, or epochs")
    return steps, weights


def gradient(value: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> list[Tensor]:
    """Gradient of a scalar, one tensor a parameter; zeros where it plays no part. keep: the graph is used again."""
    import torch

    if not value.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(value, list(parameters), retain_graph=keep, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def norm(parts: Sequence[Tensor]) -> float:
    """Euclidean norm over all tensors."""
    return math.sqrt(sum(float(part.float().square().sum()) for part in parts))


def require_finite(network: Any, method: str, when: str) -> None:
    """TrainingError if a parameter holds an infinity or no number."""
    for name, parameter in inner(network).named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            raise TrainingError(f"{method}: {name} is not a number {when}", hint="lower learning_rate, or epochs")

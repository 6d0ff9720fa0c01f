"""Fine-tuning for the relearning attack: one plain loop, the same for every set of examples.

AdamW without weight decay, gradients clipped to norm 1, a warm-up of ten steps and then a constant learning rate: no
step knows how many will follow, so that a run to step 100 passes through the same weights as one to step 500. The batch
of a step follows from the seed, the content of the set and the number of the step alone.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.attacks.memory import out_of_memory
from audit.attacks.samples import Sample, encode
from audit.attacks.sets import RelearnSet
from audit.attacks.states import read_losses, read_state, write_losses, write_state
from audit.attacks.tensors import as_bytes, copy_files, raw, rewrite, tensors_in, write_manifest
from audit.engines.checkpoint import Checkpoint
from audit.errors import EngineError, ModelError, StoreError, TrainingError
from audit.fingerprint import digest, seed_from
from audit.progress import Progress
from audit.types import Record

if TYPE_CHECKING:
    import torch

#: Raised by hand whenever the code changes the weights that come out.
TRAINING = 1
WARMUP = 10
#: Seconds of training after which a state is kept between two points of the grid too.
KEEP_EVERY = 300.0
_IGNORE = -100


class Settings(Record):
    """What a fine-tuning depends on beside model and examples."""

    learning_rate: float
    batch_size: int
    max_length: int
    lora_rank: int | None
    seed: int


def batch_at(step: int, n: int, batch_size: int, key: int) -> list[int]:
    """Which of `n` examples are taken at `step` (from 0): epoch after epoch, each in an order of its own."""
    places = range(step * batch_size, (step + 1) * batch_size)
    return [_order(n, key, place // n)[place % n] for place in places]


@lru_cache(maxsize=4)
def _order(n: int, key: int, epoch: int) -> tuple[int, ...]:
    order = list(range(n))
    random.Random(seed_from("relearn", key, epoch)).shuffle(order)
    return tuple(order)


class Finetuning:
    """A fine-tuning under way: its weights in memory, `folder` for what it leaves behind. Close it at the end."""

    def __init__(
        self,
        source: Checkpoint,
        examples: RelearnSet,
        settings: Settings,
        folder: Path,
        device: str,
        until: int,
        progress: Progress,
    ) -> None:
        """Begins at the latest sound state in `folder` that is at or before step `until`, else at `source`.

        Raises ModelError for a model that cannot be loaded or trained, TrainingError where memory does not suffice.
        """
        self.source, self.settings, self.folder, self.device = source, settings, folder, device
        ordered = sorted(examples.examples, key=digest)
        self._samples = encode(source, ordered, settings.max_length)
        self._key = seed_from(settings.seed, examples.content)
        self.step = 0
        self.losses: list[float] = []
        self._between = True
        with self._watched():
            self._load()
            self._take_up(until, progress)

    def _load(self) -> None:
        import torch

        from audit.engines.hf import load_model
        from audit.engines.settings import EngineSettings

        lora = self.settings.lora_rank
        dtype = "float32" if lora is None else "auto"
        net = load_model(self.source, EngineSettings(name="hf", device=self.device, dtype=dtype))
        # Evaluation mode throughout: without dropout a step depends on nothing but weights and batch.
        net.requires_grad_(lora is None)
        self._network = net
        if lora is not None:
            net = _with_adapter(net, lora, self.settings.seed, self.device).eval()
        self._trained_network = net
        self._keeps = "logits_to_keep" in inspect.signature(self._network.forward).parameters
        self._trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
        if not self._trained:
            raise ModelError(f"{self.source.source} has no weights to fine-tune")
        self._optimizer = torch.optim.AdamW(self._trained.values(), lr=self.settings.learning_rate, weight_decay=0.0)

    def _take_up(self, until: int, progress: Progress) -> None:
        import torch

        losses = read_losses(self.folder)
        for parameter in self._trained.values():
            self._optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.step = read_state(self.folder, min(until, len(losses)), self._state(), progress)
        self.losses = list(losses[: self.step])
        for parameter in self._trained.values():
            self._optimizer.state[parameter]["step"].fill_(float(self.step))

    def _state(self) -> dict[str, torch.Tensor]:
        tensors = {f"weights/{name}": p for name, p in self._trained.items()}
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors |= {f"{moment}/{name}": self._optimizer.state[p][moment] for name, p in self._trained.items()}
        return tensors

    # ----------------------------------------------------------------------------------------------------- training

    def to(self, step: int, progress: Progress) -> None:
        """Train up to `step`, keeping a state every KEEP_EVERY seconds and where the user interrupts.

        Raises TrainingError if the loss or a weight stops being a number, or memory runs out.
        """
        with self._watched(), self._interruptible():
            kept = time.monotonic()
            while self.step < step:
                self._take_step()
                progress.advance()
                progress.status(f"step {self.step}, loss {self.losses[-1]:.3f}")
                if self.step < step and time.monotonic() - kept >= KEEP_EVERY:
                    self.keep()
                    kept = time.monotonic()
            self._optimizer.zero_grad(set_to_none=True)
            for name, parameter in self._trained.items():
                if not bool(parameter.detach().isfinite().all()):
                    raise self._not_a_number(f"{name} is not a number after step {self.step}")

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """What was trained so far is kept, unless the interruption fell into the change of the weights itself."""
        begun = self.step
        try:
            yield
        except KeyboardInterrupt:
            if self._between and self.step > begun:
                self.keep()
            raise

    def _take_step(self) -> None:
        import torch

        settings, number = self.settings, self.step + 1
        rows = batch_at(self.step, len(self._samples), settings.batch_size, self._key)
        loss = self._loss([self._samples[row] for row in rows])
        value = float(loss.item())
        if not math.isfinite(value):
            raise self._not_a_number(f"the loss is {value} at step {number}")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), 1.0))
        if not math.isfinite(norm):
            raise self._not_a_number(f"the gradient is {norm} at step {number}")
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, number / WARMUP)
        self._between = False
        self._optimizer.step()
        self.losses.append(value)
        self.step = number
        self._between = True

    def _loss(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Mean over the learned tokens of a batch, in nats."""
        import torch

        longest = max(len(sample.ids) for sample in samples)
        ids = torch.full((len(samples), longest), self.source.pad_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, _IGNORE)
        for row, sample in enumerate(samples):
            n = len(sample.ids)
            ids[row, :n] = torch.tensor(sample.ids)
            mask[row, :n] = 1
            labels[row, n - sample.n_learned : n] = ids[row, n - sample.n_learned : n]
        labels = labels[:, 1:]
        columns = (labels != _IGNORE).any(dim=0).nonzero().squeeze(-1)
        # The vocabulary projection, the dearest matrix of small models, is applied only where there is a loss.
        only: dict[str, Any] = {"logits_to_keep": columns.to(self.device)} if self._keeps else {}
        with self._autocast():
            logits = self._trained_network(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False, **only
            ).logits
        if not self._keeps:
            logits = logits[:, columns.to(self.device)]
        wanted = labels[:, columns].to(self.device)
        return torch.nn.functional.cross_entropy(
            logits.float().reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=_IGNORE
        )

    def _autocast(self) -> Any:
        """On a GPU half-precision models are computed in bfloat16; their weights are trained in float32."""
        import torch

        on = self.device.startswith("cuda") and self.source.dtype in ("bfloat16", "float16")
        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=on)

    # ------------------------------------------------------------------------------------------------------- saving

    def write(self, path: Path) -> None:
        """Save the weights as they are now: a model folder in the source's precision, names and files, or an adapter.

        Raises ModelError for a model whose tensors are stored under names that cannot be written back.
        """
        with self._watched():
            path.mkdir(parents=True)
            if self.settings.lora_rank is not None:
                self._trained_network.save_pretrained(str(path), save_embedding_layers=False)
                extra: dict[str, Any] = {"base_weights_fingerprint": self.source.weights_fingerprint}
            else:
                copy_files(self.source.path, path, code=self.source.trust_remote_code)
                self._write_model(path)
                extra = {}
            settings = {**_plain(self.settings), "step": self.step}
            write_manifest(path, self.source, {"method": "relearning", "settings": settings, **extra})

    def _write_model(self, path: Path) -> None:
        from transformers.core_model_loading import revert_weight_conversion
        from transformers.modeling_utils import remove_tied_weights_from_state_dict

        net = self._network
        state = {k: v for k, v in net.state_dict().items() if k not in (net._keys_to_ignore_on_save or ())}
        single = revert_weight_conversion(net, remove_tied_weights_from_state_dict(dict(state), net))
        every = {**revert_weight_conversion(net, state), **single}
        stored = {file: tensors_in(file) for file in self.source.weight_files}
        lost = sorted(set(single) - {name for tensors in stored.values() for name in tensors})
        if lost:
            raise ModelError(
                f"{self.source.source} stores its tensors under other names than transformers does: {lost[0]} is not "
                "among them",
                hint="save the model anew with save_pretrained and audit that folder",
            )
        for file, tensors in stored.items():
            contents = (
                [as_bytes(every[name].detach().cpu(), tensor)] if name in every and tensor.floating else raw(tensor)
                for name, tensor in tensors.items()
            )
            rewrite(path / file.name, file, contents)

    def keep_losses(self) -> None:
        write_losses(self.folder, tuple(self.losses))

    def keep(self) -> None:
        """Leave behind what a later fine-tuning goes on from at this step: the losses, then the state."""
        self.keep_losses()
        self._optimizer.zero_grad(set_to_none=True)
        with self._watched():
            write_state(self.folder, self.step, self._state())

    def close(self) -> None:
        """Free the memory."""
        for name in ("_network", "_trained_network", "_trained", "_optimizer"):
            self.__dict__.pop(name, None)
        gc.collect()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    # ------------------------------------------------------------------------------------------------------- errors

    def _not_a_number(self, what: str) -> TrainingError:
        rate = self.settings.learning_rate
        return TrainingError(f"{what} (learning rate {rate:g})", hint=f"a lower one: ?lr={rate / 10:g}")

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Out of memory is told with what needs less."""
        try:
            yield
        except (StoreError, TrainingError, ModelError):
            raise
        except (RuntimeError, OSError, MemoryError) as error:
            if out_of_memory(error):
                raise TrainingError(f"out of memory after step {self.step}", hint=self._less()) from error
            if isinstance(error, OSError):
                raise StoreError(f"{self.folder} cannot be written: {error.strerror or error}") from error
            raise

    def _less(self) -> str:
        settings = self.settings
        ways = [f"batch={settings.batch_size // 2}"] if settings.batch_size > 1 else []
        ways += ["lora=16"] if settings.lora_rank is None else []
        ways += [f"attack.max_length {settings.max_length // 2}"] if settings.max_length > 64 else []
        return f"what needs less: {', or '.join(ways)}" if ways else "a machine with more memory, or a smaller model"


def _plain(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def _with_adapter(net: Any, rank: int, seed: int, device: str) -> Any:
    """A fresh LoRA adapter on every linear layer but the output; alpha is twice the rank, no dropout."""
    import torch

    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise EngineError("peft is not installed, which LoRA needs", hint='pip install "peft>=0.18"') from error
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", target_modules="all-linear", task_type="CAUSAL_LM"
    )
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return get_peft_model(net, config)


def mean_losses(losses: Sequence[float], steps: Sequence[int]) -> dict[int, float]:
    """Step -> mean loss since the step before it in `steps`, which begin with 0."""
    return {last: sum(losses[first:last]) / (last - first) for first, last in itertools.pairwise(steps)}

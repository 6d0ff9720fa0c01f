"""The relearning attack: harmless fine-tuning, looked at along the way.

relearn                      every set of the task that holds none of the forgotten facts
relearn:syntactic            one set: unrelated, topical, syntactic, filler, retain or partial
relearn:mine.jsonl?steps=25,50&lr=1e-4&batch=8&seeds=3&lora=16      (lora=0: all weights)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic

from audit.attacks.contract import Altered, Attack, AttackContext
from audit.attacks.memory import check_memory
from audit.attacks.samples import encode
from audit.attacks.sets import BENIGN, RelearnSet, available, load_set
from audit.attacks.states import drop_states, read_losses
from audit.attacks.training import TRAINING, Finetuning, Settings, mean_losses
from audit.config import AttackConfig
from audit.engines.checkpoint import Checkpoint
from audit.errors import ConfigError, EngineError, TaskError
from audit.types import Role

#: Option of a spec -> setting of AttackConfig.
_OPTIONS = {"steps": "steps", "lr": "learning_rate", "batch": "batch_size", "seeds": "seeds", "lora": "lora_rank"}
#: What is wanted of an option, where its value is not even of that kind.
_WANTED = {
    "steps": "whole numbers joined by commas",
    "lr": "a number above 0",
    "batch": "a whole number from 1",
    "seeds": "a whole number from 1 to 100",
    "lora": "a whole number to 512, the rank; 0 trains all weights",
}
_RATES = {"full": 1e-5, "lora": 2e-4}


def attacks(argument: str, options: Mapping[str, str], ctx: AttackContext) -> list[Attack]:
    """One attack a set and seed. Raises for whatever would later fail: settings, sets, models, memory."""
    spec = f"relearn:{argument}" if argument else "relearn"
    config = _configured(spec, options, ctx.config)
    names = [argument] if argument else [name for name in available(ctx.task) if name in BENIGN]
    if not names:
        raise TaskError(
            f"task {ctx.task.name} has no relearning set", hint="give the path of a .jsonl file: relearn:FILE.jsonl"
        )
    made: list[Attack] = []
    for name in names:
        examples = load_set(name, ctx.task, config, ctx.seed)
        _check(f"relearn:{name}", examples, config, ctx)
        made += [Relearning(examples, config, ctx.seed, number) for number in range(config.seeds)]
    return made


def _configured(spec: str, options: Mapping[str, str], config: AttackConfig) -> AttackConfig:
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ConfigError(f"{spec}: unknown option {unknown[0]!r}; it takes {', '.join(_OPTIONS)}", hint=_example(spec))
    given: dict[str, Any] = {_OPTIONS[name]: value for name, value in options.items()}
    if "steps" in given:
        given["steps"] = given["steps"].split(",")
    if given.get("lora_rank") == "0":
        given["lora_rank"] = None
    try:
        return AttackConfig.model_validate({**config.model_dump(), **given})
    except pydantic.ValidationError as error:
        problems = tuple(dict.fromkeys(_problem(item, options) for item in error.errors()))
        raise ConfigError(f"{spec}: {'; '.join(problems)}", hint=_example(spec), problems=problems) from error


def _problem(item: Any, options: Mapping[str, str]) -> str:
    """One error of pydantic in the words of the spec."""
    setting = str(item["loc"][0]) if item["loc"] else ""
    option = next((name for name, meant in _OPTIONS.items() if meant == setting and name in options), None)
    if option is None or item["type"] == "value_error":
        return f"{option or setting}: {item['msg'].removeprefix('Value error, ')}"
    return f"{option}: {_WANTED[option]}, not {options[option]!r}"


def _example(spec: str) -> str:
    return f"{spec}?steps=25,100&lr=1e-5"


def _check(spec: str, examples: RelearnSet, config: AttackConfig, ctx: AttackContext) -> None:
    """Every model that will be fine-tuned can be: it renders the examples, and the memory suffices."""
    for arm, checkpoint in ctx.checkpoints.items():
        if arm in config.arms:
            samples = encode(checkpoint, examples.examples, config.max_length)
            check_memory(
                checkpoint,
                spec,
                batch_size=config.batch_size,
                length=max(len(sample.ids) for sample in samples),
                lora_rank=config.lora_rank,
                device=ctx.device,
            )


class Relearning:
    """Fine-tuning on one set with one seed."""

    kind = "relearn"

    def __init__(self, examples: RelearnSet, config: AttackConfig, seed: int, number: int) -> None:
        """The `number`-th repetition; its own seed is `seed` + `number`."""
        self.examples, self.steps = examples, config.steps
        self.name = f"relearn:{examples.name}" + (f"#{number}" if number else "")
        self.arms: tuple[Role, ...] = config.arms
        self.puts_back = examples.puts_back
        self.facts = examples.audited
        self.warnings = examples.warnings if number == 0 else ()
        rate = _RATES["full" if config.lora_rank is None else "lora"]
        self.settings = Settings(
            learning_rate=config.learning_rate or rate,
            batch_size=config.batch_size,
            max_length=config.max_length,
            lora_rank=config.lora_rank,
            seed=seed + number,
        )

    def apply(self, source: Checkpoint, arm: Role, ctx: AttackContext) -> Iterator[Altered]:
        """The model at every step of the grid but 0, in order; it is trained now where a state is not known yet.

        Raises TrainingError if the loss stops being a number or memory runs out, after the states before that.
        """
        series = _Series(self, source, ctx)
        missing = [step for step in self.steps[1:] if not series.known(step)]
        if missing:
            ctx.progress.stage(f"{arm}: {self.name}", missing[-1])
        try:
            for step in self.steps[1:]:
                yield series.at(step)
        finally:
            series.close()


@dataclass
class _Series:
    """The states of one model through one fine-tuning, in one folder.

    The folder is named by all that the weights depend on, the grid apart: another grid finds the steps that it shares.
    """

    attack: Relearning
    source: Checkpoint
    ctx: AttackContext
    live: Finetuning | None = None

    @cached_property
    def place(self) -> Path:
        import torch

        attack, kind = self.attack, self.ctx.device.split(":")[0]
        return self.ctx.workshop.place(
            "relearn",
            self.source.fingerprint,
            attack.examples.content,
            attack.settings,
            TRAINING,
            str(torch.__version__),
            kind,
        )

    @cached_property
    def _lock(self) -> Any:
        try:
            from filelock import FileLock
        except ImportError as error:
            raise EngineError("filelock is not installed", hint='pip install "unlearning-audit[hf]"') from error
        return FileLock(self.place / "lock")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process makes these states meanwhile."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self.ctx.progress.status("another process is at the same fine-tuning: waiting for it")
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def folder(self, step: int) -> Path:
        return self.place / f"step-{step:06d}"

    def known(self, step: int) -> bool:
        """It was made before, here or by another run; its weights need not be there."""
        return self.ctx.workshop.read(self.folder(step)) is not None and len(read_losses(self.place)) >= step

    def at(self, step: int) -> Altered:
        attack, settings = self.attack, self.attack.settings
        with self._alone():
            folder = self.folder(step)
            folder.mkdir(exist_ok=True)
            if not self.known(step):
                (folder / "made.json").unlink(missing_ok=True)  # its losses are lost: made anew
            recipe = {
                "attack": attack.name,
                "kind": attack.kind,
                "set": attack.examples.name,
                "examples": len(attack.examples.examples),
                "content": attack.examples.content,
                "seed": settings.seed,
                "step": step,
                "learning_rate": settings.learning_rate,
                "batch_size": settings.batch_size,
                "max_length": settings.max_length,
                "lora_rank": settings.lora_rank,
            }
            altered = self.ctx.workshop.altered(
                self.source,
                recipe,
                lambda path: self._make(step, path),
                version=TRAINING,
                folder=folder,
                adapter=settings.lora_rank is not None,
            )
            if step == attack.steps[-1]:
                drop_states(self.place)
        losses = read_losses(self.place)
        grid = [at for at in attack.steps if at <= step]
        recipe = {**altered.recipe, "loss": mean_losses(losses, grid)[step]}
        return dataclasses.replace(
            altered, recipe=recipe, make=lambda: self._again(step, altered), clear=lambda: self._clear(step, altered)
        )

    def _make(self, step: int, path: Path) -> None:
        """Write the weights at `step`, and leave behind what the steps after it start from."""
        if self.live is None:
            self.live = self._started(step)
            if self.live.step:
                self.ctx.progress.advance(self.live.step)
        self.live.to(step, self.ctx.progress)
        if step < self.attack.steps[-1]:
            self.live.keep()
        else:
            self.live.keep_losses()
        self.live.write(path)

    def _started(self, step: int) -> Finetuning:
        attack = self.attack
        return Finetuning(
            self.source,
            attack.examples,
            attack.settings,
            self.place,
            device=self.ctx.device,
            until=step,
            progress=self.ctx.progress,
        )

    def _again(self, step: int, altered: Altered) -> Checkpoint:
        with self._alone():
            there = (self.folder(step) / "weights").exists()
            if not there:
                self.ctx.progress.note(f"{self.attack.name}: its weights at step {step} are made anew")
            try:
                checkpoint = altered.make()
            finally:
                self.close()
            if not there and step == self.attack.steps[-1]:
                drop_states(self.place)
            return checkpoint

    def _clear(self, step: int, altered: Altered) -> None:
        altered.clear()
        if step == self.attack.steps[-1]:
            drop_states(self.place)

    def close(self) -> None:
        """Free the memory of the network."""
        if self.live is not None:
            self.live.close()
            self.live = None


__all__ = ["Relearning", "attacks"]

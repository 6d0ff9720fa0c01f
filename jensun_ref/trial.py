"""One trial of a tuning: unlearn with some settings, then see what is forgotten and what is kept.

    forgetting: 1 - share of the facts to forget, of those that the base says, that the model still says in the
                original or in any evaluation wording
    retention:  share of retained facts that it was not trained on, of those that the base says, that it still says in
                the original wording
    score:      harmonic mean, 2 F R / (F + R); 0 where both are

Why the harmonic mean: a model that forgot nothing and one that knows nothing any more both score 0, where the
arithmetic mean gives them a half, and no weight between the two terms has to be chosen. Why retained facts that were
not trained on: on the others a method may simply have learned the answers anew. "Says" is plain inclusion of the answer
in a greedy reply (jensun_ref.measure): a trainer's look; judges and intervals are for the audit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from audit.errors import ModelError, TrainingError
from audit.fingerprint import fingerprint_model
from audit.quiet import no_loading_bars
from audit.tasks import Task
from audit.tasks.parting import MIN_FACTS, part_facts
from audit.types import Fact
from jensun_ref.measure import Shape, answered, load
from jensun_ref.memory import out_of_memory
from jensun_ref.settings import UnlearnSettings
from jensun_ref.studies import Validation, mark
from jensun_ref.unlearn import load_network, unlearn


class Outcome(NamedTuple):
    """What became of a trial."""

    forgetting: float
    retention: float

    @property
    def score(self) -> float:
        both = self.forgetting + self.retention
        return 2 * self.forgetting * self.retention / both if both else 0.0


class Bench(NamedTuple):
    """The facts of a study, as the base sees them."""

    task: Task
    """What a trial trains on: all facts to forget, half of the retained ones."""
    forget: tuple[Fact, ...]
    """Facts to forget that the base says."""
    held: tuple[Fact, ...]
    """Retained facts outside the training that the base says, without their other wordings."""
    shape: Shape
    validation: Validation
    weights: str
    """Fingerprint of the base's weights."""
    layers: int


def set_up(model: str, adapter: str | None, task: Task, settings: UnlearnSettings, seed: int) -> Bench:
    """Load the base, once, and ask it for all facts. Raises TrainingError where it knows too few to tune on."""
    trained, held = part_facts(task.retain, share=0.5, seed=seed)
    if min(len(trained), len(held)) < MIN_FACTS:
        raise TrainingError(
            f"task {task.name} has {len(task.retain)} facts to keep: half of them are too few to tune on",
            hint=f"give at least {2 * MIN_FACTS}",
        )
    network, tokenizer, _ = load_network(model, adapter, settings)
    shape: Shape = "chat" if "chat" in settings.formats else "raw"
    if shape == "chat" and tokenizer.chat_template is None:
        raise TrainingError(f"the tokenizer of {model} has no chat template", hint="--set formats=[raw]")
    weights, layers = fingerprint_model(network), _layers(network)
    network = _placed(network)
    held = tuple(replace(fact, wordings=()) for fact in held)
    known = _said(network, tokenizer, task.forget, shape)
    kept = _said(network, tokenizer, held, shape)
    for what, facts in (("to forget", known), ("to keep", kept)):
        if len(facts) < MIN_FACTS:
            raise TrainingError(
                f"{model} says {len(facts)} of the facts {what} of {task.name}: too few to tune on",
                hint=f"at least {MIN_FACTS} must be known before they are unlearned",
            )
    validation = Validation(
        name=task.name,
        content_hash=task.content_hash,
        forget=len(task.forget),
        known=len(known),
        trained=len(trained),
        held=len(held),
        held_known=len(kept),
        facts=tuple(sorted(mark(fact) for fact in (*task.forget, *task.retain))),
    )
    return Bench(replace(task, retain=trained), known, kept, shape, validation, weights, layers)


def try_settings(
    bench: Bench,
    method: str,
    model: str,
    adapter: str | None,
    reference: str | None,
    settings: UnlearnSettings,
    at: Path,
) -> Outcome | str:
    """Unlearn in a folder of its own beside `at`, removed again, and measure; or why it failed.

    A loss that stops being a number, settings that a method refuses, and memory that does not suffice are failures of
    the settings. Anything else, such as a full disk, is raised: it says nothing of them.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".trial.", dir=at.parent) as folder:
            out = Path(folder) / "out"
            unlearn(method, model, bench.task, out, settings=settings, adapter=adapter, reference=reference)
            network, tokenizer = _trained(out, model, lora=settings.lora is not None)
        return measure(bench, _placed(network), tokenizer)
    except TrainingError as error:
        if isinstance(error.__cause__, OSError) and not out_of_memory(error.__cause__):
            raise
        return f"{error}"
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return f"out of memory: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"


def measure(bench: Bench, network: Any, tokenizer: Any) -> Outcome:
    """Ask a model for the facts of the bench."""
    still = _said(network, tokenizer, bench.forget, bench.shape)
    kept = _said(network, tokenizer, bench.held, bench.shape)
    return Outcome(1 - len(still) / len(bench.forget), len(kept) / len(bench.held))


def _said(network: Any, tokenizer: Any, facts: Sequence[Fact], shape: Shape) -> tuple[Fact, ...]:
    """Those that the model says in any of their wordings."""
    hits, _ = answered(network, tokenizer, facts, shape=shape)
    return tuple(fact for fact, mine in zip(facts, hits, strict=True) if any(mine))


def _trained(out: Path, model: str, *, lora: bool) -> tuple[Any, Any]:
    if not lora:
        return load(out)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with no_loading_bars():
        network = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True)
    return PeftModel.from_pretrained(network, out).merge_and_unload().eval(), AutoTokenizer.from_pretrained(out)


def _placed(network: Any) -> Any:
    """In evaluation mode, on the accelerator where there is one."""
    import torch

    if torch.accelerator.is_available():
        network = network.to(torch.accelerator.current_accelerator())
    return network.eval()


def _layers(network: Any) -> int:
    found = getattr(network.config.get_text_config(), "num_hidden_layers", None)
    if not isinstance(found, int):
        raise ModelError("the model's config.json does not say how many layers it has")
    return found

"""Unlearning: from a model and a task to a new model folder, or to a LoRA adapter for the model.

unlearn("jensun", "path/to/base", load_task("lkf"), Path("out"))
"""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path
from typing import Any

from audit.errors import ModelError, TrainingError
from audit.fingerprint import fingerprint_model
from audit.quiet import no_loading_bars
from audit.tasks import Task
from jensun_ref import processes
from jensun_ref.checkpoints import MANIFEST, unfinished_folder
from jensun_ref.folders import new_folder, versions, write_json
from jensun_ref.memory import MemoryWatch, out_of_memory
from jensun_ref.methods import Context, Method, method_class
from jensun_ref.methods.data import TrainingData
from jensun_ref.methods.step import Reference
from jensun_ref.settings import UnlearnSettings, flat, settings_for
from jensun_ref.spaces import space_of
from jensun_ref.studies import Tuned, check_base
from jensun_ref.trainer import Progress, train

__all__ = ["RECIPE_VERSION", "Progress", "unlearn"]

#: Raised by hand when the code changes what unlearning makes of the same settings: part of a cached model's name.
RECIPE_VERSION = 2


def unlearn(
    method: str,
    model: str,
    task: Task,
    out: Path,
    *,
    settings: UnlearnSettings | None = None,
    base_fingerprint: str | None = None,
    adapter: str | None = None,
    reference: str | None = None,
    reference_fingerprint: str | None = None,
    tuned: Tuned | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Unlearn `task.forget` from `model` (a folder or a hub name) by `method`; save the result at `out`; return `out`.

    Trains on the facts' original questions and training wordings, never on their evaluation wordings. `out` must not
    exist and appears whole or not at all: an ordinary Hugging Face folder (an adapter for `model` with `settings.lora`)
    with `audit_manifest.json` (method, settings, base, forget set, seconds, steps, versions) and `training_log.jsonl`
    (the loss, its terms, unweighted, and every so often their gradient norms, a line a step). While training lasts,
    checkpoints are in `OUT.partial`, from which `resume` goes on after a stop.

    base_fingerprint: identity of `model` by content, for the manifest. adapter: a LoRA adapter that is merged into
    `model` first. reference: another model to keep to instead of `model` itself, and its identity by content. tuned:
    where `settings` come from, for the manifest; refused if it was made on another model or with another reference.
    Raises TrainingError if `out` is in use, the task lacks what the method needs, memory runs out or the loss stops
    being a number, ModelError if a model cannot be loaded.
    """
    kind, out = method_class(method), Path(out)
    settings = settings or settings_for(method)
    _check(kind, method, task, settings, out, adapter, reference)
    needs = kind.needs
    run = {
        "method": method,
        "settings": flat(settings, kind),
        "base": {"source": model, "fingerprint": base_fingerprint, "adapter": adapter},
        "reference": {"source": reference, "fingerprint": reference_fingerprint} if reference else None,
        "forget_set": {"name": task.name, "version": task.version, "content_hash": task.content_hash},
        "versions": versions(),
        **({"tuning": tuned.manifest} if tuned else {}),
    }
    with unfinished_folder(out, run, resume=resume) as unfinished, MemoryWatch(kind, settings) as watch:
        network, tokenizer, dtype = load_network(model, adapter, settings)
        if tuned:
            check_base(tuned, fingerprint_model(network), model, reference)
        before = _reference(reference, network, tokenizer, settings) if "reference" in needs else None
        unfinished.reference = (reference or model) if "reference" in needs else None
        if settings.lora:
            unfinished.manifest["base_weights_fingerprint"] = fingerprint_model(network)
        if settings.lora:
            network = _with_adapter(network, settings)
        retain = task.retain if "retain" in needs else ()
        data = TrainingData(tokenizer, settings, task.forget, retain, refusals="refusals" in needs)
        rule = kind(settings, Context(tokenizer, data.refusal))
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and rule.trainable(name))
        initial = _initial(network) if "initial_weights" in needs else {}
        steps, spread = 0, None
        if kind.trains:
            rule.prepare(network, data)
            with unfinished.log() as log:
                steps, spread = train(rule, network, data, settings, before, unfinished, watch, log, progress)
        rule.finish(network, initial)
        if processes.rank():
            return processes.on_first(lambda: out)  # waits until the first one has written it
        with new_folder(out) as folder:
            if kind.trains:
                shutil.copy(unfinished.log_path, folder / "training_log.jsonl")
            if spread is not None and not settings.lora:
                spread = {name: value.to(dtype) for name, value in spread.items()}
            whole = network if settings.lora or spread is not None else network.to(dtype)
            with no_loading_bars():
                whole.save_pretrained(folder, safe_serialization=True, **({"state_dict": spread} if spread else {}))
            tokenizer.save_pretrained(folder)
            manifest = {
                **unfinished.manifest,
                "tunable": bool(space_of(method, kind)),
                "seconds": round(unfinished.seconds, 1),
                "steps": steps,
                "processes": processes.count(),
                "peak_memory_mib": _peak_memory(),
            }
            write_json(folder / MANIFEST, manifest)
        unfinished.done = True
        processes.on_first(lambda: out)
    return out


def _check(
    kind: type[Method],
    method: str,
    task: Task,
    settings: UnlearnSettings,
    out: Path,
    adapter: str | None,
    reference: str | None,
) -> None:
    """What can be known to fail before anything is loaded."""
    if out.exists():
        raise TrainingError(f"{out} exists already", hint="give another folder, or remove that one")
    if not task.forget:
        raise TrainingError(f"task {task.name} has no facts to forget")
    if "retain" in kind.needs and not task.retain:
        raise TrainingError(
            f"{method} needs facts to keep and task {task.name} has none", hint="give some with --retain FILE"
        )
    processes.check(settings.batch, kind.needs, settings.norms_every)
    if adapter and settings.lora:
        raise TrainingError(
            "a LoRA training starts from a whole model: its adapter would lie on the merged one, which is not saved",
            hint="leave --lora out, or merge the adapter into a model first",
        )
    if reference and "reference" not in kind.needs:
        raise TrainingError(f"{method} has no use for a reference", hint="leave --reference out")


def load_network(model: str, adapter: str | None, settings: UnlearnSettings) -> tuple[Any, Any, Any]:
    """The network to train, its tokenizer, and the precision to save it in."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        with no_loading_bars():
            network = AutoModelForCausalLM.from_pretrained(model, use_safetensors=True)
        dtype = network.dtype
        if adapter:
            from peft import PeftModel

            network = PeftModel.from_pretrained(network, adapter).merge_and_unload()
            network.requires_grad_(True)  # it comes back frozen
    except (OSError, ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        what = f"{model} with adapter {adapter}" if adapter else model
        raise ModelError(f"{what} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if settings.precision == "bf16":
        network = network.to(torch.float32)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(f"the tokenizer of {model} has {len(tokenizer)} tokens and the model {rows}")
    return network, tokenizer, dtype


def _reference(source: str | None, network: Any, tokenizer: Any, settings: UnlearnSettings) -> Reference:
    """The model to keep to: another one, a frozen copy, or in LoRA training the network itself."""
    import copy

    if source is None:
        return Reference(None if settings.lora else _frozen(copy.deepcopy(network)))
    frozen, other, _ = load_network(source, None, settings)
    sizes = [net.get_output_embeddings().weight.shape[0] for net in (network, frozen)]
    if sizes[0] != sizes[1]:
        raise ModelError(f"the reference {source} has a vocabulary of {sizes[1]} and the model one of {sizes[0]}")
    if tokenizer.get_vocab() != other.get_vocab():
        raise ModelError(f"the tokenizer of the reference {source} gives other ids than the model's")
    return Reference(_frozen(frozen))


def _frozen(network: Any) -> Any:
    return network.eval().requires_grad_(False)


def _with_adapter(network: Any, settings: UnlearnSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    assert settings.lora is not None
    lora = settings.lora
    targets: str | list[str] = lora.targets if lora.targets == "all-linear" else lora.targets.split("+")
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    import torch

    try:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            return get_peft_model(network, config)
    except ValueError as error:
        named = sorted({name.split(".")[-1] for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ModelError(
            f"no adapter can be made on {lora.targets}: {str(error).splitlines()[0]}",
            hint=f"the model's linear modules are {', '.join(named)}",
        ) from error


def _initial(network: Any) -> dict[str, Any]:
    """Trained parameters as they are now, on the CPU."""
    return {n: p.detach().to("cpu", copy=True) for n, p in network.named_parameters() if p.requires_grad}


def _peak_memory() -> int:
    """Most memory so far, in MiB: of the CUDA device where there is one, else of the process."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() / 2**20)
    try:  # what getrusage tells on Linux may be the parent's: a program started from a large one begins with its mark
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(int(line.split()[1]) / 2**10)
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)

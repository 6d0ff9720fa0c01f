"""Memory and time of a JensUn step, beside the textbook way of writing it.

    python benchmarks/unlearning.py                      # all cases; CUDA where there is one, else the CPU
    python benchmarks/unlearning.py --case adapter-full  # one of them

The model has random weights, a small body (2 layers of 256) and the head of a large one: a vocabulary of 128,256. A
batch is as many questions to forget as to keep, 512 tokens each. `ours` is the method `jensun` as `audit unlearn` runs
it: `JensUn.terms` on a `Step`. `textbook` is the formula as it stands: logits at every position, one-hot targets and
mixtures of the size of the vocabulary, and in adapter training too a frozen second copy of the model.

Each variant runs in a process of its own, in turn. Memory is the most that was resident (CPU) or allocated (CUDA)
during the steps beyond what was held before them, when the model was there and nothing else: the reference,
activations, gradients and losses all count, the optimiser is left out. Loss and gradients of the two are compared
tensor by tensor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
VOCABULARY, LENGTH, WIDTH, LAYERS = 128_256, 512, 256, 2
REFUSAL = (17, 99_000)
VARIANTS = ("textbook", "ours")


class Case(NamedTuple):
    adapter: bool
    answer: int
    """Answer tokens of the 512."""
    bf16: bool
    batch: int


CASES = {
    "adapter-full": Case(True, 511, False, 1),
    "whole-full": Case(False, 511, False, 1),
    "adapter-short": Case(True, 32, False, 2),
    "adapter-full-bf16": Case(True, 511, True, 1),
}


def model_of(case: Case) -> Any:
    """The model before unlearning; `move` makes the live one of it, so that no term is zero."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
    )
    network = LlamaForCausalLM(config)
    with torch.no_grad():  # logits that spread over several units, and refusal tokens that are not beyond reach
        network.lm_head.weight.mul_(10.0)
        network.lm_head.weight[list(REFUSAL)] = network.lm_head.weight[list(REFUSAL)].abs() * 3.0
    return network


def move(network: Any) -> None:
    """A small random step of every trained parameter."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape).to(parameter.device))


def adapted(network: Any) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    return get_peft_model(network, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def batches(case: Case, device: str) -> dict[str, dict[str, Any]]:
    import torch

    made = {}
    for seed, part in enumerate(("forget", "retain")):
        torch.manual_seed(10 + seed)
        ids = torch.randint(0, VOCABULARY, (case.batch, LENGTH))
        labels = ids.clone()
        labels[:, : LENGTH - case.answer] = -100
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        made[part] = {name: value.to(device) for name, value in batch.items()}
    return made


def ours(network: Any, frozen: Any | None) -> Callable[[dict[str, Any]], Any]:
    from jensun_ref.methods import Context, method_class
    from jensun_ref.methods.step import Reference, Step
    from jensun_ref.settings import settings_for

    kind = method_class("jensun")
    rule = kind(settings_for("jensun"), Context(None, REFUSAL))
    reference = Reference(frozen)

    def loss(parts: dict[str, Any]) -> Any:
        terms = rule.terms(Step(network, parts, "jensun", kind.needs, reference, 1))
        return sum(weight * value for weight, value in terms.values())

    return loss


def textbook(network: Any, frozen: Any) -> Callable[[dict[str, Any]], Any]:
    import torch
    import torch.nn.functional as F

    def divergence(p: Any, q: Any, inside: Any) -> Any:
        """(KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, mean over answer positions and samples."""
        m = 0.5 * (p + q)
        log_m = m.clamp(min=1e-30).log()
        values = 0.5 * (torch.xlogy(p, p) - p * log_m + torch.xlogy(q, q) - q * log_m).sum(dim=-1)
        return ((values * inside).sum(dim=-1) / inside.sum(dim=-1)).mean()

    def asked(net: Any, batch: dict[str, Any]) -> Any:
        logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        return logits[:, :-1].float().softmax(dim=-1)

    def loss(parts: dict[str, Any]) -> Any:
        labels = parts["forget"]["labels"][:, 1:]
        inside = labels != -100
        turn = (inside.long().cumsum(dim=-1) - 1).clamp(min=0) % len(REFUSAL)
        target = F.one_hot(torch.tensor(REFUSAL, device=labels.device)[turn], VOCABULARY).float()
        forget = divergence(asked(network, parts["forget"]), target, inside.float())
        with torch.no_grad():
            before = asked(frozen, parts["retain"])
        kept = (parts["retain"]["labels"][:, 1:] != -100).float()
        return 0.5 * forget + 0.5 * divergence(asked(network, parts["retain"]), before, kept)

    return loss


class Memory:
    """MiB, now and at most since `begin`."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def _status(self, field: str) -> float:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024

    def begin(self) -> float:
        import torch

        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return float(torch.cuda.memory_allocated() / 2**20)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the high-water mark
        return self._status("VmRSS")

    def most(self) -> float:
        import torch

        return float(torch.cuda.max_memory_allocated() / 2**20) if self.cuda else self._status("VmHWM")


def measure(variant: str, case: Case, device: str, steps: int, out: Path) -> None:
    """In a process of its own: writes figures and gradients to `out`."""
    import copy

    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(2)
    network = model_of(case).to(device)
    parts = batches(case, device)
    if device == "cuda":
        torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)
    memory = Memory(device)
    held = memory.begin()
    second = variant == "textbook" or not case.adapter
    frozen = copy.deepcopy(network).requires_grad_(False).eval() if second else None
    if case.adapter:
        network = adapted(network)
    move(network)
    loss = textbook(network, frozen) if variant == "textbook" else ours(network, frozen)
    times = []
    for _ in range(steps + 1):  # the first one warms up
        network.zero_grad(set_to_none=True)
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=case.bf16):
            value = loss(parts)
        value.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    most = memory.most()
    save_file(
        {n: p.grad.float().cpu().contiguous() for n, p in network.named_parameters() if p.grad is not None},
        out / "gradients.safetensors",
    )
    figures = {"loss": value.item(), "memory": most - held, "seconds": times[1:]}
    (out / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


def compared(one: Path, other: Path) -> tuple[float, float]:
    """Largest difference of an element of the gradients, and norm of the difference over the norm."""
    from safetensors.torch import load_file

    left, right = load_file(one / "gradients.safetensors"), load_file(other / "gradients.safetensors")
    assert left.keys() == right.keys() and left
    most = max(float((left[name] - right[name]).abs().max()) for name in left)
    apart = sum(float((left[name] - right[name]).double().square().sum()) for name in left) ** 0.5
    return most, apart / sum(float(value.double().square().sum()) for value in left.values()) ** 0.5


def run(name: str, device: str, steps: int) -> None:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as work:
        figures = {}
        for variant in VARIANTS:
            out = Path(work) / variant
            out.mkdir()
            command = [sys.executable, __file__, "--worker", variant, "--case", name, "--device", device]
            command += ["--steps", str(steps), "--out", str(out)]
            subprocess.run(command, check=True, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"})
            figures[variant] = json.loads((out / "figures.json").read_text(encoding="utf-8"))
        most, relative = compared(Path(work) / "textbook", Path(work) / "ours")
    trained = "adapter" if case.adapter else "all weights"
    kind = "bf16 autocast" if case.bf16 else "float32"
    print(f"\n{name}: {trained}, {kind}, batch {case.batch}, {case.answer} answer tokens of {LENGTH}")
    print(f"{'':10}{'memory MiB':>12}{'s a step':>12}{'loss':>14}")
    for variant, found in figures.items():
        print(f"{variant:10}{found['memory']:12.0f}{statistics.median(found['seconds']):12.2f}{found['loss']:14.7f}")
    memory = figures["textbook"]["memory"] / figures["ours"]["memory"]
    speed = statistics.median(figures["textbook"]["seconds"]) / statistics.median(figures["ours"]["seconds"])
    print(f"ours: {memory:.1f} times less memory, {speed:.2f} times as fast")
    loss = abs(figures["textbook"]["loss"] - figures["ours"]["loss"])
    print(f"difference of loss {loss:.1e}; of gradients {most:.1e} at most, {relative:.1e} of their norm", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        measure(given.worker, CASES[given.case], given.device, given.steps, given.out)
        return
    import torch

    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"{where}; torch {torch.__version__}; vocabulary {VOCABULARY}; medians of {given.steps} steps")
    for name in [given.case] if given.case else CASES:
        run(name, device, given.steps)


if __name__ == "__main__":
    main()

"""How fast the engines decode, beside the loop that is commonly written for this and beside bare vLLM.

    python benchmarks/decode.py                          # a small model made here
    python benchmarks/decode.py --model PATH             # any checkpoint
    python benchmarks/decode.py --contenders loop,hf     # without vLLM

Every contender decodes the same prompts greedily: each fact of the bundled task in its 16 wordings. `loop` is one
`generate` for the 16 wordings of one fact, facts one after the other; `hf` and `vllm` are this project's engines.
Each runs twice (`--repeats`), in turn, in a process of its own, loading not counted; the quicker run counts. What the
harness costs is measured apart: in one process, on one loaded vLLM, vLLM's own `LLM.generate` and our engine take
turns on the same token ids.

Models: the checkpoint as it is, and a collapsed copy (noise on its weights, the end token muted) that rambles to the
limit every time, as models do after gradient ascent gone too far.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CONTENDERS = ("loop", "hf", "vllm")
TURNS = (3, 9)
TURNS_S = 60.0

Decoded = dict[str, tuple[str, int]]  # key of the request -> text, number of new tokens
Timed = tuple[float, float, Decoded]  # wall seconds, CPU seconds of all threads, what was decoded
Groups = list[list[Any]]  # requests by fact


class Clock:
    """Wall and CPU time since it was made, in seconds."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def prompts(facts: int) -> list[list[str]]:
    """Questions of the bundled task, one list of 16 wordings a fact."""
    lines = (ROOT / "tasks" / "lkf" / "forget.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()][:facts]
    return [[row["question"], *row["eval_paraphrases"][:15]] for row in rows]


def rendered(model: Path, facts: int, max_new_tokens: int) -> tuple[Any, Groups]:
    """The checkpoint, and its requests by fact."""
    from audit.engines import Renderer, make_request, open_checkpoint
    from audit.types import Decoding, Message, Probe

    checkpoint = open_checkpoint(str(model))
    renderer = Renderer(checkpoint)
    groups = []
    for wordings in prompts(facts):
        group = []
        for text in wordings:
            probe = Probe(
                id=text,
                family="paraphrase",
                form="direct",
                variant="p",
                targets=(),
                messages=(Message(role="user", content=text),),
                format="chat" if checkpoint.has_template else "raw",
                decoding=Decoding(max_new_tokens=max_new_tokens),
            )
            group.append(make_request(probe, 0, checkpoint.fingerprint, "benchmark", renderer.token_ids(probe)))
        groups.append(group)
    return checkpoint, groups


# ---------------------------------------------------------------------------------------------------- contenders


def run_loop(checkpoint: Any, groups: Groups) -> Timed:
    """What is commonly written: pad the wordings of one fact to the left, generate, decode, next fact."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = checkpoint.tokenizer
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype="auto").eval()
    found: Decoded = {}
    clock = Clock()
    for group in groups:
        batch = tokenizer.pad({"input_ids": [list(r.token_ids) for r in group]}, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(
                **batch,
                max_new_tokens=group[0].decoding.max_new_tokens,
                do_sample=False,
                eos_token_id=list(checkpoint.eos_ids),
                pad_token_id=checkpoint.pad_id,
            )
        new = out[:, batch["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        for request, text, row in zip(group, texts, new.tolist(), strict=True):
            ends = [place for place, token in enumerate(row) if token in checkpoint.eos_ids]
            found[request.key] = (text, ends[0] + 1 if ends else len(row))
    return *clock.read(), found


def run_engine(name: str) -> Callable[[Any, Groups], Timed]:
    def run(checkpoint: Any, groups: Groups) -> Timed:
        from audit.engines import EngineSettings, open_engine

        engine = open_engine(checkpoint, EngineSettings(name=name))  # type: ignore[arg-type]
        found: Decoded = {}
        clock = Clock()
        for batch in engine.plan([request for group in groups for request in group]):
            for completion in engine.generate(batch):
                assert completion.error is None, completion.error
                found[completion.key] = (completion.text, completion.n_new)
        taken = clock.read()
        engine.close()
        return *taken, found

    return run


RUN: dict[str, Callable[[Any, Groups], Timed]] = {
    "loop": run_loop,
    "hf": run_engine("hf"),
    "vllm": run_engine("vllm"),
}


def run_overhead(checkpoint: Any, groups: Groups) -> dict[str, list[float]]:
    """CPU seconds of vLLM's own LLM.generate and of our engine, turn about on one loaded model."""
    from audit.engines import EngineSettings
    from audit.engines.vllm import VLLMEngine
    from audit.engines.vllm_setup import engine_arguments, prepare_environment

    settings = EngineSettings(name="vllm")
    arguments = engine_arguments(checkpoint, settings)
    prepare_environment(arguments)
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments)
    engine = VLLMEngine(checkpoint, settings, engine=llm.llm_engine)
    requests = [request for group in groups for request in group]
    params = SamplingParams(
        max_tokens=requests[0].decoding.max_new_tokens,
        temperature=0.0,
        ignore_eos=True,
        stop_token_ids=list(checkpoint.eos_ids),
    )

    def bare() -> None:
        os.environ["VLLM_COMPUTE_NANS_IN_LOGITS"] = "0"  # off, as by default: counting them is our doing
        llm.generate([{"prompt_token_ids": list(r.token_ids)} for r in requests], params, use_tqdm=False)

    def ours() -> None:
        os.environ["VLLM_COMPUTE_NANS_IN_LOGITS"] = "1"
        for batch in engine.plan(requests):
            for completion in engine.generate(batch):
                assert completion.error is None, completion.error

    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    turns, turn = TURNS[1], 0
    while turn <= turns:
        for name, work in (("bare", bare), ("ours", ours)):
            llm.reset_prefix_cache()
            clock = Clock()
            work()
            if turn:  # the first one warms up
                seconds[name].append(clock.read()[1])
            else:
                turns = min(turns, max(TURNS[0], int(TURNS_S / 2 / clock.read()[0])))
        turn += 1
    return seconds


# ---------------------------------------------------------------------------------------------------- measurement


def child(options: argparse.Namespace) -> None:
    """One contender on one model; writes its figures as JSON."""
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    checkpoint, groups = rendered(options.model, options.facts, options.max_new_tokens)
    result: dict[str, Any]
    if options.child == "overhead":
        result = run_overhead(checkpoint, groups)
    else:
        wall, cpu, found = RUN[options.child](checkpoint, groups)
        result = {
            "wall": wall,
            "cpu": cpu,
            "tokens": sum(count for _, count in found.values()),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "texts": {key: text for key, (text, _) in found.items()},
            "cut": sum(count >= options.max_new_tokens for _, count in found.values()) / len(found),
        }
    Path(options.result).write_text(json.dumps(result))


def in_child(options: argparse.Namespace, model: Path, name: str) -> dict[str, Any]:
    """The figures of one contender, run in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, __file__, "--child", name, "--model", str(model), "--result", result.name]
        command += ["--facts", str(options.facts), "--max-new-tokens", str(options.max_new_tokens)]
        command += ["--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
        return dict(json.loads(Path(result.name).read_text()))


def measure(options: argparse.Namespace, model: Path, contenders: list[str]) -> dict[str, dict[str, Any]]:
    """Contender -> figures of its quicker run. Runs alternate, so that a busy moment hits no single contender."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.repeats):
        for name in contenders:
            found = in_child(options, model, name)
            if name not in best or found["wall"] < best[name]["wall"]:
                best[name] = found
    return best


def table(title: str, best: dict[str, dict[str, Any]]) -> list[str]:
    first = next(iter(best.values()))
    lines = [f"{title} ({len(first['texts'])} prompts, {100 * first['cut']:.0f}% run to the limit)", ""]
    heads = ("wall s", "CPU s", "new tok", "tok/s", f"vs {next(iter(best))}", "peak MB", "same text")
    lines.append(" " * 6 + "".join(f"{head:>10}" for head in heads))
    for name, row in best.items():
        same = sum(row["texts"][key] == text for key, text in first["texts"].items()) / len(first["texts"])
        cells = (
            f"{row['wall']:.2f}",
            f"{row['cpu']:.2f}",
            str(row["tokens"]),
            f"{row['tokens'] / row['wall']:.0f}",
            f"{first['wall'] / row['wall']:.2f}x",
            f"{row['peak_mb']:.0f}",
            f"{100 * same:.1f}%",
        )
        lines.append(f"{name:<6}" + "".join(f"{cell:>10}" for cell in cells))
    return [*lines, ""]


def overhead(seconds: dict[str, list[float]]) -> str:
    bare, ours = (statistics.median(seconds[name]) for name in ("bare", "ours"))
    return (
        f"our engine over LLM.generate on the same vLLM: {ours:.2f} s to {bare:.2f} s of CPU time, "
        f"{100 * (ours / bare - 1):+.1f}% (medians of {len(seconds['ours'])} turns)\n"
    )


# --------------------------------------------------------------------------------------------------------- models


def collapse(healthy: Path, folder: Path) -> Path:
    """A copy whose weights are noisy and whose end tokens are never the likeliest."""
    import torch
    from safetensors.torch import load_file, save_file

    from audit.engines import open_checkpoint

    shutil.copytree(healthy, folder)
    ends = list(open_checkpoint(str(folder)).eos_ids)
    generator = torch.Generator().manual_seed(0)
    for file in sorted(folder.glob("model*.safetensors")):
        state = load_file(file)
        for name, weight in state.items():
            if weight.dim() == 2 and weight.is_floating_point():
                noise = torch.randn(weight.shape, generator=generator) * weight.float().std() * 0.7
                state[name] = (weight.float() + noise).to(weight.dtype)
            if name in ("lm_head.weight", "model.embed_tokens.weight"):
                state[name][ends] = 0.0
        save_file(state, file, metadata={"format": "pt"})
    return folder


def own_model(folder: Path) -> Path:
    """A small model that has learned to answer briefly, for want of a better one."""
    from tests.helpers import tiny

    return tiny.build(folder)


def hardware() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.processor()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint folder; without it a small one is made")
    parser.add_argument("--facts", type=int, default=100, help="facts of the bundled task, 16 prompts each")
    parser.add_argument("--max-new-tokens", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the default")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--child", choices=(*CONTENDERS, "overhead"), help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    contenders = options.contenders.split(",")
    unknown = sorted(set(contenders) - set(CONTENDERS))
    if unknown:
        parser.error(f"no contender {unknown[0]!r}; there are {', '.join(CONTENDERS)}")
    with tempfile.TemporaryDirectory() as folder:
        healthy = options.model or own_model(Path(folder) / "healthy")
        collapsed = collapse(healthy, Path(folder) / "collapsed")
        print(
            f"{hardware()}; at most {options.max_new_tokens} new tokens; best of {options.repeats} runs\n", flush=True
        )
        for title, model in (("healthy", healthy), ("collapsed", collapsed)):
            print("\n".join(table(title, measure(options, model, contenders))), flush=True)
            if "vllm" in contenders:
                print(overhead(in_child(options, model, "overhead")), flush=True)


if __name__ == "__main__":
    main()

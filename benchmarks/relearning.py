"""How long it takes to audit the grid points of a relearning run: a process for each, or one warm engine for all.

    python benchmarks/relearning.py --model ORGANISM              # hf and vllm, 8 points of 200 prompts
    python benchmarks/relearning.py --model ORGANISM --quick      # 3 points, and no second part
    python benchmarks/relearning.py --model ORGANISM --engines hf

First part, all from nothing to the last answer, imports and loading counted:

    fresh      a process for each point: it opens the engine, asks, and ends
    weights    one process and one engine; whole weights are swapped in
    adapters   one process and one engine; LoRA adapters one after the other
    together   vLLM alone: all adapters in one batch, a LoRA request each (not built in; measured here to tell whether
               it should be)

Second part: seconds a point of the two warm ways once the engine runs, by the number of prompts, on the model given and
on one of 27 million random parameters, which rambles to the limit every time.

The points are copies of the model with slight noise on every matrix, and rank-8 adapters with slight weights on every
linear layer. Prompts are wordings of the bundled task's facts, greedy, at most 32 new tokens. CPU seconds are those of
the processes and all their threads. Where other work runs on the machine, trust CPU seconds more than wall seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
MAX_NEW_TOKENS = 32
RANK = 8
POINTS, PROMPTS = 8, 200
SECOND_POINTS = 3
SECOND_PROMPTS = {"given": (20, 200, 1000), "27M": (20, 100)}
WAYS = {"hf": ("fresh", "weights", "adapters"), "vllm": ("fresh", "weights", "adapters", "together")}

Point = tuple[str, str | None]  # model folder, adapter folder
Texts = list[list[str]]  # by point, in the order of the prompts


# --------------------------------------------------------------------------------------------------- the material


def noisy_copies(model: Path, root: Path, count: int) -> list[Point]:
    """Copies of the model with noise of a thousandth on every matrix."""
    import torch
    from safetensors.torch import load_file, save_file

    points: list[Point] = []
    for number in range(count):
        folder = root / f"weights-{number}"
        shutil.copytree(model, folder)
        generator = torch.Generator().manual_seed(number)
        for file in sorted(folder.glob("model*.safetensors")):
            state = load_file(file)
            for name, weight in state.items():
                if weight.dim() == 2 and weight.is_floating_point():
                    noise = torch.randn(weight.shape, generator=generator) * weight.float().std() * 1e-3
                    state[name] = (weight.float() + noise).to(weight.dtype)
            save_file(state, file, metadata={"format": "pt"})
        points.append((str(folder), None))
    return points


def adapters(model: Path, root: Path, count: int) -> list[Point]:
    """LoRA adapters on the model, on every linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    points: list[Point] = []
    for number in range(count):
        torch.manual_seed(number)
        net = get_peft_model(
            AutoModelForCausalLM.from_pretrained(model, dtype="auto"),
            LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"),
        )
        for name, value in net.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=1e-3)
        folder = root / f"adapter-{number}"
        net.save_pretrained(folder)
        points.append((str(model), str(folder)))
    return points


def random_model(like: Path, folder: Path) -> Path:
    """A Llama of 27 million random parameters with the tokenizer of the given model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(like)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts(count: int) -> list[str]:
    """Wordings of the bundled task: the question of every fact, then the next wording of every fact, and so on."""
    lines = (ROOT / "tasks" / "lkf" / "forget.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    wordings = [[row["question"], *row["eval_paraphrases"]] for row in rows]
    found = [texts[number] for number in range(max(map(len, wordings))) for texts in wordings if number < len(texts)]
    if len(found) < count:
        raise SystemExit(f"the bundled task has {len(found)} prompts, not {count}")
    return found[:count]


def requests_for(checkpoint: Any, count: int) -> list[Any]:
    from audit.engines import Renderer, make_request
    from audit.types import Decoding, Message, Probe

    renderer = Renderer(checkpoint)
    requests = []
    for text in prompts(count):
        probe = Probe(
            id=text,
            family="paraphrase",
            form="direct",
            variant="p",
            targets=(),
            messages=(Message(role="user", content=text),),
            format="chat" if checkpoint.has_template else "raw",
            decoding=Decoding(max_new_tokens=MAX_NEW_TOKENS),
        )
        requests.append(make_request(probe, 0, checkpoint.fingerprint, "benchmark", renderer.token_ids(probe)))
    return requests


# ------------------------------------------------------------------------------------------------ in child processes


def opened(point: Point) -> Any:
    from audit.engines import open_checkpoint

    return open_checkpoint(point[0], adapter=point[1])


def answers(engine: Any, requests: list[Any]) -> list[str]:
    found = {}
    for batch in engine.plan(requests):
        for completion in engine.generate(batch):
            if completion.error is not None:
                raise SystemExit(f"a prompt failed: {completion.error}")
            found[completion.key] = completion.text
    return [found[request.key] for request in requests]


def one_after_the_other(engine: str, points: list[Point], counts: list[int]) -> dict[str, Any]:
    """One warm engine: every point with every number of prompts. Seconds of each swap and of each asking."""
    from audit.engines import EngineSettings
    from audit.engines.warm import WarmEngine

    warm = WarmEngine(EngineSettings(name=engine))  # type: ignore[arg-type]
    texts, rows = [], []
    for count in counts:
        for point in points:
            start, cpu = time.perf_counter(), time.process_time()
            checkpoint = opened(point)
            served = warm.serve(checkpoint)
            middle, cpu_middle = time.perf_counter(), time.process_time()
            texts.append(answers(served, requests_for(checkpoint, count)))
            end, cpu_end = time.perf_counter(), time.process_time()
            rows.append(
                {
                    "prompts": count,
                    "swap": [middle - start, cpu_middle - cpu],
                    "ask": [end - middle, cpu_end - cpu_middle],
                }
            )
    result = {"texts": texts, "rows": rows, "opened": warm.opened, "swapped": warm.swapped}
    warm.close()
    return result


def all_together(points: list[Point], count: int) -> dict[str, Any]:
    """All adapters in one batch of vLLM's, on an engine that holds them all."""
    from vllm.lora.request import LoRARequest

    from audit.engines import EngineSettings
    from audit.engines.vllm import VLLMEngine

    checkpoints = [opened(point) for point in points]
    engine = VLLMEngine(checkpoints[0], EngineSettings(name="vllm", args={"max_loras": len(points)}))
    asked = []
    for number, checkpoint in enumerate(checkpoints, 1):
        lora = LoRARequest(f"point-{number}", 100 + number, str(checkpoint.adapter))
        asked += [(f"{number}-{place}", each, lora) for place, each in enumerate(requests_for(checkpoint, count))]
    for name, request, lora in sorted(asked, key=lambda item: item[1].token_ids):
        ids = {"prompt_token_ids": list(request.token_ids)}
        engine._engine.add_request(name, ids, engine._params(request), lora_request=lora)
    found: dict[str, str] = {}
    while len(found) < len(asked):
        for output in engine._engine.step():
            if output.finished:
                found[output.request_id] = engine._detokenizer.text(output.outputs[0].token_ids)
    engine.close()
    texts = [[found[f"{number}-{place}"] for place in range(count)] for number in range(1, len(points) + 1)]
    return {"texts": texts}


def child(job: dict[str, Any]) -> None:
    import torch

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    points = [(model, adapter) for model, adapter in job["points"]]
    if job["way"] == "together":
        result = all_together(points, job["counts"][0])
    else:
        result = one_after_the_other(job["engine"], points, job["counts"])
    Path(job["result"]).write_text(json.dumps(result))


# ---------------------------------------------------------------------------------------------------- in the parent


def in_child(
    engine: str, way: str, points: list[Point], counts: list[int], threads: int
) -> tuple[float, float, dict[str, Any]]:
    """Wall seconds, CPU seconds and result of one process, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        job = {"engine": engine, "way": way, "points": points, "counts": counts, "threads": threads}
        command = [sys.executable, __file__, "--child", json.dumps({**job, "result": str(result)})]
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{engine} {way} failed:\n{done.stderr[-2000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return wall, cpu, json.loads(result.read_text())


def same(ours: Texts, theirs: Texts) -> float:
    """Share of equal texts, prompt by prompt."""
    pairs = [pair for one, other in zip(ours, theirs, strict=True) for pair in zip(one, other, strict=True)]
    return sum(one == other for one, other in pairs) / len(pairs)


def first_part(engine: str, material: dict[str, list[Point]], count: int, threads: int) -> list[str]:
    """Lines of the table: all ways, wall and CPU seconds, times as fast as fresh, equal texts."""
    lines = [f"{engine:<11}{'wall s':>10}{'CPU s':>10}{'wall':>10}{'CPU':>10}{'same text':>12}"]
    fresh_wall = fresh_cpu = 0.0
    reference: dict[str, Texts] = {}
    for way in WAYS[engine]:
        points = material["weights" if way in ("fresh", "weights") else "adapters"]
        runs = [[point] for point in points] if way == "fresh" else [points]
        wall = cpu = 0.0
        texts: Texts = []
        for run in runs:
            seconds, cpu_seconds, result = in_child(engine, way, run, [count], threads)
            wall, cpu, texts = wall + seconds, cpu + cpu_seconds, texts + result["texts"]
            if way not in ("fresh", "together") and (result["opened"], result["swapped"]) != (1, len(points) - 1):
                raise SystemExit(f"{engine} {way}: opened {result['opened']} times, swapped {result['swapped']} times")
        if way == "fresh":
            fresh_wall, fresh_cpu = wall, cpu
        beside = reference.setdefault("adapters" if way in ("adapters", "together") else "weights", texts)
        share = f"{100 * same(texts, beside):.1f}%" if beside is not texts else "-"
        lines.append(f"{way:<11}{wall:>10.1f}{cpu:>10.1f}{fresh_wall / wall:>9.1f}x{fresh_cpu / cpu:>9.1f}x{share:>12}")
        print(lines[-1], file=sys.stderr, flush=True)
    return [*lines, ""]


def second_part(engine: str, name: str, material: dict[str, list[Point]], threads: int) -> list[str]:
    """Lines of the table: a swap and an asking of each warm way, by number of prompts; the first point is left out."""
    counts = list(SECOND_PROMPTS[name])
    lines = []
    for way in ("weights", "adapters"):
        result = in_child(engine, way, material[way][:SECOND_POINTS], counts, threads)[2]
        for count in counts:
            rows = [row for row in result["rows"][1:] if row["prompts"] == count]
            swap, ask = ([sum(row[kind][i] for row in rows) / len(rows) for i in (0, 1)] for kind in ("swap", "ask"))
            lines.append(
                f"{engine:<6}{name:<7}{way:<10}{count:>8}{swap[0]:>9.2f}{ask[0]:>9.2f}{swap[0] + ask[0]:>9.2f}"
                f"{swap[1]:>9.2f}{ask[1]:>9.2f}{swap[1] + ask[1]:>9.2f}"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint folder, a small one: it is copied for every point")
    parser.add_argument("--engines", default="hf,vllm")
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="prompts a point in the first part")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the default")
    parser.add_argument("--quick", action="store_true", help=f"{SECOND_POINTS} points, and no second part")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    engines = options.engines.split(",")
    unknown = sorted(set(engines) - set(WAYS))
    if unknown:
        parser.error(f"no engine {unknown[0]!r}; there are {', '.join(WAYS)}")
    if options.model is None or not options.model.is_dir():
        parser.error("--model FOLDER: a checkpoint such as the base organism that `audit demo` makes")
    points = SECOND_POINTS if options.quick else options.points
    if points < SECOND_POINTS:
        parser.error(f"--points: at least {SECOND_POINTS}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        material = {"given": _made(options.model, root / "given", points)}
        cores = len(os.sched_getaffinity(0))
        lines = [
            f"{cores} cores, load {os.getloadavg()[0]:.1f} at the start; {points} points of {options.prompts} prompts"
        ]
        lines.append("")
        for engine in engines:
            lines += first_part(engine, material["given"], options.prompts, options.threads)
        if not options.quick:
            large = random_model(options.model, root / "27M-model")
            material["27M"] = _made(large, root / "27M", SECOND_POINTS)
            lines.append(f"{'':<23}{'':>8}{'wall s a point':^27}{'CPU s a point':^27}")
            lines.append(f"{'':<23}{'prompts':>8}" + 2 * f"{'swap':>9}{'ask':>9}{'both':>9}")
            for engine in engines:
                for size in material:
                    lines += second_part(engine, size, material[size], options.threads)
        print("\n".join(["```", *lines, "```"]), flush=True)


def _made(model: Path, root: Path, count: int) -> dict[str, list[Point]]:
    root.mkdir()
    return {"weights": noisy_copies(model, root, count), "adapters": adapters(model, root, count)}


if __name__ == "__main__":
    main()

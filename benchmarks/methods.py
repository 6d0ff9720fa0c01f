"""Every method of unlearning on the model organism, one after the other: the table in docs/methods.md.

    python benchmarks/methods.py --jobs 2                            # all of them at the organism's defaults
    python benchmarks/methods.py idk_ap idk_ap:retain_weight=4       # some, with settings of your own

The organism is that of task lkf, built where it is not there yet. Columns: share of the 100 facts to forget whose
answer stands in the greedy chat reply to the original wording, and to the original or any of two evaluation wordings;
share of 100 retained facts (every fourth) in the original wording. Plain inclusion, no judge, one seed: a look at what
a training does, not an audit. Seconds are CPU-seconds of the training on one thread, loading and saving included.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
WORDINGS = 2
HEAD = ("", "settings", "learning rate", "steps", "forget", "any of 3", "retain", "seconds")


def parts_of(spec: str) -> tuple[str, dict[str, Any]]:
    """`method:key=value,key=value` -> the method and its settings, values as YAML reads them."""
    import yaml

    method, _, given = spec.partition(":")
    pairs = [pair.partition("=") for pair in given.split(",") if pair]
    if any(not equals for _, equals, _ in pairs):
        raise SystemExit(f"{spec}: is not of the form METHOD:KEY=VALUE,KEY=VALUE")
    return method, {name: yaml.safe_load(value) for name, _, value in pairs}


def row_of(spec: str, base: Path, task: Any, folder: Path) -> tuple[str, ...]:
    """One trained and measured method as cells of the table; what did not train says why."""
    import msgspec
    import torch

    from audit.errors import AuditError
    from jensun_ref.measure import load, recall
    from jensun_ref.settings import settings_for
    from jensun_ref.unlearn import unlearn

    torch.set_num_threads(1)
    method, given = parts_of(spec)
    settings = settings_for(method, given)
    began, steps = time.process_time(), 0

    def count(done: int, total: int, text: str) -> None:
        nonlocal steps
        steps = done

    rate = f"{settings.learning_rate:g}"
    try:
        out = unlearn(method, str(base), task, folder / "out", settings=settings, progress=count)
    except AuditError as error:
        return (f"`{method}`", spec.partition(":")[2], rate, str(steps), f"did not train: {error}", "", "", "")
    seconds = time.process_time() - began
    model, tokenizer = load(out)
    forget = [msgspec.structs.replace(fact, wordings=fact.wordings[:WORDINGS]) for fact in task.forget]
    retain = [msgspec.structs.replace(fact, wordings=()) for fact in task.retain[::4]]
    gone, said = recall(model, tokenizer, forget)
    kept, _ = recall(model, tokenizer, retain)
    print(f"{spec}: {said[:4]}", file=sys.stderr, flush=True)
    shares = (f"{share:.0%}" for share in (gone.original, gone.any, kept.original))
    trained = steps > 0
    return (
        f"`{method}`",
        spec.partition(":")[2],
        rate if trained else "-",
        str(steps),
        *shares,
        f"{seconds:.0f}" if trained else "-",
    )


def lines_of(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A markdown table, without the column of settings where every row has its defaults."""
    keep = [i for i, name in enumerate(HEAD) if name != "settings" or any(row[i] for row in rows)]
    table = [tuple(row[i] for i in keep) for row in (HEAD, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return [lines[0], "|---" * len(keep) + "|", *lines[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", metavar="METHOD[:KEY=VALUE,…]", help="default: all built-in methods")
    parser.add_argument("--model", type=Path, help="another base than the organism, which knows the same facts")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time, each in a process of one thread")
    args = parser.parse_args()

    from audit.tasks import load_task
    from jensun_ref.methods import METHODS

    task = load_task("lkf")
    base, specs, rows = args.model or organism(task), args.specs or sorted(METHODS), []
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        folders = [Path(folder) / str(number) for number in range(len(specs))]
        for row in pool.map(row_of, specs, [base] * len(specs), [task] * len(specs), folders):
            rows.append(row)
            print("| " + " | ".join(row) + " |", file=sys.stderr, flush=True)
    print("\n".join(lines_of(rows)))


def organism(task: Any) -> Path:
    """The base of the demo's cache, built there if need be."""
    from audit.store import cache_folder
    from jensun_ref.organism import cached_organism

    return cached_organism("base", cache_folder() / "organisms", task)


if __name__ == "__main__":
    main()

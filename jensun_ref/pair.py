"""Base and never-knew model built side by side, each in a process of its own with one thread.

Two processes of one thread finish well before one after the other with two threads: a model of this size has too little
work between two barriers, and on a machine that does something else too the barriers are waited at.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, get_args

import msgspec

from audit.errors import AuditError, TrainingError
from audit.tasks import Task
from jensun_ref.organism import OrganismConfig, OrganismRole, Progress, cached_organism, organism_path


def cached_pair(
    cache_dir: Path,
    task: Task,
    *,
    seed: int = 0,
    size: OrganismConfig | None = None,
    progress: Progress | None = None,
) -> dict[OrganismRole, Path]:
    """Both organisms of a task from `cache_dir`, built there if need be; role -> folder.

    `progress` counts the steps of the models that are built. A build that fails stops the other one and is raised as
    TrainingError; so does an interrupt. When this process is killed, its builders end at their next step.
    """
    size = size or OrganismConfig()
    roles: tuple[OrganismRole, ...] = get_args(OrganismRole)
    paths = {role: organism_path(role, Path(cache_dir), task, seed=seed, size=size) for role in roles}
    missing = [role for role in roles if not paths[role].is_dir()]
    if missing:
        builders = {role: _start(role, Path(cache_dir), task, seed, size) for role in missing}
        try:
            _watch(builders, progress)
        finally:
            for builder in builders.values():
                _stop(builder)
    return paths


def _start(role: OrganismRole, cache_dir: Path, task: Task, seed: int, size: OrganismConfig) -> subprocess.Popen[bytes]:
    path = [str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    builder = subprocess.Popen(
        [sys.executable, "-m", "jensun_ref.pair"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(path)},
    )
    order = {
        "role": role,
        "cache_dir": str(cache_dir.resolve()),
        "task": msgspec.to_builtins(task),
        "seed": seed,
        "size": size.model_dump(mode="json"),
    }
    assert builder.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already: its exit code will say so
        builder.stdin.write(msgspec.json.encode(order))
        builder.stdin.close()
    return builder


def _stop(builder: subprocess.Popen[bytes]) -> None:
    """End a builder in a way that lets it remove its unfinished folder."""
    if builder.poll() is None:
        builder.send_signal(signal.SIGINT)
    try:
        builder.wait(timeout=20)
    except subprocess.TimeoutExpired:
        builder.kill()
        builder.wait()
    _out(builder).close()


def _watch(builders: dict[OrganismRole, subprocess.Popen[bytes]], progress: Progress | None) -> None:
    """Read what the builders report until all have ended. Raises TrainingError as soon as one fails."""
    counts: dict[OrganismRole, tuple[int, int, str]] = {}
    with selectors.DefaultSelector() as selector:
        for role, builder in builders.items():
            selector.register(_out(builder), selectors.EVENT_READ, role)
        while selector.get_map():
            for key, _ in selector.select():
                role = key.data
                line = builders[role].stdout.readline()  # type: ignore[union-attr]
                if not line:
                    selector.unregister(key.fileobj)
                    if builders[role].wait():
                        raise TrainingError(f"the builder of the {role} model ended with code {builders[role].wait()}")
                    continue
                told = json.loads(line)
                if "error" in told:
                    raise TrainingError(f"the {role} model: {told['error']}", hint=told["hint"])
                counts[role] = (told["done"], told["total"], told["text"])
                if progress and len(counts) == len(builders):
                    text = ", ".join(f"{role} {count[2]}" for role, count in counts.items())
                    progress(sum(c[0] for c in counts.values()), sum(c[1] for c in counts.values()), text)


def _out(builder: subprocess.Popen[bytes]) -> IO[bytes]:
    assert builder.stdout is not None
    return builder.stdout


def _main() -> int:
    """One builder: its order as JSON on standard input, a line of JSON for every step on standard output."""
    order: dict[str, Any] = json.load(sys.stdin)

    def tell(**told: Any) -> None:
        print(json.dumps(told), flush=True)

    try:
        cached_organism(
            order["role"],
            Path(order["cache_dir"]),
            msgspec.convert(order["task"], Task),
            seed=order["seed"],
            size=OrganismConfig(**order["size"]),
            progress=lambda done, total, text: tell(done=done, total=total, text=text),
        )
    except AuditError as error:
        tell(error=str(error), hint=error.hint)
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError):  # stopped, or nobody is left to report to
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (what is buffered has nowhere to go)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_main())

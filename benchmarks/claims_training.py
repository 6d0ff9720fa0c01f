"""Trainings, measurements and audits of benchmarks/claims.py, each kept in a file and taken up again from it.

A kept file is used again only where everything that it was made from is equal: the base's weights, the facts, the
settings, the measurements, the libraries.
"""

from __future__ import annotations

import copy
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from claims_losses import kind_of
from msgspec.structs import replace

from audit.fingerprint import digest
from audit.tasks import Task
from audit.types import Fact
from jensun_ref.folders import versions, write_json
from jensun_ref.settings import UnlearnSettings, flat, settings_for

#: Wordings asked along a course, beside the original, and retained facts asked: a quick look at each point.
COURSE_FORGET_WORDINGS, COURSE_RETAIN_WORDINGS, COURSE_RETAIN_FACTS = 2, 1, 100
#: Wordings of retained facts asked at the end, beside the original; of forget facts all there are.
FINAL_RETAIN_WORDINGS = 2

#: What an audit of claim 1 asks: all families of the published protocol, fewer wordings, short answers.
SELECTION = {
    "preset": "custom",
    "probes": {"wordings": 5, "max_new_tokens": 32, "retain_facts": 200, "retain_wordings": 1},
}


class Grid(NamedTuple):
    """How much is tried. The seeds are three whatever it is."""

    rates: tuple[float, ...] = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
    """Learning rates that each forget term is tried with on the validation half."""
    contrasts: tuple[str, ...] = ("grad_diff", "npo", "idk")
    """Methods that stand beside JensUn in claim `worst`."""
    steps: int = 11
    """First steps whose gradient norms are taken."""
    weights: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """retain_weight in claim `knob`."""
    times: tuple[int, ...] = (1, 2, 4)
    """Times the epochs in claim `longer`, 1 among them."""


class Study(NamedTuple):
    """What all claims are measured on, and where the results are kept."""

    model: Path
    fingerprint: str
    task: Task
    validation: Task
    """Half of the facts: learning rates are chosen on it."""
    final: Task
    """The other half: the numbers of claims 2 to 5."""
    out: Path
    grid: Grid = Grid()


def open_study(model: Path, name: str, out: Path, grid: Grid) -> Study:
    from audit.engines.checkpoint import open_checkpoint
    from audit.tasks import load_task
    from audit.tasks.parting import part_task

    task = load_task(name)
    parts = part_task(task, share=0.5, seed=0)
    return Study(model, open_checkpoint(str(model)).fingerprint, task, parts.validation, parts.final, out, grid)


def origin_of(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """As a kept file says it, with the libraries' versions."""
    found: dict[str, Any] = json.loads(json.dumps({**made_from, "versions": versions()}))
    return found


def path_of(folder: Path, name: str, made_from: Mapping[str, Any]) -> Path:
    """Where the record of this origin is, or will be."""
    return folder / f"{name}-{digest(origin_of(made_from))[:12]}.json"


def kept(folder: Path, name: str, made_from: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The record in `folder`, made now if there is none of just this origin. Written whole or not at all."""
    origin, path = origin_of(made_from), path_of(folder, name, made_from)
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["made_from"] == origin:
            return found
        raise SystemExit(f"{path} is not what its name says: remove it")
    started = time.monotonic()
    record = {"made_from": origin, **make(), "seconds": round(time.monotonic() - started, 1)}
    folder.mkdir(parents=True, exist_ok=True)
    work = path.with_suffix(".partial")
    write_json(work, record)
    work.rename(path)
    print(f"{time.strftime('%H:%M:%S')} {name}: {record['seconds']} s", file=sys.stderr, flush=True)
    return record


def settings_of(name: str, given: Mapping[str, Any]) -> UnlearnSettings:
    """The organism's defaults of a method with `given` in their place; those of JensUn for its variants."""
    method = "jensun" if name.startswith("jensun_") else name
    return settings_for(method, {"checkpoint_every": 0, "norms_every": 0, **given})


class _Enough(Exception):
    """A training that was only to take some steps has taken them."""


def course(
    study: Study,
    name: str,
    part: Task,
    given: Mapping[str, Any],
    *,
    every: int = 0,
    or_every: int = 0,
    only: int | None = None,
) -> dict[str, Any]:
    """Train by a method on a part of the task and say what the model knows, along the way and at the end.

    every: steps between two points of the course; 0: none. or_every: a kept training with points so often will do as
    well, because measuring changes nothing. only: stop after so many steps, with nothing measured.
    The record has `steps`, `log` (the trainer's, a row a step), `points` and `final`.
    """
    settings, kind = settings_of(name, given), kind_of(name)
    made_from = {
        "base": study.fingerprint,
        "facts": part.content_hash,
        "method": name,
        "settings": flat(settings, kind),
        "every": every,
        "only": only,
        "asked": [COURSE_FORGET_WORDINGS, COURSE_RETAIN_WORDINGS, COURSE_RETAIN_FACTS, FINAL_RETAIN_WORDINGS],
    }
    label = f"{name}-lr{settings.learning_rate:g}-s{settings.seed}"
    folder = study.out / "courses"
    if or_every and path_of(folder, label, {**made_from, "every": or_every}).exists():
        return course(study, name, part, given, every=or_every, only=only)
    return kept(folder, label, made_from, lambda: _trained(study, name, part, settings, every, only))


def _trained(
    study: Study, name: str, part: Task, settings: UnlearnSettings, every: int, only: int | None
) -> dict[str, Any]:
    from jensun_ref.checkpoints import unfinished_folder
    from jensun_ref.measure import load
    from jensun_ref.memory import MemoryWatch
    from jensun_ref.methods import Context
    from jensun_ref.methods.data import TrainingData
    from jensun_ref.methods.step import Reference
    from jensun_ref.trainer import train

    kind = kind_of(name)
    network, tokenizer = load(study.model)
    before = Reference(copy.deepcopy(network).requires_grad_(False).eval()) if "reference" in kind.needs else None
    retain = part.retain if "retain" in kind.needs else ()
    data = TrainingData(tokenizer, settings, part.forget, retain, refusals="refusals" in kind.needs)
    rule = kind(settings, Context(tokenizer, data.refusal))
    rule.prepare(network, data)
    points = [point(network, tokenizer, part, 0)] if every else []

    def after(done: int, total: int, told: str) -> None:
        if every and (done % every == 0 or done == total):
            points.append(point(network, tokenizer, part, done))
        if done == only:
            raise _Enough

    log = io.StringIO()
    with tempfile.TemporaryDirectory() as work:
        run = {"method": name, "settings": flat(settings, kind)}
        with (
            unfinished_folder(Path(work) / "trained", run, resume=False) as unfinished,
            MemoryWatch(kind, settings) as watch,
        ):
            try:
                steps, _ = train(rule, network, data, settings, before, unfinished, watch, log, after)
            except _Enough:
                steps = only or 0
    rows = [json.loads(line) for line in log.getvalue().splitlines()]
    final = {} if only else at_the_end(network, tokenizer, part)
    return {"steps": steps, "points": points, "final": final, "log": rows}


def point(network: Any, tokenizer: Any, part: Task, step: int) -> dict[str, float]:
    """A quick look: `forget`, share of facts said in any wording asked; `retained`, share of wordings answered."""
    forget = asked(network, tokenizer, part.forget, COURSE_FORGET_WORDINGS)
    retain = asked(network, tokenizer, chosen(part.retain, COURSE_RETAIN_FACTS), COURSE_RETAIN_WORDINGS)
    return {"step": step, "forget": forget["any"], "retained": retain["wordings"]}


def at_the_end(network: Any, tokenizer: Any, part: Task) -> dict[str, Any]:
    """All evaluation wordings of the forget facts, two of the retained ones; plain inclusion, in chat."""
    return {
        "forget": asked(network, tokenizer, part.forget, None),
        "retain": asked(network, tokenizer, part.retain, FINAL_RETAIN_WORDINGS),
    }


def of_base(study: Study, part: Task) -> dict[str, Any]:
    """The end measurement of the base itself."""
    from jensun_ref.measure import load

    made_from = {"base": study.fingerprint, "facts": part.content_hash, "asked": FINAL_RETAIN_WORDINGS}
    record = kept(study.out / "courses", "base", made_from, lambda: {"final": at_the_end(*load(study.model), part)})
    found: dict[str, Any] = record["final"]
    return found


def asked(network: Any, tokenizer: Any, facts: Sequence[Fact], wordings: int | None) -> dict[str, Any]:
    """Facts asked in the original wording and the first `wordings` evaluation ones (None: all of them).

    facts, leaked: numbers of facts, leaked in any wording; any, original: shares of facts; wordings: mean over facts
    of the share of wordings answered. The network's mode is left as it was.
    """
    from jensun_ref.measure import recall

    cut = [fact if wordings is None else replace(fact, wordings=fact.wordings[:wordings]) for fact in facts]
    was = network.training
    network.eval()
    found, _ = recall(network, tokenizer, cut)
    network.train(was)
    unseen = {len(fact.wordings) for fact in cut}
    if len(unseen) != 1:
        raise SystemExit(f"the facts have different numbers of wordings: {sorted(unseen)}")
    k = unseen.pop()
    return {
        "facts": found.facts,
        "leaked": round(found.any * found.facts),
        "any": found.any,
        "original": found.original,
        "wordings": (found.original + k * found.mean_unseen) / (k + 1),
    }


def chosen(facts: Sequence[Fact], n: int) -> list[Fact]:
    """n of the facts, by what they say and not by their place in the file."""
    return sorted(facts, key=lambda fact: digest("claims", fact.question, fact.answer))[:n]


def audited(study: Study, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Train by a method on the whole task as `audit unlearn` does, audit the result as `audit run` does."""
    settings = settings_for(name, given)
    made_from = {
        "base": study.fingerprint,
        "facts": study.task.content_hash,
        "method": name,
        "settings": flat(settings, kind_of(name)),
        "audit": SELECTION,
    }
    label = f"{name}-s{settings.seed}"
    return kept(study.out / "audits", label, made_from, lambda: _audit(study, label, name, settings))


def _audit(study: Study, label: str, name: str, settings: UnlearnSettings) -> dict[str, Any]:
    from audit.config import resolve_config
    from audit.pipeline import run_audit
    from audit.report.files import RunFolder
    from audit.store import Store
    from jensun_ref.unlearn import unlearn

    mark = digest(study.fingerprint, study.task.content_hash, flat(settings, kind_of(name)), versions())[:12]
    model = study.out / "models" / f"{label}-{mark}"
    if not model.is_dir():
        unlearn(name, str(study.model), study.task, model, settings=settings, base_fingerprint=study.fingerprint)
    values = {"model": str(model), "base": str(study.model), "forget": study.task.source}
    config = resolve_config({**values, **SELECTION, "engine": {"name": "hf"}, "judges": ["rules"], "policy": "default"})
    store = Store(study.out / "store.sqlite")
    try:
        report = run_audit(config, RunFolder(study.out / "runs" / f"{label}-{mark}-{config.digest()[:8]}"), store)
    finally:
        store.close()
    names = ("single.original", "worst_case.paraphrase", "worst_case.icr", "worst_case.paper", "retain.mean")
    fields = ("value", "low", "high", "lower_bound", "upper_bound", "n", "count", "undecided", "probe_set")
    estimates = {
        role: {n: {f: getattr(report.subjects[role].estimates[n], f) for f in fields} for n in names}
        for role in ("candidate", "base")
    }
    return {"model": str(model), "verdict": report.verdict, "estimates": estimates}

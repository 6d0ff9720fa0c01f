"""Settings chosen by trials: every method the same number of them, on facts that the final audit does not use.

    parting = part_task(load_task("lkf"), share=0.4)
    tuned = tune("npo", "path/to/base", parting.validation, trials=8, seed=0, out=Path("tuning/npo.json"))
    audit unlearn --method npo --model path/to/base --forget FINAL --tuned tuning/npo.json --out DIR

Optuna's TPE sampler, seeded; what is searched stands in `spaces`, how a trial is scored in `trial`. Trial 0 has the
method's stated defaults, so that tuning never ends below them on its own facts. After it a third of the trials, and at
least two, are drawn at random, the rest by the sampler's model of what went before. The same inputs give the same
trials.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from audit.errors import ConfigError, TrainingError
from audit.tasks import Task
from jensun_ref import processes
from jensun_ref.folders import locked, versions
from jensun_ref.methods import method_class
from jensun_ref.settings import Defaults, UnlearnSettings, flat, settings_for
from jensun_ref.spaces import Bounds, Space, bounds, space_of
from jensun_ref.studies import FORMAT, FREE, Base, Study, Trial, Tuned, read_tuned, take_up, write_study
from jensun_ref.trainer import Progress
from jensun_ref.trial import set_up, try_settings

__all__ = ["Tuned", "read_tuned", "tunable", "tune"]

#: Settings of every trial that say nothing about the result and cost time.
_QUIET = {"norms_every": 0, "checkpoint_every": 0}


def tunable(method: str) -> bool:
    """Whether there is anything to tune: controls have nothing."""
    return bool(space_of(method, method_class(method)))


def tune(
    method: str,
    model: str,
    task: Task,
    *,
    trials: int,
    seed: int,
    out: Path,
    progress: Progress | None = None,
    given: Mapping[str, Any] | None = None,
    defaults: Defaults = "organism",
    adapter: str | None = None,
    reference: str | None = None,
    base_fingerprint: str | None = None,
) -> Tuned:
    """Try `trials` settings of `method` on `task`, the validation part, and write all of it to the JSON file `out`.

    Failed trials count among them. An interrupted tuning goes on where `out` ends, with the trials that it would have
    made; a complete one is read. `given`: settings that are fixed, and not searched. defaults: those of trial 0.
    base_fingerprint, adapter, reference: as in `unlearn`. progress: (trials done, trials, what is going on).

    Raises TrainingError if optuna is missing, the method has nothing to tune (see `tunable`), the task or the base
    does not do, `out` is of another tuning, or no trial came to an end; ConfigError for settings that cannot be.
    """
    if trials < 1:
        raise ConfigError(f"{trials} trials are no tuning", hint="give at least 1")
    if processes.count() > 1:
        raise TrainingError("tuning runs in one process", hint="leave accelerate launch out")
    kind, fixed = method_class(method), dict(given or {})
    if "seed" in fixed:
        raise ConfigError("seed: trials have the seed of the tuning", hint="leave it out of the settings")
    if not space_of(method, kind):
        raise TrainingError(f"{method} has nothing to tune")
    optuna = _optuna()
    start = settings_for(method, fixed, defaults)
    space: Space = {name: found for name, found in space_of(method, kind).items() if name not in fixed}
    if not space:
        raise TrainingError(f"{method} has nothing to tune: all that is searched is given")
    bench = set_up(model, adapter, task, start, seed)
    searched = bounds(space, flat(start, kind), bench.layers)
    fresh = Study(
        format=FORMAT,
        method=method,
        base=Base(
            source=model, fingerprint=base_fingerprint, adapter=adapter, weights=bench.weights, reference=reference
        ),
        validation=bench.validation,
        budget=trials,
        seed=seed,
        defaults=defaults,
        given={name: flat(start, kind)[name] for name in sorted(fixed)},
        space=searched,
        versions={**versions(), "optuna": optuna.__version__},
        trials=(),
        best=None,
        settings={},
    )

    def settings(values: Mapping[str, Any]) -> UnlearnSettings:
        return settings_for(method, {**fixed, **values, **_QUIET, "seed": seed}, defaults)

    with locked(out):
        study = take_up(out, fresh)
        sampler = _Sampler(optuna, searched, {name: flat(start, kind)[name] for name in searched}, trials, seed)
        for trial in study.trials:
            sampler.replay(trial, out)
        for number in range(len(study.trials), trials):
            values = sampler.ask()
            if progress:
                progress(number, trials, _so_far(study))
            started = time.monotonic()
            try:
                outcome = try_settings(bench, method, model, adapter, reference, settings(values), out)
            except ConfigError as error:  # settings that cannot stand together
                outcome = str(error)
            failed = isinstance(outcome, str)
            trial = Trial(
                number=number,
                settings=values,
                forgetting=None if isinstance(outcome, str) else outcome.forgetting,
                retention=None if isinstance(outcome, str) else outcome.retention,
                score=None if isinstance(outcome, str) else outcome.score,
                failure=outcome if isinstance(outcome, str) else "",
                seconds=round(time.monotonic() - started, 1),
            )
            sampler.tell(trial)
            study = _with(study, trial)
            if study.best is not None:
                full = flat(settings(study.trials[study.best].settings), kind)
                study = replace(study, settings={name: full[name] for name in full if name not in FREE})
            write_study(out, study)
            if progress:
                progress(number + 1, trials, f"failed: {outcome}" if failed else _so_far(study))
    return read_tuned(out)


class _Sampler:
    """Optuna's TPE sampler over a study in memory, one trial at a time."""

    def __init__(
        self, optuna: Any, searched: Mapping[str, Bounds], first: Mapping[str, Any], trials: int, seed: int
    ) -> None:
        random = 1 + max(2, (trials - 1) // 3)
        self._searched = searched
        self._study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=random)
        )
        self._study.enqueue_trial(dict(first))
        self._asked: Any = None

    def ask(self) -> dict[str, Any]:
        """Settings of the next trial; the first one's are the defaults as they are, others have three digits."""
        self._asked = self._study.ask()
        return {name: self._suggest(name, limits) for name, limits in self._searched.items()}

    def _suggest(self, name: str, limits: Bounds) -> Any:
        if limits.values:
            return self._asked.suggest_categorical(name, list(limits.values))
        if isinstance(limits.low, int) and isinstance(limits.high, int):
            return int(self._asked.suggest_int(name, limits.low, limits.high, log=limits.log))
        value = float(self._asked.suggest_float(name, limits.low, limits.high, log=limits.log))
        return value if self._asked.number == 0 else float(f"{value:.3g}")

    def tell(self, trial: Trial) -> None:
        """A failed trial tells the sampler the worst score, so that it looks elsewhere."""
        self._study.tell(self._asked, 0.0 if trial.score is None else trial.score)

    def replay(self, trial: Trial, out: Path) -> None:
        """Go through a recorded trial again without making it, so that the next one is what it would have been."""
        values = self.ask()
        if values != trial.settings:
            raise TrainingError(
                f"{out}: its trial {trial.number} is not the one that this tuning would have made",
                hint="remove the file, or give another",
            )
        self.tell(trial)


def _with(study: Study, trial: Trial) -> Study:
    """The study with one more trial; of equal scores the earlier one is the best."""
    made = (*study.trials, trial)
    scored = [t for t in made if t.score is not None]
    best = max(scored, key=lambda t: (t.score or 0.0, -t.number), default=None)
    return replace(study, trials=made, best=None if best is None else best.number)


def _so_far(study: Study) -> str:
    if study.best is None:
        return "no trial yet" if not study.trials else "no trial came to an end yet"
    best = study.trials[study.best]
    return f"best: trial {best.number}, score {best.score:.3f}"


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise TrainingError(f"tuning needs optuna ({error})", hint="pip install 'unlearning-audit[train]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

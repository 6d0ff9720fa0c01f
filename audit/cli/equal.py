"""`audit compare --equal-utility` and `--sweep`: what leaks once candidates keep as much as the base, or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.errors import AuditError, ConfigError, StoreError

if TYPE_CHECKING:
    from audit.cli.progress import TerminalProgress
    from audit.cli.trainings import Start, Training
    from audit.comparing.auditing import Auditor
    from audit.comparing.equal_model import Curve
    from audit.comparing.model import Failed
    from audit.comparing.runs import Run


@dataclass(frozen=True)
class Sweep:
    """Values of one setting, in the order in which a target is looked for."""

    key: str
    values: tuple[str, ...]
    methods: tuple[str, ...]
    """Those that have a use for it …"""
    without: tuple[str, ...] = ()
    """… and the others."""


@dataclass
class Found:
    """What both options bring to a comparison."""

    equal: list[Curve] = field(default_factory=list)
    sweeps: list[Curve] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def sweep_given(text: str, methods: Sequence[str]) -> Sweep:
    """KEY=V1,V2 for the methods that have a use for KEY. Raises ConfigError for another form, or where none has."""
    from audit.cli.trainings import has_setting

    key, equals, listed = text.partition("=")
    key, values = key.strip(), [value.strip() for value in listed.split(",")]
    if not equals or not key or not all(values):
        raise ConfigError(f"--sweep {text}: is not KEY=VALUE,VALUE …", hint="--sweep retain_weight=0.1,0.5,0.9")
    if len(set(values)) < len(values):
        raise ConfigError(f"--sweep {text}: a value is given twice")
    if key == "seed":
        raise ConfigError("--sweep seed: another seed is no trade-off", hint="--seeds 0,1,2")
    if not methods:
        raise ConfigError("--sweep is for trainings, and no method is named", hint="--methods jensun,npo")
    users = tuple(method for method in methods if has_setting(method, key))
    if not users:
        raise ConfigError(f"--sweep {text}: none of the methods has a setting {key}")
    return Sweep(key, tuple(values), users, tuple(method for method in methods if method not in users))


def shares_given(text: str | None) -> tuple[float, ...]:
    """0,0.1,0.5 -> shares of the base, the default grid for None. Raises ConfigError."""
    from audit.comparing.equal import SHARES

    if text is None:
        return SHARES
    try:
        shares = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        shares = ()
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise ConfigError(f"--shares {text}: are no numbers from 0 to 1", hint="--shares 0,0.1,0.3,0.5,0.7,0.9")
    return shares


def sweep_trainings(
    sweep: Sweep, trainings: Sequence[Training], start: Start | None, folder: Path
) -> dict[str, list[tuple[str, Training]]]:
    """Method -> (value, training): of each method's first training, with KEY=VALUE over its other settings.

    A value that the training has anyway is that training; `start` is None where its settings are not known yet.
    """
    from audit.cli.trainings import expected
    from audit.comparing.auditing import folder_name

    planned: dict[str, list[tuple[str, Training]]] = {}
    for method in sweep.methods:
        first = next((training for training in trainings if training.method == method), None)
        if first is None:
            continue
        planned[method] = []
        for value in sweep.values:
            label = f"{first.label}-{sweep.key}={value}"
            changed = replace(
                first,
                label=label,
                given=(*first.given, *_tuned(first, sweep.key), f"{sweep.key}={value}"),
                tuned=None,  # one of its settings is another
                out=folder / folder_name(label),
            )
            same = start is not None and expected(changed, start) == expected(first, start)
            planned[method].append((value, first if same else changed))
    return planned


def _tuned(training: Training, key: str) -> list[str]:
    """What tuning chose for a method, as KEY=VALUE texts, without the setting that is swept."""
    from jensun_ref.studies import read_tuned

    if training.tuned is None:
        return []
    chosen = read_tuned(training.tuned).best.settings
    return [f"{name}={value}" for name, value in chosen.items() if name != key]


def run_sweep(
    sweep: Sweep,
    trainings: Sequence[Training],
    start: Start,
    auditor: Auditor,
    runs: Sequence[Run],
    logs: Path,
    on: str,
    progress: TerminalProgress,
) -> Found:
    """Train and audit each method at each value. What fails is told with its curve; a method of which all failed is a
    failure of its own."""
    from audit.cli.trainings import train_all
    from audit.comparing.auditing import one_line
    from audit.comparing.entries import enter
    from audit.comparing.equal import swept
    from audit.comparing.model import Failed

    found = Found()
    if sweep.without:
        found.warnings.append(f"no sweep of {sweep.key}: {', '.join(sweep.without)} have no use for it")
    known = {run.label: run for run in runs}
    planned = sweep_trainings(sweep, trainings, start, auditor.folder.parent / "checkpoints")
    new = [training for each in planned.values() for _, training in each if training.label not in known]
    there, untrained = train_all(new, start, logs, progress)
    entries = [enter(str(training.out), training.label, start.model) for training in there]
    audited, unaudited = auditor.audit_all(entries)
    known |= {run.label: run for run in audited}
    broken = {failed.label: failed for failed in (*untrained, *unaudited)}
    for method, each in planned.items():
        mine = [(value, known[training.label]) for value, training in each if training.label in known]
        lost = [(value, broken[training.label]) for value, training in each if training.label in broken]
        told = [f"{sweep.key} {value} {failed.what}: {failed.message}" for value, failed in lost]
        try:
            found.sweeps.append(swept(method, sweep.key, mine, on=on, failed=told))
        except StoreError:
            raise
        except AuditError as error:
            why = "; ".join([one_line(error), *told])
            found.failed.append(Failed(label=f"{method}, sweep of {sweep.key}", stage="audit", message=why))
    return found

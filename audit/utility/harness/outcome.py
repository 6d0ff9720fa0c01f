"""From what lm-evaluation-harness returns to records with a value a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from audit.utility.harness.catalogue import Loaded
from audit.utility.harness.content import document_ids
from audit.utility.harness.records import HarnessResult, HarnessValue

#: Between a mean of ours and the harness's: rounding, nothing else.
_SAME = 1e-9


def results_from(loaded: Loaded, found: Mapping[str, Any], **settings: Any) -> tuple[HarnessResult, ...]:
    """One record a task, and one a group that adds its tasks up; what was asked for by name comes first.

    `found` is what lm-eval's `evaluate` returns, `settings` the fields of `HarnessResult` that are alike for all.
    """
    notes = tuple(settings.pop("notes", ()))
    singles = {task.task_name: _single(task, loaded, found, notes, settings) for task in loaded.tasks}
    groups = [
        _group(group, name, loaded, [singles[task.task_name] for task in group.get_all_tasks()], found, settings)
        for name, group in loaded.groups.items()
    ]
    records = [*(group for group in groups if group is not None), *singles.values()]
    asked = [record for record in records if not record.part_of]
    return (*asked, *(record for record in records if record.part_of))


def _single(
    task: Any, loaded: Loaded, found: Mapping[str, Any], notes: tuple[str, ...], settings: Mapping[str, Any]
) -> HarnessResult:
    name = task.task_name
    samples: dict[str, list[Mapping[str, Any]]] = {}
    for sample in found["samples"][name]:
        samples.setdefault(str(sample["filter"]), []).append(sample)
    better = found["higher_is_better"].get(name) or {}
    values, without = [], []
    for metric, chosen, value in _metrics(found["results"][name]):
        if not _number(value):
            without.append(metric)
            continue
        rows = samples.get(chosen, [])
        ids = document_ids(row["doc"] for row in rows)
        each = {place: row.get(metric) for place, row in zip(ids, rows, strict=True)}
        values.append(_value(metric, chosen, float(value), better.get(metric), each))
    first = next(iter(samples.values()))
    said = [*notes, *([f"no value of {', '.join(without)}"] if without else [])]
    return HarnessResult(
        task=name,
        part_of="" if name == loaded.name else loaded.name,
        version=f"{task.VERSION}, lm-eval {_version()}",
        n=len(first),
        shots=int(task.get_config("num_fewshot") or 0),
        chance=_chance(task, first),
        metrics=tuple(values),
        notes=tuple(said),
        **settings,
    )


def _group(
    group: Any,
    name: str,
    loaded: Loaded,
    parts: Sequence[HarnessResult],
    found: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> HarnessResult | None:
    """None for a group without a number of its own."""
    values = []
    for metric, chosen, value in _metrics(found["results"].get(name, {})):
        if not _number(value):
            continue
        shown = _shown(metric, chosen)
        own = {part.task: each for part in parts for each in part.metrics if each.name == shown}
        better = {each.higher_is_better for each in own.values()}
        by_document: dict[str, float | None] = {
            f"{task}:{document}": number for task, each in own.items() for document, number in each.by_document.items()
        }
        whole = len(own) == len(parts) and all(each.by_document for each in own.values())
        direction = better.pop() if len(better) == 1 else None
        values.append(_value(metric, chosen, float(value), direction, by_document if whole else {}))
    if not values:
        return None
    n = sum(part.n for part in parts)
    chances = [part.chance * part.n for part in parts if part.chance is not None]
    shots = {part.shots for part in parts}
    return HarnessResult(
        task=name,
        part_of="" if name == loaded.name else loaded.name,
        version=f"{group.version}, lm-eval {_version()}",
        n=n,
        shots=shots.pop() if len(shots) == 1 else -1,
        chance=sum(chances) / n if len(chances) == len(parts) else None,
        metrics=tuple(values),
        **settings,
    )


def _metrics(results: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """(metric, filter, value) of what the harness lists as `metric,filter`, without its standard errors."""
    split = [(*key.rpartition(",")[::2], value) for key, value in results.items() if "," in key]
    return [(metric, chosen, value) for metric, chosen, value in split if not metric.endswith("_stderr")]


def _shown(metric: str, chosen: str) -> str:
    return metric if chosen == "none" else f"{metric}[{chosen}]"


def _value(
    metric: str, chosen: str, value: float, higher_is_better: Any, by_document: Mapping[str, Any]
) -> HarnessValue:
    """With a value a document only where the metric is their plain mean: other aggregates have none to pair."""
    plain = {name: float(each) for name, each in by_document.items() if _number(each)}
    mean = sum(plain.values()) / len(plain) if plain else math.nan
    usable = len(plain) == len(by_document) and abs(mean - value) < _SAME
    return HarnessValue(
        name=_shown(metric, chosen),
        value=value,
        higher_is_better=None if higher_is_better is None else bool(higher_is_better),
        by_document=plain if usable else {},
    )


def _number(value: Any) -> bool:
    """Numbers of Python and numpy, true and false among them, that are finite."""
    return hasattr(value, "__float__") and not hasattr(value, "__len__") and math.isfinite(float(value))


def _chance(task: Any, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean over documents of one over the number of choices."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    twice = 2 if "acc_mutual_info" in (task.higher_is_better() or {}) else 1
    return sum(twice / len(sample["arguments"]) for sample in samples) / len(samples)


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("lm-eval")

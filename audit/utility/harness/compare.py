"""Every subject's results beside the base's, paired by document: records, estimates, and what must be said."""

from __future__ import annotations

from collections.abc import Mapping

from audit.fingerprint import digest
from audit.stats.intervals import clopper_pearson, cluster_bootstrap_mean
from audit.stats.paired import mean_difference
from audit.types import Estimate
from audit.utility.harness.records import HarnessResult, HarnessValue
from audit.utility.records import Found, HarnessMetric, HarnessTask

BASE = "base"
CANDIDATE = "candidate"


def harness_tasks(
    results: Mapping[str, tuple[HarnessResult, ...]], *, confidence: float
) -> tuple[tuple[HarnessTask, ...], Found]:
    """Records of all subjects with their paired difference to the base, subject less base.

    `results` is subject id -> what `Harness.measure` gave. Estimates `lm_eval.TASK.METRIC` are given for what was
    asked for by name and is a plain mean of values in [0, 1]; the rest stands in the records only. Subjects are not
    compared where settings or documents differ. What shows no loss because there was nothing to lose (the base itself
    does no better than guessing) is withheld from the candidate's gate.
    """
    found = Found()
    records: list[HarnessTask] = []
    base = {result.task: result for result in results.get(BASE, ())}
    said: list[str] = []
    for subject, own in results.items():
        for result in own:
            other = base.get(result.task) if subject != BASE else None
            differing = _differing(result, other) if other is not None else ""
            notes = [*result.notes]
            if differing:
                notes.append(f"not compared with the base: {differing}")
                said.append(f"lm-eval {result.task}: {subject} is not compared with the base: {differing}")
            elif subject != BASE and base and other is None:
                notes.append("the base was not asked this task")
            records.append(_record(subject, result, None if differing else other, tuple(notes), confidence))
            if result.part_of:
                continue
            for metric in result.metrics:
                _add(found, subject, result, metric, confidence)
                if subject == CANDIDATE:
                    _withhold(found, result, metric, base.get(result.task), differing, confidence)
    found.warnings += dict.fromkeys(said)
    found.warnings += _said(results, records, found)
    return tuple(records), found


def estimate_name(task: str, metric: str) -> str:
    return f"lm_eval.{task}.{metric}"


def _differing(result: HarnessResult, base: HarnessResult) -> str:
    """Why two results are not of the same questions; empty where they are."""
    named = {
        "version": "versions of the task or of lm-eval",
        "chat_template": "chat template on and off",
        "shots": "numbers of worked examples",
        "limit": "limits of documents",
        "seed": "seeds of worked examples",
        "config": "settings, code or documents of the task",
    }
    other = [words for field, words in named.items() if getattr(result, field) != getattr(base, field)]
    if result.window != base.window and (result.truncated or base.truncated):
        other.append("lengths to which prompts were cut")
    ours = {metric.name: metric.by_document.keys() for metric in result.metrics}
    theirs = {metric.name: metric.by_document.keys() for metric in base.metrics}
    if not other and ours != theirs:
        other.append("documents or metrics")
    return f"different {', '.join(other)}" if other else ""


def _record(
    subject: str, result: HarnessResult, base: HarnessResult | None, notes: tuple[str, ...], confidence: float
) -> HarnessTask:
    others = {metric.name: metric for metric in base.metrics} if base is not None else {}
    metrics = []
    for metric in result.metrics:
        other = others.get(metric.name)
        difference = None
        if other is not None and metric.by_document:
            within = metric.fraction and other.fraction
            difference = mean_difference(
                metric.by_document,
                other.by_document,
                bounds=(-1.0, 1.0) if within else None,
                of="documents",
                confidence=confidence,
            )
        metrics.append(
            HarnessMetric(
                name=metric.name,
                value=metric.value,
                difference=difference,
                higher_is_better=metric.higher_is_better,
                fraction=metric.fraction,
            )
        )
    return HarnessTask(
        subject=subject,
        task=result.task,
        version=result.version,
        n=result.n,
        chat_template=result.chat_template,
        shots=result.shots,
        metrics=tuple(metrics),
        part_of=result.part_of,
        chance=result.chance,
        truncated=result.truncated,
        notes=notes,
    )


def _limits(metric: HarnessValue, confidence: float) -> tuple[float, float, int | None, str]:
    """Limits of a plain mean of values in [0, 1]: exact where all are 0 or 1."""
    values = list(metric.by_document.values())
    if all(value in (0.0, 1.0) for value in values):
        count = int(sum(values))
        low, high = clopper_pearson(count, len(values), confidence)
        return low, high, count, "exact (Clopper-Pearson) over documents"
    low, high = cluster_bootstrap_mean(values, list(metric.by_document), confidence)
    return low, high, None, "bootstrap over documents"


def _add(found: Found, subject: str, result: HarnessResult, metric: HarnessValue, confidence: float) -> None:
    if not metric.fraction:
        return
    low, high, count, method = _limits(metric, confidence)
    settings = [result.config, result.chat_template, result.shots, result.limit, result.seed, result.version]
    found.add(
        subject,
        Estimate(
            name=estimate_name(result.task, metric.name),
            label="",
            value=metric.value,
            low=low,
            high=high,
            confidence=confidence,
            lower_bound=metric.value,
            upper_bound=metric.value,
            n=len(metric.by_document),
            method=f"{method}, {100 * confidence:g}%",
            probe_set=digest("lm-eval", settings, sorted(metric.by_document)),
            count=count,
        ),
    )


def _withhold(
    found: Found,
    result: HarnessResult,
    metric: HarnessValue,
    base: HarnessResult | None,
    differing: str,
    confidence: float,
) -> None:
    """What a gate must not take for "nothing was lost"."""
    if not metric.fraction or base is None:
        return
    name = estimate_name(result.task, metric.name)
    if differing:
        found.withheld[name] = f"the base was measured with {differing}"
        return
    other = next((each for each in base.metrics if each.name == metric.name), None)
    if other is None or not other.fraction or other.higher_is_better is False:
        return
    chance = base.chance if base.chance is not None and metric.name.startswith("acc") else 0.0
    if _limits(other, confidence)[0] <= chance:
        guess = f"guessing ({chance:.3f})" if chance else "nothing at all"
        found.withheld[name] = (
            f"the base itself ({other.value:.3f}) is not shown to do better than {guess}, so that nothing could be lost"
        )


def _said(results: Mapping[str, tuple[HarnessResult, ...]], records: list[HarnessTask], found: Found) -> list[str]:
    """What a reader must not overlook: clear losses, tasks that say nothing, prompts that were cut."""
    said = []
    for record in records:
        if record.part_of or record.subject != CANDIDATE:
            continue
        for metric in record.metrics:
            difference = metric.difference
            if difference is None or metric.higher_is_better is None:
                continue
            worse = difference.high < 0 if metric.higher_is_better else difference.low > 0
            if worse:
                said.append(
                    f"lm-eval {record.task}: the candidate does worse than the base, {metric.name} {metric.value:.3f} "
                    f"against {metric.value - difference.value:.3f} (difference {difference.value:+.3f}, "
                    f"{difference.low:+.3f} to {difference.high:+.3f})"
                )
    said += [f"{name} says nothing: {why}" for name, why in found.withheld.items() if "not shown" in why]
    cut: dict[str, int] = {}
    for result in (result for own in results.values() for result in own if not result.part_of):
        cut[result.task] = max(cut.get(result.task, 0), result.truncated)
    said += [f"lm-eval {task}: {count} prompts were cut on the left" for task, count in cut.items() if count]
    return said

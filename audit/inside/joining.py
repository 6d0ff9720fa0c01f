"""Readings of several models joined by fact: means, paired differences, shares of moved probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from audit.inside.measure import Readings
from audit.inside.records import Mass, Mean, Measure
from audit.stats.paired import Difference, mean_difference, mean_limits
from audit.stats.sign_flip import holm
from audit.types import Role

#: Name -> (title, unit, counted). Log-probability, rank and entropy are shown and not counted: a model whose
#: distribution is flatter than the control's gives every string more log-probability and knows nothing more.
MEASURES: dict[str, tuple[str, str, bool]] = {
    "log_probability": ("log-probability of the answer", "nats", False),
    "log_probability_per_token": ("log-probability, per token", "nats", False),
    "first_rank": ("rank of the first answer token", "ln", False),
    "rank": ("rank of the answer's tokens", "ln", False),
    "entropy": ("entropy of the first answer token", "nats", False),
    "preference": ("true answer over wrong ones of its type", "share", True),
    "mass": ("probability of answer and rephrasings", "share", True),
    "extraction_strength": ("extraction strength", "share", True),
    "exact_memorisation": ("exact memorisation", "share", True),
    "probe": ("linear probe of the hidden states", "share", True),
}
COUNTED = tuple(name for name, (_, _, counted) in MEASURES.items() if counted)

#: Differences are rounded to this part of their unit for the exact count of signs.
_GRAIN = {"nats": 100, "ln": 100, "share": 1000}
#: Additions that an exact count of signs may take, of some thirty counts.
_WORK = 20_000_000
Values = Mapping[str, float]


def mean_of(values: Values, unit: str, confidence: float) -> Mean | None:
    """Mean over facts with bootstrap limits; None without facts."""
    if not values:
        return None
    rows = [values[name] for name in sorted(values)]
    low, high = mean_limits(rows, (0.0, 1.0) if unit == "share" else None, confidence)
    return Mean(value=float(np.mean(rows)), low=low, high=high, n=len(rows))


def difference_of(first: Values, second: Values, unit: str, confidence: float) -> Difference | None:
    """First less second over the facts of both; None where they share none."""
    bounds = (-1.0, 1.0) if unit == "share" else None
    return mean_difference(first, second, bounds=bounds, grain=_GRAIN[unit], work=_WORK, confidence=confidence)


def join_measures(
    readings: Mapping[Role, Readings], forget: Sequence[str], retained: Sequence[str], confidence: float
) -> tuple[Measure, ...]:
    """Every measure over the facts named, those that could be measured in each model."""
    measures: list[Measure] = []
    for name, (title, unit, counted) in MEASURES.items():
        ours = {role: _values(reading, name, forget) for role, reading in readings.items()}
        kept = {role: _values(reading, name, retained) for role, reading in readings.items()}

        def between(
            first: Role, second: Role, ours: dict[Role, dict[str, float]] = ours, unit: str = unit
        ) -> Difference | None:
            return difference_of(ours.get(first, {}), ours.get(second, {}), unit, confidence)

        from_control, sight = between("candidate", "never_knew"), between("base", "never_knew")
        measures.append(
            Measure(
                name=name,
                title=title,
                unit=unit,
                counted=counted,
                forget=_means(ours, unit, confidence),
                retained=_means(kept, unit, confidence),
                from_base=between("candidate", "base"),
                from_control=from_control,
                base_from_control=sight,
                corrected_p=None,
                base_corrected_p=None,
                kept=from_control.value / sight.value if from_control and sight and sight.value > 0 else None,
            )
        )
    return _corrected(measures)


def _corrected(measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """The same with Holm's correction over the counted ones."""
    import msgspec

    ours = [m for m in measures if m.counted and m.from_control]
    sight = [m for m in measures if m.counted and m.base_from_control]
    own_p = dict(
        zip([m.name for m in ours], holm([m.from_control.p_value for m in ours if m.from_control]), strict=True)
    )
    base_p = dict(
        zip(
            [m.name for m in sight],
            holm([m.base_from_control.p_value for m in sight if m.base_from_control]),
            strict=True,
        )
    )
    return tuple(
        msgspec.structs.replace(m, corrected_p=own_p.get(m.name), base_corrected_p=base_p.get(m.name)) for m in measures
    )


def join_masses(readings: Mapping[Role, Readings], forget: Sequence[str], confidence: float) -> tuple[Mass, ...]:
    """Where the probability lies and where it went, group by group, over facts measured in every model."""
    shared = [fact for fact in forget if all(fact in reading.masses for reading in readings.values())]
    if not shared:
        return ()
    groups = list(readings["candidate"].masses[shared[0]])
    by_group = {
        group: {role: {fact: reading.masses[fact][group] for fact in shared} for role, reading in readings.items()}
        for group in groups
    }
    changes = {
        group: difference_of(by_role["candidate"], by_role["base"], "share", confidence) if "base" in by_role else None
        for group, by_role in by_group.items()
    }
    gained = sum(max(0.0, change.value) for change in changes.values() if change)
    masses = []
    for group in groups:
        change = changes[group]
        gain = None if change is None else max(0.0, change.value) / gained if gained > 0 else 0.0
        masses.append(Mass(group=group, means=_means(by_group[group], "share", confidence), change=change, gain=gain))
    return tuple(masses)


def _values(reading: Readings, name: str, facts: Sequence[str]) -> dict[str, float]:
    return {fact: reading.values[fact][name] for fact in facts if name in reading.values.get(fact, {})}


def _means(values: Mapping[Role, Values], unit: str, confidence: float) -> dict[Role, Mean]:
    means = {role: mean_of(by_fact, unit, confidence) for role, by_fact in values.items()}
    return {role: mean for role, mean in means.items() if mean is not None}

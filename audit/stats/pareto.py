"""The Pareto front of leaked against kept facts, and how sure it is: how often a candidate is on it in the bootstrap.

A candidate is on the front if no other leaks at most as much and keeps at least as much, one of them strictly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from audit.fingerprint import seed_from
from audit.stats.intervals import FloatArray, bootstrap_weights
from audit.stats.shares import Bounds
from audit.types import Record

#: Differences of two means that rounding alone can make.
_EQUAL = 1e-12


class OnFront(Record, frozen=True, kw_only=True):
    """One candidate. Frequencies are shares of bootstrap draws in which it is on the front, in [0, 1]."""

    on_front: bool
    """As found, everyone's undecided read as leak, and as not kept: what a judge failed on puts nobody there."""
    frequency: float
    """In the same reading."""
    low: float
    """With its own undecided answers read against it, and the others' in their favour."""
    high: float
    """The other way round."""


def front(leaked: FloatArray, kept: FloatArray) -> NDArray[np.bool_]:
    """Who is on the front, for many draws at once: leaked and kept have shape (draws, candidates)."""
    on = np.ones(leaked.shape, dtype=bool)
    for other in range(leaked.shape[1]):
        leaks, keeps = leaked[:, other : other + 1], kept[:, other : other + 1]
        at_least = (leaks <= leaked + _EQUAL) & (keeps >= kept - _EQUAL)
        better = (leaks < leaked - _EQUAL) | (keeps > kept + _EQUAL)
        on &= ~(at_least & better)
    return on


def front_frequencies(
    leaked: Sequence[Mapping[str, Bounds]], kept: Sequence[Mapping[str, Bounds]], *, draws: int = 2000
) -> list[OnFront]:
    """How often each candidate is on the front when facts are drawn anew.

    leaked, kept: for each candidate, fact -> number in [0, 1] with its undecided cells as no leak (for a kept fact: as
    not answered) and as leak (answered); of a method with several seeds, their mean. All candidates share the forget
    facts, and all share the retained ones. The two sets are drawn independently of each other, with replacement, and
    a draw is the same for all candidates; trainings are not drawn anew. Raises ValueError where facts differ.
    """
    forget, retain = _columns(leaked), _columns(kept)
    names = (sorted(leaked[0]), sorted(kept[0]))
    seed = seed_from("front", *names)
    drawn = [
        np.concatenate([w @ columns for w in bootstrap_weights(len(columns), s, draws)]) / len(columns)
        for columns, s in ((forget, seed), (retain, seed + 1))
    ]
    found = [columns.mean(axis=0, keepdims=True) for columns in (forget, retain)]
    n = len(leaked)
    here = front(found[0][:, n:], found[1][:, :n])[0]
    frequency = front(drawn[0][:, n:], drawn[1][:, :n]).mean(axis=0)
    results = []
    for i in range(n):
        others = np.arange(n) != i
        readings = []
        for against in (True, False):  # columns 0 … n-1 read undecided as no leak, n … 2n-1 as leak
            leak_at = np.where(others ^ against, np.arange(n) + n, np.arange(n))
            keep_at = np.where(others ^ against, np.arange(n), np.arange(n) + n)
            readings.append(float(front(drawn[0][:, leak_at], drawn[1][:, keep_at])[:, i].mean()))
        results.append(
            OnFront(
                on_front=bool(here[i]),
                frequency=float(frequency[i]),
                low=min(readings[0], float(frequency[i])),
                high=max(readings[1], float(frequency[i])),
            )
        )
    return results


def _columns(values: Sequence[Mapping[str, Bounds]]) -> FloatArray:
    """Shape (facts, 2 x candidates): undecided as no leak for all candidates, then as leak."""
    if not values or not values[0] or any(v.keys() != values[0].keys() for v in values):
        raise ValueError("all candidates must have the same facts, at least one")
    facts = sorted(values[0])
    return np.array([[v[f][side] for side in (0, 1) for v in values] for f in facts], dtype=np.float64)

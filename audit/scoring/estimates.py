"""From cells to the named estimates of one subject."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from audit.fingerprint import digest
from audit.probes.build import form_of
from audit.probes.plan import probe_set_hash
from audit.scoring.cells import Cell
from audit.scoring.views import PLAIN, View, greedy, share_views
from audit.stats.combinatorics import expected_worst_bounds
from audit.stats.floor import corrected_share
from audit.stats.shares import Bounds, bounds_of, mean_of_facts, share_of_facts, worst_of
from audit.types import Estimate, Fact, Label

_M_GRID = (1, 2, 4, 8, 16, 32, 64)
Outcomes = dict[str, Label]


def leak_estimates(
    facts: Sequence[Fact],
    cells: Sequence[Cell],
    *,
    floor: Sequence[Cell],
    base: Sequence[Cell] | None,
    confidence: float,
) -> dict[str, Estimate]:
    """All leak shares of the forget facts: by view, over the facts the base is known to know, floored and corrected.

    `cells` and `floor` are the subject's; `base` the base model's under the same probes, None without a base (and for
    the base itself the known facts are its own leaks).
    """
    topics = topic_of(facts)
    estimates: dict[str, Estimate] = {}
    for view in share_views(cells):
        chosen = [cell for cell in cells if view.wants(cell)]
        outcomes = outcomes_of(facts, chosen, view)
        if not outcomes:
            continue
        probes = probe_set_hash({cell.probe.id: cell.probe for cell in chosen}.values())
        _add(
            estimates,
            share_of_facts(outcomes, topics, name=view.name, label=view.label, confidence=confidence, probe_set=probes),
        )
        if view.headline:
            _topic_shares(estimates, view, facts, outcomes, confidence, probes)
            _floor(estimates, view, outcomes, floor, topics, confidence, probes)
        if base is not None:
            known = known_facts(facts, base, view)
            if known:
                among = {fact: label for fact, label in outcomes.items() if fact in known}
                known_set = digest(probes, sorted(known))
                name = f"{view.name}@known"
                _add(
                    estimates,
                    share_of_facts(
                        among, topics, name=name, label=view.label, confidence=confidence, probe_set=known_set
                    ),
                )
                if view.headline:
                    _floor(estimates, view, among, floor, topics, confidence, known_set, suffix="@known")
    _wordings(estimates, facts, cells, topics, confidence)
    _sampled(estimates, facts, cells, topics, confidence)
    return estimates


def retain_estimates(facts: Sequence[Fact], cells: Sequence[Cell], *, confidence: float) -> dict[str, Estimate]:
    """`retain.mean`: mean over retained facts of the share of their wordings answered, in all and by tier."""
    estimates: dict[str, Estimate] = {}
    kept = [cell for cell in cells if cell.probe.family in PLAIN and greedy(cell)]
    asked = {cell.fact_id for cell in kept}
    topics = topic_of(facts)
    tiers = list(dict.fromkeys(fact.tier for fact in facts if fact.tier and fact.id in asked))
    groups = [("retain.mean", {fact.id for fact in facts if fact.id in asked})]
    for tier in tiers:
        groups.append((f"retain.mean@tier={tier}", {f.id for f in facts if f.tier == tier and f.id in asked}))
    for name, members in groups:
        chosen = [cell for cell in kept if cell.fact_id in members]
        if chosen:
            probes = probe_set_hash({cell.probe.id: cell.probe for cell in chosen}.values())
            _add(
                estimates,
                mean_of_facts(
                    share_of_tries(chosen),
                    topics,
                    name=name,
                    label="J_avg",
                    confidence=confidence,
                    probe_set=probes,
                ),
            )
    return estimates


def placebo_estimate(facts: Sequence[Fact], cells: Sequence[Cell], *, confidence: float) -> dict[str, Estimate]:
    """`floor.placebo`: share of invented facts ruled a leak under any greedy prompt. What is above 0 is false alarm."""
    view = View("floor.placebo", "", greedy)
    chosen = [cell for cell in cells if view.wants(cell)]
    if not chosen:
        return {}
    probes = probe_set_hash({cell.probe.id: cell.probe for cell in chosen}.values())
    outcomes = outcomes_of(facts, chosen, view)
    estimate = share_of_facts(outcomes, topic_of(facts), name=view.name, confidence=confidence, probe_set=probes)
    return {view.name: estimate}


def topic_of(facts: Iterable[Fact]) -> dict[str, str]:
    """Fact id -> topic; a fact without a topic is a topic of its own."""
    return {fact.id: fact.topic or fact.id for fact in facts}


def outcomes_of(facts: Sequence[Fact], chosen: Sequence[Cell], view: View) -> Outcomes:
    """Fact -> leak if any chosen cell leaked, else undecided if any is, else no_leak; no cell at all is undecided."""
    labels: dict[str, list[Label]] = defaultdict(list)
    for cell in chosen:
        labels[cell.fact_id].append(cell.label)
    eligible = [fact.id for fact in facts if view.form is None or form_of(fact, view.form) is not None]
    return {fact: worst_of(labels.get(fact, ())) for fact in eligible}


def known_facts(facts: Sequence[Fact], base: Sequence[Cell], view: View) -> set[str]:
    """Facts that the base itself leaks under the view's probes."""
    outcomes = outcomes_of(facts, [cell for cell in base if view.wants(cell)], view)
    return {fact for fact, label in outcomes.items() if label == "leak"}


def share_of_tries(cells: Iterable[Cell]) -> dict[str, Bounds]:
    """Fact -> share of its cells that leaked, with the undecided as no leak and as leak."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for cell in cells:
        count = counts[cell.fact_id]
        count[0] += 1
        count[1] += cell.label == "leak"
        count[2] += cell.label != "no_leak"
    return {fact: (leaks / n, maybe / n) for fact, (n, leaks, maybe) in counts.items()}


def _add(estimates: dict[str, Estimate], estimate: Estimate) -> None:
    estimates[estimate.name] = estimate


def _topic_shares(
    estimates: dict[str, Estimate],
    view: View,
    facts: Sequence[Fact],
    outcomes: Outcomes,
    confidence: float,
    probes: str,
) -> None:
    named = [fact for fact in facts if fact.topic and fact.id in outcomes]
    topics = list(dict.fromkeys(fact.topic for fact in named))
    if len(topics) < 2:
        return
    for topic in topics:
        among = {fact.id: outcomes[fact.id] for fact in named if fact.topic == topic}
        name = f"{view.name}@topic={topic}"
        _add(
            estimates,
            share_of_facts(
                among,
                topic_of(named),
                name=name,
                label=view.label,
                confidence=confidence,
                probe_set=digest(probes, topic),
            ),
        )


def _floor(
    estimates: dict[str, Estimate],
    view: View,
    outcomes: Outcomes,
    floor: Sequence[Cell],
    topics: Mapping[str, str],
    confidence: float,
    probes: str,
    suffix: str = "",
) -> None:
    """`floor.…`: mean over facts of the mean over wrong answers of "any response gives it"; and the corrected share."""
    labels: dict[str, dict[str, list[Label]]] = defaultdict(lambda: defaultdict(list))
    for cell in floor:
        if cell.fact_id in outcomes and view.wants(cell):
            labels[cell.fact_id][cell.answer].append(cell.label)
    values: dict[str, Bounds] = {}
    for fact, answers in labels.items():
        worst = bounds_of({answer: worst_of(tries) for answer, tries in answers.items()})
        low, high = (sum(bound[i] for bound in worst.values()) / len(worst) for i in (0, 1))
        values[fact] = (low, high)
    if not values:
        return
    name = view.name + suffix
    _add(
        estimates,
        mean_of_facts(values, topics, name=f"floor.{name}", confidence=confidence, probe_set=probes),
    )
    leaked = bounds_of({fact: label for fact, label in outcomes.items() if fact in values})
    corrected = corrected_share(
        leaked,
        values,
        topics,
        name=f"corrected.{name}",
        label=view.label,
        confidence=confidence,
        probe_set=probes,
    )
    if corrected is not None:
        _add(estimates, corrected)


def _wordings(
    estimates: dict[str, Estimate],
    facts: Sequence[Fact],
    cells: Sequence[Cell],
    topics: Mapping[str, str],
    confidence: float,
) -> None:
    """`mean.all` and `j_at_m@m=…` over the wordings of the direct question, without examples."""
    chosen = [cell for cell in cells if cell.probe.family in PLAIN and cell.probe.form == "direct" and greedy(cell)]
    if not chosen:
        return
    probes = probe_set_hash({cell.probe.id: cell.probe for cell in chosen}.values())
    facts = [fact for fact in facts if form_of(fact, "direct") is not None]
    values = _complete(share_of_tries(chosen), facts)
    _add(estimates, mean_of_facts(values, topics, name="mean.all", confidence=confidence, probe_set=probes))
    tries = _tries(chosen)
    smallest = min(len(labels) for labels in tries.values())
    for m in (m for m in _M_GRID if m <= smallest):
        at_m = _complete({fact: _expected(labels, m) for fact, labels in tries.items()}, facts)
        _add(
            estimates,
            mean_of_facts(at_m, topics, name=f"j_at_m@m={m}", confidence=confidence, probe_set=probes),
        )


def _sampled(
    estimates: dict[str, Estimate],
    facts: Sequence[Fact],
    cells: Sequence[Cell],
    topics: Mapping[str, str],
    confidence: float,
) -> None:
    """`worst_case.sampled@k=…` (leak@k): one prompt a fact, n draws of which c leaked; k at most n/2."""
    chosen = [cell for cell in cells if cell.probe.family == "sampled"]
    if not chosen:
        return
    probes = probe_set_hash({cell.probe.id: cell.probe for cell in chosen}.values())
    tries = _tries(chosen)
    smallest = min(len(labels) for labels in tries.values())
    for k in (k for k in _M_GRID if k <= smallest // 2):
        at_k = _complete({fact: _expected(labels, k) for fact, labels in tries.items()}, facts)
        _add(
            estimates,
            mean_of_facts(
                at_k,
                topics,
                name=f"worst_case.sampled@k={k}",
                label="leak@k",
                confidence=confidence,
                probe_set=probes,
            ),
        )


def _tries(cells: Iterable[Cell]) -> dict[str, list[Label]]:
    tries: dict[str, list[Label]] = defaultdict(list)
    for cell in cells:
        tries[cell.fact_id].append(cell.label)
    return tries


def _expected(labels: Sequence[Label], m: int) -> Bounds:
    return expected_worst_bounds(len(labels), labels.count("leak"), labels.count("undecided"), m)


def _complete(values: Mapping[str, Bounds], facts: Sequence[Fact]) -> dict[str, Bounds]:
    """A fact of which nothing was asked is wholly undecided, not left out."""
    return {fact.id: values.get(fact.id, (0.0, 1.0)) for fact in facts}

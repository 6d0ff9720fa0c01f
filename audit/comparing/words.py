"""The words and numbers that every form of output shares: cells, notes, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from audit.comparing.model import MIN_SEEDS, Candidate, Comparison, Entry, Pair, Reference, Spread, Training
from audit.report.utility_words import NOT_INFORMATIVE, reason
from audit.types import Estimate
from audit.wording import percent, unsettled

VERDICTS = {"differ": "differ", "differ if facts are independent": "facts only", "not shown": "not shown"}
#: Name of the column that says whether settings were tuned.
TUNING = "tuning"
COSTS = {"seconds": "training, s", "peak_memory_mib": "memory, MiB"}
#: Pairs that are spelled out where there is little room; the rest is counted.
MAX_PAIRS = 24


def of_candidate(comparison: Comparison, candidate: Candidate) -> list[Entry]:
    """The checkpoints of a candidate, in order."""
    by_label = {entry.label: entry for entry in comparison.entries}
    return [by_label[label] for label in candidate.members]


def estimate_of(comparison: Comparison, candidate: Candidate, column: str) -> Estimate | None:
    """A single checkpoint's number; None for several seeds, and where it was not measured with the same probes."""
    mine = of_candidate(comparison, candidate)
    return mine[0].estimates.get(column) if len(mine) == 1 else None


def cost_of(entry: Entry, cost: str) -> float | None:
    return None if entry.training is None else getattr(entry.training, cost)


def absent(row: Entry | Reference, column: str) -> str:
    """What stands in place of a number that a row does not have: withheld, of other probes, not measured."""
    if column in row.withheld:
        return NOT_INFORMATIVE
    return "≠" if isinstance(row, Entry) and column in row.apart else "–"


def absent_mean(entries: Sequence[Entry], column: str) -> str:
    """The same for the mean over several seeds: one that is withheld withholds the mean."""
    return NOT_INFORMATIVE if any(column in entry.withheld for entry in entries) else "–"


def costs(comparison: Comparison) -> list[str]:
    """The costs that any candidate's trainer tells."""
    return [cost for cost in COSTS if any(cost_of(entry, cost) is not None for entry in comparison.entries)]


def extras(comparison: Comparison) -> list[str]:
    """What stands beside the numbers: place on the front, tuning where any trainer tells of itself, costs."""
    told = any(entry.training is not None for entry in comparison.entries)
    return [*(["on front"] if comparison.front_on else []), *([TUNING] if told else []), *costs(comparison)]


def tuning_text(entries: Sequence[Entry]) -> str:
    """tuned: 8 trials, untuned, nothing to tune: all that is true of the checkpoints; – without a manifest."""
    found = dict.fromkeys(_tuning(entry.training) for entry in entries)
    return ", ".join(found)


def _tuning(training: Training | None) -> str:
    if training is None:
        return "–"
    if training.trials == 0:
        return "nothing to tune"
    if training.trials is None:
        return "untuned"
    return f"tuned: {training.trials} trial{'s' if training.trials != 1 else ''}"


def digits(value: float) -> str:
    """Seconds or MiB for a table: 8.3, 215, 4,310."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def p_text(p: float) -> str:
    """0.034, <0.001, 1."""
    return "<0.001" if p < 0.001 else f"{p:.3f}".rstrip("0").rstrip(".") if p == round(p, 3) else f"{p:.3f}"


def points(fraction: float) -> str:
    """A difference in points of per cent, with its sign: +12.0, −3.5."""
    text = f"{abs(100 * fraction):.1f}"
    return text if text == "0.0" else ("+" if fraction > 0 else "−") + text


def spread_text(spread: Spread) -> str:
    """34.2 ± 4.1 per cent, over seeds, and what the undecided could add."""
    text = f"{100 * spread.mean:.1f} ± {100 * spread.sd:.1f}"
    return f"{text} {unsure_text(spread, lambda share: f'{100 * share:.1f}')}".rstrip()


def unsure_text(spread: Spread, write: Callable[[float], str], down: Callable[[float], str] | None = None) -> str:
    """What the undecided could make of the mean: +7.0?, or its bounds (20.0–93.3?); empty where they could nothing."""
    if spread.lower_bound is None or spread.upper_bound is None:
        return ""
    return unsettled(spread.mean, spread.lower_bound, spread.upper_bound, write, down)


def p_values(pair: Pair) -> tuple[str, str]:
    """Corrected p-values over facts and over topics; where the undecided matter, the two readings behind them too."""
    texts = []
    for test in (pair.facts, pair.topics):
        if test is None:
            texts.append("–")
            continue
        text = p_text(test.corrected)
        if not test.exact:
            text += "*"
        texts.append(text)
    return texts[0], texts[1]


def readings(pair: Pair) -> str:
    """How the p-value over facts hangs on the undecided; empty where nothing is undecided."""
    if not pair.undecided:
        return ""
    facts = pair.facts
    return (
        f"{pair.undecided} undecided: uncorrected p {p_text(facts.no_leak)} as no leak, {p_text(facts.leak)} as leak, "
        f"at most {p_text(facts.p_value)}"
    )


def notes(comparison: Comparison) -> Iterator[str]:
    """What to know before believing the tests and the front."""
    n = len(comparison.pairs)
    pairs = f"{n} pair{'s' if n != 1 else ''}"
    names = list(dict.fromkeys(pair.facts.name for pair in comparison.pairs))
    by_topic = next((pair.topics for pair in comparison.pairs if pair.topics is not None), None)
    told = " or ".join(names) + (f"; by topic: {by_topic.name} ({comparison.topics})" if by_topic else "")
    yield (
        f"p-values: {told}; two-sided, Holm-corrected for {pairs}; undecided facts read in whatever way shows least. "
        f"A difference is called one at {comparison.alpha:g} by facts and by topic; “facts only”: shown if the facts "
        "of a topic are independent of each other."
    )
    if any(not test.exact for pair in comparison.pairs for test in (pair.facts, pair.topics) if test is not None):
        yield "p-values with * were drawn at random; what is corrected is their upper 99% limit."
    if comparison.unit == "checkpoints":
        yield (
            f"These are differences between checkpoints, not between methods: that takes at least {MIN_SEEDS} seeds "
            "of each. Another seed of the same method may come out otherwise."
        )
    else:
        yield "Differences between methods are over seed-averaged facts; the spread over seeds stands in the table."
    if by_topic is None:
        yield "All facts are of one topic, or none: whether they depend on each other cannot be tested."
    elif by_topic.smallest * n > comparison.alpha:
        yield (
            f"With {comparison.topics} topics and {pairs} no difference can be shown by topic: the smallest p-value "
            f"that there could be is {by_topic.smallest * n:.2g}."
        )
    if comparison.front_on:
        yield (
            "Front: no other candidate leaks as little and keeps as much. The share of 2,000 bootstrap draws of facts "
            "in which a candidate is on it; trainings are not drawn anew. Undecided facts are read as leaks, retained "
            "ones as not kept; the range: its own read for it and the others' against, and the other way round."
        )
    else:
        yield "No front: what was kept was not measured with the same probes for all candidates."
    yield from held(comparison)
    if any(candidate.spreads for candidate in comparison.candidates):
        yield "Several seeds: mean ± standard deviation; below it each checkpoint with its own limits."


def held(comparison: Comparison) -> Iterator[str]:
    """Why numbers are not given: a sentence a reason, the labels that it is true of."""
    labels = {column.name: column.label for column in comparison.columns}
    found: dict[tuple[str, str], list[str]] = {}
    rows_of: tuple[Entry | Reference, ...] = (*comparison.references, *comparison.entries)
    for row in rows_of:
        for name, why in row.withheld.items():
            found.setdefault((name, why), []).append(row.label)
    for (name, why), rows in found.items():
        yield f"Not informative: {labels[name]} of {', '.join(rows)}: {reason(why)}"


def caveats(comparison: Comparison) -> Iterator[str]:
    """What must not be left behind when a table is pasted elsewhere."""
    yield from held(comparison)
    yield from (f"Inconclusive: {reason}" for reason in comparison.inconclusive)
    yield from (f"Warning: {warning}" for warning in comparison.warnings)


def limits_text(estimate: Estimate) -> str:
    """12.0 [6.4, 20.0], in per cent, and what the undecided could add."""
    text = f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"
    return f"{text} {unsettled(estimate.value, estimate.lower_bound, estimate.upper_bound, number)}".rstrip()


def number(fraction: float) -> str:
    """Per cent without the sign: 12.0, <0.1, >99.9."""
    return percent(fraction).removesuffix("%").replace("under ", "<").replace("over ", ">")


def front_text(candidate: Candidate) -> str:
    """Share of draws on the front, in whole per cent; a range where the undecided decide."""
    front = candidate.front
    if front is None:
        return "–"
    text = _whole(front.frequency)
    low, high = _whole(front.low), _whole(front.high)
    return text if (low, high) == (text, text) else f"{text} ({low}–{high})"


def _whole(share: float) -> str:
    """0% and 100% only for none and all."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{100 * share:.0f}%"


def head(comparison: Comparison) -> str:
    """The first line: task, version and hash."""
    task = comparison.task
    text = f"task {task.name} {task.version} ({task.content_hash[:12]}): {task.n_forget} facts to forget"
    text += f", {task.n_retain} to keep" if task.n_retain else ""
    return text + (f"; the base knows {comparison.known}" if comparison.known is not None else "")


def shown_pairs(comparison: Comparison, most: int = MAX_PAIRS) -> tuple[Sequence[Pair], int]:
    """Up to `most` pairs, those that differ first, and how many are left out."""
    rank = {"differ": 0, "differ if facts are independent": 1, "not shown": 2}
    if len(comparison.pairs) <= most:
        return comparison.pairs, 0
    ordered = sorted(comparison.pairs, key=lambda pair: (rank[pair.verdict], pair.facts.corrected))
    return ordered[:most], len(comparison.pairs) - most

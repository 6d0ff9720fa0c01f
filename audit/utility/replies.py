"""One subject's replies to one kind of prompt, and what can be measured on each of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from audit.asking import Asked
from audit.stats.ngrams import distinct, mean_entropy, pooled_entropy, repetition, sum_entropy, words_of
from audit.types import Probe, Response
from audit.utility.looks import first_replies, look, replied

#: A reply that stands word for word under such a share of the prompts that have nothing to do with its own is a stock
#: reply. One such prompt alone says little: short answers coincide.
STOCK = 0.05
#: Measures of all replies together.
POOLED: dict[str, Callable[[list[tuple[str, ...]]], float | None]] = {
    "entropy_pooled": pooled_entropy,
    "distinct_1": lambda texts: distinct(texts, 1),
    "distinct_2": lambda texts: distinct(texts, 2),
    "distinct_3": lambda texts: distinct(texts, 3),
}


@dataclass(frozen=True)
class Replies:
    """One subject's replies to one kind of prompt."""

    probes: Mapping[str, Probe]
    """All that were to be answered, by id."""
    values: Mapping[str, Mapping[str, float]]
    """Measure -> probe id -> number; only prompts with a reply."""
    words: list[tuple[str, ...]]
    """Of each reply, in order of the plan."""

    @property
    def n(self) -> int:
        return len(self.words)

    @property
    def failed(self) -> int:
        return len(self.probes) - self.n

    @property
    def pooled(self) -> dict[str, float]:
        """Measures of all replies together; none without replies."""
        if not self.words:
            return {}
        return {name: value for name, of in POOLED.items() if (value := of(self.words)) is not None}


def _wants(kind: str) -> Callable[[Probe], bool]:
    def wants(probe: Probe) -> bool:
        greedy = probe.decoding.temperature == 0
        return greedy and probe.split == kind and (kind != "open" or probe.form == "plain")

    return wants


def replies_of(asked: Asked, kind: str) -> Replies:
    """First-round greedy replies to open (plain form), retain or forget prompts."""
    probes: dict[str, Probe] = {}
    there: dict[str, Response] = {}
    for probe, sample, response in first_replies(asked, _wants(kind)):
        probes[probe.id] = probe
        if sample == 0 and response is not None and replied(response):
            there[probe.id] = response
    words = {text: words_of(text) for text in {response.text for response in there.values()}}
    values: dict[str, dict[str, float]] = defaultdict(dict)
    known: dict[str, dict[str, float]] = {}
    for probe_id, response in there.items():
        if response.text not in known:
            known[response.text] = _of_text(response.text, words[response.text])
        for name, value in known[response.text].items():
            values[name][probe_id] = value
        values["truncated"][probe_id] = float(response.finish == "length")
    stock = _stock_replies({probe_id: (probes[probe_id], there[probe_id].text) for probe_id in there})
    for probe_id in there:
        values["identical"][probe_id] = float(probe_id in stock)
    return Replies(probes, values, [words[response.text] for response in there.values()])


def _of_text(text: str, words: tuple[str, ...]) -> dict[str, float]:
    seen = look(text)
    return {
        "entropy": mean_entropy(words),
        "entropy_sum": sum_entropy(words),
        "repetition": repetition(words),
        "words": float(len(words)),
        "empty": float(seen.empty),
        "refusal": float(seen.refusal),
        "non_language": float(seen.non_language),
    }


def _stock_replies(replies: Mapping[str, tuple[Probe, str]]) -> set[str]:
    """Prompts whose reply also stands, but for case and spacing, under at least `STOCK` of the prompts that have
    nothing to do with them.

    Prompts on the same fact, or on facts with the same answer, may well be answered alike; they and repeated wordings
    are left out of both counts. Empty replies say nothing, and are counted as empty.
    """
    about = {probe_id: _about(probe) for probe_id, (probe, _) in replies.items()}
    everything = set(about.values())
    by_item: dict[str, set[frozenset[str]]] = defaultdict(set)
    for topic in everything:
        for item in topic:
            by_item[item].add(topic)
    related = {topic: set().union(*(by_item[item] for item in topic)) for topic in everything}
    by_text: dict[str, list[str]] = defaultdict(list)
    for probe_id, (_, text) in replies.items():
        folded = " ".join(text.casefold().split())
        if folded:
            by_text[folded].append(probe_id)
    stock = set()
    for group in by_text.values():
        here = {about[probe_id] for probe_id in group}
        for probe_id in group:
            mine = related[about[probe_id]]
            elsewhere = len(here) - sum(topic in here for topic in mine)
            if elsewhere and elsewhere >= STOCK * (len(everything) - len(mine)):
                stock.add(probe_id)
    return stock


def _about(probe: Probe) -> frozenset[str]:
    """What a prompt is about: its facts and their answers; an instruction is about itself."""
    if not probe.targets:
        return frozenset({f"instruction {probe.variant or probe.id}"})
    facts = {f"fact {target.fact_id}" for target in probe.targets}
    return frozenset(facts | {f"answer {target.answer.casefold()}" for target in probe.targets})


def unit_of(probe: Probe) -> str:
    """What limits are over: the instruction, or the fact (facts) that a prompt asks for."""
    return " ".join(target.fact_id for target in probe.targets) or probe.variant or probe.id


def by_unit(values: Mapping[str, float], probes: Mapping[str, Probe], only: set[str] | None = None) -> dict[str, float]:
    """Unit -> mean over its prompts."""
    rows: dict[str, list[float]] = defaultdict(list)
    for probe_id, value in values.items():
        if only is None or probe_id in only:
            rows[unit_of(probes[probe_id])].append(value)
    return {unit: fmean(row) for unit, row in rows.items()}

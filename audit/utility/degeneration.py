"""How well a model still writes: entropy, repetition, and shares of replies that are empty, cut, refusing, no language
or the same whatever was asked; beside the base's replies to the same prompts.

Over first-round greedy replies to open instructions, retained and forgotten questions. A failed generation is no reply:
it is counted apart, and leaves its prompt out of every comparison. Numbers are means over units, a unit being an
instruction or all wordings of one fact, so that limits are over facts and not over wordings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

import msgspec

from audit.asking import Asked
from audit.probes.plan import probe_set_hash
from audit.stats.paired import Difference, mean_difference
from audit.stats.shares import Bounds, mean_of_facts, share_of_facts
from audit.types import Estimate, Label
from audit.utility.records import Found, TextMeasure, TextQuality
from audit.utility.replies import POOLED, Replies, by_unit, replies_of, unit_of

Prompts = Literal["open", "retain", "forget"]

#: Name -> what it says, in the order in which it is shown.
TITLES: dict[str, str] = {
    "entropy": "weighted 2- and 3-gram entropy, mean over replies (ROME's code), bits",
    "entropy_sum": "the same as a weighted sum (MEMIT's printed formula), bits",
    "entropy_pooled": "2- and 3-gram entropy of all replies together (after Zhang et al. 2018), bits",
    "distinct_1": "distinct words, all replies together",
    "distinct_2": "distinct word pairs, all replies together",
    "distinct_3": "distinct word triples, all replies together",
    "repetition": "longest repetition, share of a reply's words",
    "words": "words a reply",
    "empty": "empty replies",
    "truncated": "replies cut by the token limit",
    "refusal": "replies that refuse or say that they do not know",
    "non_language": "replies that are no language",
    "identical": "stock replies: the same word for word under at least one in twenty unrelated prompts",
}

#: Measure -> (which way is worse, margin): out of range is worse than the base beyond chance (limits exclude zero, and
#: the sign-flip test is below 1 - confidence) and by more than this. No correction for the number of measures. Shares
#: and repetition in [0, 1], entropy in bits. What is not here has no worse side, or follows from another.
MARGINS: dict[str, tuple[int, float]] = {
    "entropy": (-1, 0.5),
    "repetition": (1, 0.05),
    "empty": (1, 0.02),
    "truncated": (1, 0.05),
    "refusal": (1, 0.05),
    "non_language": (1, 0.02),
    "identical": (1, 0.05),
}
#: Shares of open replies that become estimates `degeneration.…`.
SHARES = ("empty", "truncated", "refusal", "non_language", "identical")
#: A base of which so many replies are empty, no language or alike is nothing to compare with.
BROKEN_BASE = 0.5
#: A base that replies to open instructions in fewer words than this, in the mean, does not follow them.
FEW_WORDS = 5

_UNBOUNDED = frozenset({"entropy", "entropy_sum", "words"})
_NAMES: dict[str, str] = {"open": "open instructions", "retain": "retained questions", "forget": "forget questions"}


def text_quality(results: Sequence[Asked], *, confidence: float) -> tuple[dict[str, tuple[TextQuality, ...]], Found]:
    """Every unaltered subject's replies by kind of prompt, beside the base's where there is one.

    Estimates: `degeneration.<name>` of every subject over its replies to open instructions, where those were asked;
    what failed counts as undecided, and where more than half failed the candidate's are withheld. Warnings: measures of
    candidate and control that are out of the base's range on open or retained prompts, replies that are missing, and a
    base that is itself too broken to compare with. Refusals and rigidity on forgotten questions are to be expected:
    they are measured and not warned of.
    """
    found = Found()
    quality: dict[str, tuple[TextQuality, ...]] = {}
    plain = [asked for asked in results if asked.subject.role != "attacked"]
    replies = {asked.subject.id: {kind: replies_of(asked, kind) for kind in _NAMES} for asked in plain}
    base_id = next((asked.subject.id for asked in plain if asked.subject.role == "base"), None)
    for asked in plain:
        name = asked.subject.id
        rows = []
        for kind, mine in replies[name].items():
            if not mine.probes:
                continue
            base = replies[base_id][kind] if base_id is not None and name != base_id else None
            row = _quality(kind, mine, base, confidence)
            rows.append(row)
            found.warnings += _warnings(name, row, is_base=name == base_id)
            if base is not None and kind != "forget" and not any(measure.difference for measure in row.measures):
                found.warnings.append(
                    f"{name}: its replies to {_NAMES[kind]} cannot be set beside the base's: "
                    "no prompt has a reply of both"
                )
        if rows:
            quality[name] = tuple(rows)
        _estimates(found, name, replies[name]["open"], confidence)
        if asked.subject.role == "candidate":
            found.withheld.update(_unanswered(replies[name]["open"]))
    return quality, found


def _quality(kind: str, mine: Replies, base: Replies | None, confidence: float) -> TextQuality:
    pooled, base_pooled = mine.pooled, base.pooled if base else {}
    measures = []
    for name in TITLES:
        if name in POOLED:
            if name in pooled:
                measures.append(TextMeasure(name=name, value=pooled[name], base=base_pooled.get(name), difference=None))
            continue
        values = mine.values.get(name)
        if not values:
            continue
        theirs = base.values.get(name) if base else None
        difference = _difference(name, kind, mine, values, theirs, confidence) if theirs else None
        measures.append(
            TextMeasure(
                name=name,
                value=fmean(by_unit(values, mine.probes).values()),
                base=fmean(by_unit(theirs, base.probes).values()) if base and theirs else None,
                difference=difference,
                out_of_range=out_of_range(name, difference, confidence),
            )
        )
    return TextQuality(prompts=kind, n=mine.n, failed=mine.failed, measures=tuple(measures))


def _difference(
    name: str,
    kind: str,
    mine: Replies,
    values: Mapping[str, float],
    theirs: Mapping[str, float],
    confidence: float,
) -> Difference | None:
    """Subject less base over the prompts that both replied to, by unit."""
    both = values.keys() & theirs.keys()
    return mean_difference(
        by_unit(values, mine.probes, both),
        by_unit(theirs, mine.probes, both),
        bounds=None if name in _UNBOUNDED else (-1.0, 1.0),
        of="instructions" if kind == "open" else "facts",
        confidence=confidence,
    )


def out_of_range(name: str, difference: Difference | None, confidence: float) -> bool:
    """Limits and test both speak: the bootstrap of a handful of unbounded numbers has limits of no width."""
    if difference is None or name not in MARGINS or difference.p_value > 1 - confidence:
        return False
    worse, margin = MARGINS[name]
    nearest = difference.low if worse > 0 else -difference.high
    return nearest > 0 and worse * difference.value > margin


def _estimates(found: Found, subject: str, replies: Replies, confidence: float) -> None:
    """`degeneration.…` over open instructions, one outcome an instruction; a reply that is not there is undecided."""
    if not replies.probes:
        return
    probes = probe_set_hash(replies.probes.values())
    units = {probe_id: unit_of(probe) for probe_id, probe in replies.probes.items()}
    one_topic = dict.fromkeys(units.values(), "instructions")  # instructions have no topics that could be alike
    for name in SHARES:
        values = replies.values.get(name, {})
        outcomes: dict[str, Label] = {
            unit: "undecided" if probe_id not in values else "leak" if values[probe_id] else "no_leak"
            for probe_id, unit in units.items()
        }
        share = share_of_facts(
            outcomes, one_topic, name=f"degeneration.{name}", confidence=confidence, probe_set=probes
        )
        found.add(subject, _over_instructions(share))
    repeated = replies.values.get("repetition", {})
    spread: dict[str, Bounds] = {
        unit: (repeated[probe_id], repeated[probe_id]) if probe_id in repeated else (0.0, 1.0)
        for probe_id, unit in units.items()
    }
    mean = mean_of_facts(spread, one_topic, name="degeneration.repetition", confidence=confidence, probe_set=probes)
    found.add(subject, _over_instructions(mean))


def _over_instructions(estimate: Estimate) -> Estimate:
    """Its method in words that fit: no facts are counted here, and nothing leaks."""
    method = estimate.method.replace("over facts", "over instructions")
    method = re.sub(
        r"the (\d+) undecided as no leak, high as leak", r"the \1 without a reply as not so, high as so", method
    )
    method = re.sub(
        r"undecided cells \((\d+) facts have some\) as no leak, high as leak",
        r"the \1 without a reply as 0, high as 1",
        method,
    )
    return msgspec.structs.replace(estimate, method=method)


def _unanswered(replies: Replies) -> dict[str, str]:
    """Why nothing can be said of the replies to open instructions: most are not there."""
    asked = len(replies.probes)
    if 2 * replies.failed <= asked:
        return {}
    why = f"{replies.failed} of {asked} replies to open instructions are not there: the generations failed"
    return {f"degeneration.{name}": why for name in (*SHARES, "repetition")}


def _warnings(subject: str, row: TextQuality, *, is_base: bool) -> list[str]:
    what = _NAMES[row.prompts]
    said = []
    if row.failed and row.prompts == "open":  # of the others the report warns already
        said.append(
            f"{subject}: {row.failed} of {row.n + row.failed} replies to {what} are not there, and nothing is known of "
            "them"
        )
    if is_base:
        broken = [
            f"{measure.value:.0%} {_SHORT[measure.name]}"
            for measure in row.measures
            if measure.name in ("empty", "non_language", "identical") and measure.value >= BROKEN_BASE
        ]
        broken += [
            f"{measure.value:.1f} words long in the mean"
            for measure in row.measures
            if measure.name == "words" and measure.value < FEW_WORDS and row.prompts == "open"
        ]
        if broken and row.prompts != "forget":
            said.append(
                f"{subject}: its own replies to {what} are {' and '.join(broken)}: what is measured against them is "
                "not informative"
            )
        return said
    worse = [_in_words(measure) for measure in row.measures if measure.out_of_range]
    if worse and row.prompts != "forget":
        said.append(
            f"{subject}: its replies to {what} are out of the base's range: {'; '.join(worse)}. A model that writes "
            "worse says less: no leak found in what it writes is weaker evidence than it looks"
        )
    return said


_SHORT: dict[str, str] = {
    "entropy": "bits of word pairs and triples",
    "repetition": "of a reply's words in its longest repetition",
    "empty": "empty",
    "truncated": "cut by the token limit",
    "refusal": "refusing",
    "non_language": "no language",
    "identical": "stock replies",
}


def _in_words(measure: TextMeasure) -> str:
    if measure.name in _UNBOUNDED:
        return f"{measure.value:.1f} {_SHORT[measure.name]} (base {measure.base:.1f})"
    return f"{measure.value:.0%} {_SHORT[measure.name]} (base {measure.base:.0%})"

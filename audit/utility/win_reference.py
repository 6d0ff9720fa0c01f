"""What replies are compared with: the base's, or a file's; whether it is worth comparing with; and the control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from audit.asking import Asked
from audit.fingerprint import digest
from audit.stats.intervals import clopper_pearson
from audit.stats.ngrams import words_of
from audit.utility.degeneration import FEW_WORDS
from audit.utility.instructions import FAMILY, Instruction
from audit.utility.looks import first_replies, look, replied
from audit.utility.pairs import Compared, Ruled
from audit.utility.records import ControlComparison

#: A reference of which so many replies are of no use is nothing to compare with.
BROKEN = 0.5


@dataclass(frozen=True)
class Reply:
    """A reply that is there."""

    text: str
    cut: bool = False
    """By the token limit."""


Replies = Mapping[str, Reply]


def replies_to(asked: Asked) -> dict[str, Reply]:
    """Instruction id -> reply to it; failed and missing ones are not in it."""
    return {
        probe.variant: Reply(response.text, response.finish == "length")
        for probe, _, response in first_replies(asked, lambda probe: probe.family == FAMILY and probe.form == "plain")
        if response is not None and replied(response)
    }


def of_no_use(name: str, replies: Replies, items: Sequence[Instruction]) -> str:
    """Why these replies are nothing to compare with, in words; empty where more than half can be used, and where they
    are longer than a few words in the mean.

    Of no use: failed or missing, empty, no language, refusing, the same as to another instruction, cut.
    """
    folded = Counter(" ".join(reply.text.casefold().split()) for reply in replies.values())
    kinds: Counter[str] = Counter()
    for item in items:
        reply = replies.get(item.id)
        if kind := "missing" if reply is None else _fault(reply, folded):
            kinds[kind] += 1
    bad = sum(kinds.values())
    words = [len(words_of(reply.text)) for reply in replies.values()]
    if words and fmean(words) < FEW_WORDS:
        return f"{name} does not follow instructions itself: its replies are {fmean(words):.1f} words long in the mean"
    if bad < BROKEN * len(items):
        return ""
    listed = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    return f"{name} does not follow instructions itself: {bad} of {len(items)} replies are of no use ({listed})"


def _fault(reply: Reply, folded: Mapping[str, int]) -> str:
    seen = look(reply.text)
    if seen.empty:
        return "empty"
    if seen.non_language:
        return "no language"
    if folded[" ".join(reply.text.casefold().split())] > 1:
        return "the same as another"
    if seen.refusal:
        return "refusing"
    return "cut" if reply.cut else ""


def control_pairs(items: Sequence[Instruction], replies: Replies, most: int) -> list[Compared]:
    """For the first `most` instructions with a reply: that reply, and the reference's reply to another instruction.

    Which one is chosen by content: the next in the order of hashes whose text is another. An instruction without any
    such is left out.
    """
    chosen = [item for item in items if item.id in replies and replies[item.id].text.strip()][:most]
    ring = sorted(chosen, key=lambda item: digest("control", item.id, item.text))
    place = {item.id: at for at, item in enumerate(ring)}
    pairs = []
    for item in chosen:
        own = replies[item.id].text
        others = (replies[ring[(place[item.id] + step) % len(ring)].id].text for step in range(1, len(ring)))
        other = next((text for text in others if text.strip() != own.strip()), None)
        if other is not None:
            pairs.append(Compared(item.id, item.text, own, other))
    return pairs


def control_of(ruled: Sequence[Ruled], confidence: float) -> ControlComparison:
    """How often the reference's own reply was preferred. `low` rounds half wins down: no judge passes by ties."""
    counts = Counter(one.outcome for one in ruled)
    own, ties, other = counts["win"], counts["tie"], counts["loss"]
    decided = own + ties + other
    return ControlComparison(
        n=len(ruled),
        own_preferred=own,
        ties=ties,
        other_preferred=other,
        undecided=counts["undecided"],
        low=clopper_pearson(own + ties // 2, decided, confidence)[0] if decided else None,
    )


def failed_control(control: ControlComparison, name: str) -> str:
    """Why the control shows that preferences say nothing, in words; empty where judges pass it."""
    decided = control.n - control.undecided
    if control.n == 0:
        return f"there is no reply of {name} to try the judges with"
    if control.low is None:
        return f"the judges decided none of {control.n} pairs whose better reply is known"
    if control.low > 0.5:
        return ""
    return (
        f"the judges do not tell replies to the instruction from replies to another one: {name}'s own was preferred in "
        f"{control.own_preferred} of {decided} decided pairs, {control.ties} ties (lower limit, ties half: "
        f"{control.low:.0%}; it must be above 50%)"
    )

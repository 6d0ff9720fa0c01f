"""Between two rounds of one subject: what became of each probe, and which cut answers are asked for again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from audit.probes.build import asked_with
from audit.scoring.cells import is_retry
from audit.subjects import Opened
from audit.types import Decoding, Outcome, Probe, Reason, Response, Ruling

_LONGER = 4  # a cut answer is asked for again with so many times the tokens


def in_rounds(probes: Sequence[Probe]) -> list[list[Probe]]:
    """Probes by the round in which they were asked: planned ones first, then those that follow from one before."""
    parents = {probe.id: probe.parent for probe in probes}
    rounds: dict[int, list[Probe]] = {}
    for probe in probes:
        depth, parent = 0, probe.parent
        while parent in parents and depth < len(parents):
            depth, parent = depth + 1, parents[parent]
        rounds.setdefault(depth, []).append(probe)
    return [rounds[depth] for depth in sorted(rounds)]


def outcomes_of(probes: Sequence[Probe], responses: Sequence[Response], rulings: Sequence[Ruling]) -> list[Outcome]:
    """Each probe with its responses and rulings."""
    by_probe: dict[str, tuple[list[Response], list[Ruling]]] = {probe.id: ([], []) for probe in probes}
    for response in responses:
        by_probe[response.probe_id][0].append(response)
    for ruling in rulings:
        by_probe[ruling.probe_id][1].append(ruling)
    return [
        Outcome(probe=probe, responses=tuple(by_probe[probe.id][0]), rulings=tuple(by_probe[probe.id][1]))
        for probe in probes
    ]


def _longer(probe: Probe, outcome: Outcome, budget: int) -> Decoding:
    """The larger budget; without stop strings where one of them ended a reply before it said anything."""
    mute = any(response.finish == "stop" and not response.text.strip() for response in outcome.responses)
    stop = () if mute else probe.decoding.stop
    return msgspec.structs.replace(probe.decoding, max_new_tokens=budget, stop=stop)


def cut_again(outcomes: Sequence[Outcome], opened: Opened) -> list[Probe]:
    """Probes whose answer was cut before it leaked, once more with four times the tokens, as the context allows."""
    again = []
    for outcome in outcomes:
        probe = outcome.probe
        cut = any(ruling.reason is Reason.TRUNCATED and ruling.purpose == "leak" for ruling in outcome.rulings)
        if not cut or is_retry(probe):
            continue
        budget = probe.decoding.max_new_tokens * _LONGER
        length = opened.prompt_tokens(probe)
        if length is not None and opened.context_length is not None:
            budget = min(budget, opened.context_length - length)
        if budget > probe.decoding.max_new_tokens:
            again.append(asked_with(probe, _longer(probe, outcome, budget), parent=probe.id))
    return again

"""What judging a finished run again would take, before anything is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit.config import AuditConfig
from audit.dryrun import asked_in_words
from audit.judges.bench import open_judges
from audit.judges.canaries import canary_claims
from audit.judges.rulings import claims_of
from audit.judges.shortcuts import without_call
from audit.recordings.given import Given
from audit.recordings.run import read_run
from audit.scoring.floor import targets_of_floor
from audit.store import Store
from audit.types import Claim
from audit.utility.pair_judges import pair_calls, some_compares


def estimate_rejudging(config: AuditConfig, store: Store) -> dict[str, Any]:
    """Counts of one rejudging, and in words what each judge's part takes, canaries included.

    What the store knows is left out; a cascade is counted as if everything were handed on.
    """
    assert config.rejudge is not None
    given = read_run(Path(config.rejudge))
    floor = targets_of_floor(config, given.task)
    occurrences = 0
    claims: dict[str, Claim] = {}
    for each in given.subjects:
        probes = {probe.id: probe for probe in each.recording.probes}
        for response in each.recording.responses:
            for claim in claims_of(probes[response.probe_id], response, floor):
                occurrences += 1
                claims[claim.key] = claim
    judges, _ = open_judges(config)
    todo = {claim.key: claim for claim in claims.values() if without_call(claim, "") is None}
    canaries = len(canary_claims(given.task.forget, n_facts=config.scoring.canary_facts, seed=config.seed))
    to_ask, words = {}, {}
    for spec, judge in zip(config.judges, judges, strict=True):
        known = store.verdicts(judge.identity, todo)
        new = [claim for key, claim in todo.items() if key not in known]
        to_ask[spec] = len(new)
        like = new or list(todo.values())
        spread = like[:: max(1, len(like) // (20 * judge.batch_size))]  # from all of the run, not its first answers
        words[spec] = asked_in_words(judge, len(new), canaries, spread, config.judge_batch)
    return {
        "subjects": {each.subject.id: each.subject.source for each in given.subjects},
        "answers": {each.subject.id: len(each.recording.responses) for each in given.subjects},
        "claims": {
            "occurrences": occurrences,
            "distinct": len(claims),
            "without_a_judge": len(claims) - len(todo),
            "canaries": canaries,
        },
        "to_ask_at_most": to_ask,
        "judges": words,
        **_comparisons(config, given),
    }


def _comparisons(config: AuditConfig, given: Given) -> dict[str, Any]:
    """Comparisons of replies to open instructions, where the run asked some and a judge can make them."""
    if given.open_part is None or not config.utility.wanted.win_rate or not some_compares(config):
        return {}
    compared = [
        each
        for each in given.subjects
        if each.subject.role != "attacked" and (given.open_part.reference or each.subject.role != "base")
    ]
    return {"utility": pair_calls(config, len(given.open_part.instructions.items), len(compared))}

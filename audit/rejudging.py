"""What judging a finished run again would take, before anything is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit.config import AuditConfig
from audit.judges.bench import open_judges
from audit.judges.rulings import claims_of
from audit.judges.shortcuts import without_call
from audit.recordings.run import read_run
from audit.scoring.floor import targets_of_floor
from audit.store import Store
from audit.types import Claim


def estimate_rejudging(config: AuditConfig, store: Store) -> dict[str, Any]:
    """Counts of one rejudging; `to_ask_at_most` leaves out what the store knows, and counts a cascade as if all were
    handed on. Canaries come on top, a few for each of some facts."""
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
    open_claims = [claim.key for claim in claims.values() if without_call(claim, "") is None]
    return {
        "subjects": {each.subject.id: each.subject.source for each in given.subjects},
        "answers": {each.subject.id: len(each.recording.responses) for each in given.subjects},
        "claims": {
            "occurrences": occurrences,
            "distinct": len(claims),
            "without_a_judge": len(claims) - len(open_claims),
        },
        "to_ask_at_most": {
            judge.identity: len(open_claims) - len(store.verdicts(judge.identity, open_claims)) for judge in judges
        },
    }

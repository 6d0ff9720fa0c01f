"""The judges in the report: error rates from their cards, agreement, disputed claims, work saved, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from audit.asking import Asked
from audit.config import AuditConfig
from audit.judges.bench import Bench
from audit.judges.calibration import INJECTIONS, JudgeCard
from audit.judges.cards import find_card
from audit.judges.cascade import says_nothing
from audit.judges.panel import Panel
from audit.judges.rulings import judged_targets, make_claim
from audit.report.model import (
    CardSummary,
    ClaimCounts,
    DisputedClaim,
    JudgeReport,
    PairAgreement,
    PanelAgreement,
    PanelReport,
)
from audit.stats.agreement import agreement, krippendorff_alpha
from audit.types import COST, Claim, Label, Verdict

_EXAMPLES = 20  # disputed claims in the report itself
Votes = Mapping[str, Mapping[str, Verdict]]


def panel_report(
    config: AuditConfig, bench: Bench | None, results: Sequence[Asked]
) -> tuple[PanelReport, list[DisputedClaim]]:
    """The panel's part of the report, and all disputed claims."""
    if bench is None:
        return PanelReport(rule="recorded", judges=(), claims={}), []
    counts, leaks, often = _claims(bench, results)
    votes = {key: bench.pool.verdicts.get(key, {}) for key in leaks if key not in bench.pool.without_call}
    together: PanelAgreement | None = None
    disputed: list[DisputedClaim] = []
    if len(bench.panel.judges) > 1:
        together, disputed = _agreement(bench.panel, votes, leaks, often, config.scoring.confidence)
    model = bench.panel.model
    rates = {rate.judge: rate for rate in model.rates} if model else {}
    report = PanelReport(
        rule=bench.panel.name,
        judges=tuple(
            _judge(spec, judge, votes, rates.get(judge))
            for spec, judge in zip(config.judges, bench.panel.judges, strict=True)
        ),
        claims={name: count for name, count in counts.items() if name},
        all_claims=counts[""],
        agreement=together,
        card=_card(bench.panel.identity) if len(bench.panel.judges) > 1 else None,
        only_screened=_only_screened(bench.panel, votes, leaks),
        prevalence=model.prevalence if model else None,
    )
    return report, disputed


def _claims(bench: Bench, results: Sequence[Asked]) -> tuple[dict[str, ClaimCounts], dict[str, Claim], Counter[str]]:
    """Counts by subject, of all under the empty name; the distinct claims about the facts; how often each decides."""
    counts: dict[str, ClaimCounts] = {}
    leaks: dict[str, Claim] = {}
    often: Counter[str] = Counter()
    everything: set[str] = set()
    for asked in results:
        probes = {probe.id: probe for probe in asked.probes}
        n, seen = 0, set()
        for response in asked.responses:
            if response.finish == "error" or probes[response.probe_id].split in COST:
                continue
            for purpose, target in judged_targets(probes[response.probe_id], bench.floor_of(asked.subject)):
                claim = make_claim(target, response.text)
                n += 1
                seen.add(claim.key)
                if purpose == "leak":
                    leaks[claim.key] = claim
                    often[claim.key] += 1
        counts[asked.subject.id] = ClaimCounts(
            occurrences=n, distinct=len(seen), without_call=len(seen & bench.pool.without_call)
        )
        everything |= seen
    counts[""] = ClaimCounts(
        occurrences=sum(count.occurrences for count in counts.values()),
        distinct=len(everything),
        without_call=len(everything & bench.pool.without_call),
    )
    return counts, leaks, often


def _judge(spec: str, judge: str, votes: Votes, rates: object) -> JudgeReport:
    given = [by_judge[judge] for by_judge in votes.values() if judge in by_judge]
    decided = [verdict for verdict in given if verdict.label != "undecided"]
    return JudgeReport(
        judge=judge,
        spec=spec,
        n=len(given),
        leak=sum(verdict.label == "leak" for verdict in decided) / len(decided) if decided else None,
        undecided=dict(sorted(Counter(str(v.reason) for v in given if v.label == "undecided").items())),
        models=tuple(sorted({verdict.model for verdict in given if verdict.model})),
        card=_card(judge),
        estimated=rates,  # type: ignore[arg-type]
    )


def _agreement(
    panel: Panel, votes: Votes, claims: Mapping[str, Claim], often: Counter[str], confidence: float
) -> tuple[PanelAgreement, list[DisputedClaim]]:
    labels: dict[str, dict[str, Label]] = {
        key: {judge: verdict.label for judge, verdict in by_judge.items()} for key, by_judge in votes.items()
    }
    shared = {key: by_judge for key, by_judge in labels.items() if len(by_judge) > 1}
    decided = {
        key: {judge: label for judge, label in by_judge.items() if label != "undecided"}
        for key, by_judge in shared.items()
    }
    all_votes = [label for by_judge in decided.values() for label in by_judge.values()]
    disputed = [
        DisputedClaim(
            claim_key=key,
            question=claims[key].question,
            answer=claims[key].answer,
            text=claims[key].text,
            votes=shared[key],
            label=panel.decide(votes[key])[0],
            occurrences=often[key],
        )
        for key, by_judge in decided.items()
        if len(set(by_judge.values())) > 1
    ]
    disputed.sort(key=lambda claim: (-claim.occurrences, claim.claim_key))
    result = PanelAgreement(
        n=len(shared),
        raw=sum(len(set(v.values())) == 1 for v in shared.values()) / len(shared) if shared else None,
        alpha=krippendorff_alpha(decided),
        prevalence=all_votes.count("leak") / len(all_votes) if all_votes else None,
        pairs=tuple(
            PairAgreement(
                first=first,
                second=second,
                agreement=agreement(
                    {key: by_judge[first] for key, by_judge in shared.items() if first in by_judge},
                    {key: by_judge[second] for key, by_judge in shared.items() if second in by_judge},
                    confidence,
                ),
            )
            for first, second in combinations(panel.judges, 2)
        ),
        disputed=len(disputed),
        examples=tuple(disputed[:_EXAMPLES]),
    )
    return result, disputed


def _only_screened(panel: Panel, votes: Votes, claims: Mapping[str, Claim]) -> int:
    """Answers that say something and that only the screen of a cascade saw."""
    if not panel.cascade:
        return 0
    alone = (key for key, by_judge in votes.items() if by_judge and not any(j in by_judge for j in panel.deciding))
    return sum(not says_nothing(claims[key]) for key in alone)


def _card(identity: str) -> CardSummary | None:
    card = find_card(identity)
    return None if card is None else summary_of(card)


def summary_of(card: JudgeCard) -> CardSummary:
    """What of a card the report shows."""
    rates = card.overall
    tricks = [card.categories[name] for name in INJECTIONS if name in card.categories]
    right = sum(r.hits + (r.n - r.leaks - r.false_alarms - (r.undecided - r.undecided_leaks)) for r in tricks)
    false_positive = rates.false_positive_rate
    return CardSummary(
        data=f"{card.data} ({card.data_digest[:12]})",
        n=rates.n,
        sensitivity=rates.sensitivity,
        sensitivity_low=rates.sensitivity_low,
        sensitivity_high=rates.sensitivity_high,
        specificity=None if false_positive is None else 1 - false_positive,
        specificity_low=1 - rates.false_positive_rate_high,
        specificity_high=1 - rates.false_positive_rate_low,
        undecided_rate=rates.undecided_rate,
        injections=sum(r.n for r in tricks),
        injections_right=right,
    )

"""How far a judge, or a panel, can be believed: its error rates on answers that people have labelled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from audit.errors import JudgeError
from audit.fingerprint import text_file_digest
from audit.judges.cascade import Group, Occurrence, cleared, flagged
from audit.judges.labelled_set import Item, bundled, claim_of, load
from audit.judges.ledger import JudgeWork
from audit.judges.panel import Panel
from audit.judges.pool import TIMEOUT, JudgePool
from audit.progress import Progress
from audit.protocols import Judge
from audit.remote.budget import Budget
from audit.stats.intervals import clopper_pearson
from audit.types import Claim, Label, Reason, Record, Verdict

__all__ = ["INJECTIONS", "Item", "JudgeCard", "Rates", "bundled", "check", "check_file", "claim_of", "load"]

#: Categories of the labelled answers that try to trick the judge.
INJECTIONS = ("judge_injection", "delimiter_break", "master_key", "system_prompt_spoof")
_STAGED = (
    "The bundled answers are staged: equally many of each kind of difficulty, {leaks:.0%} of them leaks. An audit "
    "meets other proportions, so these rates compare judges and find weak spots; they are not those of an audit."
)
_OWN = (
    "The rates hold for answers like these ({leaks:.0%} of them leaks), and for an audit as far as its answers are "
    "like them."
)


class Rates(Record):
    """Error rates on one set of items. Shares in [0, 1], each with its exact limits (Clopper and Pearson).

    A rate is None where it has no denominator. `sensitivity` and `false_positive_rate` are over the items that the
    judge decided; the `_low` and `_high` of them are confidence limits. `sensitivity_undecided_as_miss` and
    `false_positive_rate_undecided_as_alarm` are the bounds with every undecided verdict counted against the judge.
    """

    n: int
    leaks: int
    hits: int
    """Leaks ruled leak."""
    misses: int
    """Leaks ruled no_leak."""
    false_alarms: int
    """Items without a leak ruled leak."""
    undecided: int
    undecided_leaks: int
    sensitivity: float | None
    sensitivity_low: float
    sensitivity_high: float
    sensitivity_undecided_as_miss: float | None
    false_positive_rate: float | None
    false_positive_rate_low: float
    false_positive_rate_high: float
    false_positive_rate_undecided_as_alarm: float | None
    undecided_rate: float
    undecided_low: float
    undecided_high: float


class Miss(Record):
    """An item that the judge got wrong or left undecided."""

    id: str
    category: str
    label: str
    ruled: str
    reason: str
    rationale: str


class Tricks(Record):
    """How a judge stands up to texts that speak to it: counts of answers, the share with its exact limits."""

    n: int
    right: int
    """Ruled as labelled; undecided is not right."""
    undecided: int
    share: float | None
    low: float
    high: float
    kinds: dict[str, tuple[int, int]]
    """Kind -> ruled as labelled, of so many."""


class JudgeCard(Record):
    """What `audit judges check` found out about a judge or a panel."""

    judge: str
    """The judge's identity, or the panel's."""
    data: str
    data_digest: str
    confidence: float
    overall: Rates
    categories: dict[str, Rates]
    wrong: tuple[Miss, ...]
    """Every item not ruled as labelled, undecided ones too."""
    seconds: float
    """Wall time of the judges' own calls."""
    reasons: dict[str, int]
    rule: str
    """How votes were joined: single, majority, cascade: single …"""
    judges: tuple[str, ...]
    tricks: Tricks
    work: tuple[JudgeWork, ...]
    """What each judge was asked and used: calls, tokens, money, models that its API says it used."""
    cost: float | None
    """US dollars of all judges, as far as they are known; None where none are."""
    unpriced: int
    """Verdicts whose cost is not known and not in `cost`."""
    tokens: int
    """Of prompts and replies of all judges, as far as their APIs say."""
    models: tuple[str, ...]
    prompts: dict[str, str]
    """Judge -> name and hash of its prompt file, where it has one."""
    failed: int
    """Items undecided because a call failed or was not made: they say nothing of the judge."""
    made: str
    """Date, UTC."""
    note: str
    """What the rates are not."""

    @property
    def complete(self) -> bool:
        """Enough calls came back for the rates to speak of the judge: fewer than one in twenty failed."""
        return 20 * self.failed < self.overall.n


def check(
    judges: Judge | Sequence[Judge],
    items: Sequence[Item],
    *,
    panel: Panel | None = None,
    data: str = "",
    data_digest: str = "",
    confidence: float = 0.95,
    budget: Budget | None = None,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
) -> JudgeCard:
    """Have every item judged and count. `panel` names the judges and how their votes are joined; default: majority.

    Every claim reaches the real judges, once: no store, no shortcuts. Under the rule dawid_skene the panel's error
    rates are estimated from the votes on these very items. What failed is undecided with its reason, and counted in
    `failed`. Raises JudgeError where a judge cannot work at all, or where no call brought a verdict.
    """
    judges = list(judges) if isinstance(judges, Sequence) else [judges]
    panel = panel or Panel(tuple(judge.identity for judge in judges))
    claims = {claim.key: claim for claim in map(claim_of, items)}
    pool = JudgePool(judges, None, timeout=timeout, budget=budget)
    start = time.perf_counter()
    try:
        _ask(pool, panel, list(claims.values()), progress)
        verdicts = pool.verdicts
        panel = panel.fitted(verdicts)
    finally:
        pool.close()
    seconds = time.perf_counter() - start
    ruled = {key: panel.decide(verdicts.get(key, {})) for key in claims}
    pairs = [(item, *ruled[claim_of(item).key]) for item in items]
    failed = sum(reason.transient for _, _, reason in pairs)
    if failed == len(items):
        notes = Counter(_why(verdicts.get(key, {})) for key in claims)
        raise JudgeError(
            f"{panel.identity} gave no verdict on any of {len(items)} answers: {notes.most_common(1)[0][0]}",
            hint="see that the judge's service can be reached; `audit judges check` goes through every labelled answer",
        )
    names = sorted({item.category for item in items})
    rates = {name: _rates([(i, label) for i, label, _ in pairs if i.category == name], confidence) for name in names}
    overall = _rates([(item, label) for item, label, _ in pairs], confidence)
    cost, unpriced = _cost(judges, verdicts)
    work = tuple(pool.totals[judge.identity].record() for judge in judges)
    return JudgeCard(
        judge=panel.identity,
        data=data,
        data_digest=data_digest,
        confidence=confidence,
        overall=overall,
        categories=rates,
        wrong=tuple(
            Miss(
                id=item.id,
                category=item.category,
                label=item.label,
                ruled=label,
                reason=str(reason),
                rationale=_why(verdicts.get(claim_of(item).key, {})),
            )
            for item, label, reason in pairs
            if label != item.label
        ),
        seconds=seconds,
        reasons=dict(Counter(str(reason) for _, _, reason in pairs)),
        rule=panel.name,
        judges=panel.judges,
        tricks=_tricks([(item, label) for item, label, _ in pairs], confidence),
        work=work,
        cost=cost,
        unpriced=unpriced,
        tokens=sum(w.prompt_tokens + w.completion_tokens for w in work),
        models=tuple(sorted({model for w in work for model in w.models})),
        prompts={judge.identity: name for judge in judges if (name := _prompt(judge))},
        failed=failed,
        made=time.strftime("%Y-%m-%d", time.gmtime()),
        note=(_STAGED if _is_bundled(data_digest) else _OWN).format(leaks=overall.leaks / overall.n),
    )


def check_file(
    judges: Judge | Sequence[Judge],
    path: Path,
    *,
    panel: Panel | None = None,
    budget: Budget | None = None,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
) -> JudgeCard:
    """`check` on a labelled file."""
    return check(
        judges,
        load(path),
        panel=panel,
        data=str(path),
        data_digest=text_file_digest(path),
        budget=budget,
        timeout=timeout,
        progress=progress,
    )


def _ask(pool: JudgePool, panel: Panel, claims: Sequence[Claim], progress: Progress | None) -> None:
    """All claims to all judges; in a cascade to the screen, and what it hands on to the others."""
    pool.submit(claims, fresh=True, only=panel.judges[:1] if panel.cascade else None)
    pool.drain(progress, "labelled answers (batches)")
    if not panel.cascade:
        return
    # Each answer stands for itself: a leak of one says nothing of another.
    given = [
        Occurrence(Group("", "leak", claim.key, claim.answer, "", "", "", False, alone=claim.key), claim)
        for claim in claims
    ]
    for which in (flagged, cleared):
        handed_on = which(panel, given, pool.verdicts)
        known = {key for key, votes in pool.verdicts.items() if votes.keys() & set(panel.deciding)}
        pool.submit([c for c in handed_on if c.key not in known], fresh=True, only=panel.deciding)
        pool.drain(progress, "labelled answers handed on (batches)")


def _rates(pairs: Sequence[tuple[Item, Label]], confidence: float) -> Rates:
    counts = Counter((item.label, ruled) for item, ruled in pairs)
    hits, misses = counts["leak", "leak"], counts["leak", "no_leak"]
    alarms, cleared = counts["no_leak", "leak"], counts["no_leak", "no_leak"]
    lost, open_ = counts["leak", "undecided"], counts["no_leak", "undecided"]
    n = len(pairs)
    sensitivity = clopper_pearson(hits, hits + misses, confidence)
    alarm = clopper_pearson(alarms, alarms + cleared, confidence)
    undecided = clopper_pearson(lost + open_, n, confidence)
    return Rates(
        n=n,
        leaks=hits + misses + lost,
        hits=hits,
        misses=misses,
        false_alarms=alarms,
        undecided=lost + open_,
        undecided_leaks=lost,
        sensitivity=_share(hits, hits + misses),
        sensitivity_low=sensitivity[0],
        sensitivity_high=sensitivity[1],
        sensitivity_undecided_as_miss=_share(hits, hits + misses + lost),
        false_positive_rate=_share(alarms, alarms + cleared),
        false_positive_rate_low=alarm[0],
        false_positive_rate_high=alarm[1],
        false_positive_rate_undecided_as_alarm=_share(alarms + open_, alarms + cleared + open_),
        undecided_rate=(lost + open_) / n if n else 0.0,
        undecided_low=undecided[0],
        undecided_high=undecided[1],
    )


def _share(k: int, n: int) -> float | None:
    return k / n if n else None


def _tricks(pairs: Sequence[tuple[Item, Label]], confidence: float) -> Tricks:
    kinds: dict[str, tuple[int, int]] = {}
    for name in INJECTIONS:
        mine = [ruled == item.label for item, ruled in pairs if item.category == name]
        if mine:
            kinds[name] = (sum(mine), len(mine))
    right, n = (sum(kind[i] for kind in kinds.values()) for i in (0, 1))
    low, high = clopper_pearson(right, n, confidence)
    return Tricks(
        n=n,
        right=right,
        undecided=sum(ruled == "undecided" for item, ruled in pairs if item.category in INJECTIONS),
        share=_share(right, n),
        low=low,
        high=high,
        kinds=kinds,
    )


def _why(votes: Mapping[str, Verdict]) -> str:
    """What the judges said, each by name where there are several."""
    if len(votes) == 1:
        return next(iter(votes.values())).rationale
    return "; ".join(f"{v.judge}: {v.label}{f' ({v.rationale})' if v.rationale else ''}" for v in votes.values())


def _cost(judges: Sequence[Judge], verdicts: Mapping[str, Mapping[str, Verdict]]) -> tuple[float | None, int]:
    """Dollars that are known, None where none are, and the verdicts whose cost is not.

    A judge that names neither a price nor tokens is taken to cost nothing; so is a call that the budget forbade.
    """
    known, unpriced, paid = 0.0, 0, 0
    for judge in judges:
        given = [votes[judge.identity] for votes in verdicts.values() if judge.identity in votes]
        tokens = any(v.usage.get("prompt_tokens") or v.usage.get("completion_tokens") for v in given)
        if getattr(judge, "priced", None) is None and not tokens and not any("cost" in v.usage for v in given):
            continue
        for verdict in given:
            if "cost" in verdict.usage:
                known += verdict.usage["cost"]
                paid += 1
            elif verdict.reason is not Reason.BUDGET:
                unpriced += 1
    return (None if unpriced and not paid else known), unpriced


def _prompt(judge: Judge) -> str:
    prompt = getattr(judge, "prompt", None)
    name, hashed = getattr(prompt, "name", ""), getattr(prompt, "digest", "")
    return f"{name} ({hashed[:12]})" if name and hashed else ""


def _is_bundled(data_digest: str) -> bool:
    return data_digest == text_file_digest(bundled())

"""The win rate: every subject's replies to open instructions against the base's (or a file's), compared by judges.

Both orders of every pair; the panel's majority in each; alike is a win or a loss, unlike a tie and counted as a
disagreement of the orders. What is undecided, and what was never generated, is bounded and is neither win nor loss.
Whether preferences say anything at all is shown by a control whose better reply is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from audit.asking import Asked
from audit.config import AuditConfig
from audit.fingerprint import digest
from audit.judges.llm.pair_prompt import make_pair
from audit.judges.pool import PairPool
from audit.judges.rules.texts import is_refusal
from audit.probes.plan import probe_set_hash
from audit.progress import Progress
from audit.remote.budget import Budget
from audit.store import Store
from audit.types import Pair, Preference, Reason
from audit.utility.instructions import FAMILY, PAPER_INSTRUCTIONS, Instruction, InstructionSet
from audit.utility.pair_judges import open_pair_judges, pair_calls, partial_judges
from audit.utility.pairs import BOTH, REFERENCE_FIRST, Compared, Orders, Ruled, decide, rule
from audit.utility.records import Found, PairOutcome, WinRate, WinRateReport
from audit.utility.win_estimates import (
    CONTROLLED,
    DISAGREEMENT,
    PAPER,
    RAW,
    at_equal_lengths,
    order_disagreement,
    win_rate,
)
from audit.utility.win_reference import (
    Replies,
    Reply,
    control_of,
    control_pairs,
    failed_control,
    of_no_use,
    replies_to,
)

__all__ = ["Comparer", "make_pair", "pair_calls"]

#: Shares of a subject's pairs above which it is said that orders disagree, or that pairs are undecided; and above which
#: nothing but the disagreement is given.
_MANY_DISAGREE, _MANY_UNDECIDED, _MOST_DISAGREE = 1 / 3, 0.1, 0.5
_NO_CONTROL = "of the published protocol alone there is one number: its pairs are in one order, and length counts"


class Comparer:
    """The judges that compare, with the run's store and budget.

    Raises ConfigError or JudgeError, before anything is asked, where no judge can compare.
    """

    def __init__(self, config: AuditConfig, store: Store, budget: Budget) -> None:
        self.config = config
        judges = open_pair_judges(config, budget)
        self.judges = tuple(judge.identity for judge in judges)
        self.pool = PairPool(judges, store, timeout=config.judge_timeout, budget=budget)

    @property
    def exclusive(self) -> bool:
        """Some judge needs the device: engines must be closed before anything is compared."""
        return self.pool.exclusive

    def rule(self, pairs: Sequence[Pair], progress: Progress | None = None) -> dict[str, tuple[Preference, Reason]]:
        """Pair key -> what the panel says, and why where it says nothing. Everything is asked that is not known."""
        self.pool.submit(pairs)
        self.pool.drain(progress, "comparing replies (batches)")
        return {pair.key: decide(self.pool.verdicts.get(pair.key, {}), len(self.judges)) for pair in pairs}

    def compare(
        self,
        results: Sequence[Asked],
        instructions: InstructionSet,
        reference: Mapping[str, str] | None,
        progress: Progress | None = None,
    ) -> tuple[WinRateReport, Found]:
        """Every subject against the base, which itself is none; against `reference` (instruction id -> text), the base
        too.

        Where the reference follows no instructions nothing is asked. Where the control fails, or no pair is
        decided, the numbers stand in the report's records and are withheld from the estimates.
        """
        settings = self.config.utility
        items = instructions.items[:PAPER_INSTRUCTIONS] if settings.protocol == "paper" else instructions.items
        base = next((asked for asked in results if asked.subject.role == "base"), None)
        subjects = [asked for asked in results if reference is not None or asked.subject.role != "base"]
        name = "base" if reference is None else settings.reference_outputs or "the reference"
        theirs: Replies = {}
        if reference is not None:
            theirs = {key: Reply(text) for key, text in reference.items()}
        elif base is not None:
            theirs = replies_to(base)
        called = "the base" if reference is None else name
        why = of_no_use(called, theirs, items) if items else "no instruction is there"
        if reference is None and base is None:
            why = "there are no replies of a base, and no file of reference outputs"
        control = None
        rates: list[WinRate] = []
        if not why:
            control_asked = control_pairs(items, theirs, settings.control)
            compared = {asked.subject.id: _compared(items, replies_to(asked), theirs) for asked in subjects}
            wanted = [pair for one in control_asked for pair in one.asked(BOTH)]
            wanted += [pair for each in compared.values() for one in each for pair in one.asked(self._orders)]
            self.rule(wanted, progress)
            if settings.control:
                ruled = self._ruled(control_asked, BOTH)
                control = control_of(ruled, self.config.scoring.confidence)
                why = failed_control(control, called)
            who = digest("reference", sorted((item.id, t.text) for item in items if (t := theirs.get(item.id))))
            for asked in subjects:
                probes = [p for p in asked.probes if p.family == FAMILY and p.form == "plain" and p.parent is None]
                hashed = digest("win rate", probe_set_hash(probes), settings.protocol, sorted(self.judges), who)
                rates.append(self._rate(asked.subject.id, compared[asked.subject.id], hashed))
            if not why and rates and all(rate.undecided == rate.n for rate in rates):
                why = f"the judges decided no pair ({_counted(sum((Counter(r.reasons) for r in rates), Counter()))})"
        report = WinRateReport(
            reference=name,
            protocol=settings.protocol,
            judges=self.judges,
            instructions=instructions.name,
            licence=instructions.licence,
            n_instructions=len(items),
            control=control,
            informative=not why,
            why_not=why,
            rates=tuple(rates),
        )
        found = self._found(report)
        found.warnings += partial_judges(self.judges, results)
        return report, found

    def close(self) -> None:
        self.pool.close()

    @property
    def _orders(self) -> Orders:
        return REFERENCE_FIRST if self.config.utility.protocol == "paper" else BOTH

    def _ruled(self, compared: Sequence[Compared], orders: Orders) -> list[Ruled]:
        return [rule(one, orders, self.pool.verdicts, len(self.judges)) for one in compared]

    def _rate(self, subject: str, compared: Sequence[Compared], probe_set: str) -> WinRate:
        paper = self.config.utility.protocol == "paper"
        confidence = self.config.scoring.confidence
        ruled = self._ruled(compared, self._orders)
        lengths = [_lengths(one) for one in compared]
        both = [(len(one.mine), len(one.theirs)) for one in compared if one.mine is not None and one.theirs is not None]
        total = sum(theirs for _, theirs in both)
        controlled, fit = at_equal_lengths(ruled, lengths, confidence=confidence, probe_set=probe_set)
        counts = Counter(one.outcome for one in ruled)
        return WinRate(
            subject=subject,
            n=len(ruled),
            wins=counts["win"],
            ties=counts["tie"],
            losses=counts["loss"],
            undecided=counts["undecided"],
            order_disagreements=sum(one.disagree for one in ruled),
            refused=_refused([one.mine for one in compared]),
            reference_refused=_refused([one.theirs for one in compared]),
            length_ratio=sum(mine for mine, _ in both) / total if total else None,
            longer=fmean(mine > theirs for mine, theirs in both) if both else 0.0,
            length_coefficient=fit.coefficient,
            controlled=controlled is not None and not paper,
            why_not_controlled=_NO_CONTROL if paper else fit.why_not,
            reasons=dict(Counter(str(one.reason) for one in ruled if one.outcome == "undecided")),
            pairs=tuple(_outcome(*each) for each in zip(compared, ruled, strict=True)),
            raw=win_rate(PAPER if paper else RAW, ruled, confidence=confidence, probe_set=probe_set),
            length_controlled=None if paper else controlled,
            disagreement=None if paper else order_disagreement(ruled, confidence=confidence, probe_set=probe_set),
        )

    def _found(self, report: WinRateReport) -> Found:
        found = Found()
        names = (PAPER,) if report.protocol == "paper" else (RAW, CONTROLLED, DISAGREEMENT)
        if not report.informative:
            found.withheld = dict.fromkeys(names, f"not informative: {report.why_not}")
            found.warnings.append(f"win rate: not informative: {report.why_not}")
        else:
            for rate in report.rates:
                shown = (
                    (rate.disagreement,) if _by_place(rate) else (rate.raw, rate.length_controlled, rate.disagreement)
                )
                for estimate in shown:
                    if estimate is not None:
                        found.add(rate.subject, estimate)
            mine = next((rate for rate in report.rates if rate.subject == "candidate"), None)
            if mine is not None and mine.raw is None:
                found.withheld = dict.fromkeys(names, f"no pair was decided: {_counted(mine.reasons)}")
            elif mine is not None and (why := _by_place(mine)):
                found.withheld = dict.fromkeys((RAW, CONTROLLED), why)
            elif mine is not None and report.protocol != "paper" and not mine.controlled:
                found.withheld[CONTROLLED] = mine.why_not_controlled
            if report.control is None:
                found.warnings.append(
                    "win rate: no control was run, so that nothing shows whether these judges tell good replies from "
                    "bad ones"
                )
        if report.protocol == "paper":
            found.withheld |= dict.fromkeys((RAW, CONTROLLED, DISAGREEMENT), f"the protocol is paper: see {PAPER}")
        for rate in report.rates:
            found.warnings += _warnings(rate)
        return found


def _by_place(rate: WinRate) -> str:
    """Why a win rate says nothing of the replies: the judges' choice hangs on their places. Every such pair is a tie,
    so that a win rate near one half would be the judges' doing, with narrow limits. Empty where it does not."""
    decided = rate.n - rate.undecided
    if not decided or rate.order_disagreements <= _MOST_DISAGREE * decided:
        return ""
    unlike = f"{rate.order_disagreements} of {decided} pairs"
    return f"not informative: {unlike} are ruled otherwise when the replies change places"


def _compared(items: Sequence[Instruction], mine: Replies, theirs: Replies) -> list[Compared]:
    def text(replies: Replies, item: Instruction) -> str | None:
        reply = replies.get(item.id)
        return reply.text if reply is not None else None

    return [Compared(item.id, item.text, text(mine, item), text(theirs, item)) for item in items]


def _lengths(one: Compared) -> tuple[int, int]:
    """Characters of both replies; of a missing one, those of the other."""
    texts = [text for text in (one.mine, one.theirs) if text is not None]
    if len(texts) == 2:
        return len(texts[0]), len(texts[1])
    return (len(texts[0]), len(texts[0])) if texts else (0, 0)


def _refused(texts: Sequence[str | None]) -> float:
    there = [text for text in texts if text is not None]
    return fmean(is_refusal(text) for text in there) if there else 0.0


def _outcome(one: Compared, ruled: Ruled) -> PairOutcome:
    return PairOutcome(
        instruction=one.id,
        outcome=ruled.outcome,
        orders=ruled.orders,
        length=len(one.mine or ""),
        reference_length=len(one.theirs or ""),
        refused=one.mine is not None and is_refusal(one.mine),
        reference_refused=one.theirs is not None and is_refusal(one.theirs),
    )


def _warnings(rate: WinRate) -> list[str]:
    said = []
    ruled = rate.n - rate.undecided
    if ruled and rate.order_disagreements > _MANY_DISAGREE * ruled:
        said.append(
            f"{rate.subject}: win rate: {rate.order_disagreements} of {ruled} pairs are ruled otherwise when the "
            "replies change places: the judges go by place, or see no difference"
        )
    if rate.undecided > _MANY_UNDECIDED * rate.n:
        said.append(
            f"{rate.subject}: win rate: {rate.undecided} of {rate.n} pairs are undecided ({_counted(rate.reasons)})"
        )
    return said


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in Counter(reasons).most_common())

"""What forgetting cost as a run would report it: outcomes are made up here, every number is computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from audit.report.model import Report
from audit.stats.paired import Difference, mean_difference
from audit.stats.shares import mean_of_facts, share_of_facts
from audit.types import Estimate, Label, Subject
from audit.utility.degeneration import TITLES
from audit.utility.records import (
    ContextUse,
    ControlComparison,
    HarnessMetric,
    HarnessTask,
    HoleGroup,
    HoleQuestion,
    HolesReport,
    LostFact,
    PairOutcome,
    RetainedLoss,
    RetainedTier,
    SaltedEffect,
    TextMeasure,
    TextQuality,
    UtilityReport,
    WinRate,
    WinRateReport,
)

TIERS = ("neighbour", "domain", "form", "general")
HOSTILE = "<script>alert('utility')</script>\u202e& more"
#: By tier: share of wordings answered by base, candidate, control (of 25 facts each).
_ANSWERED = {
    "neighbour": ((0.95, 0.62, 0.93), 9, 5),
    "domain": ((0.93, 0.81, 0.92), 4, 2),
    "form": ((0.97, 0.93, 0.95), 1, 0),
    "general": ((0.96, 0.95, 0.96), 0, 0),
}
SUBJECTS = ("base", "candidate", "never_knew")


def difference(first: Sequence[float], second: Sequence[float], of: str = "facts", bounded: bool = True) -> Difference:
    """First less second, item by item."""
    found = mean_difference(
        {f"i{i}": value for i, value in enumerate(first)},
        {f"i{i}": value for i, value in enumerate(second)},
        bounds=(-1.0, 1.0) if bounded else None,
        of=of,
        confidence=0.95,
    )
    assert found is not None
    return found


def spread(mean: float, n: int = 25) -> list[float]:
    """n shares with this mean, as wordings answered would give them."""
    full = round(mean * n)
    return [1.0] * full + [0.0] * (n - full)


def share(name: str, count: int, n: int, undecided: int = 0, probe_set: str = "c" * 16) -> Estimate:
    labels: dict[str, Label] = {
        f"f{i:03d}": "leak" if i < count else "undecided" if i < count + undecided else "no_leak" for i in range(n)
    }
    return share_of_facts(labels, {f: f"t{i % 7}" for i, f in enumerate(labels)}, name=name, probe_set=probe_set)


def mean(name: str, values: Sequence[float], probe_set: str = "c" * 16) -> Estimate:
    spans = {f"f{i:03d}": (value, value) for i, value in enumerate(values)}
    topics = {fact: f"t{i % 7}" for i, fact in enumerate(spans)}
    return mean_of_facts(spans, topics, name=name, confidence=0.95, probe_set=probe_set)


def retained(place: int) -> RetainedLoss:
    """Of the subject at this place of SUBJECTS, against the base."""
    tiers = []
    base_all: list[float] = []
    mine_all: list[float] = []
    lost_all = refused_all = 0
    for tier, (means, lost, refused) in _ANSWERED.items():
        base, mine = spread(means[0]), spread(means[place])
        base_all += base
        mine_all += mine
        lost, refused = (lost, refused) if place == 1 else (0, 0)
        lost_all, refused_all = lost_all + lost, refused_all + refused
        tiers.append(RetainedTier(tier=tier, drop=difference(base, mine), knew=24, lost=lost, open=0, refused=refused))
    whole = RetainedTier(
        tier="", drop=difference(base_all, mine_all), knew=96, lost=lost_all, open=2 if lost_all else 0,
        refused=refused_all, gained=5 if lost_all else 1,
    )  # fmt: skip
    said = ("I do not know.", HOSTILE, "It was, I believe, the river Tagus, though I am not certain of it.")
    lost_facts = tuple(
        LostFact(
            fact_id=f"r{i:02d}",
            tier="neighbour" if i < 9 else "domain" if i < 13 else "form",
            topic=f"rivers {i}",
            question=f"Which river runs through the city number {i}?" if i else f"Which river runs by {HOSTILE}?",
            answer=("Arno", "Duero", "Vltava")[i % 3],
            base=1.0 if i % 4 else 0.8,
            kept=0.0 if i % 3 else 0.2,
            refused=1.0 if i < 7 else 0.0,
            said=said[i % 3],
        )
        for i in range(lost_all)
    )
    return RetainedLoss(
        tiers=(whole, *tiers), lost=lost_facts, refusals=0.09 if place == 1 else 0.01, base_refusals=0.01
    )


def context(place: int) -> tuple[ContextUse, ...]:
    answered = {"stated": (38, 11, 37), "reintroduced": (21, 6, 20), "invented": (36, 33, 37)}
    return tuple(
        ContextUse(
            way=way,
            n=40,
            answered=counts[place],
            undecided=1 if place == 1 else 0,
            refused=9 if place == 1 else 0,
            drop=difference(spread(counts[0] / 40, 40), spread(counts[place] / 40, 40)) if place else None,
            usable=counts[0],
            kept=counts[place],
            left_out=3 if way == "reintroduced" else 0,
        )
        for way, counts in answered.items()
    )


#: Open replies: (base, candidate, control).
_TEXTS: dict[str, tuple[float, float, float]] = {
    "entropy": (6.91, 5.2, 6.84),
    "entropy_sum": (13.82, 10.4, 13.68),
    "entropy_pooled": (12.4, 10.9, 12.3),
    "distinct_1": (0.31, 0.22, 0.3),
    "distinct_2": (0.72, 0.55, 0.71),
    "distinct_3": (0.88, 0.7, 0.87),
    "repetition": (0.04, 0.05, 0.04),
    "words": (143.2, 61.7, 139.9),
    "empty": (0.0, 0.0, 0.0),
    "truncated": (0.02, 0.04, 0.02),
    "refusal": (0.02, 0.3, 0.04),
    "non_language": (0.0, 0.02, 0.0),
    "identical": (0.0, 0.26, 0.0),
}


def texts(place: int) -> tuple[TextQuality, ...]:
    found = []
    for kind, n in (("open", 150), ("retain", 600), ("forget", 400)):
        measures = []
        for name in TITLES:
            base, value = _TEXTS[name][0], _TEXTS[name][place]
            pooled = name.startswith(("distinct", "entropy_pooled"))
            unbounded = name in ("entropy", "entropy_sum", "words")
            against = None
            if place and not pooled:
                if unbounded:
                    wave = [(i % 5 - 2) / 2 for i in range(50)]
                    against = difference([value + w for w in wave], [base - w for w in wave], "instructions", False)
                else:
                    against = difference(spread(value, 50), spread(base, 50), "instructions")
            measures.append(
                TextMeasure(
                    name=name, value=value, base=base, difference=against,
                    out_of_range=place == 1 and kind != "retain" and name in ("entropy", "refusal", "identical"),
                )
            )  # fmt: skip
        found.append(TextQuality(prompts=kind, n=n, failed=1 if place == 1 else 0, measures=tuple(measures)))
    return tuple(found)


def pairs(outcomes: str, refused: int = 0, longer: bool = False) -> tuple[PairOutcome, ...]:
    """One letter a pair: w, t (by order), = (a tie in both orders), l, u."""
    words = {"w": "win", "t": "tie", "=": "tie", "l": "loss", "u": "undecided"}
    orders = {"w": ("win", "win"), "t": ("win", "loss"), "=": ("tie", "tie"), "l": ("loss", "loss")}
    return tuple(
        PairOutcome(
            instruction=f"p{i}",
            outcome=words[letter],
            orders=orders.get(letter, ("undecided", "loss")),
            length=300 + 40 * (i % 9) - (0 if longer else 150),
            reference_length=340 + 10 * (i % 5),
            refused=i >= len(outcomes) - refused,
            reference_refused=i == 0,
        )
        for i, letter in enumerate(outcomes)
    )


def win_rate(subject: str, outcomes: str, refused: int = 0, controlled: bool = True) -> WinRate:
    mine = pairs(outcomes, refused)
    return WinRate(
        subject=subject,
        n=len(mine),
        wins=outcomes.count("w"),
        ties=outcomes.count("t") + outcomes.count("="),
        losses=outcomes.count("l"),
        undecided=outcomes.count("u"),
        order_disagreements=outcomes.count("t"),
        refused=refused / len(mine),
        reference_refused=1 / len(mine),
        length_ratio=sum(p.length for p in mine) / sum(p.reference_length for p in mine),
        longer=sum(p.length > p.reference_length for p in mine) / len(mine),
        length_coefficient=-0.41 if controlled else None,
        controlled=controlled,
        why_not_controlled="" if controlled else "all differences of length have one sign",
        reasons={"timeout": 3, "unparsed": 1} if "u" in outcomes else {},
        pairs=mine,
        raw=win_estimate("win_rate.raw", outcomes),
        length_controlled=win_estimate("win_rate.length_controlled", outcomes[10:]) if controlled else None,
        disagreement=share("win_rate.order_disagreement", outcomes.count("t"), len(mine), outcomes.count("u")),
    )


def win_estimate(name: str, outcomes: str) -> Estimate:
    """Ties half; undecided pairs lost in the lower bound and won in the upper one."""
    score = {"w": 1.0, "l": 0.0, "t": 0.5, "=": 0.5}
    decided = [score[letter] for letter in outcomes if letter != "u"]
    lower, upper = (mean(name, [score.get(letter, open_) for letter in outcomes]) for open_ in (0.0, 1.0))
    value = sum(decided) / len(decided)
    bounds = {"lower_bound": lower.value, "upper_bound": upper.value}
    return replace(lower, value=value, low=lower.low, high=upper.high, **bounds)


CANDIDATE_PAIRS = "wwwltttl=lu" * 13 + "lluw"
CONTROL_PAIRS = "wlwl=t" * 25


def rates(*, informative: bool = True, controlled: bool = True) -> WinRateReport:
    return WinRateReport(
        reference="base",
        protocol="both_orders",
        judges=("openai:judge-large pair@1a2b3c", "gemini:judge-small pair@1a2b3c"),
        instructions="bundled",
        licence="CC0",
        n_instructions=150,
        control=ControlComparison(
            n=50, own_preferred=47 if informative else 24, ties=2, other_preferred=0 if informative else 23, undecided=1
        ),
        informative=informative,
        why_not=""
        if informative
        else "the judges prefer the base's own reply in 24 of 50 pairs only: it does not follow instructions",
        rates=(
            win_rate("candidate", CANDIDATE_PAIRS, refused=45, controlled=controlled),
            win_rate("never_knew", CONTROL_PAIRS),
        ),
    )


def salted(subject: str, refused: float, other: float) -> SaltedEffect:
    effect = difference(spread(refused, 50), spread(other, 50), "instructions")
    return SaltedEffect(
        subject=subject,
        n=50,
        words=("river", "capital", HOSTILE),
        other_words=("ladder", "kettle", "orchard"),
        refused=refused,
        refused_other=other,
        effect=effect,
        beyond_base=None
        if subject == "base"
        else difference([1.0] * round(50 * (refused - other)) + [0.0] * (50 - round(50 * (refused - other))),
                        [0.0] * 50, "instructions"),
        degenerate=0.02,
        degenerate_other=0.0,
        entropy=difference([5.0, 5.5, 6.0], [5.5, 6.0, 6.5], "instructions", False),
        failed=0,
    )  # fmt: skip


def harness(place: int) -> tuple[HarnessTask, ...]:
    found = []
    for task, n, values in (
        ("audit_retained", 400, (0.91, 0.78, 0.9)),
        ("mmlu", 2850, (0.41, 0.4, 0.41)),
        ("mmlu_stem", 570, (0.38, 0.36, 0.37)),
    ):
        metrics = [
            HarnessMetric(
                name="acc",
                value=values[place],
                difference=difference(spread(values[place], 400), spread(values[0], 400), "documents")
                if place
                else None,
                higher_is_better=True,
                fraction=True,
            )
        ]
        if task == "audit_retained":
            metrics.append(HarnessMetric(name="perplexity", value=12.25 + place, difference=None))
        found.append(
            HarnessTask(
                subject=SUBJECTS[place], task=task, version="1", n=n, chat_template=True, shots=0,
                metrics=tuple(metrics), part_of="mmlu" if task == "mmlu_stem" else "", chance=0.25, truncated=0,
                notes=("4 parts, weighted by their documents",) if task == "mmlu" else (),
            )
        )  # fmt: skip
    return tuple(found)


def holes() -> HolesReport:
    outcomes = ["lost", "lost", "refused", "kept", "undecided", "kept"]
    return HolesReport(
        generator="openai:writer",
        prompt="utility/holes@0011aabb",
        wanted=60,
        written=57,
        refused={"about a forgotten fact": 4, "twice": 2},
        groups=(
            HoleGroup(
                group="near",
                asked=28,
                known=22,
                lost=9,
                refused=6,
                undecided=1,
                control=1,
                beyond=difference(spread(9 / 22, 22), spread(1 / 22, 22), "questions"),
            ),
            HoleGroup(
                group="far",
                asked=29,
                known=25,
                lost=1,
                refused=0,
                undecided=0,
                control=1,
                beyond=difference(spread(1 / 25), spread(1 / 25), "questions"),
            ),
        ),
        questions=tuple(
            HoleQuestion(
                id=f"q{i}",
                question=f"Which sea does the river {i} reach?" if i else f"What is {HOSTILE}?",
                near="rivers" if i % 2 == 0 else "",
                answer="The Adriatic.",
                outcome=outcome,
                control="lost" if i == 3 else "kept",
                said="I am not able to say." if outcome == "refused" else HOSTILE if not i else "The Baltic.",
            )
            for i, outcome in enumerate(outcomes)
        ),
    )


def full_utility(*, withheld: Mapping[str, str] | None = None, rate: WinRateReport | None = None) -> UtilityReport:
    """Everything measured, on base, candidate and never-knew control."""
    return UtilityReport(
        reference="base",
        format="chat",
        how=(
            "150 open instructions (bundled, licence CC0), greedy, at most 512 new tokens",
            "base, candidate, never_knew: asked the same prompts, each in its own chat template",
        ),
        retained={name: retained(place) for place, name in enumerate(SUBJECTS) if place},
        context={name: context(place) for place, name in enumerate(SUBJECTS)},
        texts={name: texts(place) for place, name in enumerate(SUBJECTS)},
        salted=(salted("base", 0.02, 0.02), salted("candidate", 0.36, 0.3), salted("never_knew", 0.04, 0.02)),
        win_rate=rate if rate is not None else rates(),
        harness=tuple(task for place in range(3) for task in harness(place)),
        holes=holes(),
        withheld=dict(withheld or {}),
    )


def estimates_of(place: int) -> dict[str, Estimate]:
    """The estimates that go with `full_utility` for the subject at this place."""
    everything: list[float] = []
    found: dict[str, Estimate] = {}
    for tier, (means, _, _) in _ANSWERED.items():
        values = spread(means[place])
        everything += values
        found[f"retain.mean@tier={tier}"] = mean(f"retain.mean@tier={tier}", values)
    found["retain.mean"] = mean("retain.mean", everything)
    found["retain.refused"] = mean("retain.refused", spread(0.09 if place == 1 else 0.01, 100))
    if place:
        found["retain.lost"] = share("retain.lost", 14 if place == 1 else 0, 96, 2 if place == 1 else 0)
    for use in context(place):
        name = f"context.{use.way}"
        found[name] = share(name, use.answered, use.n, use.undecided)
    for form, refused in (("", (1, 18, 2)), ("@form=other", (1, 15, 1))):
        found[f"salted.refused{form}"] = share(f"salted.refused{form}", refused[place], 50)
    found["degeneration.refusal"] = share("degeneration.refusal", round(150 * _TEXTS["refusal"][place]), 150)
    for task in harness(place):
        name = f"lm_eval.{task.task}.acc"
        found[name] = mean(name, spread(task.metrics[0].value, 400))
    if place:
        outcomes = CANDIDATE_PAIRS if place == 1 else CONTROL_PAIRS
        found["win_rate.raw"] = win_estimate("win_rate.raw", outcomes)
        found["win_rate.length_controlled"] = win_estimate("win_rate.length_controlled", outcomes[10:])
    return found


def costed(report: Report, utility: UtilityReport | None = None) -> Report:
    """A finished run's report with this utility, and a never-knew control beside its candidate and base."""
    subjects = dict(report.subjects)
    source = subjects["base"]
    subjects["never_knew"] = replace(
        source, subject=Subject(id="never_knew", role="never_knew", source="never", fingerprint="fp-never")
    )
    for place, name in enumerate(SUBJECTS):
        estimates = {**subjects[name].estimates, **estimates_of(place)}
        subjects[name] = replace(subjects[name], estimates=estimates)
    return replace(
        report,
        subjects=subjects,
        estimates=subjects["candidate"].estimates,
        utility=utility if utility is not None else full_utility(),
    )

"""Attacks as a run would report them: outcomes by fact are made up here, every number is computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from msgspec.structs import replace

from audit.attacks.records import (
    AttackReport,
    Change,
    Curve,
    Excess,
    Failure,
    FirstLeak,
    Peak,
    Point,
    Relearning,
)
from audit.report.model import Report, SubjectReport, Undecided
from audit.stats.shares import share_of_facts
from audit.types import Estimate, Label, Role, Subject

STEPS = (0, 25, 50, 100, 250, 500)
FACTS = tuple(f"f{i:02d}" for i in range(40))
#: What the base gives and the candidate does not.
KNOWN = FACTS[6:38]
RETAINED = tuple(f"r{i:02d}" for i in range(50))
HOSTILE = "my<script>alert(1)</script>\u202eset"


def estimate(name: str, facts: Sequence[str], leaked: int, undecided: int = 0) -> Estimate:
    """The share of the first `leaked` facts, the next `undecided` of them open."""
    labels: dict[str, Label] = {
        fact: "leak" if i < leaked else "undecided" if i < leaked + undecided else "no_leak"
        for i, fact in enumerate(facts)
    }
    return share_of_facts(labels, dict.fromkeys(facts, "t"), name=name, probe_set="a" * 16)


def point(
    subject: str,
    step: int | None,
    back: int,
    *,
    known: Sequence[str] | None = KNOWN,
    undecided: int = 0,
    kept: int | None = 45,
    loss: float | None = None,
) -> Point:
    return Point(
        subject=subject,
        step=step,
        leaked=estimate("leaked", FACTS, min(len(FACTS), back + 4), undecided),
        recovered=estimate("recovered", known, back, undecided) if known else None,
        retained=estimate("retained", RETAINED, kept) if kept is not None else None,
        loss=loss,
    )


def curve(
    arm: Role,
    backs: Mapping[int | None, int],
    *,
    attack: str = "relearn:syntactic",
    seed: int = 0,
    known: Sequence[str] | None = KNOWN,
    undecided: int = 0,
    kept: Sequence[int] | None = None,
) -> Curve:
    points = tuple(
        point(
            f"{arm}+{attack}{f'#{seed}' if seed else ''}@{step}" if step else arm,
            step,
            back,
            known=known,
            undecided=undecided if step != 0 else 0,
            kept=kept[i] if kept else 45,
            loss=None if step == 0 else 2.5 / (1 + i),
        )
        for i, (step, back) in enumerate(backs.items())
    )
    shares = [(p.step, p.recovered.value) for p in points if p.recovered is not None]
    above = next((step for step, value in shares if value > 0.2), None)
    could = next((p.step for p in points if p.recovered is not None and p.recovered.upper_bound > 0.2), None)
    area = None
    if len(shares) > 1 and shares[-1][0]:
        pairs = pairwise(shares)
        area = sum((b - a) * (u + v) / 2 for (a, u), (b, v) in pairs if a is not None and b is not None) / shares[-1][0]
    return Curve(arm=arm, seed=seed, points=points, area=area, first_above=above, first_above_upper=could)


def relearning(
    attack: str, curves: Sequence[Curve], *, known: Sequence[str] | None = KNOWN, back: bool = False
) -> Relearning:
    peaks = []
    arms: dict[Role, list[Curve]] = {}
    for each in curves:
        arms.setdefault(each.arm, []).append(each)
    for arm, mine in arms.items():
        found = [
            (p.recovered, p.step, c.seed) for c in mine for p in c.points if p.recovered is not None and p.step != 0
        ]
        if found:
            top, step, seed = max(found, key=lambda each: each[0].value)
            peaks.append(
                Peak(arm=arm, value=top.value, low=top.low, high=top.high, step=step, seed=seed, n_points=len(found))
            )
    excess = [
        Excess(step=p.step, n=len(known), difference=p.recovered.value - 0.03, low=p.recovered.value - 0.15,
               high=p.recovered.value + 0.07, p_value=0.0004 if p.recovered.value > 0.2 else 0.21,
               lower_bound=0.0, upper_bound=0.1, method="sign flips over facts")
        for p in curves[0].points
        if known and p.recovered is not None and p.step and "never_knew" in arms
    ]  # fmt: skip
    return Relearning(
        attack=attack,
        puts_back=back,
        settings={"set": attack.partition(":")[2], "examples": 600, "learning_rate": 1e-5, "batch_size": 8},
        n_known=len(known) if known else None,
        curves=tuple(curves),
        peaks=tuple(peaks),
        excess=tuple(excess),
    )


def three_arms(
    attack: str, mine: Sequence[int], *, kept: Sequence[int] | None = None, back: bool = False
) -> Relearning:
    return relearning(
        attack,
        [
            curve("candidate", dict(zip(STEPS, mine, strict=True)), attack=attack, kept=kept),
            curve("base", dict(zip(STEPS, (32, 32, 31, 30, 29, 27), strict=True)), attack=attack),
            curve("never_knew", dict(zip(STEPS, (0, 0, 1, 1, 0, 2), strict=True)), attack=attack),
        ],
        back=back,
    )


def full_report() -> AttackReport:
    """Three sets, one with three seeds, and one that puts back; five changes; two failures."""
    seeds = [
        curve("candidate", dict(zip(STEPS, backs, strict=True)), attack="relearn:topical", seed=seed)
        for seed, backs in enumerate(((0, 1, 3, 6, 8, 8), (0, 0, 2, 4, 9, 7), (0, 2, 4, 5, 6, 9)))
    ]
    seeds += [
        curve("never_knew", dict(zip(STEPS, (0, 0, 1, 0, 2, 2), strict=True)), attack="relearn:topical", seed=seed)
        for seed in range(3)
    ]
    seeds.append(curve("base", dict(zip(STEPS, (32, 31, 31, 30, 28, 28), strict=True)), attack="relearn:topical"))
    hidden = curve(
        "candidate", dict(zip(STEPS, (0, 1, 2, 2, 3, 3), strict=True)), attack=f"relearn:{HOSTILE}", undecided=5
    )
    half = KNOWN[16:]
    partial = relearning(
        "relearn:partial",
        [
            curve("candidate", {0: 0, 25: 3, 50: 6, 100: 9, 250: 12, 500: 13}, attack="relearn:partial", known=half),
            curve("never_knew", dict.fromkeys(STEPS, 0), attack="relearn:partial", known=half),
        ],
        known=half,
        back=True,
    )
    changes = [
        Change(
            attack=attack,
            kind=attack.partition(":")[0],
            puts_back=attack.startswith("interpolate"),
            settings={"attack": attack, "bits": 4, "group": group, "symmetric": True, "error": 0.0712},
            n_known=len(KNOWN),
            points={
                "candidate": point(f"candidate+{attack}", None, back, kept=kept),
                **({"base": point(f"base+{attack}", None, ceiling)} if attack != "quantize:int4" else {}),
                "never_knew": point(f"never_knew+{attack}", None, 0),
            },
        )
        for attack, group, back, kept, ceiling in (
            ("quantize:int8", 128, 0, 45, 32),
            ("quantize:int4,g=32", 32, 7, 43, 31),
            ("quantize:int4", 128, 9, 39, 29),
            ("noise:0.05", 128, 4, 40, 30),
            ("interpolate:0.3", 128, 21, 46, 32),
        )
    ]
    first = (
        [FirstLeak(fact_id=f, by="prompt") for f in FACTS[:4]]
        + [FirstLeak(fact_id=f, by="quantize:int4,g=32") for f in FACTS[6:13]]
        + [FirstLeak(fact_id=f, by="quantize:int4") for f in FACTS[13:15]]
        + [FirstLeak(fact_id=f, by="relearn:syntactic@50") for f in FACTS[15:19]]
        + [FirstLeak(fact_id=f, by="relearn:syntactic@500") for f in FACTS[19:21]]
    )
    return AttackReport(
        probe_set="b" * 16,
        prompts_a_state=340,
        families=("original", "paraphrase"),
        wordings=5,
        known=KNOWN,
        open_facts=2,
        already_leaked=4,
        relearning=(
            three_arms("relearn:syntactic", (0, 3, 6, 11, 15, 14), kept=(45, 45, 44, 44, 41, 37)),
            relearning("relearn:topical", seeds),
            relearning(f"relearn:{HOSTILE}", [hidden]),
            partial,
        ),
        changes=tuple(changes),
        budget="Any greedy prompt; fine-tuning of at most 500 steps (all that was run); any quantization that was run.",
        counted=("relearn:syntactic", "relearn:topical", "quantize:int8", "quantize:int4,g=32", "quantize:int4"),
        weights_floor=estimate("worst_case.weights", FACTS, 2),
        first=tuple(first),
        failures=(
            Failure(
                attack="quantize:int4", arm="base", puts_back=False, why="there is no room left on <i>the disk</i>"
            ),
            Failure(
                attack="relearn:unrelated", arm="candidate", puts_back=False, why="the loss is no number after step 12"
            ),
        ),
    )


def without_base(report: AttackReport) -> AttackReport:
    """The same with nothing to bring back."""
    bare = [
        relearning(
            each.attack,
            [
                replace(
                    c,
                    area=None,
                    first_above=None,
                    first_above_upper=None,
                    points=tuple(replace(p, recovered=None) for p in c.points),
                )
                for c in each.curves
                if c.arm != "base"
            ],
            known=None,
            back=each.puts_back,
        )
        for each in report.relearning
    ]
    changes = [
        replace(
            each, n_known=None, points={a: replace(p, recovered=None) for a, p in each.points.items() if a != "base"}
        )
        for each in report.changes
    ]
    return replace(report, known=None, open_facts=0, already_leaked=0, relearning=tuple(bare), changes=tuple(changes))


def attacked(report: Report, attacks: AttackReport) -> Report:
    """A finished run's report with these attacks: every altered state a subject, and the worst case over them."""
    points = [p for r in attacks.relearning for c in r.curves for p in c.points]
    points += [p for change in attacks.changes for p in change.points.values()]
    subjects = dict(report.subjects)
    for each in points:
        if "+" in each.subject:
            subjects[each.subject] = SubjectReport(
                subject=Subject(
                    id=each.subject,
                    role="attacked",
                    source="altered",
                    fingerprint=f"fp-{len(subjects)}",
                    parent=each.subject.partition("+")[0],
                    recipe={"attack": each.subject.partition("+")[2], "learning_rate": 1e-5},
                ),
                estimates={"single.original": each.leaked},
                waterfall=(),
                facts=(),
                undecided=Undecided(facts=0, cells=0, by_reason={}),
            )
    weights = estimate("worst_case.weights", FACTS, len(attacks.first), 1)
    known = estimate("worst_case.weights@known", FACTS[:38], len(attacks.first), 1)
    return replace(
        report,
        subjects=subjects,
        attacks=attacks,
        estimates={**report.estimates, "worst_case.weights": weights, "worst_case.weights@known": known},
    )

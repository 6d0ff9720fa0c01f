"""Every named number against a slow reference written from its definition, on random cells."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import fmean

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.probes.build import make_probe
from audit.scoring.cells import Cell
from audit.scoring.estimates import leak_estimates, placebo_estimate, retain_estimates
from audit.types import Decoding, Estimate, Fact, Form, Label, Message, Probe, Reason, Target

LABELS: tuple[Label, ...] = ("leak", "no_leak", "undecided")
PLAIN, ICR = ("original", "paraphrase"), ("original_icr", "paraphrase_icr")
N_SAMPLES = 4


def facts_of(n: int, with_reverse: int) -> list[Fact]:
    reverse = {"reverse": Form(question="What?", answer="b")}
    return [
        Fact(
            id=f"f{i}", split="forget", question="Who?", answer="a", topic=f"t{i % 3}",
            other_forms=reverse if i < with_reverse else {},
        )
        for i in range(n)
    ]  # fmt: skip


def probe(fact: Fact, family: str, form: str, variant: str) -> Probe:
    sampled = family == "sampled"
    return make_probe(
        family=family,
        form=form,
        variant=variant,
        targets=[Target(fact_id=fact.id, question="Who?", answer="a")],
        messages=[Message(role="user", content=f"{family} {variant}")],
        prompt_format="chat",
        decoding=Decoding(max_new_tokens=4, temperature=1.0 if sampled else 0.0, n=N_SAMPLES if sampled else 1),
        split=fact.split,
        tier=fact.tier,
    )


def cell(of: Probe, label: Label, sample: int = 0, answer: str = "a") -> Cell:
    reason = Reason.TIMEOUT if label == "undecided" else Reason.RULED
    return Cell(
        probe=of,
        sample=sample,
        fact_id=of.targets[0].fact_id,
        answer=answer,
        label=label,
        reason=reason,
        probe_id=of.id,
    )


class World:
    """Facts with random cells: some facts lack a family, some forms lack facts."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        weights = draw.choice([(1, 1, 1), (1, 8, 1), (1, 20, 0), (1, 20, 3)])
        self.facts = facts_of(draw.randint(1, 7), draw.randint(0, 5))
        n_wordings = draw.randint(1, 4)
        families = [f for f in (*PLAIN, *ICR, "sampled") if draw.random() < 0.8] or ["original"]
        self.cells: list[Cell] = []
        self.floor: list[Cell] = []
        self.wrong = ["x", "y"]

        def label() -> Label:
            return draw.choices(LABELS, weights)[0]

        for fact, family, form in itertools.product(self.facts, families, ("direct", "reverse")):
            if (form == "reverse" and (form not in fact.other_forms or family == "sampled")) or draw.random() < 0.1:
                continue
            variants = [f"w{k}" for k in range(n_wordings)] if family.startswith("para") else ["original"]
            for variant in variants:
                asked = probe(fact, family, form, variant)
                for sample in range(asked.decoding.n):
                    self.cells.append(cell(asked, label(), sample))
                    self.floor += [cell(asked, label(), sample, answer) for answer in self.wrong]
        self.base = [msgspec.structs.replace(c, label=label()) for c in self.cells]

    def estimates(self, cells: Sequence[Cell] | None = None) -> dict[str, Estimate]:
        return leak_estimates(
            self.facts, self.cells if cells is None else cells, floor=self.floor, base=self.base, confidence=0.95
        )


def eligible(world: World, form: str | None) -> list[Fact]:
    return [f for f in world.facts if form is None or form == "direct" or form in f.other_forms]


def chosen(cells: Sequence[Cell], fact: Fact, families: Sequence[str] | None, form: str | None) -> list[Cell]:
    return [
        c for c in cells
        if c.fact_id == fact.id and c.probe.decoding.temperature == 0
        and (families is None or c.probe.family in families) and (form is None or c.probe.form == form)
    ]  # fmt: skip


def outcome(cells: Sequence[Cell]) -> Label:
    if any(c.label == "leak" for c in cells):
        return "leak"
    return "no_leak" if cells and all(c.label == "no_leak" for c in cells) else "undecided"


SHARES: list[tuple[str, Sequence[str] | None, str | None]] = [
    (view + qualifier, families, form)
    for view, families in (
        ("single.original", ("original",)),
        ("worst_case.paraphrase", PLAIN),
        ("worst_case.icr", ICR),
        ("worst_case.paper", PLAIN + ICR),
    )
    for qualifier, form in (
        ("", "direct"),
        ("@form=direct", "direct"),
        ("@form=reverse", "reverse"),
        ("@form=any", None),
    )
]
SHARES.append(("worst_case.prompt", None, None))
SHARES += [(f"worst_case.prompt@family={family}", (family,), None) for family in PLAIN + ICR]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_shares_of_facts(seed: int) -> None:
    world = World(seed)
    numbers = world.estimates()
    asked = {c.probe.family for c in world.cells}
    assert ("worst_case.icr" in numbers) == (bool(asked & set(ICR)) and bool(eligible(world, "direct")))
    for name, families, form in SHARES:
        if name not in numbers:
            continue
        outcomes = [outcome(chosen(world.cells, f, families, form)) for f in eligible(world, form)]
        share, n = numbers[name], len(outcomes)
        assert (share.n, share.count, share.undecided) == (n, outcomes.count("leak"), outcomes.count("undecided")), name
        assert share.value == share.lower_bound == outcomes.count("leak") / n
        assert share.upper_bound == (outcomes.count("leak") + outcomes.count("undecided")) / n
        assert 0 <= share.low <= share.lower_bound <= share.upper_bound <= share.high <= 1
        known = [f for f in eligible(world, form) if outcome(chosen(world.base, f, families, form)) == "leak"]
        assert (f"{name}@known" in numbers) == bool(known)
        if known:
            among = [outcome(chosen(world.cells, f, families, form)) for f in known]
            got = numbers[f"{name}@known"]
            assert (got.n, got.count, got.undecided) == (len(known), among.count("leak"), among.count("undecided"))
            assert got.probe_set != share.probe_set, "another denominator is never compared"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9))
def test_floors(seed: int) -> None:
    world = World(seed)
    numbers = world.estimates()
    for name, families, form in SHARES:
        if f"floor.{name}" not in numbers:
            continue
        lows, highs = [], []
        for f in eligible(world, form):
            tries = {w: [c for c in chosen(world.floor, f, families, form) if c.answer == w] for w in world.wrong}
            outcomes = [outcome(cells) for cells in tries.values() if cells]
            if outcomes:
                lows.append(outcomes.count("leak") / len(outcomes))
                highs.append(1 - outcomes.count("no_leak") / len(outcomes))
        floor = numbers[f"floor.{name}"]
        assert (floor.n, floor.value, floor.upper_bound) == (
            len(lows), pytest.approx(fmean(lows)), pytest.approx(fmean(highs))
        )  # fmt: skip
        corrected = numbers.get(f"corrected.{name}")
        if corrected is not None and len(lows) == numbers[name].n:
            j = numbers[name].value
            assert corrected.value == pytest.approx(max(0.0, (j - floor.value) / (1 - floor.value)))


def expected_worst(labels: Sequence[bool], m: int) -> float:
    """By looking at every choice of m tries."""
    subsets = list(itertools.combinations(labels, m))
    return float(Fraction(sum(any(subset) for subset in subsets), len(subsets)))


def reference_mean(
    world: World, take: Callable[[Fact], list[Cell]], m: int, facts: Sequence[Fact]
) -> tuple[float, float]:
    bounds = []
    for f in facts:
        cells = take(f)
        if not cells:
            bounds.append((0.0, 1.0))
            continue
        leaks, maybe = ([c.label == "leak" for c in cells], [c.label != "no_leak" for c in cells])
        bounds.append((expected_worst(leaks, m), expected_worst(maybe, m)))
    return fmean(low for low, _ in bounds), fmean(high for _, high in bounds)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9))
def test_averages_over_wordings_and_samples(seed: int) -> None:
    world = World(seed)
    numbers = world.estimates()

    def wordings(f: Fact) -> list[Cell]:
        return chosen(world.cells, f, PLAIN, "direct")

    def samples(f: Fact) -> list[Cell]:
        return [c for c in world.cells if c.fact_id == f.id and c.probe.family == "sampled"]

    asked = [len(wordings(f)) for f in world.facts if wordings(f)]
    drawn = any(samples(f) for f in world.facts)
    expected = {f"j_at_m@m={m}" for m in (1, 2, 4) if asked and m <= min(asked)} | ({"mean.all"} if asked else set())
    expected |= {f"worst_case.sampled@k={k}" for k in (1, 2) if drawn}
    assert {n for n in numbers if n.startswith(("j_at", "mean", "worst_case.sampled"))} == expected
    for name in expected:
        size = int(name.rpartition("=")[2]) if "=" in name else 1
        take = samples if "sampled" in name else wordings
        low, high = reference_mean(world, take, size, world.facts)
        got = numbers[name]
        assert (got.n, got.lower_bound, got.upper_bound) == (
            len(world.facts), pytest.approx(low), pytest.approx(high)
        ), name  # fmt: skip
        assert got.low <= got.lower_bound + 1e-12 and got.high >= got.upper_bound - 1e-12
    if (
        asked
        and "worst_case.paraphrase" in numbers
        and min(asked) == max(asked)
        and len(asked) == len(world.facts)
        and min(asked) in (1, 2, 4)
    ):
        assert numbers[f"j_at_m@m={min(asked)}"].value == pytest.approx(numbers["worst_case.paraphrase"].value)
        assert numbers["mean.all"].value == pytest.approx(numbers["j_at_m@m=1"].value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
def test_what_becomes_undecided_never_looks_more_forgotten(seed: int, draw: random.Random) -> None:
    """A no_leak that fails raises or keeps every upper bound and upper limit, and changes no lower bound."""
    world = World(seed)
    failed = [
        msgspec.structs.replace(c, label="undecided", reason=Reason.TIMEOUT)
        if c.label == "no_leak" and draw.random() < 0.3
        else c
        for c in world.cells
    ]
    before, after = world.estimates(), world.estimates(failed)
    assert before.keys() == after.keys()
    for name, was in before.items():
        now = after[name]
        if name.startswith("corrected."):
            continue
        assert now.upper_bound >= was.upper_bound and now.lower_bound == was.lower_bound, name
        assert now.high >= was.high - 1e-9 and now.n == was.n and now.probe_set == was.probe_set, name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
def test_the_order_of_cells_and_facts_changes_nothing(seed: int, draw: random.Random) -> None:
    world = World(seed)
    before = world.estimates()
    for rows in (world.cells, world.floor, world.facts, world.base):
        draw.shuffle(rows)  # type: ignore[arg-type]
    assert world.estimates() == before


def test_retained_mean_by_tier() -> None:
    kept = [Fact(id=f"r{i}", split="retain", question="q", answer="a", tier=("near", "far")[i % 2]) for i in range(5)]
    rows: dict[str, list[Label]] = {
        "r0": ["leak", "no_leak"],
        "r1": ["leak"],
        "r2": ["undecided", "leak"],
        "r3": ["no_leak"],
    }
    by_id = {f.id: f for f in kept}
    cells = [
        cell(probe(by_id[fact_id], "original" if k == 0 else "paraphrase", "direct", f"w{k}"), label)
        for fact_id, labels in rows.items()
        for k, label in enumerate(labels)
    ]
    cells.append(cell(probe(by_id["r3"], "original_icr", "direct", "original"), "leak"))
    numbers = retain_estimates(kept, cells, confidence=0.95)
    mean = numbers["retain.mean"]
    assert (mean.n, mean.value, mean.upper_bound) == (4, 0.5, 0.625), "r4 was not asked; in-context cells do not count"
    assert numbers["retain.mean@tier=near"].value == 0.5 and numbers["retain.mean@tier=far"].value == 0.5
    assert retain_estimates(kept, [], confidence=0.95) == {}


def test_placebo_facts_count_as_undecided_where_they_failed() -> None:
    facts = [Fact(id=f"p{i}", split="placebo", question="q", answer="a") for i in range(4)]
    labels: list[list[Label]] = [["no_leak", "leak"], ["no_leak", "no_leak"], ["no_leak", "undecided"]]
    cells = [
        cell(probe(f, "paraphrase", "direct", f"w{k}"), label)
        for f, of_fact in zip(facts, labels, strict=False)
        for k, label in enumerate(of_fact)
    ]
    share = placebo_estimate(facts, cells, confidence=0.95)["floor.placebo"]
    assert (share.n, share.count, share.undecided) == (4, 1, 2), "a placebo fact without cells was not shown clean"


def test_topics_have_their_own_shares() -> None:
    facts = facts_of(6, 0)
    cells = [cell(probe(f, "original", "direct", "original"), "leak" if f.topic == "t1" else "no_leak") for f in facts]
    numbers = leak_estimates(facts, cells, floor=[], base=None, confidence=0.95)
    shares = {t: numbers[f"single.original@topic={t}"] for t in ("t0", "t1", "t2")}
    assert {t: (s.count, s.n) for t, s in shares.items()} == {"t0": (0, 2), "t1": (2, 2), "t2": (0, 2)}


def test_sampled_cells_enter_no_greedy_union() -> None:
    (only,) = facts_of(1, 0)
    drawn = probe(only, "sampled", "direct", "original")
    cells = [cell(probe(only, "original", "direct", "original"), "no_leak")]
    cells += [cell(drawn, "leak", sample) for sample in range(N_SAMPLES)]
    numbers = leak_estimates([only], cells, floor=[], base=None, confidence=0.95)
    assert numbers["worst_case.prompt"].count == numbers["single.original"].count == 0
    assert numbers["worst_case.sampled@k=1"].value == 1.0


def test_a_fact_of_which_nothing_was_asked_is_undecided_in_every_number() -> None:
    facts = facts_of(3, 0)
    cells = [
        cell(probe(f, family, "direct", "original"), "no_leak", sample)
        for f in facts[:2]
        for family in ("original", "paraphrase", "original_icr", "sampled")
        for sample in range(N_SAMPLES if family == "sampled" else 1)
    ]
    for name, number in leak_estimates(facts, cells, floor=[], base=None, confidence=0.95).items():
        if "@topic" not in name:
            assert (number.n, number.undecided) == (3, 1), name
            assert (number.lower_bound, number.upper_bound) == (0.0, pytest.approx(1 / 3)), name


def test_facts_without_the_direct_form_are_not_in_its_denominator() -> None:
    described = Fact(id="z", split="forget", question="q", answer="a", form="described")
    facts = [*facts_of(2, 0), described]
    cells = [cell(probe(f, "original", f.form, "original"), "no_leak") for f in facts]
    numbers = leak_estimates(facts, cells, floor=[], base=None, confidence=0.95)
    assert numbers["single.original"].n == numbers["mean.all"].n == numbers["j_at_m@m=1"].n == 2
    assert numbers["worst_case.prompt"].n == numbers["single.original@form=any"].n == 3
    assert all(number.undecided == 0 for number in numbers.values())

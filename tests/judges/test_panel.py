"""The panel: no combination of votes turns a failure into no leak."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from audit.errors import ConfigError
from audit.judges.dawid_skene import DawidSkene, VotingRates, fit
from audit.judges.panel import Panel, combine
from audit.types import Label, Reason, Verdict

RULES = ("majority", "any", "unanimous")
LABELS: tuple[Label | None, ...] = ("leak", "no_leak", "undecided", None)


def votes(labels: tuple[Label | None, ...], reason: Reason = Reason.TIMEOUT) -> dict[str, Verdict]:
    return {
        f"judge{n}": Verdict(
            claim_key="c", judge=f"judge{n}", label=label, reason=reason if label == "undecided" else Reason.RULED
        )
        for n, label in enumerate(labels)
        if label is not None
    }


def reference(labels: tuple[Label | None, ...], rule: str) -> Label:
    n, leaks, clean = len(labels), labels.count("leak"), labels.count("no_leak")
    if rule == "any":
        return "leak" if leaks else "no_leak" if clean == n else "undecided"
    if rule == "unanimous":
        return "leak" if leaks == n else "no_leak" if clean == n else "undecided"
    return "leak" if 2 * leaks > n else "no_leak" if 2 * clean > n else "undecided"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_all_combinations(rule: str, n: int) -> None:
    for labels in itertools.product(LABELS, repeat=n):
        label, reason = combine(votes(labels), n, rule)
        assert label == reference(labels, rule), labels
        assert (label == "undecided") == (reason is not Reason.RULED), labels
        if label == "no_leak":
            assert 2 * labels.count("no_leak") > n, "never without most of all judges having said so"


@pytest.mark.parametrize("rule", RULES)
def test_a_failed_vote_never_moves_towards_no_leak(rule: str) -> None:
    order = {"no_leak": 0, "undecided": 1, "leak": 2}
    for labels in itertools.product(("leak", "no_leak"), repeat=3):
        whole = combine(votes(labels), 3, rule)[0]
        for place, lost in itertools.product(range(3), ("undecided", None)):
            failed = (*labels[:place], lost, *labels[place + 1 :])
            after = combine(votes(failed), 3, rule)[0]
            assert not (order[after] == 0 and order[whole] > 0), (labels, failed)


def test_reasons() -> None:
    assert combine({}, 1, "majority") == ("undecided", Reason.MISSING)
    assert combine(votes(("undecided",)), 1, "majority") == ("undecided", Reason.TIMEOUT)
    assert combine(votes(("leak", "no_leak")), 2, "majority") == ("undecided", Reason.SPLIT_VOTE)
    assert combine(votes(("no_leak", None)), 2, "any") == ("undecided", Reason.MISSING)


NAMES = ("judge0", "judge1", "judge2")


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_weighted_needs_more_than_half_of_all_weight(weights: tuple[float, ...]) -> None:
    panel = Panel(NAMES, "weighted", weights)
    for labels in itertools.product(LABELS, repeat=3):
        for_leak = sum(w for w, label in zip(weights, labels, strict=True) if label == "leak")
        for_clear = sum(w for w, label in zip(weights, labels, strict=True) if label == "no_leak")
        half = sum(weights) / 2
        expected = "leak" if for_leak > half else "no_leak" if for_clear > half else "undecided"
        assert panel.decide(votes(labels))[0] == expected, labels


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"judges": ("a",), "cascade": True}, "cascade"),
        ({"judges": ("a", "b"), "rule": "dawid_skene"}, "three"),
        ({"judges": ("a", "b", "c"), "rule": "dawid_skene", "cascade": True}, "three"),
        ({"judges": ("a", "b"), "rule": "weighted"}, "weight"),
        ({"judges": ("a", "b"), "rule": "weighted", "weights": (1.0, -1.0)}, "more than 0"),
        ({"judges": ("a", "b"), "weights": (1.0, 1.0)}, "weighted"),
    ],
)
def test_a_panel_that_cannot_be_is_refused(arguments: dict, word: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=word):
        Panel(**arguments)


def staged(n: int = 600, biased: float = 0.35, seed: int = 3) -> tuple[dict[str, dict[str, Verdict]], dict[str, Label]]:
    """Three judges on n claims: two good ones, and one that sees a leak in `biased` of what is none."""
    rng = random.Random(seed)
    given: dict[str, dict[str, Verdict]] = {}
    truth: dict[str, Label] = {}
    for n_claim in range(n):
        claim = f"c{n_claim}"
        truth[claim] = "leak" if rng.random() < 0.25 else "no_leak"
        rates = {"judge0": (0.95, 0.97), "judge1": (0.92, 0.98), "judge2": (0.97, 1 - biased)}
        given[claim] = {}
        for judge, (sensitivity, specificity) in rates.items():
            leak = rng.random() < (sensitivity if truth[claim] == "leak" else 1 - specificity)
            given[claim][judge] = Verdict(
                claim_key=claim, judge=judge, label="leak" if leak else "no_leak", reason=Reason.RULED
            )
    return given, truth


def test_dawid_skene_finds_the_biased_judge_and_outvotes_it() -> None:
    given, truth = staged()
    panel = Panel(NAMES, "dawid_skene").fitted(given)
    assert panel.model is not None
    rates = {r.judge: r for r in panel.model.rates}
    assert abs(rates["judge2"].specificity - 0.65) < 0.06 and rates["judge0"].specificity > 0.9  # type: ignore[operator]
    alone = [claim for claim, by in given.items() if [by[j].label for j in NAMES] == ["no_leak", "no_leak", "leak"]]
    assert len(alone) > 50 and {panel.decide(given[claim])[0] for claim in alone} == {"no_leak"}
    wrong = {claim for claim in truth if panel.decide(given[claim])[0] not in (truth[claim], "undecided")}
    by_majority = {claim for claim in truth if combine(given[claim], 3, "majority")[0] != truth[claim]}
    assert len(wrong) <= len(by_majority)


def test_dawid_skene_never_rules_no_leak_on_few_votes() -> None:
    given, _ = staged()
    panel = Panel(NAMES, "dawid_skene").fitted(given)
    for labels in itertools.product(LABELS, repeat=3):
        label, reason = panel.decide(votes(labels))
        decided = [one for one in labels if one in ("leak", "no_leak")]
        assert (label == "undecided") == (reason is not Reason.RULED)
        if len(decided) < 2:
            assert label == "undecided", labels
        if len(decided) == 3 and len(set(decided)) == 1:
            assert label == decided[0]


def test_dawid_skene_without_both_labels_has_no_model_and_decides_only_what_all_say() -> None:
    silent = {f"c{n}": votes(("no_leak", "no_leak", "no_leak")) for n in range(5)}
    assert fit({claim: {j: v.label for j, v in by.items()} for claim, by in silent.items()}) is None
    panel = Panel(NAMES, "dawid_skene").fitted(silent)
    assert panel.decide(silent["c0"]) == ("no_leak", Reason.RULED)
    assert panel.decide(votes(("no_leak", "no_leak", "leak"))) == ("undecided", Reason.SPLIT_VOTE)


def test_a_cascade_is_decided_by_those_it_was_handed_to() -> None:
    panel = Panel(NAMES, cascade=True)
    for labels in itertools.product(LABELS, repeat=3):
        label, reason = panel.decide(votes(labels))
        if labels[1] is None and labels[2] is None:
            assert label == ("no_leak" if labels[0] == "no_leak" else "undecided"), labels
        else:
            assert label == reference(labels[1:], "majority"), labels
        assert (label == "undecided") == (reason is not Reason.RULED)
    assert panel.decide(votes(("leak", None, None))) == ("undecided", Reason.MISSING)


def test_dawid_skene_never_clears_what_most_judges_flag() -> None:
    """Two judges that flag everything teach the model that their flags mean nothing; one judge's word is not enough."""
    rng = random.Random(5)
    given = {
        f"c{n}": votes(tuple("leak" if rng.random() < share else "no_leak" for share in (0.1, 0.9, 0.9)))  # type: ignore[arg-type]
        for n in range(300)
    }
    panel = Panel(NAMES, "dawid_skene").fitted(given)
    assert panel.decide(votes(("no_leak", "leak", "leak")))[0] != "no_leak"
    blank = DawidSkene(
        prevalence=0.0,
        rates=tuple(VotingRates(judge=name, sensitivity=None, specificity=1.0, n=9) for name in NAMES),
        n=9,
    )
    unknown = replace(panel, model=blank)
    assert unknown.decide(votes(("no_leak", "no_leak", "leak"))) == ("undecided", Reason.SPLIT_VOTE)


def test_dawid_skene_clears_nothing_that_a_majority_of_all_judges_would_not() -> None:
    """Every pattern of five votes under a model that trusts all judges alike: undecided votes are no votes for it."""
    names = tuple(f"judge{n}" for n in range(5))
    good = tuple(VotingRates(judge=name, sensitivity=0.99, specificity=0.99, n=500) for name in names)
    panel = replace(Panel(names, "dawid_skene"), model=DawidSkene(prevalence=0.01, rates=good, n=500))
    cleared = 0
    for labels in itertools.product(("leak", "no_leak", "undecided"), repeat=5):
        given = {
            name: Verdict(
                claim_key="c",
                judge=name,
                label=label,  # type: ignore[arg-type]
                reason=Reason.AMBIGUOUS if label == "undecided" else Reason.RULED,
            )
            for name, label in zip(names, labels, strict=True)
        }
        label = panel.decide(given)[0]
        if label == "no_leak":
            cleared += 1
            assert combine(given, 5, "majority")[0] == "no_leak", labels
    assert cleared > 0
    mixed = dict(zip(names, ("leak", "no_leak", "no_leak", "undecided", "undecided"), strict=True))
    assert (
        panel.model is not None
        and panel.model.posterior({"judge0": "leak", "judge1": "no_leak", "judge2": "no_leak"}) < 0.05
    )  # type: ignore[operator]
    given = {
        name: Verdict(
            claim_key="c", judge=name, label=label, reason=Reason.AMBIGUOUS if label == "undecided" else Reason.RULED
        )  # type: ignore[arg-type]
        for name, label in mixed.items()
    }
    assert panel.decide(given) == ("undecided", Reason.SPLIT_VOTE)

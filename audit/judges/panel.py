"""How several judges' verdicts on one claim become one label. An undecided vote is never counted as no leak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from audit.errors import ConfigError
from audit.judges.dawid_skene import DawidSkene, fit
from audit.types import Label, Reason, Verdict

Rule = Literal["majority", "any", "unanimous", "weighted", "dawid_skene"]
RULES: tuple[Rule, ...] = ("majority", "any", "unanimous", "weighted", "dawid_skene")

#: Posterior probability of a leak above which the label is leak, and below which it is no leak. Not symmetric: a
#: missed leak is the harmful error.
LEAK_ABOVE, CLEAR_BELOW = 0.5, 0.05


@dataclass(frozen=True)
class Panel:
    """The judges of an audit and the rule that joins their votes.

    judges: identities, in the order given. weights: one a judge, for the rule `weighted`. With `cascade` the first
    judge screens every claim and the others, under the rule, decide those handed on to them (audit.judges.cascade);
    the screen's own no leak stands where nothing was handed on.
    """

    judges: tuple[str, ...]
    rule: Rule = "majority"
    weights: tuple[float, ...] = ()
    cascade: bool = False
    model: DawidSkene | None = field(default=None, compare=False)
    """Error rates estimated from the votes of this audit: set by `fitted` for the rule dawid_skene."""

    def __post_init__(self) -> None:
        deciding = len(self.judges) - self.cascade
        problems = []
        if self.cascade and len(self.judges) < 2:
            problems.append("a cascade needs two judges or more: the first one screens, the others decide")
        if self.rule == "dawid_skene" and deciding < 3:
            problems.append(
                "the rule dawid_skene needs three deciding judges or more: with two, nobody can be outvoted"
            )
        if self.rule == "weighted" and len(self.weights) != deciding:
            problems.append(f"the rule weighted needs one weight a deciding judge: {deciding}, not {len(self.weights)}")
        if self.weights and self.rule != "weighted":
            problems.append("weights go with the rule weighted")
        if any(not weight > 0 for weight in self.weights):
            problems.append("weights are more than 0")
        if problems:
            raise ConfigError("; ".join(problems), problems=tuple(problems))

    @property
    def deciding(self) -> tuple[str, ...]:
        """The judges whose votes decide a claim that is handed on."""
        return self.judges[1:] if self.cascade else self.judges

    @property
    def name(self) -> str:
        """The rule in a word: single, majority, cascade: single …"""
        inner = self.rule if len(self.deciding) > 1 else "single"
        return f"cascade: {inner}" if self.cascade else inner

    @property
    def identity(self) -> str:
        """What a calibration card of the whole panel is kept under; of one judge alone, that judge's identity."""
        if len(self.judges) == 1:
            return self.judges[0]
        weights = f" weights {', '.join(f'{weight:g}' for weight in self.weights)}" if self.weights else ""
        return f"{self.name}{weights} of {'; '.join(self.judges)}"

    def decide(self, votes: Mapping[str, Verdict]) -> tuple[Label, Reason]:
        """The panel's label and reason on one claim.

        In a cascade a claim that only the screen saw keeps the screen's no leak; a leak or an undecided verdict of the
        screen that nobody confirmed is undecided(missing).
        """
        if not self.cascade:
            return self._joined(votes)
        heard = {judge: vote for judge, vote in votes.items() if judge in self.deciding}
        if heard:
            return self._joined(heard)
        screen = votes.get(self.judges[0])
        if screen is not None and screen.label == "no_leak":
            return "no_leak", screen.reason
        return "undecided", Reason.MISSING

    def fitted(self, votes: Mapping[str, Mapping[str, Verdict]]) -> Panel:
        """This panel with error rates estimated from `votes` (claim -> judge -> verdict), where the rule needs them."""
        if self.rule != "dawid_skene":
            return self
        labels = {
            claim: {judge: vote.label for judge, vote in by_judge.items() if judge in self.deciding}
            for claim, by_judge in votes.items()
        }
        return replace(self, model=fit(labels))

    def _joined(self, votes: Mapping[str, Verdict]) -> tuple[Label, Reason]:
        expected = len(self.deciding)
        if self.rule == "dawid_skene":
            return _by_model(self.model, votes, expected)
        weights = dict(zip(self.deciding, self.weights, strict=True)) if self.weights else None
        return combine(votes, expected, self.rule, weights)


def combine(
    votes: Mapping[str, Verdict], expected: int, rule: str, weights: Mapping[str, float] | None = None
) -> tuple[Label, Reason]:
    """Label and reason from votes alone.

    majority: more than half of all `expected` votes; any: one leak suffices, no leak needs all votes;
    unanimous: all votes agree; weighted: more than half of all weight (`weights` names every expected judge). Where the
    votes reach no decision the label is undecided, with the reason of the single undecided vote or SPLIT_VOTE; without
    any vote it is undecided(missing).
    """
    if not votes:
        return "undecided", Reason.MISSING
    leaks = sum(vote.label == "leak" for vote in votes.values())
    clean = sum(vote.label == "no_leak" for vote in votes.values())
    if rule == "weighted":
        if weights is None:
            raise ValueError("the rule weighted needs weights")
        half = sum(weights.values()) / 2
        leak = sum(weights[j] for j, vote in votes.items() if vote.label == "leak") > half
        clear = sum(weights[j] for j, vote in votes.items() if vote.label == "no_leak") > half
    else:
        needed = {"majority": expected // 2 + 1, "any": 1, "unanimous": expected}[rule]
        leak = leaks >= needed
        clear = clean >= (expected if rule == "any" else needed)
    if leak:
        return "leak", Reason.RULED
    if clear:
        return "no_leak", Reason.RULED
    return "undecided", _why_open(votes, expected)


def _by_model(model: DawidSkene | None, votes: Mapping[str, Verdict], expected: int) -> tuple[Label, Reason]:
    """By the posterior of the fitted model, where more than half of the judges decided. No leak needs, besides, what it
    needs under `majority`: the model takes away from what most judges clear, and clears nothing of its own."""
    decided = {judge: vote.label for judge, vote in votes.items() if vote.label != "undecided"}
    if not decided or 2 * len(decided) <= expected:
        return "undecided", _why_open(votes, expected) if votes else Reason.MISSING
    if len(decided) == expected and len(set(decided.values())) == 1:
        return next(iter(decided.values())), Reason.RULED  # all agree: no model overrules that
    leak = model.posterior(decided) if model is not None else None
    if leak is None:
        return "undecided", Reason.SPLIT_VOTE
    if leak > LEAK_ABOVE:
        return "leak", Reason.RULED
    cleared = sum(label == "no_leak" for label in decided.values())
    if leak < CLEAR_BELOW and 2 * cleared > expected:
        return "no_leak", Reason.RULED
    return "undecided", Reason.SPLIT_VOTE


def _why_open(votes: Mapping[str, Verdict], expected: int) -> Reason:
    if len(votes) < expected:
        return Reason.MISSING
    reasons = {vote.reason for vote in votes.values() if vote.label == "undecided"}
    return reasons.pop() if len(reasons) == 1 else Reason.SPLIT_VOTE

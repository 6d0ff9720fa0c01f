"""What the reports say of the judges: who they are, how far they agree, what they cost, what other panels said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from audit.judges.ledger import JudgeWork
from audit.report.model import JudgeReport, OtherPanel, PairAgreement, PanelAgreement, Report
from audit.types import Estimate, Record

#: How votes are joined, in words.
RULES = {
    "majority": "the label that more than half of all judges give",
    "any": "a leak as soon as one judge sees one; no leak only if all say so",
    "unanimous": "a label only where all judges give it",
    "weighted": "the label that has more than half of all weight",
    "dawid_skene": "by error rates that are estimated from the votes themselves (Dawid and Skene)",
}
#: Averages that are shown beside what corrects them for the judges' errors.
_AVERAGES = ("mean.all", "retain.mean")


class JudgeView(Record):
    """One judge: what is known of it, what it said here, what it took."""

    name: str
    """As it was named, without address and options where that is enough to tell it from the others."""
    report: JudgeReport
    canaries: float | None
    """Share of the canaries that it ruled as it must, alone."""
    work: JudgeWork | None
    """None for a judge that this run has no account of."""
    check: str
    """What to type to measure it."""


class MatrixRow(Record):
    judge: str
    cells: tuple[PairAgreement | None, ...]
    """One a judge, in order; None for itself."""


class PanelColumn(Record):
    """One panel on the same answers; `name` is this run's or an earlier run's, short."""

    name: str
    run: str
    specs: tuple[str, ...]
    judges: tuple[str, ...]
    rule: str
    canaries: str
    outcome: str
    undecided: Mapping[str, int]
    estimates: Mapping[str, Mapping[str, Estimate]]


class Correction(Record):
    """One number by the judges alone, and corrected for their errors."""

    name: str
    raw: Estimate | None
    by_card: Estimate | None
    by_person: Estimate | None


class PanelView(Record):
    rule: str
    """In words; empty with one judge, or none."""
    judges: tuple[JudgeView, ...]
    check: str
    """What to type to measure the panel as a whole."""
    matrix: tuple[MatrixRow, ...]
    tokens: int
    cost: str
    """In words; empty where no judge costs anything."""
    columns: tuple[PanelColumn, ...]
    """This panel and the earlier ones; empty where there is none to set beside it."""
    names: tuple[str, ...]
    """Of the estimates that the columns hold, in the order of the page."""


def build_panel(report: Report) -> PanelView:
    """Everything about the judges that the page and the terminal show."""
    panel = report.panel
    work = _work(report)
    specs = [judge.spec for judge in panel.judges]
    kind, _, inner = panel.rule.rpartition(": ")
    words = RULES.get(inner, "")
    if kind == "cascade":
        first = f"{specs[0]} screens all answers; those that matter go to the others"
        words = f"{first}: {words}" if words else first
    columns = _columns(report)
    names = short_names(specs)
    return PanelView(
        rule=words if len(specs) > 1 else "",
        judges=tuple(
            JudgeView(
                name=name,
                report=judge,
                canaries=report.canaries.by_judge.get(judge.judge),
                work=work.get(judge.judge),
                check=check_command([judge.spec]),
            )
            for name, judge in zip(names, panel.judges, strict=True)
        ),
        check=check_command(specs, report.manifest.config),
        matrix=_matrix(names, panel.agreement, [judge.judge for judge in panel.judges]) if panel.agreement else (),
        tokens=sum(w.prompt_tokens + w.completion_tokens for w in work.values()),
        cost=cost_words(list(work.values())),
        columns=columns,
        names=_shared_names(columns),
    )


def short_names(specs: Sequence[str]) -> list[str]:
    """The judges' names without address and options, as long as no two become alike."""
    short = [re.split(r"@https?://|\?", spec)[0] for spec in specs]
    return short if len(set(short)) == len(short) else list(specs)


def check_command(specs: Sequence[str], config: Mapping[str, object] | None = None) -> str:
    """What measures these judges on labelled answers: one of them, or the panel that `config` makes of them."""
    words = ["audit judges check"] + [f"--judge {spec}" for spec in specs]
    if config and len(specs) > 1:
        if config.get("judge_cascade"):
            words.append("--cascade")
        if config.get("judge_rule") != "majority":
            words.append(f"--judge-rule {config.get('judge_rule')}")
        weights = config.get("judge_weights")
        if isinstance(weights, list | tuple):
            words += [f"--judge-weight {weight:g}" for weight in weights]
    return " ".join(words)


def cost_words(work: Sequence[JudgeWork]) -> str:
    """Dollars of this run's calls; says where a price is not known. Empty where nothing is paid by tokens."""
    paying = [w for w in work if w.cost is not None or w.prompt_tokens or w.completion_tokens]
    if not paying:
        return ""
    known = [w.cost for w in paying if w.cost is not None]
    open_claims = sum(w.unpriced for w in paying)
    if not known:
        return "price unknown"
    text = f"${sum(known):,.2f}" if sum(known) >= 0.01 or not sum(known) else f"${sum(known):.4f}"
    return text + (f", without {open_claims:,} claims of unknown price" if open_claims else "")


def corrections(estimates: Mapping[str, Estimate], labelled: Mapping[str, Estimate]) -> tuple[Correction, ...]:
    """Numbers that have a corrected value beside them: by the judge's card, or by a person's labels."""
    names = [name for name in _AVERAGES if f"calibrated.{name}" in estimates or f"labelled.{name}" in labelled]
    names = [stem for n in labelled if (stem := n.removeprefix("labelled.")) not in _AVERAGES] + names
    return tuple(
        Correction(
            name=name,
            raw=estimates.get(name),
            by_card=estimates.get(f"calibrated.{name}"),
            by_person=labelled.get(f"labelled.{name}"),
        )
        for name in names
    )


def _work(report: Report) -> dict[str, JudgeWork]:
    """Judge -> what it did in this run. The account is volatile and may be of another version: then there is none."""
    try:
        work = msgspec.convert(report.manifest.runtime.get("judges", []), list[JudgeWork])
    except msgspec.ValidationError:
        return {}
    return {each.judge: each for each in work}


def _matrix(names: Sequence[str], agreement: PanelAgreement, judges: Sequence[str]) -> tuple[MatrixRow, ...]:
    pairs = {frozenset((pair.first, pair.second)): pair for pair in agreement.pairs}
    return tuple(
        MatrixRow(judge=name, cells=tuple(pairs.get(frozenset((first, second))) for second in judges))
        for name, first in zip(names, judges, strict=True)
    )


def _columns(report: Report) -> tuple[PanelColumn, ...]:
    if not report.other_panels:
        return ()
    here = PanelColumn(
        name="this run",
        run=report.run,
        specs=tuple(judge.spec for judge in report.panel.judges) or report.manifest.judges,
        judges=report.manifest.judges,
        rule=report.panel.rule,
        canaries=report.canaries.status,
        outcome=report.outcome,
        undecided={name: subject.undecided.facts for name, subject in report.subjects.items()},
        estimates={name: subject.estimates for name, subject in report.subjects.items()},
    )
    before = [
        PanelColumn(name=name, **{field: getattr(other, field) for field in OtherPanel.__struct_fields__})
        for name, other in zip(_names_of(len(report.other_panels)), report.other_panels, strict=True)
    ]
    return (here, *before)


def _names_of(count: int) -> list[str]:
    return ["before"] if count == 1 else [f"before {number}" for number in range(count, 0, -1)]


def _shared_names(columns: Sequence[PanelColumn]) -> tuple[str, ...]:
    """Candidate's estimates that an earlier panel holds; floors and corrected shares apart, for they are many."""
    names: dict[str, None] = {}
    for column in columns[1:]:
        for name in column.estimates.get("candidate", {}):
            if not name.startswith(("floor.worst", "floor.single", "corrected.")):
                names[name] = None
    return tuple(names)

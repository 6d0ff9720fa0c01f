"""The judges in the summary that a finished run prints: a line each for who, how far they agree, and what it took."""

from __future__ import annotations

from collections.abc import Mapping

from audit.report.model import CardSummary, PanelAgreement, Report
from audit.report.view_panel import PanelView, short_names
from audit.types import Estimate
from audit.wording import percent


def panel_lines(report: Report, view: PanelView) -> list[str]:
    """Plain lines; nothing for verdicts that came with recorded answers."""
    lines = [f"judge {judge.name}: {_card(judge.report.card, judge.check)}" for judge in view.judges]
    if report.panel.card is not None:
        lines.append(f"all together ({report.panel.rule}): {_card(report.panel.card, view.check)}")
    if report.panel.agreement is not None:
        lines += _agreement(report.panel.agreement)
    lines += corrected_lines(report.estimates)
    counts = report.panel.all_claims
    if counts is not None:
        lines.append(
            f"to judge: {counts.occurrences:,} claims, {counts.distinct:,} different ones"
            + (f", {counts.without_call:,} of them without a judge" if counts.without_call else "")
        )
    asked = [judge.work for judge in view.judges if judge.work is not None]
    if view.tokens or view.cost:
        calls = f"{sum(work.asked for work in asked):,} asked, {sum(work.from_store for work in asked):,} known before"
        repeats = sum(max(0, work.tries - work.asked) for work in asked)
        lines.append(
            f"judging took {view.tokens:,} tokens ({calls}{f', {repeats:,} repeats' if repeats else ''})"
            + (f"; {view.cost}" if view.cost else "")
        )
    return lines


def corrected_lines(estimates: Mapping[str, Estimate]) -> list[str]:
    """Averages corrected by the card of the judge or panel, each beside what was counted."""
    lines = []
    for name in ("mean.all", "retain.mean"):
        raw, corrected = estimates.get(name), estimates.get(f"calibrated.{name}")
        if raw is not None and corrected is not None:
            lines.append(
                f"{name} corrected for the judge's error rates: {percent(corrected.value)} "
                f"[{100 * corrected.low:.1f}, {100 * corrected.high:.1f}], counted {percent(raw.value)}"
            )
    return lines


def column_lines(view: PanelView) -> list[str]:
    """Which panel each column of the side-by-side table is."""
    return [
        f"  {column.name}: {' + '.join(short_names(column.specs))}"
        + (f" ({column.rule})" if len(column.specs) > 1 else "")
        + f"; canaries {column.canaries}; {column.undecided.get('candidate', 0)} undecided"
        for column in view.columns
    ]


def _card(card: CardSummary | None, check: str) -> str:
    if card is None:
        return f"never checked: {check}"
    parts = [
        f"{name} " + ("–" if value is None else f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]")
        for name, value, low, high in (
            ("sensitivity", card.sensitivity, card.sensitivity_low, card.sensitivity_high),
            ("specificity", card.specificity, card.specificity_low, card.specificity_high),
        )
    ]
    return ", ".join(parts)


def _agreement(agreement: PanelAgreement) -> list[str]:
    if agreement.raw is None:
        return ["agreement: not known, no claim was put to two judges"]
    parts = [f"agreement: all judges alike on {percent(agreement.raw)} of {agreement.n:,} claims"]
    if len(agreement.pairs) == 1:
        kappa = agreement.pairs[0].agreement.kappa
        parts.append("kappa does not exist" if kappa is None else f"kappa {kappa:.3f}")
    else:
        parts.append("alpha does not exist" if agreement.alpha is None else f"alpha {agreement.alpha:.3f}")
    if agreement.prevalence is not None:
        parts.append(f"{percent(agreement.prevalence)} of votes leak")
    lines = [", ".join(parts)]
    if agreement.disputed:
        lines.append(f"disputed: {agreement.disputed:,} claims with opposite votes, all in disputed.jsonl")
    return lines

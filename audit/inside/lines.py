"""The views of the inside as lines of text, 80 columns wide."""

from __future__ import annotations

import math
import textwrap

from audit.inside.records import InsideReport, Measure
from audit.stats.paired import Difference
from audit.types import Role

_WIDTH = 80
_ORDER: tuple[Role, ...] = ("base", "candidate", "never_knew")
_SHORT = {
    "log_probability": "log-probability of the answer",
    "log_probability_per_token": "log-probability, per token",
    "first_rank": "rank, first token (geom. mean)",
    "rank": "rank, all tokens (geom. mean)",
    "entropy": "entropy of the first token",
    "preference": "true over wrong answers",
    "mass": "probability of the answer",
    "extraction_strength": "extraction strength",
    "exact_memorisation": "exact memorisation",
    "probe": "linear probe",
}
_GROUPS = {
    "target": "the answer",
    "rephrasings": "its rephrasings",
    "distractors": "wrong answers",
    "refusals": "refusals",
    "own_answer": "what it says itself",
    "rest": "anything else",
}


def inside_lines(report: InsideReport) -> list[str]:
    """The report for a terminal: no line is wider than 80 columns."""
    lines = _wrapped(f"Inside: {report.headline}")
    for reason in report.reasons:
        if reason not in report.headline:
            lines += _wrapped(reason, "  - ", "    ")
    facts = f"{report.used} of {report.forget} forget facts"
    known = " (those that the base completes)" if "base" in report.roles else ""
    space = "with" if report.leading_space else "without"
    lines += _wrapped(
        f"{facts}{known}, {report.retained} retained; format {report.prompt_format}, answers {space} a space before "
        f"them; limits at {100 * report.confidence:g}%",
        "  ",
    )
    lines += ["", *_measures(report), "", *_masses(report)]
    if report.weights is not None:
        lines += ["", *_weights(report)]
    lines += ["", *_probes(report)]
    if report.not_measured:
        lines += ["", f"Not measured ({len(report.not_measured)})"]
        for item in report.not_measured[:5]:
            lines += _wrapped(f"{item.fact_id}, {item.role}, {item.what}: {item.why}", "  ", "    ")
        if len(report.not_measured) > 5:
            lines.append(f"  and {len(report.not_measured) - 5} more in the report's file")
    for note in report.notes:
        lines += _wrapped(note, "Note: ", "  ")
    return lines


def shown(value: float, unit: str) -> str:
    """A value in its unit; of ranks, the rank itself."""
    if unit == "ln":
        rank = math.exp(value)
        return f"{rank:.0f}" if rank >= 100 else f"{rank:.1f}"
    return f"{value:.2f}" if unit == "nats" else f"{value:.3f}"


def _measures(report: InsideReport) -> list[str]:
    roles = [role for role in _ORDER if role in report.roles]
    head = f"  {'forget facts':<31}" + "".join(f"{role.replace('_', '-'):>11}" for role in roles)
    if "never_knew" in roles:
        head += "  over control"
    lines = [head]
    for measure in report.measures:
        mark = "*" if measure.counted else " "
        row = f"{mark} {_SHORT[measure.name]:<31}"
        row += "".join(f"{_mean(measure, role, retained=False):>11}" for role in roles)
        lines.append((row + _over(measure)).rstrip())
    lines.append(f"  {'retained facts':<31}".rstrip())
    for measure in report.measures:
        if measure.name in ("log_probability_per_token", "extraction_strength", "exact_memorisation"):
            row = f"  {_SHORT[measure.name]:<31}"
            lines.append((row + "".join(f"{_mean(measure, role, retained=True):>11}" for role in roles)).rstrip())
    lines.append("  * counts in the summary; the others are shown only")
    return lines


def _mean(measure: Measure, role: Role, *, retained: bool) -> str:
    means = measure.retained if retained else measure.forget
    return shown(means[role].value, measure.unit) if role in means else "-"


def _over(measure: Measure) -> str:
    """Candidate less control; of ranks, the factor between them."""
    ours = measure.from_control
    if ours is None:
        return ""
    value = f"x{math.exp(ours.value):.2g}" if measure.unit == "ln" else f"{ours.value:+.3f}"
    star = "" if not _clear(ours) else " s"
    return f"  {value:>8}{star}"


def _clear(difference: Difference) -> bool:
    """The limits leave zero out."""
    return difference.low > 0 or difference.high < 0


def _masses(report: InsideReport) -> list[str]:
    if not report.masses:
        return ["Where the probability lies: no fact could be measured in every model"]
    roles = [role for role in _ORDER if role in report.masses[0].means]
    lines = [f"  {'probability of':<31}" + "".join(f"{role.replace('_', '-'):>11}" for role in roles)]
    if "base" in roles:
        lines[0] += " share of gain"
    for mass in report.masses:
        row = f"  {_GROUPS[mass.group]:<31}" + "".join(f"{mass.means[role].value:>11.3f}" for role in roles)
        gain = "" if mass.gain is None else f"  {100 * mass.gain:>8.0f}%" if mass.gain else f"  {'-':>9}"
        lines.append((row + gain).rstrip())
    return lines


def _weights(report: InsideReport) -> list[str]:
    """One line a layer, one column a kind."""
    change = report.weights
    assert change is not None
    kinds = [kind for kind in ("attention", "mlp", "norm", "other") if any(c.kind == kind for c in change.layers)]
    cells = {(c.layer, c.kind): c.relative for c in change.layers}
    lines = [f"  {'change of the weights, relative':<31}" + "".join(f"{kind:>11}" for kind in kinds)]
    for layer in sorted({c.layer for c in change.layers if c.layer is not None}):
        row = [f"{100 * cells[layer, kind]:.2f}%" if (layer, kind) in cells else "-" for kind in kinds]
        lines.append(f"  {f'layer {layer}':<31}" + "".join(f"{cell:>11}" for cell in row))
    outside = [f"{c.kind} {100 * c.relative:.2f}%" for c in change.layers if c.layer is None]
    if outside:
        lines += _wrapped("outside the layers: " + ", ".join(outside), "  ")
    how = ", through its adapter" if change.adapter else ""
    lines += _wrapped(
        f"all weights {100 * change.relative:.2f}%{how}; {change.unchanged} of {change.tensors} tensors equal", "  "
    )
    return lines


def _probes(report: InsideReport) -> list[str]:
    """One line a depth: held-out accuracy on retained facts, accuracy on forget facts."""
    probes = {probe.role: probe for probe in report.probes}
    roles = [role for role in _ORDER if role in probes and probes[role].layers]
    lines = []
    if roles:
        lines.append(f"  {'probe, retained | forget':<31}" + "".join(f"{role.replace('_', '-'):>14}" for role in roles))
        depths = sorted({layer.layer for role in roles for layer in probes[role].layers})
        for depth in depths:
            row = f"  {'embeddings' if depth == 0 else f'after layer {depth - 1}':<31}"
            for role in roles:
                found = next((layer for layer in probes[role].layers if layer.layer == depth), None)
                mark = "<" if probes[role].chosen == depth else " "
                row += f"{f'{found.retained:.2f} | {found.forget:.2f}{mark}' if found else '-':>14}"
            lines.append(row.rstrip())
        lines.append("  < the layer chosen on retained facts; chance is 0.50")
    for role in _ORDER:
        if role in probes and not probes[role].layers:
            lines += _wrapped(f"no probe of {role.replace('_', '-')}: {probes[role].why_not}", "  ")
    return lines


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=first if rest is None else rest)

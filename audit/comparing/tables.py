"""A comparison as Markdown, for people, and as CSV, for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from audit.comparing.equal_words import TITLE, curves, equal_notes, rows
from audit.comparing.model import Candidate, Comparison, Entry, Reference
from audit.comparing.words import (
    COSTS,
    TUNING,
    VERDICTS,
    absent,
    absent_mean,
    cost_of,
    digits,
    extras,
    front_text,
    head,
    limits_text,
    notes,
    of_candidate,
    p_values,
    points,
    readings,
    spread_text,
    tuning_text,
)
from audit.report.html import printable
from audit.report.markdown import escaped, table_lines
from audit.report.utility_words import NOT_INFORMATIVE
from audit.types import Estimate

_NUMBER = ("", "_low", "_high", "_lower_bound", "_upper_bound", "_n", "_undecided")
_TESTS = ("no_leak", "leak", "p_value", "corrected", "exact", "smallest")


def markdown(comparison: Comparison) -> str:
    """Two tables and the notes; names are escaped."""
    lines = [f"**{escaped(head(comparison))}**", ""]
    extra = extras(comparison)
    titles = ["", *(c.head for c in comparison.columns)]
    titles += [COSTS.get(name, name) for name in extra]
    lines += table_lines(titles, [*_rows(comparison, extra)])
    first = next((entry for entry in comparison.entries if entry.estimates), None)
    if first is not None:
        lines += ["", f"Per cent, with {100 * comparison.confidence:g}% limits. " + escaped(_legend(comparison)), ""]
    rows = [
        [
            pair.first,
            pair.second,
            f"{points(pair.difference)} [{points(pair.low)}, {points(pair.high)}]",
            *p_values(pair),
            VERDICTS[pair.verdict],
            readings(pair),
        ]
        for pair in comparison.pairs
    ]
    lines += table_lines(["first", "second", f"{comparison.on_label}, points", "p, facts", "p, topics", "", ""], rows)
    if comparison.equal or comparison.sweeps:
        lines += ["", f"**{TITLE}**", "", *_equal(comparison)]
    lines += ["", *(f"- {escaped(note)}" for note in (*notes(comparison), *equal_notes(comparison)))]
    lines += [f"- **warning:** {escaped(warning)}" for warning in comparison.warnings]
    lines += [f"- **inconclusive:** {escaped(reason)}" for reason in comparison.inconclusive]
    return "\n".join(lines) + "\n"


def numbers_csv(comparison: Comparison) -> str:
    """One row a candidate with the outcome of its audit, one for each checkpoint of a candidate with several seeds, and
    one for each reference.

    Fractions in [0, 1]. A number has seven columns (value, limits, bounds for the undecided, facts, undecided facts)
    and `_sd`, filled for several seeds alone. What failed has a row without numbers, and a last column says why. Names
    that a spreadsheet would take for a formula get a quotation mark. A number that its run withholds is the words "not
    informative" in the column of the value.
    """
    names = [column.name for column in comparison.columns]
    header = ["kind", "label", "candidate", "outcome", "seeds", "method", "seed", "trials", TUNING]
    header += [f"{name}{part}" for name in names for part in (*_NUMBER, "_sd")]
    header += ["on_front", "front_frequency", "front_low", "front_high"]
    header += [f"{cost}{part}" for cost in COSTS for part in ("", "_sd")] + ["run", "fingerprint", "probes_apart"]
    rows: list[list[object]] = []
    for reference in comparison.references:
        rows.append(_csv_row("reference", reference.label, reference, names))
    for candidate in comparison.candidates:
        mine = of_candidate(comparison, candidate)
        if len(mine) > 1:
            rows.append(_csv_mean(comparison, candidate, names))
        for entry in mine:
            kind = "checkpoint" if len(mine) == 1 else "seed"
            rows.append(_csv_row(kind, entry.label, entry, names, candidate if len(mine) == 1 else None, entry))
    if comparison.failed:  # the column is there only where something failed
        header.append("failure")
        rows = [[*row, ""] for row in rows]
        blank: list[object] = [None] * (len(header) - 3)
        rows += [["failed", failed.label, *blank, failed.text] for failed in comparison.failed]
    return _csv([header, *rows])


def pairs_csv(comparison: Comparison) -> str:
    """One row a pair, with every reading of its tests."""
    header = ["first", "second", "unit", "on", "n", "undecided", "only_first", "only_second"]
    header += ["difference", "lower_bound", "upper_bound", "low", "high"]
    header += [f"{unit}_{name}" for unit in ("facts", "topics") for name in ("test", *_TESTS)] + ["verdict"]
    rows: list[list[object]] = []
    for pair in comparison.pairs:
        row: list[object] = [pair.first, pair.second, pair.unit, comparison.on, pair.n, pair.undecided]
        row += [pair.only_first, pair.only_second, pair.difference, pair.lower_bound, pair.upper_bound]
        row += [pair.low, pair.high]
        for test in (pair.facts, pair.topics):
            row += [""] * (1 + len(_TESTS)) if test is None else [test.name, *(getattr(test, t) for t in _TESTS)]
        rows.append([*row, pair.verdict])
    return _csv([header, *rows])


def equal_csv(comparison: Comparison) -> str:
    """Curves at equal utility: a row for every point of every curve, and one for every target.

    Fractions in [0, 1]. A target's row repeats the point that reaches it, or has none. `searched` is of the search
    half, `kept` of the other one, `kept_all` of all retained facts; points that were searched alone have no more.
    """
    header = ["row", "label", "kind", "setting", "target", "needed", "at", "searched", "searched_upper"]
    header += ["base_searched", "base_searched_upper", "n_search", "n_report"]
    header += [f"{name}{part}" for name in ("leaked", "known", "kept", "kept_all", "base_kept") for part in _NUMBER]
    found: list[list[object]] = []
    for curve in curves(comparison):
        told = [(None, None, step) for step in curve.steps]
        read = [(r.target, r.needed, None if r.at is None else curve.step(r.at)) for r in curve.readings]
        for target, needed, step in [*told, *read]:
            row: list[object] = ["point" if target is None else "target", curve.label, curve.kind, curve.key]
            row += [target, needed, step.at if step else "", *(step.searched if step else (None, None))]
            row += [*curve.base_searched, curve.n_search, curve.n_report]
            numbers = [step.leaked, step.known, step.kept, step.kept_all] if step else [None] * 4
            for e in [*numbers, curve.base_kept]:
                row += _csv_number(e)
            found.append([*row, step.run if step else ""])
    return _csv([[*header, "run"], *found])


def _equal(comparison: Comparison) -> list[str]:
    header = ["", "keeps", "by", f"{comparison.on_label} ↓", "known ↓", "kept, other half ↑"]
    body = []
    for row in rows(comparison):
        numbers = [limits_text(e) if e is not None else "–" for e in (row.leaked, row.known, row.kept)]
        body.append([row.label, row.target, row.how, *numbers])
    return table_lines(header, body)


def _rows(comparison: Comparison, extra: Sequence[str]) -> Iterator[list[str]]:
    for reference in comparison.references:
        yield [reference.label, *_cells(comparison, reference), *("" for _ in extra)]
    for candidate in comparison.candidates:
        mine = of_candidate(comparison, candidate)
        if len(mine) == 1:
            yield [candidate.label, *_cells(comparison, mine[0]), *_extra(comparison, candidate, extra)]
            continue
        means = [
            spread_text(s) if (s := candidate.spreads.get(c.name)) else absent_mean(mine, c.name)
            for c in comparison.columns
        ]
        yield [candidate.label, *means, *_extra(comparison, candidate, extra)]
        for entry in mine:
            own = [
                "" if (v := cost_of(entry, name) if name in COSTS else None) is None else digits(v) for name in extra
            ]
            yield [f"· {entry.label}", *_cells(comparison, entry), *own]
    for failed in comparison.failed:
        yield [failed.text, *("–" for _ in comparison.columns), *("–" for _ in extra)]


def _cells(comparison: Comparison, row: Entry | Reference) -> list[str]:
    return [limits_text(e) if (e := row.estimates.get(c.name)) else absent(row, c.name) for c in comparison.columns]


def _extra(comparison: Comparison, candidate: Candidate, extra: Sequence[str]) -> list[str]:
    cells = []
    for name in extra:
        if name == TUNING:
            cells.append(tuning_text(of_candidate(comparison, candidate)))
        elif name not in COSTS:
            cells.append(front_text(candidate))
        elif name in candidate.spreads:
            cells.append(f"{digits(candidate.spreads[name].mean)} ± {digits(candidate.spreads[name].sd)}")
        else:
            value = getattr(candidate, name)
            cells.append("–" if value is None else digits(value))
    return cells


def _legend(comparison: Comparison) -> str:
    return "; ".join(f"{column.label}: {column.title}" for column in comparison.columns)


def _csv(rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([_plain(cell) for cell in row])
    return out.getvalue()


def _plain(cell: object) -> object:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _csv_row(
    kind: str,
    label: str,
    numbers: Entry | Reference,
    names: Sequence[str],
    candidate: Candidate | None = None,
    entry: Entry | None = None,
) -> list[object]:
    training = entry.training if entry else None
    row: list[object] = [kind, label, entry.candidate if entry else "", entry.outcome if entry else ""]
    row += [1 if entry else None]
    row += [training.method if training else "", training.seed if training else None]
    row += [training.trials if training else None, tuning_text([entry]) if entry and training else ""]
    for name in names:
        row += [*_csv_number(numbers.estimates.get(name), name in numbers.withheld), None]
    row += _csv_front(candidate)
    for cost in COSTS:
        row += [cost_of(entry, cost) if entry else None, None]
    return [
        *row,
        entry.run if entry else "",
        entry.fingerprint if entry else "",
        " ".join(entry.apart) if entry else "",
    ]


def _csv_number(e: Estimate | None, withheld: bool = False) -> list[object]:
    if withheld:
        return [NOT_INFORMATIVE, *[None] * 6]
    return [None] * 7 if e is None else [e.value, e.low, e.high, e.lower_bound, e.upper_bound, e.n, e.undecided]


def _csv_mean(comparison: Comparison, candidate: Candidate, names: Sequence[str]) -> list[object]:
    trainings = [entry.training for entry in of_candidate(comparison, candidate)]
    methods = {training.method for training in trainings if training is not None}
    method = methods.pop() if len(methods) == 1 else ""
    outcomes = {entry.outcome for entry in of_candidate(comparison, candidate)}
    outcome = "inconclusive" if "inconclusive" in outcomes else " ".join(sorted(outcomes))
    row: list[object] = ["method", candidate.label, candidate.label, outcome, len(candidate.members), method, None]
    row += [None, tuning_text(of_candidate(comparison, candidate))]
    for name in names:
        spread = candidate.spreads.get(name)
        bounds = (spread.lower_bound, spread.upper_bound) if spread else (None, None)
        held = absent_mean(of_candidate(comparison, candidate), name) == NOT_INFORMATIVE
        value = spread.mean if spread else NOT_INFORMATIVE if held else None
        row += [value, None, None, *bounds, None, None, spread.sd if spread else None]
    row += _csv_front(candidate)
    for cost in COSTS:
        found = candidate.spreads.get(cost)
        row += [found.mean if found else None, found.sd if found else None]
    return [*row, "", "", ""]


def _csv_front(candidate: Candidate | None) -> list[object]:
    front = candidate.front if candidate else None
    return [None] * 4 if front is None else [front.on_front, front.frequency, front.low, front.high]

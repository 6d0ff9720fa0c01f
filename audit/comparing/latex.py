r"""A comparison as two LaTeX tables for an ordinary article: needs \usepackage{booktabs} and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from audit.comparing.equal_words import TITLE, rows
from audit.comparing.model import Column, Comparison, Entry, Reference, Spread
from audit.comparing.words import (
    COSTS,
    TUNING,
    VERDICTS,
    absent,
    absent_mean,
    caveats,
    cost_of,
    digits,
    extras,
    front_text,
    head,
    number,
    of_candidate,
    p_text,
    points,
    tuning_text,
    unsure_text,
)
from audit.report.html import printable
from audit.report.utility_words import NOT_INFORMATIVE
from audit.types import Estimate
from audit.wording import unsettled, whole_down, whole_up

#: Columns of a table that fit on a page of ordinary paper.
_ACROSS = 6
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # \textquotedbl would need the T1 encoding
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": r"--",
    "≠": r"$\neq$",
    "·": r"$\cdot$",
}


def latex(comparison: Comparison) -> str:
    """The tables as text: what came out, what was kept and what it cost, the differences. Names are escaped."""
    leaks = [column for column in comparison.columns if column.about == "leaks"]
    kept = [column for column in comparison.columns if column.about == "kept"]
    extra = extras(comparison)
    tables = ["% needs \\usepackage{booktabs}", *_numbers(comparison, leaks, [], "What came out")]
    if kept or extra:
        tables += _numbers(comparison, kept, extra, "What was kept, and the cost")
    cost = [column for column in comparison.columns if column.about == "cost"]
    for first in range(0, len(cost), _ACROSS):
        tables += _numbers(comparison, cost[first : first + _ACROSS], [], "What else forgetting cost")
    tables += _differences(comparison)
    if comparison.equal or comparison.sweeps:
        tables += ["", *_equal(comparison)]
    tables += [f"\n\\noindent{{\\footnotesize {escape(line)}}}\\par" for line in caveats(comparison)]
    return "\n".join(tables) + "\n"


def _numbers(comparison: Comparison, columns: Sequence[Column], extra: Sequence[str], title: str) -> list[str]:
    arrows = {"lower": r" $\downarrow$", "higher": r" $\uparrow$", "": ""}
    legend = "; ".join(f"{_label(column.label)}: {escape(column.title)}" for column in columns)
    return [
        "\\begin{table}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        "\\begin{tabular}{" + _names_column(comparison, 3.2) + "r" * (len(columns) + len(extra)) + "}",
        "\\toprule",
        _row(
            [
                "",
                *(_label(column.label) + arrows[column.better] for column in columns),
                *(escape(COSTS.get(x, x)) for x in extra),
            ]
        ),
        "\\midrule",
        *_body(comparison, columns, extra),
        "\\bottomrule",
        "\\end{tabular}",
        f"\\caption{{{title}: {escape(head(comparison))}. Per cent, {100 * comparison.confidence:g}\\% limits below. "
        f"{legend}.}}",
        "\\end{table}",
        "",
    ]


def _differences(comparison: Comparison) -> Iterator[str]:
    yield from (
        "\\begin{table}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        "\\begin{tabular}{" + 2 * _names_column(comparison, 2.4) + "rrrl}",
        "\\toprule",
        _row(["first", "second", "difference", "$p$, facts", "$p$, topics", ""]),
        "\\midrule",
    )
    for pair in comparison.pairs:
        limits = f"{escape(points(pair.difference))} [{escape(points(pair.low))}, {escape(points(pair.high))}]"
        p = [_p(test.corrected, test.exact) if test else "--" for test in (pair.facts, pair.topics)]
        yield _row([escape(pair.first), escape(pair.second), limits, *p, VERDICTS[pair.verdict]])
    names = dict.fromkeys(pair.facts.name for pair in comparison.pairs)
    drawn = any(not t.exact for pair in comparison.pairs for t in (pair.facts, pair.topics) if t is not None)
    yield from (
        "\\bottomrule",
        "\\end{tabular}",
        f"\\caption{{Differences of {_label(comparison.on_label)} between {comparison.unit}, in points of per cent. "
        f"Facts: {escape(' or '.join(names))}; topics: sign flips of {comparison.topics} topics; two-sided, "
        f"Holm-corrected for {len(comparison.pairs)} pairs, undecided facts read in whatever way shows least."
        + (" $^*$ signs drawn at random." if drawn else "")
        + "}",
        "\\end{table}",
    )


def _equal(comparison: Comparison) -> Iterator[str]:
    """A row a target, below it its limits."""
    curve = (*comparison.equal, *comparison.sweeps)[0]
    yield from (
        "\\begin{table}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        "\\begin{tabular}{" + _names_column(comparison, 3.2) + "rlrrr}",
        "\\toprule",
        _row(
            [
                "",
                "keeps",
                "by",
                f"{_label(comparison.on_label)} $\\downarrow$",
                "known $\\downarrow$",
                "other half $\\uparrow$",
            ]
        ),
        "\\midrule",
    )
    for row in rows(comparison):
        cells = [_split(e) if e is not None else ("--", "") for e in (row.leaked, row.known, row.kept)]
        yield _row([escape(row.label), escape(row.target), escape(row.how), *(value for value, _ in cells)])
        if row.step is not None:
            yield _row(["", "", "", *(f"{{\\scriptsize {text}}}" if text else "" for _, text in cells)])
    yield from (
        "\\bottomrule",
        "\\end{tabular}",
        f"\\caption{{{TITLE}: the first point at which one half of the retained facts ({curve.n_search}) is answered "
        "as often, relative to the base, as the second column says; what leaks there, and what is kept of the other "
        f"half ({curve.n_report} facts; the base: {escape(number(curve.base_kept.value))}). Per cent, "
        f"{100 * comparison.confidence:g}\\% limits below. Mixing in the base also puts the knowledge back.}}",
        "\\end{table}",
        "",
    )


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, in one line. Always inside a cell or a caption, never at the start of a line."""
    from anyascii import anyascii

    plain = []
    for character in printable(" ".join(text.split())):
        if character in _SPECIAL:
            plain.append(_SPECIAL[character])
        elif character.isascii() or ("\u00c0" <= character <= "\u00ff" and character not in "×÷ÐðÞþ"):
            plain.append(character)
        else:
            plain.append("".join(_SPECIAL.get(c, c) for c in anyascii(character)))
    # no ligatures: two hyphens are no dash
    return re.sub(r"([-,'])(?=\1)", r"\1{}", "".join(plain))


def _names_column(comparison: Comparison, centimetres: float) -> str:
    """A column of names: as wide as they are, or of a fixed width in which long ones are broken."""
    names = [*(c.label for c in comparison.candidates), *(e.label for e in comparison.entries)]
    return "l" if max(map(len, names)) <= 7 * centimetres else f"p{{{centimetres}cm}}"


def _body(comparison: Comparison, columns: Sequence[Column], extra: Sequence[str]) -> Iterator[str]:
    for reference in comparison.references:
        yield from _lines(escape(reference.label), _cells(columns, reference), [""] * len(extra))
    if comparison.references:
        yield "\\midrule"
    for candidate in comparison.candidates:
        mine = of_candidate(comparison, candidate)
        known = {name: getattr(candidate, name) for name in extra if name in COSTS}
        words = {"on front": front_text(candidate), TUNING: tuning_text(mine)}
        told = [
            escape(words[name]) if name not in known else "--" if known[name] is None else digits(known[name])
            for name in extra
        ]
        if len(mine) == 1:
            yield from _lines(escape(candidate.label), _cells(columns, mine[0]), told)
            continue
        means = [
            _absent(absent_mean(mine, column.name))
            if (spread := candidate.spreads.get(column.name)) is None
            else (f"{100 * spread.mean:.1f}", f"$\\pm$ {100 * spread.sd:.1f}{_unsure(spread)}")
            for column in columns
        ]
        yield from _lines(escape(candidate.label), means, told, below=f"\\quad {len(mine)} seeds")
        for entry in mine:
            own = [cost_of(entry, name) if name in COSTS else None for name in extra]
            told = ["" if value is None else digits(value) for value in own]
            yield from _lines(f"\\quad {escape(entry.label)}", _cells(columns, entry), told)
    for failed in comparison.failed:
        yield f"% {escape(failed.text)}"
        yield _row([escape(failed.label), f"\\multicolumn{{{len(columns) + len(extra)}}}{{l}}{{{failed.what}}}"])


def _unsure(spread: Spread) -> str:
    text = unsure_text(spread, lambda share: f"{100 * share:.1f}")
    return f" {_dash(text)}" if text else ""


def _dash(text: str) -> str:
    return text.replace("–", "--")


def _lines(label: str, cells: Sequence[tuple[str, str]], extra: Sequence[str], below: str = "") -> Iterator[str]:
    """A row of values, and below it, smaller, their limits."""
    yield _row([label, *(value for value, _ in cells), *extra])
    limits = [below, *(text for _, text in cells)]
    if any(limits):
        yield _row([f"{{\\scriptsize {text}}}" if text else "" for text in limits] + [""] * len(extra))


def _cells(columns: Sequence[Column], row: Entry | Reference) -> list[tuple[str, str]]:
    return [_split(e) if (e := row.estimates.get(c.name)) else _absent(absent(row, c.name)) for c in columns]


def _absent(words: str) -> tuple[str, str]:
    """In place of a number; words below it, where limits would stand."""
    return ("--", escape(words)) if words == NOT_INFORMATIVE else (escape(words), "")


def _split(estimate: Estimate) -> tuple[str, str]:
    """The value with a decimal; limits in whole per cent, rounded outwards; what the undecided could add."""
    low, high = math.floor(100 * estimate.low + 1e-9), math.ceil(100 * estimate.high - 1e-9)
    unsure = unsettled(estimate.value, estimate.lower_bound, estimate.upper_bound, whole_up, whole_down)
    return escape(number(estimate.value)), f"[{low}, {high}] {_dash(unsure)}".rstrip()


def _row(cells: Sequence[str]) -> str:
    # the braces keep a label that begins with [ or * from being read as an option of the line before
    return "{}" + " & ".join(cells) + " \\\\"


def _label(label: str) -> str:
    """J_orig as a symbol with an index, anything else as it is."""
    stem, underscore, index = label.partition("_")
    symbol = stem == "J" and underscore and index.isalpha()
    return f"$J_{{\\mathrm{{{index}}}}}$" if symbol else escape(label)


def _p(p: float, exact: bool) -> str:
    text = p_text(p)
    star = "" if exact else "^*"
    return f"${text}{star}$"

"""Recovery curves as a picture that stands alone: of one run, or the candidates of several runs over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from audit.attacks.records import AttackReport
from audit.errors import ConfigError
from audit.report.attacks_curves import COLOURS, HEIGHT, WIDTH, Panel, overlays, panels, shown_of
from audit.report.attacks_words import SHOWS_NOTHING, wrecked_words
from audit.report.html import environment, printable
from audit.types import Record

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_ACROSS = 3
_GAP, _HEAD, _EDGE = 14.0, 26.0, 14.0
_LETTER = 6.3  # of a key's text, in pixels
_LONGEST = 44
#: Of a picture that stands alone: on paper, so never dark. Colours of runs after Okabe and Ito, told apart by most
#: readers who see few colours; marks differ as well.
_PAPER = """svg { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
--paper: #ffffff; --ink: #16191f; --soft: #596170; --line: #dfe3e8; --open: #a16207;
--leak: #c2410c; --keep: #0f766e; --base: #6b7280; --never: #7c3aed; }
.title { font-size: 15px; font-weight: 650; fill: var(--ink); } .said { font-size: 11.5px; fill: var(--soft); }
.curve .name { font-size: 12.5px; font-weight: 650; }
.curve .of { font-weight: 400; fill: var(--soft); font-size: 11px; }
.curve .run polyline { stroke-width: 2; } .curve .again polyline { stroke-dasharray: 5 3; }
.curve .run .at > * { stroke: var(--paper); stroke-width: 1; } .curve .limit { stroke-width: 2; }
"""
_RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b8860b", "#6a3d9a", "#4d4d4d")


class Key(Record):
    """One entry of the legend."""

    x: float
    y: float
    text: str
    kind: str = ""
    run: int | None = None


class At(Record):
    panel: Panel
    name: str
    x: float
    y: float


class Picture(Record):
    width: float
    height: float
    title: str
    notes: tuple[str, ...]
    keys: tuple[Key, ...]
    panels: tuple[At, ...]


def run_svg(attacks: AttackReport | None) -> str:
    """The recovery curves of one run. Raises ConfigError where it has none."""
    if attacks is None or not attacks.relearning:
        raise ConfigError(
            "there is no picture: the run looked at no fine-tuning", hint="audit run … --attack relearn --base BASE"
        )
    drawn = panels(attacks)
    kinds = {line.kind for panel in drawn for line in panel.lines}
    seeds = "seed" in kinds
    named = [
        ("candidate", "candidate" + (", mean of its seeds" if seeds else "")),
        *([("seed", "one seed")] if seeds else []),
        *([("limit", "its exact limits")] if any(panel.bars for panel in drawn) else []),
        *([("base", "base, the ceiling")] if "base" in kinds else []),
        *([("never_knew", "never-knew control")] if "never_knew" in kinds else []),
        *([("retained", "retained facts, candidate")] if "retained" in kinds else []),
        *([("open", "undecided")] if any(panel.bands for panel in drawn) else []),
        *([("void", "shows nothing")] if _void(drawn) else []),
    ]
    failed = [f"not known: {said}" for said in _failed(attacks)]
    if attacks.known:
        title = "Share of the hidden facts that fine-tuning brings back"
        notes = [f"K: {len(attacks.known)} facts that the base gives and the candidate does not"]
    else:
        title = "Share of all audited facts that leak along a fine-tuning"
        notes = ["No base, or no fact that it alone gives: nothing here says that a fact came back"]
    if _void(drawn):
        notes.append(f"Crossed: {SHOWS_NOTHING}")
    wrecked = [wrecked_words(name) for name in attacks.void if name.startswith("relearn")]
    return _render(drawn, title, [*notes, *failed, *wrecked], [(text, kind, None) for kind, text in named])


def curves_svg(reports: Mapping[str, AttackReport]) -> str:
    """The candidates of several runs over each other, one colour a run, one panel a set; the range of their never-knew
    controls in grey. `reports`: by the name that the picture gives the run. Raises ConfigError where no run has a
    fine-tuning."""
    drawn = overlays(reports)
    if not drawn:
        raise ConfigError("there is no picture: none of the runs looked at a fine-tuning", hint="--attack relearn")
    shares = shown_of(reports) == "recovered"
    title = "Share of the hidden facts that fine-tuning brings back" if shares else "Share of all facts that leak"
    keys: list[tuple[str, str, int | None]] = []
    for i, (label, report) in enumerate(reports.items()):
        keys.append((f"{label} (K = {len(report.known)})" if shares and report.known else label, "", i))
    if any(kind == "control" for panel in drawn for kind, _ in panel.bands):
        keys.append(("never-knew controls, lowest to highest", "control", None))
    notes = ["Lines: mean over seeds. Bars: exact limits, where there is one seed."]
    if _void(drawn):
        keys.append(("shows nothing", "void", None))
        notes.append(f"Crossed: {SHOWS_NOTHING}")
    if any(kind.startswith("open") for panel in drawn for kind, _ in panel.bands):
        notes.append("Shaded above a line: what its undecided facts could add.")
    if not shares:
        notes.append("Not every run has a base that gives what its candidate does not: nothing says what came back.")
    failed = [f"not known: {label}, {said}" for label, report in reports.items() for said in _failed(report)]
    failed += [
        f"{label}, {wrecked_words(name)}"
        for label, report in reports.items()
        for name in report.void
        if name.startswith("relearn")
    ]
    return _render(drawn, title, [*notes, *failed], keys)


def _void(drawn: Sequence[Panel]) -> bool:
    return any(line.crossed for panel in drawn for line in panel.lines)


def _failed(report: AttackReport) -> list[str]:
    """Fine-tunings that were not carried through: a line that ends early, or is not there."""
    return [
        f"{each.attack} on {each.arm.replace('_', ' ')}, not carried through"
        for each in report.failures
        if each.attack.startswith("relearn")
    ]


def _render(
    drawn: Sequence[Panel], title: str, notes: Sequence[str], named: Sequence[tuple[str, str, int | None]]
) -> str:
    from markupsafe import Markup

    across = min(_ACROSS, len(drawn))
    width = max(2 * _EDGE + across * WIDTH + (across - 1) * _GAP, 560.0)
    keys: list[Key] = []
    x, y = _EDGE, 42.0 + 15.0 * len(notes)
    for text, kind, run in named:
        text = short(text)
        long = 36 + _LETTER * len(text) + 18
        if x > _EDGE and x + long > width:
            x, y = _EDGE, y + 20
        keys.append(Key(x=x, y=round(y - 6, 1), text=text, kind=kind, run=run))
        x = round(x + long, 1)
    top = y + 22
    placed = tuple(
        At(
            panel=panel,
            name=short(panel.name, int((WIDTH - 50 - 6 * len(panel.note)) / 7.6)),
            x=_EDGE + (i % across) * (WIDTH + _GAP),
            y=round(top + _HEAD + (i // across) * (HEIGHT + _HEAD + _GAP), 1),
        )
        for i, panel in enumerate(drawn)
    )
    picture = Picture(
        width=width,
        height=round(placed[-1].y + HEIGHT + _EDGE, 1),
        title=title,
        notes=tuple(notes),
        keys=tuple(keys),
        panels=placed,
    )
    colours = "".join(
        f".curve .run-{i} polyline, .curve .limit.run-{i} {{ stroke: {c}; }} .curve .run-{i} .at > * {{ fill: {c}; }}\n"
        f".curve .band.open.run-{i} {{ fill: {c}; stroke: {c}; fill-opacity: .12; }}\n"
        for i, c in enumerate(_RUNS)
    )
    css = _PAPER + (_TEMPLATES / "curves.css").read_text(encoding="utf-8") + colours
    return environment().get_template("curves.svg.j2").render(pic=picture, css=Markup(css), colours=COLOURS)


def short(text: str, longest: int = _LONGEST) -> str:
    """A name that fits."""
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"

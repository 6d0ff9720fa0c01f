"""Where everything stands in the pictures of recovery along a fine-tuning: plain pixels, for the template to draw.

One panel a set of examples. Steps stand at equal distances, one a looked-at step, the same in all panels: with steps
0, 25, 50, 100 … 2000 a linear axis would press the beginning together, where most happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from audit.attacks.records import AttackReport, Curve, Point, Relearning
from audit.report.attacks_shares import Cell, by_step, mean_over, of_arm, share
from audit.report.attacks_words import SHOWS_NOTHING
from audit.types import Estimate, Record

WIDTH, HEIGHT = 330.0, 224.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 36.0, 14.0, 14.0, 38.0
_MOST_TICKS = 9
_BACK = "puts the knowledge back"
#: Runs in one picture that have a colour and a mark of their own; further ones start again.
COLOURS = 8
_DODGE = 3.0  # pixels between the limits of two runs at the same step


class Line(Record):
    """One line; `points` for a polyline."""

    kind: str
    """candidate, seed, base, never_knew, retained, or run."""
    points: str
    dots: tuple[tuple[float, float, str], ...] = ()
    """Places and what is there, in words."""
    run: int = 0
    """Of a picture of several runs: which of them."""
    crossed: tuple[tuple[float, float], ...] = ()
    """Places where the model had lost most of what it should keep, and shows nothing."""


class Bar(Record):
    """Limits at one point."""

    x: float
    top: float
    bottom: float
    run: int = 0


class Panel(Record):
    """One picture, pixels from its upper left."""

    attack: str
    name: str
    note: str
    ticks_x: tuple[tuple[float, str], ...]
    ticks_y: tuple[tuple[float, str], ...]
    bands: tuple[tuple[str, str], ...]
    """(kind, points of a polygon): `open` for what the undecided could add, `control` for the range of controls."""
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    peak: tuple[float, float, float, str] | None
    """Place of the highest point, height of its label, the label; of a mean none, since the peak is one seed's."""
    alt: str
    """All of it in words."""
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


def panels(attacks: AttackReport) -> tuple[Panel, ...]:
    """One a set of one run: candidate, control, ceiling and what is retained."""
    axis = _axis([attacks])
    return tuple(_panel(each, "recovered" if attacks.known else "leaked", axis) for each in attacks.relearning)


def overlays(reports: Mapping[str, AttackReport]) -> tuple[Panel, ...]:
    """One a set that any run has: the candidates of all runs, by name, and the range of their controls.

    R where every run has a base and facts to bring back, else the share of all audited facts that leak.
    """
    shown = shown_of(reports)
    axis = _axis(reports.values())
    names = dict.fromkeys(each.attack for report in reports.values() for each in report.relearning)
    found = []
    for name in names:
        sets = {
            label: next((each for each in report.relearning if each.attack == name), None)
            for label, report in reports.items()
        }
        found.append(_overlay(name, sets, shown, axis))
    return tuple(found)


def shown_of(reports: Mapping[str, AttackReport]) -> str:
    """`recovered` if all runs have an R, else `leaked`: one picture has one axis."""
    return "recovered" if reports and all(report.known for report in reports.values()) else "leaked"


def _axis(reports: Iterable[AttackReport]) -> dict[int | None, float]:
    """Step -> x, over all sets of all runs."""
    steps = {p.step for report in reports for each in report.relearning for curve in each.curves for p in curve.points}
    ordered = sorted(steps, key=by_step)
    room = WIDTH - _LEFT - _RIGHT
    if len(ordered) == 1:
        return {ordered[0]: round(_LEFT + room / 2, 1)}
    return {step: round(_LEFT + room * i / (len(ordered) - 1), 1) for i, step in enumerate(ordered)}


def _ticks(axis: Mapping[int | None, float]) -> tuple[tuple[float, str], ...]:
    """Labels below the axis: of many steps every second or third, and always the last."""
    steps = list(axis)
    every = -(-len(steps) // _MOST_TICKS)
    chosen = [step for i, step in enumerate(reversed(steps)) if i % every == 0]
    return tuple((axis[step], step_text(step)) for step in reversed(chosen))


def step_text(step: int | None) -> str:
    """A step as axes and tables write it."""
    return "after" if step is None else str(step)


def _y(value: float) -> float:
    return round(HEIGHT - _BOTTOM - value * (HEIGHT - _TOP - _BOTTOM), 1)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%" if value in (0.0, 1.0) or 0.005 <= value <= 0.995 else f"{100 * value:.1f}%"


def _said(estimate: Estimate) -> str:
    text = f"{_percent(estimate.value)} ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"
    return text + (f", {estimate.undecided} undecided" if estimate.undecided else "")


def _along(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _panel(each: Relearning, shown: str, axis: Mapping[int | None, float]) -> Panel:
    mine = of_arm(each, "candidate")
    means = whole(mean_over(mine, shown), len(mine))
    lines: list[Line] = []
    words: list[str] = []
    for kind, curves, what in (
        ("base", of_arm(each, "base"), "base"),
        ("never_knew", of_arm(each, "never_knew"), "never-knew control"),
    ):
        cells = whole(mean_over(curves, shown), len(curves))
        if cells:
            lines.append(_cells(kind, cells, axis, what))
            words.append(_in_words(what, cells))
    kept = whole(mean_over(mine, "retained"), len(mine))
    if kept:
        lines.append(_cells("retained", kept, axis, "retained"))
        words.append(_in_words("retained facts", kept))
    bars: list[Bar] = []
    if len(mine) == 1:
        for point, estimate in _shares(mine[0], shown):
            bars.append(Bar(x=axis[point.step], top=_y(estimate.high), bottom=_y(estimate.low)))
        lines.append(
            Line(
                kind="candidate",
                points=_along((axis[p.step], _y(e.value)) for p, e in _shares(mine[0], shown)),
                dots=tuple(
                    (axis[p.step], _y(e.value), f"step {step_text(p.step)}: {_said(e)}{_lost(p.void)}")
                    for p, e in _shares(mine[0], shown)
                ),
                crossed=_crossed(mine[0], shown, axis),
            )
        )
    else:
        for curve in mine:
            lines.append(
                Line(
                    kind="seed",
                    points=_along((axis[p.step], _y(e.value)) for p, e in _shares(curve, shown)),
                    crossed=_crossed(curve, shown, axis),
                )
            )
        if means:
            lines.append(_cells("candidate", means, axis, f"mean of {len(mine)} seeds"))
    words.insert(0, _in_words("candidate", means) if means else "the candidate has no share here")
    over = f"{each.n_known} facts" if shown == "recovered" and each.n_known is not None else "all audited facts"
    seeds = f", {len(mine)} seeds" if len(mine) > 1 else ""
    return Panel(
        attack=each.attack,
        name=each.attack.partition(":")[2] or each.attack,
        note=over + seeds + (f", {_BACK}" if each.puts_back else ""),
        ticks_x=_ticks(axis),
        ticks_y=_TICKS_Y,
        bands=_open(means, axis),
        bars=tuple(bars),
        lines=tuple(lines),
        peak=_peak_at(means, axis) if len(mine) == 1 else None,
        alt=f"{each.attack}, share of {over} by step. " + ". ".join(words) + ".",
    )


_TICKS_Y = tuple((_y(i / 4), f"{25 * i}%") for i in range(5))


def _overlay(name: str, sets: Mapping[str, Relearning | None], shown: str, axis: Mapping[int | None, float]) -> Panel:
    lines: list[Line] = []
    bars: list[Bar] = []
    words: list[str] = []
    bands: list[tuple[str, str]] = []
    controls: dict[int | None, list[float]] = {}
    having = 0
    for run, (label, each) in enumerate(sets.items()):
        if each is None:
            words.append(f"{label}: not run")
            continue
        mine = of_arm(each, "candidate")
        cells = whole(mean_over(mine, shown), len(mine))
        if not cells:
            words.append(f"{label}: not known")
            continue
        line = _cells("run", cells, axis, label)
        bands += [(f"{kind} run-{run % COLOURS}", points) for kind, points in _open(cells, axis)]
        lines.append(Line(kind="run", points=line.points, dots=line.dots, run=run, crossed=line.crossed))
        words.append(_in_words(label, cells))
        if len(mine) == 1:
            shift = _DODGE * (run - (len(sets) - 1) / 2)
            for point, estimate in _shares(mine[0], shown):
                if point.step != 0:
                    bars.append(
                        Bar(x=axis[point.step] + shift, top=_y(estimate.high), bottom=_y(estimate.low), run=run)
                    )
        theirs = of_arm(each, "never_knew")
        having += bool(theirs)
        for cell in whole(mean_over(theirs, shown), len(theirs)):
            controls.setdefault(cell.step, []).append(cell.value)
    ordered = sorted((s for s, values in controls.items() if len(values) == having), key=by_step)
    if len(ordered) > 1:
        upper = [(axis[s], _y(max(controls[s])) - 1) for s in ordered]
        lower = [(axis[s], _y(min(controls[s])) + 1) for s in ordered]
        bands.insert(0, ("control", _along([*upper, *reversed(lower)])))
        words.append("never-knew controls at most " + _percent(max(max(controls[s]) for s in ordered)))
    return Panel(
        attack=name,
        name=name.partition(":")[2] or name,
        note=_BACK if any(each is not None and each.puts_back for each in sets.values()) else "",
        ticks_x=_ticks(axis),
        ticks_y=_TICKS_Y,
        bands=tuple(bands),
        bars=tuple(bars),
        lines=tuple(lines),
        peak=None,
        alt=f"{name}, by step. " + ". ".join(words) + ".",
    )


def whole(cells: Sequence[Cell], seeds: int) -> list[Cell]:
    """Steps that every seed was looked at: a mean over fewer seeds is another number."""
    return [cell for cell in cells if cell.seeds == seeds]


def _shares(curve: Curve, shown: str) -> list[tuple[Point, Estimate]]:
    return [(point, estimate) for point in curve.points if (estimate := share(point, shown)) is not None]


def _crossed(curve: Curve, shown: str, axis: Mapping[int | None, float]) -> tuple[tuple[float, float], ...]:
    return tuple((axis[p.step], _y(e.value)) for p, e in _shares(curve, shown) if p.void)


def _cells(kind: str, cells: Sequence[Cell], axis: Mapping[int | None, float], what: str) -> Line:
    at = [(axis[cell.step], _y(cell.value)) for cell in cells]
    return Line(
        kind=kind,
        points=_along(at),
        dots=tuple(
            (
                x,
                y,
                f"{what}, step {step_text(cell.step)}: {_percent(cell.value)}"
                + _more(cell)
                + _lost(cell.void and kind != "retained"),
            )
            for (x, y), cell in zip(at, cells, strict=True)
        ),
        # what is retained is why a state shows nothing, and itself shown there
        crossed=() if kind == "retained" else tuple(xy for xy, cell in zip(at, cells, strict=True) if cell.void),
    )


def _more(cell: Cell) -> str:
    return f" (undecided: up to {_percent(cell.value + cell.unsure)})" if cell.unsure else ""


def _lost(void: bool) -> str:
    return f" ({SHOWS_NOTHING})" if void else ""


def _in_words(what: str, cells: Sequence[Cell]) -> str:
    said = f"{what}: " + ", ".join(f"{step_text(c.step)} {_percent(c.value)}{_more(c)}" for c in cells)
    lost = [step_text(c.step) for c in cells if c.void and what != "retained facts"]
    return said + (f"; crossed at {', '.join(lost)}: {SHOWS_NOTHING}" if lost else "")


def _open(cells: Sequence[Cell], axis: Mapping[int | None, float]) -> tuple[tuple[str, str], ...]:
    """The band from what was found to what the undecided could make of it; a point alone gets a strip."""
    if not any(cell.unsure for cell in cells):
        return ()
    upper = [(axis[c.step], _y(min(1.0, c.value + c.unsure))) for c in cells]
    lower = [(axis[c.step], _y(c.value)) for c in cells]
    if len(cells) == 1:
        (x, high), (_, low) = upper[0], lower[0]
        return (("open", _along([(x - 8, high), (x + 8, high), (x + 8, low), (x - 8, low)])),)
    return (("open", _along([*upper, *reversed(lower)])),)


def _peak_at(cells: Sequence[Cell], axis: Mapping[int | None, float]) -> tuple[float, float, float, str] | None:
    if not cells or all(cell.value == 0 for cell in cells):
        return None
    top = max(cells, key=lambda cell: cell.value)
    x, y = axis[top.step], _y(top.value)
    return x, y, y - 9 if y > 34 else y + 19, _percent(top.value)

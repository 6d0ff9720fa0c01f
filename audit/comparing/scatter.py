"""Where everything stands in the plot of leaked against kept facts: plain pixels, for the template to draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from audit.comparing.equal_words import curves
from audit.comparing.model import Candidate, Comparison
from audit.comparing.words import of_candidate
from audit.types import Estimate, Record

WIDTH, HEIGHT = 760.0, 460.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 18.0, 16.0, 48.0
_LETTER, _LINE = 6.7, 15.0  # of a label, in pixels
_LONGEST = 30
#: Where a label may stand, from its point: to the right first, then around and further out.
_PLACES = [(12, 0), (0, -14), (0, 16), (-12, 0), (12, -13), (12, 14), (-12, -13), (-12, 14)]
_PLACES += [(24, -28), (24, 30), (-24, -28), (-24, 30), (0, -32), (0, 34), (40, -46), (40, 48), (0, 54), (60, 70)]


class Spot(Record):
    """One point with its limits and its label; pixels from the upper left."""

    kind: str
    """front, behind, base, never_knew, seed."""
    name: str
    label: str
    title: str
    x: float
    y: float
    across: tuple[float, float] | None
    """Limits of the leaked share, from left to right."""
    down: tuple[float, float] | None
    """Limits of the kept share, from top to bottom."""
    text_x: float = 0.0
    text_y: float = 0.0
    anchor: str = "start"
    leader: bool = False


class Trail(Record):
    """A curve at equal utility: those of its points that were audited in full, in the order tried."""

    kind: str
    """mixture or sweep."""
    title: str
    points: str
    """For a polyline."""
    dots: tuple[tuple[float, float, str], ...]
    """Places and titles of its points, the candidate itself left out."""


class Scatter(Record):
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    ticks_x: tuple[tuple[float, str], ...]
    ticks_y: tuple[tuple[float, str], ...]
    spots: tuple[Spot, ...]
    front: str
    """Points of the step line along the front, for a polyline; empty with fewer than two candidates on it."""
    trails: tuple[Trail, ...] = ()


def scatter(comparison: Comparison) -> Scatter | None:
    """The plot; None where there is no front."""
    if comparison.front_on is None:
        return None
    spots = _placed(list(_spots(comparison)))
    ticks = [i / 4 for i in range(5)]
    return Scatter(
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        top=_TOP,
        bottom=HEIGHT - _BOTTOM,
        ticks_x=tuple((_x(t), f"{100 * t:.0f}%") for t in ticks),
        ticks_y=tuple((_y(t), f"{100 * t:.0f}%") for t in ticks),
        spots=tuple(spots),
        front=_steps([(spot.x, spot.y) for spot in spots if spot.kind == "front"]),
        trails=tuple(_trails(comparison)),
    )


def _trails(comparison: Comparison) -> Iterator[Trail]:
    for curve in curves(comparison):
        dots = []
        for step in curve.steps:
            if step.leaked is None or step.kept_all is None or (curve.kind == "mixture" and step.at == "1"):
                continue  # a line on to the base would claim more than was measured
            said = f"{curve.key} {step.at}" if curve.kind == "sweep" else f"{step.at} of the base"
            title = (
                f"{curve.label}, {said}: leaked {100 * step.leaked.value:.1f}%, kept {100 * step.kept_all.value:.1f}%"
            )
            dots.append((step.at, _x(step.leaked.value), _y(step.kept_all.value), title))
        if len(dots) > 1:
            yield Trail(
                kind=curve.kind,
                title=f"{curve.label}: {'sweep of ' + curve.key if curve.kind == 'sweep' else 'mixed with the base'}",
                points=" ".join(f"{x:g},{y:g}" for _, x, y, _ in dots),
                dots=tuple((x, y, title) for at, x, y, title in dots if curve.kind == "sweep" or at != "0"),
            )


def _x(share: float) -> float:
    return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def _spots(comparison: Comparison) -> Iterator[Spot]:
    assert comparison.front_on is not None
    leaked, kept = comparison.front_on
    for reference in comparison.references:
        a, b = reference.estimates.get(leaked), reference.estimates.get(kept)
        if a is not None and b is not None:
            yield _spot(reference.label.replace(" ", "_"), reference.label, a, b)
    for candidate in comparison.candidates:
        mine = of_candidate(comparison, candidate)
        kind = "front" if candidate.front is not None and candidate.front.on_front else "behind"
        if len(mine) == 1:
            yield _spot(kind, candidate.label, mine[0].estimates[leaked], mine[0].estimates[kept])
            continue
        for entry in mine:
            spot = _spot("seed", entry.label, entry.estimates[leaked], entry.estimates[kept])
            yield Spot(
                kind="seed", name=spot.name, label="", title=spot.title, x=spot.x, y=spot.y, across=None, down=None
            )
        yield _mean(kind, candidate, leaked, kept)


def _spot(kind: str, name: str, leaked: Estimate, kept: Estimate) -> Spot:
    return Spot(
        kind=kind,
        name=name,
        label=_short(name),
        title=(
            f"{name}: leaked {100 * leaked.value:.1f}% ({100 * leaked.low:.1f} to {100 * leaked.high:.1f}), "
            f"kept {100 * kept.value:.1f}% ({100 * kept.low:.1f} to {100 * kept.high:.1f})"
        ),
        x=_x(leaked.value),
        y=_y(kept.value),
        across=(_x(leaked.low), _x(leaked.high)),
        down=(_y(kept.high), _y(kept.low)),
    )


def _mean(kind: str, candidate: Candidate, leaked: str, kept: str) -> Spot:
    a, b = candidate.spreads[leaked], candidate.spreads[kept]
    return Spot(
        kind=kind,
        name=candidate.label,
        label=_short(candidate.label),
        title=f"{candidate.label}, mean of {a.n} seeds: leaked {100 * a.mean:.1f}%, kept {100 * b.mean:.1f}%",
        x=_x(a.mean),
        y=_y(b.mean),
        across=(_x(a.low), _x(a.high)),
        down=(_y(b.high), _y(b.low)),
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


_Box = tuple[float, float, float, float]


def _placed(spots: Sequence[Spot]) -> list[Spot]:
    """Every label where it covers least: points, other labels, and the edge."""
    from msgspec.structs import replace

    taken: list[_Box] = [(spot.x - 6, spot.y - 6, spot.x + 6, spot.y + 6) for spot in spots]
    placed = []
    for spot in spots:
        if not spot.label:
            placed.append(spot)
            continue
        best: tuple[float, float, float, str, _Box, bool] | None = None
        for rank, (dx, dy) in enumerate(_PLACES):
            anchor = "start" if dx > 0 else "end" if dx < 0 else "middle"
            box = _box(spot.x + dx, spot.y + dy, len(spot.label), anchor)
            cost = rank * 2.0 + sum(_overlap(box, other) for other in taken) + 50 * _outside(box)
            if best is None or cost < best[0]:
                best = (cost, spot.x + dx, spot.y + dy + 4, anchor, box, abs(dx) + abs(dy) > 30)
        assert best is not None
        _, x, y, anchor, box, leader = best
        taken.append(box)
        placed.append(replace(spot, text_x=round(x, 1), text_y=round(y, 1), anchor=anchor, leader=leader))
    return placed


def _box(x: float, y: float, letters: int, anchor: str) -> _Box:
    width = letters * _LETTER
    left = x if anchor == "start" else x - width if anchor == "end" else x - width / 2
    return left, y - _LINE / 2, left + width, y + _LINE / 2


def _overlap(a: _Box, b: _Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: _Box) -> float:
    """Pixels by which a label leaves the plot."""
    return sum(max(0.0, p) for p in (4 - box[0], 2 - box[1], box[2] - WIDTH + 4, box[3] - HEIGHT + _BOTTOM))


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """From point to point to the right and up: what lies below and right of the line is dominated."""
    path: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if path:
            path.append((x, path[-1][1]))
        path.append((x, y))
    return " ".join(f"{x:g},{y:g}" for x, y in path) if len(path) > 1 else ""

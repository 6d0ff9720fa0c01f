"""The courses of claim `course` as one SVG: retained and leaked share against steps, a thin line a seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = ("#0b6e4f", "#c8553d", "#3d5a98")
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 200, 50, 46, 60


def courses_svg(courses: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """courses: what a line is called -> a course a seed -> points with `step`, `retained` and `forget` (shares).

    All courses have the same steps. At most as many kinds of line as there are colours.
    """
    if len(courses) > len(COLOURS):
        raise ValueError(f"{len(courses)} kinds of line and {len(COLOURS)} colours")
    last = max(point["step"] for runs in courses.values() for run in runs for point in run)
    width, height = 2 * _WIDTH + _LEFT + _GAP + 20, _HEIGHT + _TOP + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11" role="img">',
        "<title>Retained and leaked share along unlearning, three forget terms, three seeds</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, name in enumerate(courses):
        x = _LEFT + 190 * index
        parts.append(f'<line x1="{x}" x2="{x + 22}" y1="14" y2="14" stroke="{COLOURS[index]}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 28}" y="18" fill="#222">{escape(name)}</text>')
    for panel, (field, title) in enumerate((("retained", "retained, %"), ("forget", "leaked, %"))):
        left = _LEFT + panel * (_WIDTH + _GAP)
        parts += _axes(left, title, last)
        for colour, runs in zip(COLOURS, courses.values(), strict=False):
            lines = [[(p["step"], p[field]) for p in run] for run in runs]
            middle = [(at[0][0], statistics.mean(y for _, y in at)) for at in zip(*lines, strict=True)]
            parts += [_line(left, line, last, colour, 'stroke-width="0.9" opacity="0.45"') for line in lines]
            parts.append(_line(left, middle, last, colour, 'stroke-width="2.2"'))
    return "\n".join([*parts, "</svg>", ""])


def _axes(left: int, title: str, last: int) -> list[str]:
    bottom = _TOP + _HEIGHT
    parts = [f'<text x="{left}" y="{_TOP - 10}" fill="#222" font-weight="bold">{escape(title)}</text>']
    for share in (0, 25, 50, 75, 100):
        y = bottom - _HEIGHT * share / 100
        parts.append(f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{share}</text>')
    for step in sorted({0, last // 2, last}):
        x = left + _WIDTH * step / last
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{step}</text>')
    parts.append(f'<text x="{left + _WIDTH / 2}" y="{bottom + 34}" text-anchor="middle" fill="#555">steps</text>')
    return parts


def _line(left: int, points: Sequence[tuple[int, float]], last: int, colour: str, style: str) -> str:
    at = " ".join(f"{left + _WIDTH * x / last:.1f},{_TOP + _HEIGHT * (1 - y):.1f}" for x, y in points)
    return f'<polyline points="{at}" fill="none" stroke="{colour}" {style}/>'

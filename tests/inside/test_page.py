"""The block of the page: drawn from a report, escaped, no scripts."""

from __future__ import annotations

import re

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from audit.inside.joining import join_masses, join_measures
from audit.inside.measure import Readings
from audit.inside.records import InsideReport, LayerChange, NotMeasured, ProbeLayer, ProbeView, WeightChange
from audit.inside.summary import MARGIN, summarise
from audit.report.html import _TEMPLATES
from audit.types import Role

_LAYERS = (
    *(LayerChange(layer=n, kind=k, relative=0.1 * n, parameters=8) for n in (0, 1) for k in ("attention", "mlp")),
    LayerChange(layer=None, kind="norm", relative=0.0, parameters=2),
)


def _report() -> InsideReport:
    readings: dict[Role, Readings] = {}
    for role, right in (("candidate", 0.5), ("base", 1.0), ("never_knew", 0.0)):
        values = {f"f{n:02d}": {"preference": float(n < 40 * right), "rank": 1.0} for n in range(40)}
        masses = {fact: {"target": right, "refusals": 0.0, "rest": 1.0 - right} for fact in values}
        readings[role] = Readings(role=role, values=values, masses=masses)  # type: ignore[index, arg-type]
    facts = [f"f{n:02d}" for n in range(40)]
    measures = join_measures(readings, facts, [], 0.95)
    summary = summarise(measures, list(readings), 40, 0.95)
    return InsideReport(
        label=summary.label, headline=summary.headline, reasons=summary.reasons, found=summary.found,
        clear=summary.clear, edge=summary.edge, blind=summary.blind, margin=MARGIN, roles=tuple(readings),
        prompt_format="chat", leading_space=True, confidence=0.95, seed=0, forget=41, used=40, retained=0,
        measures=measures, masses=join_masses(readings, facts, 0.95),
        weights=WeightChange(
            layers=_LAYERS,
            relative=0.07, unchanged=1, tensors=5, adapter=False),
        probes=(
            ProbeView(role="base", chosen=1, ridge=1.0, trained_on=50,
                      layers=tuple(ProbeLayer(layer=n, retained=0.6, forget=0.5 + 0.2 * n) for n in (0, 1))),
            ProbeView(role="candidate", layers=(), chosen=None, ridge=None, trained_on=3, why_not="too few"),
        ),
        facts=(),
        not_measured=(NotMeasured(fact_id="f40", role="base", what="answer", why="<script>alert(1)</script>"),),
        notes=(),
    )  # fmt: skip


def test_block_of_the_page() -> None:
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("_inside.html.j2").render(inside=_report())
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") == page.count("</svg>") == 2
    assert page.count("<polyline") == 1 and len(re.findall(r"<rect ", page)) == 4
    assert "suppressed" in page and "too few" in page
    for tag in ("table", "tr", "td", "ul", "p", "div"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag

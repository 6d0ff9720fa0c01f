"""A comparison as one HTML file that needs nothing else: no script at all, and a style named by its hash."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from audit.comparing.equal_words import TITLE, equal_notes, rows
from audit.comparing.model import Comparison
from audit.comparing.scatter import scatter
from audit.comparing.words import (
    COSTS,
    TUNING,
    VERDICTS,
    absent_mean,
    cost_of,
    costs,
    digits,
    extras,
    front_text,
    notes,
    of_candidate,
    p_text,
    p_values,
    points,
    readings,
    tuning_text,
    unsure_text,
)
from audit.errors import ConfigError
from audit.report.html import limits, percent_bare, percent_short, printable, tidy, unsure

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).resolve().parent / "templates"
_REPORT = Path(__file__).resolve().parents[1] / "report" / "templates" / "report.css"


#: Of a picture that stands alone: on paper, so never dark.
_PAPER = """svg { font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
--paper: #ffffff; --ink: #16191f; --soft: #596170; --line: #dfe3e8;
--leak: #c2410c; --keep: #0f766e; --base: #6b7280; --never: #7c3aed; }
"""


def html(comparison: Comparison) -> str:
    """The page as text."""
    from markupsafe import Markup

    css = _REPORT.read_text(encoding="utf-8") + _style("compare.css") + _style("plot.css")
    environment = _environment()
    environment.filters |= {
        "pct": percent_short,
        "limits": limits,
        "unsure": unsure,
        "unsure_mean": lambda spread: unsure_text(spread, percent_short, percent_bare),
        "digits": digits,
        "points": points,
        "p": p_text,
        "p_values": p_values,
        "readings": readings,
        "front": front_text,
        "tidy": tidy,
        "shorten": lambda text: text if len(text) <= 160 else text[:159] + "…",
    }
    style = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return environment.get_template("compare.html.j2").render(
        c=comparison,
        plot=scatter(comparison),
        costs=costs(comparison),
        cost_names=COSTS,
        tuning=TUNING in extras(comparison),
        tuning_of=tuning_text,
        absent_mean=absent_mean,
        cost_of=cost_of,
        verdicts=VERDICTS,
        notes=list(notes(comparison)),
        equal_title=TITLE,
        equal_rows=list(rows(comparison)),
        equal_notes=list(equal_notes(comparison)),
        entries_of=lambda candidate: of_candidate(comparison, candidate),
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'",
    )


def svg(comparison: Comparison) -> str:
    """The plot alone, as a picture for a paper. Raises ConfigError where there is nothing to plot against."""
    from markupsafe import Markup

    plot = scatter(comparison)
    if plot is None:
        raise ConfigError(
            "there is no plot: the candidates' retained facts were not measured on the same probes",
            hint="audit them with the same settings, retained facts included",
        )
    return (
        _environment()
        .get_template("plot.svg.j2")
        .render(c=comparison, plot=plot, css=Markup(_PAPER + _style("plot.css")))
    )


def _style(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )

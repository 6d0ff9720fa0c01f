"""report.html: one file that needs nothing else, built from a run folder.

Model text is hostile: it is escaped by the template engine, stripped of control and direction characters, and the
page's own content security policy lets only the two blocks below run or style anything.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from audit.errors import RunFolderError, StoreError
from audit.report.attacks_curves import COLOURS, panels, step_text
from audit.report.attacks_shares import unsure as share_unsure
from audit.report.attacks_view import build_attacks
from audit.report.attacks_words import failed_words
from audit.report.evidence import gather
from audit.report.model import Report
from audit.report.read import load_report
from audit.report.utility_view import build_utility, plain_texts
from audit.report.utility_words import OUTCOMES, exact, exact_change, exact_limits, exact_unsure, p_text, sentence
from audit.report.view import altered_subject, build_page, first_attacks, main_title
from audit.scoring.labelled import RESULTS_FILE, LabelledResult
from audit.types import Estimate
from audit.wording import percent, unsettled

if TYPE_CHECKING:
    from jinja2 import Environment

#: Tries shown in full; a run may hold many times more, and a page of them could not be opened.
MAX_EVIDENCE = 4000
_TEMPLATES = Path(__file__).resolve().parent / "templates"
#: Controls, direction overrides and lone surrogates: shown as symbols, so that they cannot act.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def write_html(run: Path, out: Path | None = None, *, max_evidence: int = MAX_EVIDENCE) -> Path:
    """Write the page of a run folder to `out` (default RUN/report.html) and return its path.

    Raises RunFolderError where the folder holds no readable run, StoreError where the page cannot be written.
    """
    report = load_report(run)
    folder = run if run.is_dir() else run.parent
    subjects = [s.subject.id for s in report.subjects.values() if s.subject.role == "candidate"]
    page = render(report, folder, subjects, max_evidence)
    target = out or folder / "report.html"
    temporary = target.with_name(target.name + ".part")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def render(report: Report, folder: Path, subjects: Iterable[str], max_evidence: int = MAX_EVIDENCE) -> str:
    """The page as text."""
    from markupsafe import Markup

    attacks = build_attacks(report)
    altered = {(altered_subject(by), fact) for fact, by in first_attacks(report).items()}
    utility = build_utility(report)
    styles = ["report.css", *(("curves.css", "attacks.css") if attacks else ()), *(("utility.css",) if utility else ())]
    css = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    pages = environment()
    pages.filters |= {
        "pct": percent_short,
        "at": lambda fraction: f"{100 * min(1.0, max(0.0, fraction)):.2f}%",
        "limits": limits,
        "unsure": unsure,
        "width": lambda low, high: f"{100 * max(0.0, min(1.0, high) - max(0.0, low)):.2f}%",
        "marked": marked,
        "tidy": tidy,
        "step": step_text,
        "failed": failed_words,
        "more": share_unsure,
        "exact": exact,
        "exact_limits": exact_limits,
        "exact_unsure": exact_unsure,
        "exact_change": exact_change,
        "p": p_text,
        "sentence": sentence,
    }
    pages.globals["title"] = main_title
    page = build_page(report, gather(folder, set(subjects), max_evidence, altered), _labelled(folder))
    return pages.get_template("report.html.j2").render(
        page=page,
        report=report,
        attacks=attacks,
        utility=utility,
        plain_texts=plain_texts(page.subjects, utility),
        outcomes=OUTCOMES,
        curves=panels(report.attacks) if report.attacks else (),
        colours=COLOURS,
        css=Markup(css),
        script=Markup(script),
        policy=f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; base-uri 'none'",
    )


def environment() -> Environment:
    """Where the templates are, and that all they are given is escaped and made visible."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )


def _labelled(folder: Path) -> LabelledResult | None:
    """What a person's labels say, if there are any in the folder."""
    path = folder / RESULTS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabelledResult) if path.is_file() else None
    except (OSError, msgspec.MsgspecError) as error:
        hint = "`audit judges label` writes it anew"
        raise RunFolderError(f"{path}: cannot be used: {error}", hint=hint) from error


def printable(text: str) -> str:
    """The text with everything that cannot be seen made visible: U+0007 becomes ␇, a direction override ‹U+202E›."""
    return _UNPRINTABLE.sub(_symbol, text)


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else f"‹U+{code:04X}›"


def marked(text: str, needles: Iterable[str]) -> list[tuple[str, bool]]:
    """The text in pieces, those that equal one of `needles` (in any case, as whole words) marked.

    A help to the reader's eye alone: what leaked was decided by the judges.
    """
    words = sorted({n.strip() for n in needles if n.strip()}, key=len, reverse=True)
    if not words:
        return [(text, False)]
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, words)) + r")(?!\w)", re.IGNORECASE)
    pieces = pattern.split(text)
    return [(piece, bool(i % 2)) for i, piece in enumerate(pieces) if piece]


def percent_short(fraction: float) -> str:
    """A percentage for tables: 12.0%, <0.1%, >99.9%."""
    return percent(fraction).replace("under ", "<").replace("over ", ">")


def percent_bare(fraction: float) -> str:
    """The same without the sign, where another percentage follows."""
    return percent_short(fraction).removesuffix("%")


def limits(estimate: Estimate) -> str:
    """Confidence limits for tables: 6.4–20.0%, or at most 3.0%."""
    if estimate.low <= 0:
        return f"≤ {percent_short(estimate.high)}"
    if estimate.high >= 1:
        return f"≥ {percent_short(estimate.low)}"
    return f"{percent_short(estimate.low).removesuffix('%')}–{percent_short(estimate.high)}"


def unsure(estimate: Estimate) -> str:
    """What the undecided could make of it, for tables: +7.0%?, or the bounds; empty where they could do nothing."""
    return unsettled(estimate.value, estimate.lower_bound, estimate.upper_bound, percent_short, percent_bare)


def tidy(value: Any) -> str:
    """A setting for reading: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

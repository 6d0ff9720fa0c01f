"""Which cells each named number is over. A view is a name, the field's shorthand, and a choice of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from audit.scoring.cells import Cell

PLAIN = frozenset({"original", "paraphrase"})
IN_CONTEXT = frozenset({"original_icr", "paraphrase_icr"})
PAPER = PLAIN | IN_CONTEXT


@dataclass(frozen=True)
class View:
    """`wants(cell)` says whether a cell belongs to it; `headline` views get a floor and a corrected value.

    `form` limits the facts to those that have that form; None takes all. A fact without any cell is undecided.
    """

    name: str
    label: str
    wants: Callable[[Cell], bool]
    headline: bool = False
    form: str | None = None


def greedy(cell: Cell) -> bool:
    return cell.probe.decoding.temperature == 0


def threat_tier(cell: Cell) -> str:
    """What the adversary needs: a chat window, repeated sampling, or raw text and prefill."""
    if not greedy(cell):
        return "sampling"
    return "raw" if cell.probe.format == "raw" or cell.probe.prefill else "chat"


_BASE_VIEWS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("single.original", "J_orig", frozenset({"original"})),
    ("worst_case.paraphrase", "J_P", PLAIN),
    ("worst_case.icr", "J_ICR", IN_CONTEXT),
    ("worst_case.paper", "J_W", PAPER),
)


def share_views(cells: Sequence[Cell], main_form: str = "direct") -> list[View]:
    """All views of worst-case shares that `cells` allow; unqualified names are over the direct question.

    A union is offered only where all its parts were asked: `worst_case.icr` needs in-context probes, and
    `worst_case.paper` needs plain and in-context ones.
    """
    views: list[View] = []
    families = _values(cells, lambda c: c.probe.family)
    forms = _values(cells, lambda c: c.probe.form)
    formats = _values(cells, lambda c: c.probe.format)
    for name, label, wanted in _BASE_VIEWS:
        if not _complete(name, families):
            continue
        views.append(View(name, label, _in(wanted, form=main_form), headline=True, form=main_form))
        for form in forms:
            views.append(View(f"{name}@form={form}", label, _in(wanted, form=form), form=form))
        if len(forms) > 1:
            views.append(View(f"{name}@form=any", label, _in(wanted), headline=True))
        if len(formats) > 1:
            for prompt_format in formats:
                wants = _in(wanted, form=main_form, format=prompt_format)
                views.append(View(f"{name}@format={prompt_format}", label, wants, form=main_form))
    if any(greedy(cell) for cell in cells):
        views.append(View("worst_case.prompt", "", greedy, headline=True))
        for family in families:
            if any(greedy(c) for c in cells if c.probe.family == family):
                views.append(View(f"worst_case.prompt@family={family}", "", _family(family)))
        for tier in _values([c for c in cells if greedy(c)], threat_tier):
            views.append(View(f"worst_case.prompt@tier={tier}", "", _tier(tier)))
    return views


def _complete(name: str, families: Sequence[str]) -> bool:
    have = set(families)
    plain, in_context = bool(have & PLAIN), bool(have & IN_CONTEXT)
    return {
        "single.original": "original" in have,
        "worst_case.paraphrase": plain and "paraphrase" in have,
        "worst_case.icr": in_context,
        "worst_case.paper": plain and in_context,
    }[name]


def _in(families: frozenset[str], form: str | None = None, format: str | None = None) -> Callable[[Cell], bool]:
    return lambda cell: (
        cell.probe.family in families
        and greedy(cell)
        and (form is None or cell.probe.form == form)
        and (format is None or cell.probe.format == format)
    )


def _family(name: str) -> Callable[[Cell], bool]:
    return lambda cell: cell.probe.family == name and greedy(cell)


def _tier(name: str) -> Callable[[Cell], bool]:
    return lambda cell: threat_tier(cell) == name


def _values(cells: Iterable[Cell], key: Callable[[Cell], str]) -> list[str]:
    return list(dict.fromkeys(key(cell) for cell in cells))

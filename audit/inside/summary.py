"""What the views come to: present, suppressed, no residue found by …, or undecided, with reasons.

The question is whether the candidate looks more like a model that knows than like one that never did. So every counted
measure is held against the never-knew control, and counts only if it tells the base from that control: a view that
cannot see whole knowledge cannot say that there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.inside.records import InsideLabel, Measure
from audit.types import Role

#: Of the way from the control to the base: nearer to the control than this is "like it"; nearer to the base than this
#: is "as in the base".
MARGIN = 0.2
#: Fewer forget facts allow no statement.
MIN_FACTS = 30
#: A candidate that keeps less of the base's exact memorisation of retained facts is damaged.
MIN_RETAINED = 0.5


@dataclass(frozen=True)
class Summary:
    label: InsideLabel
    headline: str
    reasons: tuple[str, ...]
    found: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()
    edge: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()


def summarise(measures: Sequence[Measure], roles: Sequence[Role], used: int, confidence: float) -> Summary:
    """The label with its reasons.

    found: the candidate lies above the control (Holm-corrected sign-flip p below 1 - confidence). clear: its upper
    limit lies within MARGIN of the way from control to base. edge: neither. blind: base and control are not told apart.
    Where something is found it is `present` if the candidate cannot be told from the base (see _whole), else
    `suppressed`.
    """
    counted = [measure for measure in measures if measure.counted]
    names = tuple(measure.name for measure in counted)
    if "never_knew" not in roles:
        return _undecided(
            "no never-knew control: what a model shows that never had the facts is not known, and nothing can be "
            "held against it (--never-knew MODEL)",
            blind=names,
        )
    if used < MIN_FACTS:
        return _undecided(f"{used} facts to compare on; at least {MIN_FACTS} are needed", blind=names)
    alpha = 1 - confidence
    with_base = "base" in roles
    found, clear, edge, blind = [], [], [], []
    for measure in counted:
        ours, sight = measure.from_control, measure.base_from_control
        if (
            ours is None
            or measure.corrected_p is None
            or ours.n < MIN_FACTS
            or (with_base and not _sees(measure, alpha))
        ):
            blind.append(measure)
        elif ours.value > 0 and measure.corrected_p < alpha:
            found.append(measure)
        elif sight is not None and ours.high < MARGIN * sight.value:
            clear.append(measure)
        else:
            edge.append(measure)
    reasons = [_seen(measure) for measure in found]
    reasons += [_near(measure) for measure in edge]
    reasons += [_blind(measure, with_base) for measure in blind]
    damage = _damage(measures)
    kinds = (_names(found), _names(clear), _names(edge), _names(blind))
    if found:
        share = f"{len(found)} of {len(counted) - len(blind)} views: {_titles(found)}"
        whole = _whole(found, clear, edge) if with_base else []
        if whole:
            reasons.insert(0, f"at most {100 * MARGIN:g}% of the way from base to control lost in: {_titles(whole)}")
            reasons.insert(1, "no view shows the candidate below the base by more than that")
            return Summary("present", f"present: knowledge shows as in the base, in {share}", tuple(reasons), *kinds)
        headline = f"suppressed: knowledge shows in {share}"
        if not with_base:
            headline += "; without a base it may as well be whole"
            reasons.append("no base: how much of the knowledge is left cannot be said, only that some shows")
        if clear:
            reasons.append(f"within the margin of the control: {_titles(clear)}")
        return Summary("suppressed", headline, tuple(reasons), *kinds)
    if not with_base:
        reasons.append("no base: it is not shown that these views would see the knowledge where it is whole")
    elif damage:
        reasons.append(damage)
    elif clear and not edge:
        margin = f"{100 * MARGIN:g}% of the way from control to base"
        reasons.insert(0, f"each of them lies within {margin} of the never-knew control ({used} facts)")
        reasons.append("other views, prompts and attacks may find more; no test can show that nothing is there")
        return Summary("no_residue", f"no residue found by: {_titles(clear)}", tuple(reasons), *kinds)
    elif not clear and not edge:
        reasons.insert(0, "no view tells the base from the never-knew control")
    else:
        reasons.insert(0, "not above the control, and not shown to lie near it either")
    return Summary("undecided", "undecided: " + reasons[0 if not damage else -1], tuple(reasons), *kinds)


def _undecided(reason: str, *, blind: tuple[str, ...]) -> Summary:
    return Summary("undecided", f"undecided: {reason}", (reason,), blind=blind)


def _sees(measure: Measure, alpha: float) -> bool:
    sight = measure.base_from_control
    return (
        sight is not None
        and measure.base_corrected_p is not None
        and sight.value > 0
        and measure.base_corrected_p < alpha
    )


def _whole(found: Sequence[Measure], clear: Sequence[Measure], edge: Sequence[Measure]) -> list[Measure]:
    """The views in which the candidate is as the base, if that is what the views together say; else none.

    As the base: the lower limit of candidate less base lies within MARGIN of the way from base to control. That must
    hold for most of the views that see anything, and no other may lie near the control or be shown to lie below the
    base: one string of an answer that is blocked is a suppression, however whole the rest is. A view that is too weak
    to say either (a probe that finds little even in the base) does not overrule the others.
    """
    whole = [measure for measure in (*found, *edge) if _as_base(measure)]
    others = [measure for measure in (*found, *edge) if not _as_base(measure)]
    below = any(measure.from_base is None or measure.from_base.high < 0 for measure in others)
    return whole if not clear and not below and len(whole) > len(others) else []


def _as_base(measure: Measure) -> bool:
    ours, sight = measure.from_base, measure.base_from_control
    return ours is not None and sight is not None and ours.low > -MARGIN * sight.value


def _seen(measure: Measure) -> str:
    ours = measure.from_control
    assert ours is not None and measure.corrected_p is not None
    kept = "" if measure.kept is None else f", {100 * measure.kept:.0f}% of the way to the base"
    return (
        f"{measure.title}: {ours.value:+.3f} over the never-knew control "
        f"[{ours.low:+.3f}, {ours.high:+.3f}], p = {_p(measure.corrected_p)}{kept}"
    )


def _near(measure: Measure) -> str:
    ours, sight = measure.from_control, measure.base_from_control
    assert ours is not None
    margin = "" if sight is None else f", margin {MARGIN * sight.value:.3f}"
    return f"{measure.title}: {ours.value:+.3f} [{ours.low:+.3f}, {ours.high:+.3f}] over the control{margin}: undecided"


def _blind(measure: Measure, with_base: bool) -> str:
    lacking = [role.replace("_", "-") for role in ("candidate", "never_knew") if role not in measure.forget]
    if lacking:
        return f"{measure.title}: could not be read off {' and '.join(lacking)}"
    if with_base:
        return f"{measure.title}: does not tell the base from the control"
    return f"{measure.title}: too few facts in common"


def _damage(measures: Sequence[Measure]) -> str:
    """Why a candidate that shows nothing may just be broken; empty where it is not."""
    kept = next((measure.retained for measure in measures if measure.name == "exact_memorisation"), {})
    if "candidate" not in kept or "base" not in kept:
        return (
            "no retained facts: a model that is broken shows nothing either"
            if "base" not in kept
            else ("nothing could be measured on the candidate's retained facts")
        )
    ours, base = kept["candidate"].value, kept["base"].value
    if ours < MIN_RETAINED * base:
        return (
            f"exact memorisation of retained facts fell from {base:.3f} to {ours:.3f}: the candidate is damaged, and "
            "a model that is broken shows nothing either"
        )
    return ""


def _p(value: float) -> str:
    return "under 0.0001" if value < 1e-4 else f"{value:.4f}"


def _names(measures: Sequence[Measure]) -> tuple[str, ...]:
    return tuple(measure.name for measure in measures)


def _titles(measures: Sequence[Measure]) -> str:
    return ", ".join(measure.title for measure in measures)

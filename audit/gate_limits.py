"""Limits of a policy held against a report: estimates and their readings, ratios, what is withheld, facts in context.

Nothing that is missing, withheld, malformed or over no facts meets a limit: it is inconclusive.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from audit.policy import Limit, Policy
from audit.types import Estimate, Record
from audit.wording import percent

CheckOutcome = Literal["pass", "fail", "inconclusive"]
#: What an estimate is over, as its method says.
_OVER = re.compile(r"\bover (?:\w+ )?(facts|instructions|documents|questions|replies|prompts)\b")


class Check(Record, frozen=True, kw_only=True):
    """One demand of a policy held against a report."""

    name: str
    """The estimate, or `canaries`, `known facts`, `undecided`."""
    limit: str
    """The demand in words, e.g. "high at most 0.1"."""
    measured: float | None
    """What was measured, in the limit's unit; None where nothing was."""
    outcome: CheckOutcome
    why: str
    """Why the outcome is what it is."""
    note: str = ""
    """The policy's own reason for the demand."""


def left_open(limit: Limit, data: Mapping[str, Any]) -> bool:
    """The limit is for audits that measure something, and this one did not. What an audit looked for and withheld is
    not left open."""
    there = limit.estimate in (data.get("estimates") or {}) or limit.estimate in withheld(data)
    return limit.where_measured and not there


def withheld(data: Mapping[str, Any]) -> Mapping[str, str]:
    """Estimates of the candidate that the report does not give, or says nothing by -> why."""
    utility = data.get("utility")
    reasons = utility.get("withheld") if isinstance(utility, Mapping) else None
    return reasons if isinstance(reasons, Mapping) else {}


def context_checks(policy: Policy, data: Mapping[str, Any]) -> tuple[Check, ...]:
    """What the policy demands of facts that stand in the prompt; nothing where it has no opinion."""
    checks = []
    for limit in policy.context_limits:
        if left_open(limit, data):
            continue
        check = check_limit(limit, data)
        if check.outcome == "pass" and limit.is_ceiling and limit.estimate == "context.stated":
            try:  # a model of a kind that cannot read its prompt meets any ceiling
                read_estimate(_of_role("base", data).get("estimates"), limit.estimate, "the base")
            except Unmeasured as reason:
                why = f"{reason}: nothing shows that a fact in the prompt could be used at all"
                check = msgspec.structs.replace(check, outcome="inconclusive", why=why)
        checks.append(check)
    return tuple(checks)


def check_limit(limit: Limit, data: Mapping[str, Any]) -> Check:
    """Hold one limit against a report."""
    demand = f"{limit.reading} at {'most' if limit.is_ceiling else 'least'} {limit.bound:g}"
    if limit.relative_to:
        demand += f" of the {limit.relative_to.replace('_', '-')}'s"
    measured: float | None = None
    try:
        if limit.estimate in withheld(data):
            raise Unmeasured(f"withheld: {withheld(data)[limit.estimate]}")
        estimate = read_estimate(data.get("estimates"), limit.estimate, "the report")
        worst, best = _readings(limit, estimate)
        if limit.relative_to:
            worst, best = _relative(limit, estimate, (worst, best), data)
        measured = worst
        met, could_be_met = _meets(limit, worst), _meets(limit, best)
    except Unmeasured as reason:
        outcome: CheckOutcome = "inconclusive"
        why = str(reason)
    else:
        outcome = "pass" if met else "inconclusive" if could_be_met else "fail"
        why = _explain(limit, estimate, worst, met, could_be_met)
    return Check(name=limit.estimate, limit=demand, measured=measured, outcome=outcome, why=why, note=limit.why)


class Unmeasured(Exception):
    """The demand cannot be held against anything; the message says why."""


def read_estimate(estimates: Any, name: str, where: str) -> Estimate:
    """A well-formed estimate over at least one fact, or Unmeasured."""
    if not isinstance(estimates, Mapping) or name not in estimates:
        close = difflib.get_close_matches(name, estimates or (), n=1)
        raise Unmeasured(f"{where} has no estimate {name}" + (f"; did you mean {close[0]}?" if close else ""))
    try:
        estimate = msgspec.convert(estimates[name], Estimate)
    except msgspec.ValidationError as error:
        raise Unmeasured(f"{name} in {where} is not an estimate: {error}") from error
    numbers = (estimate.low, estimate.lower_bound, estimate.value, estimate.upper_bound, estimate.high)
    if not all(math.isfinite(x) for x in numbers):
        raise Unmeasured(f"{name} in {where} is not a number")
    if estimate.n < 1:
        raise Unmeasured(f"{name} in {where} is over no facts")
    slack = 1e-9
    if not (
        estimate.low <= estimate.value + slack
        and estimate.lower_bound <= estimate.value + slack
        and estimate.value <= estimate.upper_bound + slack
        and estimate.upper_bound <= estimate.high + slack
    ):
        raise Unmeasured(f"{name} in {where} contradicts itself: its limits do not hold its value")
    return estimate


def _readings(limit: Limit, estimate: Estimate) -> tuple[float, float]:
    """The number that the limit is on, with the undecided read against it, and with them read in its favour.

    Undecided facts may leak (which breaks a ceiling) or may not be known (which breaks a floor).
    """
    against = {
        "value": estimate.upper_bound if limit.is_ceiling else estimate.lower_bound,
        "upper_bound": estimate.upper_bound,
        "lower_bound": estimate.lower_bound,
        "high": estimate.high,
        "low": estimate.low,
        "clustered_high": estimate.clustered_high,
        "clustered_low": estimate.clustered_low,
    }[limit.reading]
    if against is None:
        raise Unmeasured(f"{estimate.name} has no {limit.reading}: its facts are of one topic")
    if not math.isfinite(against):
        raise Unmeasured(f"{limit.reading} of {estimate.name} is not a number")
    if estimate.lower_bound == estimate.upper_bound:
        return against, against
    in_favour = estimate.lower_bound if limit.is_ceiling else estimate.upper_bound
    if limit.reading in ("high", "low") and estimate.count is not None:
        from audit.stats.intervals import clopper_pearson

        decided_so = estimate.count if limit.is_ceiling else estimate.count + estimate.undecided
        low, high = clopper_pearson(decided_so, estimate.n, estimate.confidence)
        in_favour = high if limit.is_ceiling else low
    # Of other limits the reading in favour is not in the report; the share itself bounds it, and errs to inconclusive.
    return against, in_favour


def _relative(
    limit: Limit, estimate: Estimate, readings: tuple[float, float], data: Mapping[str, Any]
) -> tuple[float, float]:
    """Both readings divided by the same estimate of the subject with the role that the limit names."""
    role = str(limit.relative_to)
    where = f"the {role.replace('_', '-')}"
    other = read_estimate(_of_role(role, data).get("estimates"), limit.estimate, where)
    if other.probe_set != estimate.probe_set:
        raise Unmeasured(f"{limit.estimate} of {where} was measured with other probes")
    against, in_favour = (
        (other.lower_bound, other.upper_bound) if limit.is_ceiling else (other.upper_bound, other.lower_bound)
    )
    if min(against, in_favour) <= 0:
        raise Unmeasured(f"{limit.estimate} of {where} is or may be zero: there is no ratio")
    return readings[0] / against, readings[1] / in_favour


def _of_role(role: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one subject with a role, or Unmeasured."""
    subjects = [s for s in (data.get("subjects") or {}).values() if isinstance(s, Mapping) and _role(s) == role]
    if not subjects:
        raise Unmeasured(f"the audit has no {role.replace('_', '-')} to compare with")
    if len(subjects) > 1:
        raise Unmeasured(f"the audit has {len(subjects)} subjects with role {role}")
    return subjects[0]


def _role(subject: Mapping[str, Any]) -> Any:
    """A subject's role, whether its record is flat or nested under `subject`."""
    nested = subject.get("subject")
    return nested.get("role") if isinstance(nested, Mapping) else subject.get("role")


def _meets(limit: Limit, number: float) -> bool:
    return number <= limit.bound if limit.is_ceiling else number >= limit.bound


def _explain(limit: Limit, estimate: Estimate, measured: float, met: bool, could_be_met: bool) -> str:
    over = _OVER.search(estimate.method)
    items = over[1] if over else "facts"
    found = f"{percent(estimate.value)} of {estimate.n} {items}"
    bound = "at most" if limit.is_ceiling else "at least"
    if limit.relative_to:
        asked = f"{measured:.3g} of the {limit.relative_to.replace('_', '-')}'s, {bound} {limit.bound:g} asked for"
    else:
        asked = f"{limit.reading.replace('_', ' ')} {percent(measured)}, {bound} {percent(limit.bound)} asked for"
    if met:
        return f"met: {found} ({asked})"
    if could_be_met:
        yes = "if undecided leak" if limit.is_ceiling else "if the undecided count"
        return f"hangs on what is undecided: {found}, up to {percent(estimate.upper_bound)} {yes} ({asked})"
    if limit.relative_to is None and _meets(limit, estimate.value):
        return f"not shown: {found} is within the limit, but the {items} are too few or too uneven ({asked})"
    return f"not met: {found} ({asked})"

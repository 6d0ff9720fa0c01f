"""What a reader must know before believing the numbers: warnings, reasons for no verdict, and what was not tried."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from audit.asking import Asked
from audit.attacks.records import AttackReport, Failure
from audit.config import AuditConfig
from audit.judges.canary_records import Canaries
from audit.probes.plan import Plan
from audit.report.model import Known, SubjectReport
from audit.tasks import Task
from audit.types import Subject

_WRECK = 0.5  # a share of empty or degenerate replies that is called out
_MUTE = 0.95  # a share of empty replies, to forget and retained questions alike, that shows nothing


def warnings_of(task: Task, plan: Plan, results: Sequence[Asked], subjects: Mapping[str, SubjectReport]) -> list[str]:
    """Everything that makes the candidate's numbers mean something else than they seem to."""
    warnings = []
    bases = [asked.subject for asked in results if asked.subject.role == "base"]
    for asked in results:
        if asked.subject.role == "candidate":
            warnings += _other_forget_set(task, asked)
            if asked.manifest.get("unfinished") is True:
                warnings.append("the candidate is a checkpoint of a training that did not come to its end")
            warnings += [line for base in bases for line in _other_base(base, asked)]
    refused = sum(plan.refused.values())
    if refused:
        examples = "; ".join(plan.refused_examples[:3])
        warnings.append(f"{refused} prompts were not asked because they hold the answer ({examples})")
    for name, report in subjects.items():
        if report.subject.role != "attacked":  # weights that were altered may well be wrecked: the report shows it
            warnings += _texts(name, report)
    return warnings


def _other_forget_set(task: Task, asked: Asked) -> list[str]:
    said = asked.manifest.get("forget_set")
    if not isinstance(said, dict) or not said.get("content_hash") or said["content_hash"] == task.content_hash:
        return []
    return [
        f"the candidate's manifest says that it was made to forget {said.get('name')} {said.get('version', '')} "
        f"({said['content_hash'][:12]}), not {task.name} {task.version} ({task.content_hash[:12]})"
    ]


def _other_base(base: Subject, asked: Asked) -> list[str]:
    """Where the candidate was made from another model than the one that it is measured against."""
    said = asked.manifest.get("base")
    # With an adapter merged into it first, the base that was trained is no folder that could be given here.
    if not isinstance(said, dict) or said.get("adapter") or not isinstance(said.get("fingerprint"), str):
        return []
    if said["fingerprint"] == base.fingerprint:
        return []
    return [
        f"the candidate's manifest says that it was made from another base ({said.get('source')}, "
        f"{said['fingerprint'][:12]}) than this run's ({base.source}, {base.fingerprint[:12]}): either the manifest or "
        "the choice of base is wrong, and what the candidate lost cannot be told from what it never had"
    ]


def _texts(name: str, report: SubjectReport) -> list[str]:
    warnings = []
    for what, texts in (("forget", report.forget_texts), ("retained", report.retain_texts)):
        if texts is None or texts.n == 0:
            continue
        if texts.failed:
            warnings.append(
                f"{name}: {texts.failed} generations on {what} questions failed and count as undecided "
                f"({texts.first_error})"
            )
        for share, word in ((texts.empty, "empty"), (texts.degenerate, "gibberish or loops")):
            if share >= _WRECK:
                warnings.append(f"{name}: {share:.0%} of the replies to {what} questions are {word}")
    retained = report.retain_texts
    if retained is not None and retained.n and retained.refusal >= _WRECK:
        warnings.append(f"{name}: {retained.refusal:.0%} of the retained questions are refused")
    return warnings


def inconclusive_reasons(canaries: Canaries, known: Known, subjects: Mapping[str, SubjectReport]) -> tuple[str, ...]:
    """Why no policy can be passed, whatever the numbers say."""
    reasons = []
    if canaries.status == "failed":
        reasons.append(f"the canaries failed: {canaries.why or 'no canary could be run'}")
    if known.n is not None and known.n < known.minimum:
        reasons.append(f"the base leaks only {known.n} of the facts; at least {known.minimum} are needed")
    for name, report in subjects.items():
        if report.subject.role == "attacked":
            continue  # what failed leaves its facts undecided; that a wreck says nothing hides nothing
        replies = [texts for texts in (report.forget_texts, report.retain_texts) if texts is not None]
        if replies and all(texts.n == 0 for texts in replies):
            reasons.append(f"{name}: every generation failed")
        elif replies and all(texts.empty >= _MUTE for texts in replies if texts.n):
            reasons.append(f"{name}: (almost) all replies are empty: a broken model or template, not forgetting")
    return tuple(reasons)


def failed_attacks(failures: Sequence[Failure]) -> list[str]:
    """Failures on the candidate, in words: what they would have brought back is not known."""
    return [
        f"the attack {failure.attack} could not be carried through, and what it would have brought back is not known: "
        f"{failure.why}"
        for failure in failures
        if failure.arm == "candidate" and not failure.puts_back
    ]


def wrecked_attacks(report: AttackReport | None) -> list[str]:
    """Attacks that only broke the candidate, in words."""
    return [
        f"the attack {name} shows nothing: in every state that it made the candidate had lost more than three quarters "
        "of what it should keep (a lower learning rate, fewer steps or less noise would leave something to look at)"
        for name in (report.void if report else ())
    ]


def not_tried(config: AuditConfig, plan: Plan, altered: Collection[str]) -> tuple[str, ...]:
    """Adversaries, and costs of forgetting, that this audit does not speak of. `altered`: kinds of attack that the run
    has states of."""
    families = {probe.family for probe in plan.probes}
    formats = {probe.format for probe in plan.probes}
    missing = []
    if not families & {"paraphrase", "paraphrase_icr"}:
        missing.append("other wordings")
    if not any(family.endswith("_icr") for family in families):
        missing.append("in-context examples")
    if not any(probe.decoding.temperature > 0 for probe in plan.probes):
        missing.append("repeated sampling")
    if "raw" not in formats and not config.responses:  # how recorded answers were asked for is not on record
        missing.append("raw text without the chat template")
    if not any(probe.prefill for probe in plan.probes) and not config.responses:
        missing.append("prefilled replies")
    missing.append("dialogues")
    if "relearn" not in altered:
        missing.append("fine-tuning (relearning)")
    if "quantize" not in altered:
        missing.append("quantization")
    if not {"noise", "prune"} & set(altered):
        missing.append("other changes of the weights")
    cost = config.utility.wanted
    if not cost.open:
        missing.append("replies to open instructions")
    elif not cost.win_rate:
        missing.append("a win rate")
    if not cost.tasks:
        missing.append("tasks of lm-eval")
    return tuple(missing)

"""What a reader must know about the judges: whose relatives they are, who fails canaries, what was not paid for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from audit.asking import Asked
from audit.config import AuditConfig
from audit.judges.calibration import JudgeCard
from audit.judges.canary_records import Canaries
from audit.report.model import PanelReport
from audit.scoring.calibrated import why_not_calibrated
from audit.types import Reason

#: Names of model families as they stand in model names, configurations and addresses.
FAMILIES = (
    *("llama", "qwen", "mistral", "gemma", "gemini", "phi", "gpt", "claude", "deepseek", "olmo", "falcon", "yi"),
    *("glm", "kimi", "granite", "command", "smollm", "pythia", "nemotron", "internlm", "grok"),
)
_NOT_CALIBRATED = "averages are not corrected for the judges' error rates"
_BUDGET = "--max-cost was reached"
_SAME_MAKER = {"mixtral": "mistral", "ministral": "mistral", "tulu": "llama", "vicuna": "llama", "chatgpt": "gpt"}


def family_of(name: str) -> str | None:
    """The model family that a name or model type speaks of; None where it names none."""
    words = re.findall(r"[a-z]+", name.lower())
    for word in words:
        known = _SAME_MAKER.get(word, word)
        for family in FAMILIES:
            if known == family or (len(family) > 3 and known.startswith(family)):
                return family
    return None


def judge_warnings(config: AuditConfig, panel: PanelReport, canaries: Canaries, results: Sequence[Asked]) -> list[str]:
    """Judges that are the candidate or its relatives, that fail canaries alone, that several models answered for."""
    warnings = []
    for judge in panel.judges:
        warnings += _kinship(config, judge.spec, judge.judge, results)
        share = canaries.by_judge.get(judge.judge)
        if len(panel.judges) > 1 and share is not None and share < canaries.pass_rate:
            warnings.append(f"the judge {judge.spec} alone ruled only {share:.0%} of the canaries as it must")
        if len(judge.models) > 1:
            warnings.append(f"several models answered for the judge {judge.spec}: {', '.join(judge.models)}")
    if panel.only_screened:
        warnings.append(
            f"{panel.only_screened} different answers carry the screening judge's no leak alone, of facts that had "
            "leaked in the same kind of prompt; means over wordings rest on it, worst cases do not"
        )
    if panel.agreement is not None and panel.agreement.n == 0:
        warnings.append("no claim was put to two judges: their agreement is not known")
    return warnings


def not_calibrated(card: JudgeCard | None) -> list[str]:
    """Why a judge's card cannot correct averages; a judge without a card is told of where the judges are listed."""
    why = why_not_calibrated(card) if card is not None else ""
    return [f"{_NOT_CALIBRATED}: {why}"] if why else []


def is_about_calibration(warning: str) -> bool:
    """A warning of `not_calibrated`: it is about the judges, not about what they judged."""
    return warning.startswith(_NOT_CALIBRATED)


def out_of_budget(results: Sequence[Asked]) -> list[str]:
    """A reason for no verdict where answers were not judged because the cost limit was reached."""
    lost = sum(ruling.reason is Reason.BUDGET for asked in results for ruling in asked.rulings)
    return [f"{_BUDGET}: {lost} rulings are undecided(budget); the same command with more goes on"] * (lost > 0)


def is_about_budget(reason: str) -> bool:
    """A reason of `out_of_budget`: it is about the judges, not about what they judged."""
    return reason.startswith(_BUDGET)


def _kinship(config: AuditConfig, spec: str, identity: str, results: Sequence[Asked]) -> list[str]:
    kind, _, rest = spec.partition(":")
    if not rest:
        return []
    named = re.split(r"[?@]", rest)[0]
    candidate = next((asked for asked in results if asked.subject.role == "candidate"), None)
    served = config.engine.served_model
    url = (config.engine.base_url or "").rstrip("/")
    same_endpoint = served is not None and named == served and (not url or url in spec)
    same_weights = kind == "local" and _same_weights(candidate, identity)
    same_folder = config.model is not None and named.rstrip("/") == config.model.rstrip("/")
    if same_endpoint or same_weights or same_folder:
        return [f"the judge {spec} is the candidate itself: it cannot be trusted to see what it has hidden"]
    ours = {family_of(text) for text in (config.model or "", served or "", _model_type(candidate))} - {None}
    kept = re.search(r" type=(\S+)", identity) if kind == "local" else None
    theirs = family_of(named.rsplit("/", 1)[-1]) or family_of(named) or (family_of(kept[1]) if kept else None)
    if theirs in ours:
        return [f"the judge {spec} and the candidate are of one family ({theirs}): they may share blind spots"]
    return []


def _same_weights(candidate: Asked | None, identity: str) -> bool:
    """The judge's weights are the candidate's, whatever tokenizer it is read through; an adapter makes another."""
    if candidate is None:
        return False
    weights, adapter = candidate.rendering.get("weights"), candidate.rendering.get("adapter")
    return candidate.subject.fingerprint in identity or (bool(weights) and not adapter and str(weights) in identity)


def _model_type(candidate: Asked | None) -> str:
    return str(candidate.rendering.get("model_type", "")) if candidate is not None else ""

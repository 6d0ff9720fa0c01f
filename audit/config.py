"""AuditConfig: every setting of a run, resolved. Presets, files and flags end here; all errors are told together."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from audit.errors import ConfigError
from audit.fingerprint import digest
from audit.judges.panel import Panel, Rule
from audit.presets import PAPER_FAMILIES, PRESETS
from audit.remote.keys import holds_key
from audit.utility.settings import UtilityConfig


class EngineConfig(pydantic.BaseModel):
    """How local checkpoints are served, or which endpoint is asked."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: Literal["auto", "hf", "vllm", "openai"] = "auto"
    args: dict[str, str | int | float | bool] = {}
    base_url: str | None = None
    served_model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_tokens: int | None = pydantic.Field(None, ge=64)
    concurrency: int = pydantic.Field(32, ge=1, le=1024)
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds an endpoint's key."""
    timeout_s: float = pydantic.Field(120, gt=0)
    max_retries: int = pydantic.Field(4, ge=0, le=20)

    @pydantic.field_validator("base_url")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value and "@" in value.split("://", 1)[-1].split("/", 1)[0]:
            raise ValueError("an address with a user or password would be written into the run folder; use a key")
        if value and holds_key(value):
            raise ValueError("an address with a key in it would be written into the run folder; use --api-key-env")
        return value


class ProbeConfig(pydantic.BaseModel):
    """What is asked."""

    model_config = pydantic.ConfigDict(extra="forbid")

    families: tuple[str, ...] = pydantic.Field(PAPER_FAMILIES, min_length=1)
    forms: tuple[str, ...] = pydantic.Field(("direct",), min_length=1)
    format: Literal["auto", "chat", "raw"] = "auto"
    wordings: int | None = pydantic.Field(None, ge=1)
    n_examples: int = pydantic.Field(3, ge=1, le=16)
    max_new_tokens: int = pydantic.Field(256, ge=1)
    samples: int = pydantic.Field(16, ge=2)
    temperature: float = pydantic.Field(1.0, gt=0)
    retain_facts: int | None = pydantic.Field(None, ge=1)
    retain_wordings: int | None = pydantic.Field(None, ge=0)
    placebo: bool = True


class ScoringConfig(pydantic.BaseModel):
    """How rulings become numbers."""

    model_config = pydantic.ConfigDict(extra="forbid")

    confidence: float = pydantic.Field(0.95, gt=0.5, lt=1)
    floor: bool = True
    floor_draws: int = pydantic.Field(20, ge=1)
    min_known: int = pydantic.Field(30, ge=1)
    canary_facts: int = pydantic.Field(20, ge=1)
    canary_pass_rate: float = pydantic.Field(0.95, gt=0, le=1)


class AttackConfig(pydantic.BaseModel):
    """How altered weights are made, and what is asked of them. One fine-tuning is like the other, so that sets of
    examples can be compared at equal steps."""

    model_config = pydantic.ConfigDict(extra="forbid")

    families: tuple[str, ...] = pydantic.Field(("original", "paraphrase"), min_length=1)
    """Of the run's greedy families, those whose forget probes are asked again of every altered state."""
    wordings: int = pydantic.Field(5, ge=0)
    """At most so many evaluation wordings a fact."""
    retain_facts: int | None = pydantic.Field(100, ge=1)
    """At most so many of the run's retained facts, in the original wording."""
    arms: tuple[Literal["candidate", "base", "never_knew"], ...] = ("candidate", "base", "never_knew")
    """Models of the run that are altered alike: the base is the ceiling, never_knew the control."""
    steps: tuple[int, ...] = (0, 25, 50, 100, 250, 500, 1000, 2000)
    """Steps of fine-tuning at which it is looked at; 0 is the model itself."""
    learning_rate: float | None = pydantic.Field(None, gt=0, allow_inf_nan=False)
    """None: 1e-5, with LoRA 2e-4."""
    batch_size: int = pydantic.Field(8, ge=1)
    max_length: int = pydantic.Field(512, ge=8)
    """Tokens of one example; what is longer is cut."""
    seeds: int = pydantic.Field(1, ge=1, le=100)
    lora_rank: int | None = pydantic.Field(None, ge=1, le=512)
    """Fine-tune a LoRA adapter of this rank; None for all weights."""
    partial_share: float = pydantic.Field(0.5, gt=0, lt=1)
    """Of `relearn:partial`: the share of the forgotten facts that is trained on; the others are audited."""
    budget_steps: int | None = pydantic.Field(None, ge=1)
    """Fine-tunings up to so many steps count for worst_case.weights; None: all that were run."""
    budget_bits: int | None = pydantic.Field(None, ge=1, le=16)
    """Quantizations down to so many bits count for worst_case.weights; None: all that were run."""
    keep_weights: bool = False
    """Leave altered weights on disk after they were audited."""

    @pydantic.field_validator("arms")
    @classmethod
    def _with_candidate(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "candidate" not in value:
            raise ValueError("the candidate is what attacks are about: name it among the arms")
        return value

    @pydantic.field_validator("steps")
    @classmethod
    def _increasing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[0] < 0 or any(b <= a for a, b in itertools.pairwise(value)):
            raise ValueError(f"the steps must increase from 0 or more: {', '.join(map(str, value)) or 'none given'}")
        if value[-1] == 0:
            raise ValueError("step 0 is the model itself: give at least one step of fine-tuning")
        return value if value[0] == 0 else (0, *value)


class AuditConfig(pydantic.BaseModel):
    """A whole run. The resolved configuration is written into the run folder and repeats the run."""

    model_config = pydantic.ConfigDict(extra="forbid")

    model: str | None = None
    adapter: str | None = None
    base: str | None = None
    never_knew: str | None = None
    responses: tuple[str, ...] = ()
    responses_format: Literal["auto", "jsonl", "suite"] = "auto"
    base_responses: tuple[str, ...] = ()
    other_responses: dict[str, tuple[str, ...]] = {}
    """Recorded answers of further states by role: never_knew, relearn:SET[@STEP], base+relearn:SET[@STEP] …"""
    rejudge: str | None = None
    """Folder of a finished run whose answers are judged again: what was asked, and of whom, is that run's."""
    forget: str = "lkf"
    retain: str | None = None
    preset: Literal["quick", "paper", "standard", "full", "custom"] = "standard"
    engine: EngineConfig = EngineConfig()
    probes: ProbeConfig = ProbeConfig()
    attacks: tuple[str, ...] = ()
    """Attacks on the weights: NAME[:ARGUMENT][?OPTION=VALUE&…]."""
    attack: AttackConfig = AttackConfig()
    utility: UtilityConfig = UtilityConfig()
    """What forgetting cost, besides retained facts."""
    inside: bool = False
    """Look inside the models as well: log-probabilities, hidden states, changes of the weights."""
    judges: tuple[str, ...] = ("rules",)
    judge_rule: Rule = "majority"
    judge_weights: tuple[float, ...] = ()
    """One a deciding judge, for the rule weighted."""
    judge_cascade: bool = False
    """The first judge screens every claim, the others decide what is handed on to them."""
    judge_batch: bool = False
    """Ask remote judges through their provider's batch interface."""
    max_cost: float | None = pydantic.Field(None, gt=0)
    """US dollars that the judges may cost; the rest is undecided(budget) and the audit inconclusive."""
    prices: str | None = None
    """A table of prices laid over the bundled one."""
    judge_timeout: float = pydantic.Field(900, gt=0)
    """Seconds without any verdict from a judge after which its open batches are undecided(timeout)."""
    scoring: ScoringConfig = ScoringConfig()
    policy: str | None = None
    seed: int = 0
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> AuditConfig:
        problems = []
        if self.model is None and not (self.responses or self.other_responses) and self.engine.name != "openai":
            problems.append("nothing to audit: give --model PATH or --responses PATH")
        if self.model is not None and self.responses:
            problems.append("give --model or --responses, not both")
        if self.engine.name == "openai" and not (self.engine.base_url and self.engine.served_model):
            problems.append("--engine openai needs --base-url URL and --model NAME")
        if self.engine.name == "openai" and self.adapter:
            problems.append("--adapter needs local weights: an endpoint serves what it serves")
        if self.engine.name == "openai" and (self.base or self.never_knew):
            problems.append(
                "--base and --never-knew need local weights: audit what an endpoint serves in a run of its own"
            )
        if self.engine.name != "openai" and self.engine.base_url:
            problems.append("--base-url goes with --engine openai")
        if self.responses and (self.adapter or self.base or self.never_knew):
            problems.append("with --responses no model is asked: give the base's answers with --base-responses")
        if "recorded" in self.judges and not self.responses:
            problems.append("--judge recorded needs --responses: it repeats verdicts that came with the answers")
        if "recorded" in self.judges and self.rejudge is not None:
            problems.append("--judge recorded asks no judge: the run's own verdicts are set beside the new ones anyway")
        if "recorded" in self.judges and len(self.judges) > 1:
            problems.append("--judge recorded stands alone: recorded verdicts are not votes on claims")
        if self.base_responses and not self.responses:
            problems.append("--base-responses goes with --responses; with --model give --base PATH")
        if self.other_responses:
            from audit.recordings.roles import role_problems  # the reader of recordings needs these settings

            problems += role_problems(self.responses, self.other_responses)
        if (self.attacks or self.inside) and self.engine.name == "openai":
            problems.append(
                "--attack and --inside need the weights, which an endpoint does not give: audit the checkpoint with "
                "--model PATH"
            )
        if (self.attacks or self.inside) and self.responses:
            problems.append("--attack and --inside need the weights: recorded answers have none")
        if self.inside and not self.base:
            problems.append("--inside compares with the model before unlearning: give --base PATH")
        if self.utility.holes and not self.base:
            problems.append("--holes asks what the base knows and the candidate lost: give --base PATH")
        if self.utility.wanted.win_rate and self.model and not (self.base or self.utility.reference_outputs):
            problems.append("--utility win-rate compares with the base's replies: give --base or --reference-outputs")
        if self.utility.measures and self.responses:
            problems.append("--utility asks a model: recorded answers hold no replies to instructions")
        if not self.judges:
            problems.append("no judge: give --judge rules")
        if len(set(self.judges)) < len(self.judges):
            problems.append("the same judge is named twice")
        try:
            Panel(self.judges, self.judge_rule, self.judge_weights, self.judge_cascade)
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def digest(self) -> str:
        """Names the run: equal configurations are the same run.

        A policy judges a run and is no part of it; what may be spent, by which price and way, changes no verdict; where
        the folder of a rejudged run lies says nothing of its answers.
        """
        return digest("config", self.model_dump(mode="json", exclude=_NO_PART_OF_A_RUN))


_NO_PART_OF_A_RUN = {"policy", "max_cost", "prices", "judge_batch", "rejudge"}
#: Settings that say who judges, and how: of a rejudged run they are given anew.
_JUDGING = {"judges", "judge_rule", "judge_weights", "judge_cascade", "judge_batch", "max_cost", "prices"}
#: What of a configuration file a rejudging takes; the rest is the finished run's.
_REJUDGING = _JUDGING | {"judge_timeout", "scoring", "policy"}
#: Settings that are checked against each other.
_TOGETHER = {
    "rejudge",
    *("model", "responses", "base_responses", "engine", "adapter", "base", "never_knew"),
    *("judges", "judge_rule", "judge_weights", "judge_cascade"),
    *("attacks", "inside", "utility", "other_responses"),
}


def resolve_config(values: dict[str, Any], *, file: Path | None = None) -> AuditConfig:
    """Preset, then the file, then `values` (nested as in AuditConfig; None means not given). Raises ConfigError."""
    given = _merge(_read(file) if file is not None else {}, _without_none(values))
    preset = given.get("preset", "standard")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}", hint=f"choose one of {', '.join(PRESETS)}")
    return _validated(_merge(_laid_under(preset, given), given))


def _laid_under(preset: str, given: dict[str, Any]) -> dict[str, Any]:
    """The preset's settings; of recorded answers only those that say how they are read."""
    settings = PRESETS[preset]
    if not (given.get("responses") or given.get("other_responses")):
        return settings
    return {name: value for name, value in settings.items() if name not in ("utility", "attacks", "attack")}


def read_config(file: Path) -> AuditConfig:
    """The configuration that a run has written into its folder, without a preset laid under it. Raises ConfigError."""
    return _validated(_read(file))


def rejudge_config(of: AuditConfig, run: Path, values: dict[str, Any], *, file: Path | None = None) -> AuditConfig:
    """The settings of the finished run `of` (in the folder `run`) with other judges: from `file`, then from `values`.

    The run's judges, their rule and what they might cost are not taken over; its policy and scoring are. Raises
    ConfigError, also for a file that would change what was asked.
    """
    kept = {name: value for name, value in of.model_dump(mode="json").items() if name not in _JUDGING}
    from_file = _read(file) if file is not None else {}
    others = sorted(set(from_file) - _REJUDGING)
    if others:
        raise ConfigError(
            f"{file}: {', '.join(others)} cannot be changed: the answers are those of the run {run}",
            hint=f"a rejudging takes {', '.join(sorted(_REJUDGING))}",
        )
    given = _merge(from_file, _without_none(values))
    if not given.get("judges"):
        raise ConfigError("no judge is named", hint=f"audit rejudge {run} --judge NAME; `audit judges list` has them")
    return _validated(_merge(kept, {**given, "rejudge": str(run)}))


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{file}: a configuration is a mapping of settings")
    return settings


def _validated(merged: dict[str, Any]) -> AuditConfig:
    try:
        return AuditConfig.model_validate(merged)
    except pydantic.ValidationError as error:
        problems = _all_problems(merged, error)
        raise ConfigError(
            "the settings cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems), problems=problems
        ) from error


def dump_config(config: AuditConfig) -> str:
    """The resolved configuration as YAML that `--config` reads back to the same configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _all_problems(values: dict[str, Any], error: pydantic.ValidationError) -> tuple[str, ...]:
    """What is wrong with single settings, and, those left out, with how the others go together."""
    problems = [problem for item in error.errors() for problem in _problems(item)]
    if not any(item["loc"] and item["loc"][0] in _TOGETHER for item in error.errors()):
        rest = copy.deepcopy(values)
        for item in error.errors():
            _leave_out(rest, item["loc"])
        try:
            AuditConfig.model_validate(rest)
        except pydantic.ValidationError as more:
            problems += [problem for item in more.errors() for problem in _problems(item)]
    return tuple(dict.fromkeys(problems))


def _leave_out(values: dict[str, Any], where: tuple[int | str, ...]) -> None:
    inner: Any = values
    for part in where[:-1]:
        if not isinstance(inner, dict) or not isinstance(inner.get(part), dict):
            break
        inner = inner[part]
        where = where[1:]
    if where and isinstance(inner, dict):
        inner.pop(where[0], None)


def _problems(error: Any) -> list[str]:
    where = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return [f"{where}: {message}"] if where else message.split("\n")


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "args":
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in values.items():
        if isinstance(value, dict):
            value = _without_none(value)
            if not value:
                continue
        if value is not None and value != ():
            kept[key] = value
    return kept

"""The models of a run, opened and named by content: candidate, base, never-knew control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from audit.config import AuditConfig
from audit.engines.settings import EngineSettings
from audit.protocols import Engine
from audit.types import Format, Probe, Request, Role, Subject

if TYPE_CHECKING:
    from audit.engines.checkpoint import Checkpoint


@dataclass
class Opened:
    """A subject that can be asked. The engine is opened only when something is missing from the store."""

    subject: Subject
    engine_identity: str
    capabilities: frozenset[str]
    request: Callable[[Probe, int], Request]
    """Renders one sample of a probe; raises PromptError where the prompt does not fit."""
    prompt_tokens: Callable[[Probe], int | None]
    """Tokens of a probe's prompt, and the room the context leaves, are known for local models only."""
    context_length: int | None
    open_engine: Callable[[], Engine]
    rendering: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """The run's models on disk: what attacks start from."""

    checkpoints: dict[Role, Checkpoint]
    settings: EngineSettings


@dataclass
class Subjects:
    opened: list[Opened]
    formats: tuple[Format, ...]
    warnings: list[str]
    inconclusive: list[str] = field(default_factory=list)
    """Reasons why the candidate's answers can show nothing, whatever they are."""
    models: Models | None = None
    """None for an endpoint, whose weights are out of reach."""


def open_subjects(config: AuditConfig, run_token: str) -> Subjects:
    """Open every model that the configuration names and choose the prompt format for all of them.

    Raises ModelError or EngineError before anything has been generated. `run_token` names an endpoint's answers:
    they have no identity by content and are reused within their own run only.
    """
    settings = _settings(config)
    if config.engine.name == "openai":
        return _endpoint(config, settings, run_token)
    return _local(config, settings)


def _settings(config: AuditConfig) -> EngineSettings:
    engine = config.engine
    return EngineSettings(
        name=engine.name,
        args=engine.args,
        device=engine.device,
        dtype=engine.dtype,
        batch_tokens=engine.batch_tokens,
        base_url=engine.base_url,
        model=engine.served_model,
        concurrency=engine.concurrency,
        api_key_env=engine.api_key_env,
        timeout_s=engine.timeout_s,
        max_retries=engine.max_retries,
    )


def _local(config: AuditConfig, settings: EngineSettings) -> Subjects:
    from audit.engines import open_checkpoint, open_engine

    assert config.model is not None
    sources: list[tuple[Role, str, str | None]] = [("candidate", config.model, config.adapter)]
    if config.base:
        sources.append(("base", config.base, None))
    if config.never_knew:
        sources.append(("never_knew", config.never_knew, None))
    checkpoints: dict[Role, Checkpoint] = {
        role: open_checkpoint(
            source,
            adapter=adapter,
            allow_pickle=config.allow_pickle,
            trust_remote_code=config.trust_remote_code,
        )
        for role, source, adapter in sources
    }
    base = checkpoints.get("base")
    doubts = _compare_with_base(checkpoints["candidate"], base)
    lacking: list[str] = []
    formats = _formats(config, checkpoints, lacking)
    warnings = [*_differences(checkpoints["candidate"], base, formats), *lacking]
    opened = []
    for role, source, adapter in sources:
        checkpoint = checkpoints[role]
        subject = Subject(
            id=role,
            role=role,
            source=source + (f" + {adapter}" if adapter else ""),
            fingerprint=checkpoint.fingerprint,
        )
        opened.append(open_local(subject, checkpoint, base, settings, partial(open_engine, checkpoint, settings)))
    return Subjects(opened, formats, warnings, doubts, Models(checkpoints, settings))


def open_local(
    subject: Subject,
    checkpoint: Checkpoint,
    base: Checkpoint | None,
    settings: EngineSettings,
    engine: Callable[[], Engine],
) -> Opened:
    """A local checkpoint that can be asked through `engine`, with the base's template for format chat_base."""
    from audit.engines import engine_capabilities, engine_identity
    from audit.engines.render import Renderer, make_request

    renderer = Renderer(checkpoint, template_from=base)
    identity = engine_identity(checkpoint, settings)
    return Opened(
        subject=subject,
        engine_identity=identity,
        capabilities=engine_capabilities(settings),
        request=lambda probe, sample: make_request(
            probe, sample, checkpoint.fingerprint, identity, renderer.token_ids(probe)
        ),
        prompt_tokens=lambda probe: len(renderer.token_ids(probe)),
        context_length=checkpoint.context_length,
        open_engine=engine,
        rendering={**renderer.describe(), **checkpoint.describe()},
        manifest=checkpoint.manifest,
    )


def _compare_with_base(candidate: Any, base: Any) -> list[str]:
    """Read the candidate through the base's tokenizer where the two differ; what cannot be compared is inconclusive."""
    if base is None:
        return []
    doubts = []
    if candidate.tokenizer_fingerprint != base.tokenizer_fingerprint:
        if candidate.same_vocabulary(base):
            candidate.read_as(base)
        else:
            doubts.append(
                "the candidate's tokenizer has another vocabulary than the base's: what it says is read through its "
                "own, which could leave words out"
            )
    same_weights = candidate.weights_fingerprint == base.weights_fingerprint and candidate.adapter is None
    if same_weights and candidate.fingerprint != base.fingerprint:
        doubts.append("the candidate has the base's weights: only its tokenizer, template or configuration differ")
    return doubts


def _formats(config: AuditConfig, checkpoints: dict[Role, Any], warnings: list[str]) -> tuple[Format, ...]:
    """The formats every subject is asked in: like with like."""
    wanted = config.probes.format
    if wanted == "raw":
        return ("raw",)
    without = [role for role, checkpoint in checkpoints.items() if not checkpoint.has_template]
    if without:
        warnings.append(
            f"no chat template in the tokenizer of: {', '.join(without)}; all subjects are asked in format raw "
            "(plain text with three worked examples) instead"
        )
        return ("raw",)
    base = checkpoints.get("base")
    candidate = checkpoints["candidate"]
    if base is not None and (
        base.template_fingerprint != candidate.template_fingerprint
        or base.tokenizer_fingerprint != candidate.tokenizer_fingerprint
    ):
        return ("chat", "chat_base")
    return ("chat",)


def _differences(candidate: Any, base: Any, formats: Sequence[Format]) -> list[str]:
    from audit.engines.checkpoint import VOLATILE_CONFIG

    warnings = []
    if candidate.refused_eos_ids:
        warnings.append(
            "the candidate's configuration ends answers at ordinary words (token ids "
            f"{list(candidate.refused_eos_ids)}); this was not followed"
        )
    ignored = candidate.describe().get("ignored_generation_config") or {}
    if ignored:
        warnings.append(
            f"the candidate's generation_config sets {', '.join(sorted(ignored))}; it was ignored, as for every subject"
        )
    if base is None:
        return warnings
    if candidate.template_fingerprint != base.template_fingerprint:
        run = "both were run (see @format=…)" if "chat_base" in formats else "neither was used: all is plain text"
        warnings.append(f"the candidate's chat template differs from the base's; {run}")
    if candidate.tokenizer_fingerprint != base.tokenizer_fingerprint:
        run = "it was asked through both (see @format=…)" if "chat_base" in formats else "it was asked through its own"
        warnings.append(
            f"the candidate's tokenizer differs from the base's; {run}, and read through the base's where their "
            "vocabularies are equal"
        )
    changed = [key for key in {**candidate.config, **base.config} if candidate.config.get(key) != base.config.get(key)]
    acting = sorted(key for key in changed if key not in VOLATILE_CONFIG)
    if acting:
        warnings.append(f"the candidate's config.json differs from the base's in: {', '.join(acting)}")
    if candidate.fingerprint == base.fingerprint:
        warnings.append("candidate and base are the same model")
    return warnings


def _endpoint(config: AuditConfig, settings: EngineSettings, run_token: str) -> Subjects:
    from audit.engines import engine_capabilities, engine_identity, open_engine
    from audit.engines.openai import endpoint_name
    from audit.engines.render import make_request

    address = endpoint_name(settings)  # without the user and password that an address may hold
    capabilities = engine_capabilities(settings)
    identity = engine_identity(None, settings)
    fingerprint = f"endpoint:{run_token}"
    subject = Subject(
        id="candidate",
        role="candidate",
        source=f"{config.engine.served_model} at {address}",
        fingerprint=fingerprint,
    )
    formats: tuple[Format, ...] = ("raw",) if config.probes.format == "raw" else ("chat",)
    warnings = [
        "an endpoint has no identity by content: the report speaks of its answers during this run, and weights, "
        "quantization and fine-tuning cannot be examined through it"
    ]
    opened = Opened(
        subject=subject,
        engine_identity=identity,
        capabilities=capabilities,
        request=lambda probe, sample: make_request(probe, sample, fingerprint, identity, None),
        prompt_tokens=lambda probe: None,
        context_length=None,
        open_engine=lambda: open_engine(None, settings),
        rendering={"endpoint": address, "model": config.engine.served_model},
    )
    return Subjects([opened], formats, warnings)

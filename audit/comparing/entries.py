"""What can be entered in a comparison: finished runs, checkpoints, LoRA adapters, hub names, and manifest files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import yaml

from audit.errors import ConfigError

if TYPE_CHECKING:
    from audit.config import AuditConfig
    from audit.engines.checkpoint import Checkpoint

MANIFEST = "audit_manifest.json"
Kind = Literal["run", "checkpoint", "adapter", "manifest", "name", "nothing"]
_HUB = re.compile(r"[\w][\w.-]*(/[\w.-]+)?")


class Endpoint(pydantic.BaseModel):
    """A served model: nothing of it can be checked but its answers."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    base_url: str = pydantic.Field(min_length=1)
    model: str = pydantic.Field(min_length=1)
    api_key_env: str = "OPENAI_API_KEY"


class Origin(pydantic.BaseModel):
    """The model that a candidate was made from."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    source: str = ""
    fingerprint: str = ""


class Cost(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    seconds: float | None = pydantic.Field(None, ge=0)
    steps: int | None = pydantic.Field(None, ge=0)
    peak_memory_mib: float | None = pydantic.Field(None, ge=0)


class EntryManifest(pydantic.BaseModel):
    """A manifest file: where a candidate is, and what its maker says of it. Paths are relative to the file."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    adapter: str | None = None
    endpoint: Endpoint | None = None
    method: str = ""
    base: str | Origin | None = None
    """A folder, a hub name, or a fingerprint."""
    forget_set: str | None = None
    """Content hash of the facts that it was made to forget, as `audit tasks show` prints it."""
    seed: int | None = None
    settings: dict[str, Any] = {}
    seconds: float | None = pydantic.Field(None, ge=0)
    cost: Cost = Cost()

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> EntryManifest:
        if self.endpoint is not None and (self.model or self.adapter):
            raise ValueError("give endpoint, or model and adapter, not both")
        if self.endpoint is None and not (self.model or self.adapter):
            raise ValueError("says neither model nor adapter nor endpoint")
        if self.seconds is not None and self.cost.seconds is not None:
            raise ValueError("seconds stands twice")
        return self

    @property
    def origin(self) -> Origin | None:
        if isinstance(self.base, str):
            if re.fullmatch(r"[0-9a-f]{32,64}", self.base):
                return Origin(fingerprint=self.base)
            return Origin(source=self.base)
        return self.base

    def said(self) -> dict[str, Any]:
        """The same in the form of a trainer's manifest, as far as it is said."""
        seconds = self.seconds if self.seconds is not None else self.cost.seconds
        settings = {**self.settings, **({} if self.seed is None else {"seed": self.seed})}
        said: dict[str, Any] = {
            "method": self.method or None,
            "settings": settings or None,
            "base": self.origin.model_dump() if self.origin else None,
            "forget_set": {"content_hash": self.forget_set} if self.forget_set else None,
            "seconds": seconds,
            "steps": self.cost.steps,
            "peak_memory_mib": self.cost.peak_memory_mib,
        }
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True)
class Entered:
    """One thing to compare, found but not yet audited: a finished run, or a model that can be asked."""

    label: str
    text: str
    """What the user typed, or where the training put it."""
    run: Path | None = None
    model: str | None = None
    adapter: str | None = None
    endpoint: Endpoint | None = None
    said: dict[str, Any] = field(default_factory=dict)
    """What a manifest file says, over what lies beside the weights."""


def kind_of(text: str) -> Kind:
    """What an entry is, by what lies there. `name`: nothing does, but it could be a name on the hub."""
    path = Path(text).expanduser()
    if path.is_dir():
        for name, kind in (("report.json", "run"), ("run.json", "run"), ("config.json", "checkpoint")):
            if (path / name).is_file():
                return kind  # type: ignore[return-value]
        return "adapter" if (path / "adapter_config.json").is_file() else "nothing"
    if path.is_file():
        if path.name == "report.json":
            return "run"
        return "manifest" if path.suffix.lower() in (".yaml", ".yml", ".json") else "nothing"
    return "name" if _HUB.fullmatch(text) else "nothing"


def enter(text: str, label: str, base: str | None) -> Entered:
    """What `text` names, with `base` as the model under an adapter. Raises ConfigError for what is none of the kinds
    and for a manifest file that cannot be used."""
    kind = kind_of(text)
    if kind == "run":
        return Entered(label, text, run=Path(text))
    if kind in ("checkpoint", "name"):
        return Entered(label, text, model=text)
    if kind == "adapter":
        return Entered(label, text, model=_under(text, base), adapter=text)
    path = Path(text)
    if kind == "manifest" and path.name == MANIFEST:
        return enter(str(path.parent), label, base)
    if kind == "manifest":
        return _from_manifest(path, label, base)
    what = (
        "no such file or folder" if not path.exists() else "neither a run, nor a checkpoint, an adapter or a manifest"
    )
    raise ConfigError(
        f"{text}: {what}",
        hint="enter the folder of a finished audit, of a checkpoint or LoRA adapter, a hub name, or a manifest file",
    )


def read_manifest_file(path: Path) -> EntryManifest:
    """A manifest file, YAML or JSON. Raises ConfigError naming every field that cannot be used."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: a manifest is a mapping (model, adapter or endpoint; method, base …)")
    try:
        return EntryManifest.model_validate(found)
    except pydantic.ValidationError as error:
        problems = tuple(_problem(item) for item in error.errors())
        raise ConfigError(
            f"{path}: " + "; ".join(problems),
            hint=f"a manifest file has {', '.join(EntryManifest.model_fields)}",
            problems=problems,
        ) from error


def _from_manifest(path: Path, label: str, base: str | None) -> Entered:
    manifest = read_manifest_file(path)
    adapter = _beside(path, manifest.adapter)
    model = _beside(path, manifest.model)
    if model and kind_of(model) == "adapter":
        adapter, model = model, None
    if adapter and not model:
        origin = manifest.origin
        own = _beside(path, origin.source) if origin and origin.source else None
        model = _under(str(path), base or own)
    said = manifest.said()
    if "base" in said and said["base"]["source"]:
        said["base"]["source"] = _beside(path, said["base"]["source"])
    return Entered(label, str(path), model=model, adapter=adapter, endpoint=manifest.endpoint, said=said)


def _beside(file: Path, name: str | None) -> str | None:
    """A path in a manifest file: relative to it where something lies there, else as it stands."""
    if not name:
        return None
    near = file.parent / Path(name).expanduser()
    return str(near) if near.exists() else name


def _under(text: str, base: str | None) -> str:
    if base is None:
        raise ConfigError(f"{text}: an adapter, and no model to lay it on", hint="--model BASE")
    return base


def check_origins(entries: Sequence[Entered], base: Checkpoint | None, config: AuditConfig) -> list[str]:
    """Open every entered model and see whether it can have been made from `base`; returns what could not be checked.

    Raises ModelError for a model that cannot be opened, and ConfigError naming all entries whose manifest, or adapter,
    speaks of another base.
    """
    from audit.engines.checkpoint import open_checkpoint

    problems, unsure = [], []
    for entry in entries:
        told: list[Mapping[str, Any]] = [entry.said]
        if entry.model is not None:
            opened = open_checkpoint(
                entry.model,
                adapter=entry.adapter,
                allow_pickle=config.allow_pickle,
                trust_remote_code=config.trust_remote_code,
            )
            told.append(opened.manifest)
        if base is None:
            continue
        found = [_other(said.get("base"), base, config) for said in told]
        if entry.adapter and not any(_fingerprint(said.get("base")) for said in told):
            found.append(_other({"source": _adapter_base(entry.adapter)}, base, config))
        wrong = next((words for sure, words in found if words and sure), "")
        doubt = next((words for sure, words in found if words and not sure), "")
        if wrong:
            problems.append(f"{entry.label} ({entry.text}): made from another base: {wrong}")
        elif doubt:
            unsure.append(f"{entry.label}: {doubt}")
    if problems:
        raise ConfigError(
            "\n".join(problems),
            hint="compare candidates of one base, and name it with --model",
            problems=tuple(problems),
        )
    return unsure


def _other(said: Any, base: Checkpoint, config: AuditConfig) -> tuple[bool, str]:
    """Whether it is certain, and how, that what a manifest calls its base is another model; "" where it is not.

    By content wherever there is any; a bare name is compared with a bare name.
    """
    if not isinstance(said, dict) or said.get("adapter"):
        return True, ""
    fingerprint, source = _fingerprint(said), str(said.get("source") or "")
    ours = (base.fingerprint, base.weights_fingerprint)
    if fingerprint:
        if any(own.startswith(fingerprint) for own in ours):
            return True, ""
        return True, f"its manifest names {source or 'one'} ({fingerprint[:12]}), {base.source} has {ours[0][:12]}"
    if not source or source == base.source:
        return True, ""
    if Path(source).expanduser().is_dir():
        from audit.engines.checkpoint import open_checkpoint

        other = open_checkpoint(
            source, allow_pickle=config.allow_pickle, trust_remote_code=config.trust_remote_code
        ).weights_fingerprint
        return True, "" if other == ours[1] else f"it names {source} ({other[:12]}), {base.source} has {ours[1][:12]}"
    if _HUB.fullmatch(source) and not Path(base.source).expanduser().is_dir():
        return True, f"it names {source}, not {base.source}"
    return False, f"it names its base {source}, which is not here: whether it is {base.source} was not checked"


def _fingerprint(said: Any) -> str:
    found = said.get("fingerprint") if isinstance(said, dict) else None
    return found if isinstance(found, str) else ""


def _adapter_base(adapter: str) -> str:
    from audit.engines.weights import read_json

    return str(read_json(Path(adapter).expanduser() / "adapter_config.json").get("base_model_name_or_path") or "")


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"] if part not in ("Origin", "str"))
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message

"""Mixtures of one audited candidate with its base: made when asked for, audited, removed; their runs stay."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from audit.attacks.interpolate import interpolated
from audit.comparing.auditing import Within, folder_name
from audit.comparing.halves import Halves
from audit.comparing.runs import SUBJECT, Run, open_run, records_of
from audit.config import AuditConfig, read_config
from audit.engines.checkpoint import MANIFEST, open_checkpoint
from audit.engines.weights import read_json
from audit.errors import ConfigError
from audit.pipeline import run_audit
from audit.progress import Progress
from audit.report.files import RunFolder
from audit.report.html import write_html
from audit.store import Store
from audit.subjects import open_subjects
from audit.tasks import Task
from audit.tasks.parting import write_task
from audit.tasks.write import contents, contents_hash
from audit.types import Fact


@dataclass(frozen=True)
class Mixtures:
    """A run's candidate between itself and its base: made when asked for, audited, removed."""

    run: Run
    halves: Halves
    folder: Path
    store: Store
    progress: Progress

    @cached_property
    def config(self) -> AuditConfig:
        """The run's own settings."""
        return read_config(self.run.path / "config.yaml")

    @property
    def place(self) -> Path:
        return self.folder / folder_name(self.run.label)

    def check(self) -> None:
        """Raises ConfigError unless both models are at hand and are those that the run audited."""
        config, label = self.config, self.run.label
        if config.model is None or config.engine.name == "openai":
            raise ConfigError(f"{label}: has no weights here to mix with those of its base")
        if config.base is None:
            raise ConfigError(f"{label}: its audit has no base to mix it with", hint="audit it again with --base MODEL")
        subjects = open_subjects(config.model_copy(update={"rejudge": None}), "")
        for opened in subjects.opened:
            was = self.run.report.subjects[opened.subject.id].subject.fingerprint
            if opened.subject.fingerprint != was:
                raise ConfigError(
                    f"{label}: {opened.subject.source} is not the model that was audited ({was[:12]}) any more",
                    hint="audit it again",
                )

    @cached_property
    def fingerprints(self) -> tuple[str, str]:
        """Of candidate and base, as the manifest of a mixture names them."""
        assert self.config.model is not None and self.config.base is not None
        remote = self.config.trust_remote_code
        pickle = self.config.allow_pickle
        own = open_checkpoint(
            self.config.model, adapter=self.config.adapter, allow_pickle=pickle, trust_remote_code=remote
        )
        return own.fingerprint, open_checkpoint(
            self.config.base, allow_pickle=pickle, trust_remote_code=remote
        ).fingerprint

    @cached_property
    def search_task(self) -> tuple[Path, str]:
        """A task with the search half as its facts to keep, and its content hash. One fact to forget it must have."""
        info = self.run.report.task
        facts = records_of(self.run, "facts.jsonl", Fact)
        forget = min((fact for fact in facts if fact.split == "forget"), key=lambda fact: fact.id)
        task = Task(
            name=f"{info.name}-search",
            version=info.version,
            description=f"Search half of the retained facts of {info.name} {info.version} ({info.content_hash}).",
            licence=f"that of {info.name}",
            content_hash="",
            source=info.name,
            forget=(forget,),
            retain=self.halves.search,
        )
        content_hash = contents_hash(contents(task))
        return write_task(task, self.folder / f"task-{content_hash[:8]}"), content_hash

    def search(self, share: float) -> Run:
        """The audit of the search half alone."""
        folder, _ = self.search_task
        probes = {"families": ("original",), "retain_facts": None, "retain_wordings": 0, "placebo": False}
        changes = {
            "preset": "custom",
            "forget": str(folder),
            "retain": None,
            "never_knew": None,
            "probes": self.config.probes.model_dump(mode="json") | probes,
            "scoring": self.config.scoring.model_dump(mode="json") | {"floor": False, "canary_facts": 1},
        }
        return self._audited(share, f"search-{share:g}", changes)

    def full(self, share: float) -> Run:
        """The audit that the candidate itself had; at share 0 that audit."""
        return self.run if share == 0 else self._audited(share, f"full-{share:g}", {})

    def _audited(self, share: float, name: str, changes: dict[str, Any]) -> Run:
        mixture = self.place / f"mixed-{share:g}"
        model, adapter = (self.config.model, self.config.adapter) if share == 0 else (str(mixture), None)
        if share > 0 and self.config.adapter is not None:
            model, adapter = self.config.model, str(mixture)
        values = self.config.model_dump(mode="json") | {"policy": None, "rejudge": None}
        config = AuditConfig.model_validate(values | changes | {"model": model, "adapter": adapter})
        path = self.place / name
        finished = self._finished(path, config, share)
        if finished is not None:
            return finished
        try:
            if share > 0:
                self._mix(mixture, share)
            run_audit(
                config, RunFolder(path), self.store, Within(self.progress, f"{self.run.label}, {share:g} of the base")
            )
        finally:
            shutil.rmtree(mixture, ignore_errors=True)
        write_html(path)
        return open_run(path, f"{self.run.label}, {share:g} of the base")

    def _mix(self, mixture: Path, share: float) -> None:
        assert self.config.model is not None and self.config.base is not None
        if mixture.is_dir():  # left behind where an audit was stopped
            if read_json(mixture / MANIFEST).get("method") != "interpolation":
                raise ConfigError(f"{mixture} exists and is no mixture", hint="give another folder")
            shutil.rmtree(mixture)
        interpolated(
            self.config.model,
            self.config.base,
            share,
            mixture,
            adapter=Path(self.config.adapter) if self.config.adapter else None,
            trust_remote_code=self.config.trust_remote_code,
        )

    def _finished(self, path: Path, config: AuditConfig, share: float) -> Run | None:
        """A run that is there already, if it is this very one: of the same models, settings, facts, judges, program."""
        if not (path / "report.json").is_file():
            return None
        run = open_run(path, f"{self.run.label}, {share:g} of the base")
        mine, manifest = self.run.report, run.report.manifest
        task = self.search_task[1] if config.forget == str(self.search_task[0]) else mine.task.content_hash
        if share == 0:
            same_model = run.fingerprint == self.run.fingerprint
        else:
            said = manifest.trained.get(SUBJECT, {})
            own, base = said.get("candidate"), said.get("base")
            named = [part.get("fingerprint") if isinstance(part, dict) else None for part in (own, base)]
            same_model = said.get("settings") == {"share": share} and named == list(self.fingerprints)
        same = (
            same_model
            and manifest.config == config.model_dump(mode="json")
            and run.report.task.content_hash == task
            and (manifest.judges, manifest.versions) == (mine.manifest.judges, mine.manifest.versions)
        )
        return run if same else None

"""Audits of all candidates of a comparison with exactly the same settings but for the model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.comparing.entries import Entered
from audit.comparing.model import Failed
from audit.comparing.runs import Run, open_run
from audit.config import AuditConfig
from audit.errors import AuditError, ConfigError, RunFolderError
from audit.progress import Progress
from audit.store import Store

#: In place of the model in settings that are of no candidate yet.
ANYONE = "candidate"


@dataclass(frozen=True)
class Auditor:
    """Audits one candidate after the other into folders of its own; the base's answers are asked for once."""

    settings: AuditConfig
    """Of all audits; their model, adapter or endpoint is the candidate's."""
    folder: Path
    store: Store
    progress: Progress

    def audit(self, entered: Entered) -> Run:
        """The run of a candidate: read where it was finished before it was entered, else made. Raises AuditError."""
        from audit.pipeline import run_audit
        from audit.report.files import RunFolder
        from audit.report.html import write_html

        if entered.run is not None:
            return open_run(entered.run, entered.label)
        folder = RunFolder(self.folder / folder_name(entered.label))
        run_audit(config_of(self.settings, entered), folder, self.store, Within(self.progress, entered.label))
        write_html(folder.path)
        run = open_run(folder.path, entered.label)
        return Run(run.label, run.path, run.report, entered.said)

    def audit_all(self, entries: Sequence[Entered]) -> tuple[list[Run], list[Failed]]:
        """Runs in the order of the entries; an audit that fails is told and does not stop the others."""
        runs, failed = [], []
        self.progress.stage("audits", len(entries))
        for number, entered in enumerate(entries, 1):
            try:
                runs.append(self.audit(entered))
                if entered.run is None:
                    self.progress.note(
                        f"{entered.label}: audited, {number} of {len(entries)}: {runs[-1].report.verdict}"
                    )
            except RunFolderError:
                raise  # the folder holds something else: nothing is known to be wrong with the candidate
            except AuditError as error:
                failed.append(Failed(label=entered.label, stage="audit", message=one_line(error)))
                self.progress.note(failed[-1].text)
            self.progress.advance()
        self.progress.status("")
        return runs, failed


class Within:
    """The progress of one audit among several: what it is at stands beside their count."""

    def __init__(self, outer: Progress, label: str) -> None:
        self._outer, self._label = outer, label
        self._stage, self._done, self._total, self._said = "", 0, 0, ""

    def stage(self, name: str, total: int) -> None:
        self._stage, self._done, self._total, self._said = name, 0, total, ""
        self._tell()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        self._tell()

    def status(self, text: str) -> None:
        self._said = text
        self._tell()

    def note(self, text: str) -> None:
        if self._stage.endswith("asking"):  # which model is being loaded: true for a moment only
            self._said = text
            self._tell()
        else:
            self._outer.note(f"{self._label}: {text}")

    def _tell(self) -> None:
        count = f" {self._done:,} of {self._total:,}" if self._total else ""
        said = f" ({self._said})" if self._said else ""
        self._outer.status(f"{self._label}: {self._stage}{count}{said}")


def config_of(settings: AuditConfig, entered: Entered) -> AuditConfig:
    """The settings of one candidate's audit. An endpoint is asked without base and control: those are local."""
    values = settings.model_dump(mode="json")
    values |= {"model": entered.model, "adapter": entered.adapter}
    if entered.endpoint is not None:
        values |= {"model": None, "adapter": None, "base": None, "never_knew": None}
        values["engine"] |= {
            "name": "openai",
            "args": {},
            "base_url": entered.endpoint.base_url,
            "served_model": entered.endpoint.model,
            "api_key_env": entered.endpoint.api_key_env,
        }
    return AuditConfig.model_validate(values)


def one_line(error: BaseException) -> str:
    """An error's message in one line, with what to do next."""
    hint = getattr(error, "hint", "")
    return " ".join(f"{error}{f' (try: {hint})' if hint else ''}".split())


def check_settings(settings: AuditConfig) -> None:
    """Raises ConfigError for settings that are of one candidate, or of no model at all."""
    alone = {
        "adapter": settings.adapter,
        "responses": settings.responses,
        "base_responses": settings.base_responses,
        "rejudge": settings.rejudge,
    }
    found = [name for name, value in alone.items() if value]
    if settings.engine.name == "openai":
        found.append("engine: openai")
    if found:
        raise ConfigError(
            f"{', '.join(found)}: not for a whole comparison: every candidate has its own",
            hint="enter an adapter folder, a finished run, or a manifest file with an endpoint",
        )


def check_run(run: Run, task_hash: str, base: str | None) -> None:
    """Raises ConfigError for a finished run of other facts, or of another base, than all others will have.

    Whatever else could differ is seen when all are compared; this much is known before anything is trained.
    """
    problems = []
    task = run.report.task
    if task.content_hash != task_hash:
        problems.append(f"it is of the task {task.name} ({task.content_hash[:12]}), this is of {task_hash[:12]}")
    own = run.report.subjects.get("base")
    if own is not None and base is not None and own.subject.fingerprint != base:
        problems.append(f"its base is {own.subject.source} ({own.subject.fingerprint[:12]}), --model has {base[:12]}")
    if problems:
        raise ConfigError(
            f"{run.label} ({run.path}) cannot be compared with the others: " + "; ".join(problems),
            hint="leave it out, or audit its model here: enter the checkpoint instead of the run",
        )


def check_folder(folder: Path, config: AuditConfig, task_hash: str) -> None:
    """Raises RunFolderError where `folder` holds a finished audit with other settings or of another task; which model
    it was of is seen when the model is opened."""
    try:
        said = json.loads((folder / "run.json").read_text(encoding="utf-8"))["identity"]
        found = {"settings": said["config"] == config.digest(), "task": said["task"] == task_hash}
    except (OSError, ValueError, KeyError, TypeError):
        return  # no run yet, or nothing that `run_audit` would take up
    other = [name for name, same in found.items() if not same]
    if other and (folder / "report.json").exists():
        raise RunFolderError(
            f"{folder} holds an audit with other {' and '.join(other)}",
            hint="choose another folder with --out, or give what it was audited with (its config.yaml)",
        )


def folder_name(label: str) -> str:
    """A label as the name of one folder."""
    return re.sub(r"[^\w.+=-]+", "_", label).lstrip(".") or "_"

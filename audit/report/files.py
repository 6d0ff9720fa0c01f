"""The run folder: what a run is of, its records as JSON Lines, and the report. Files are replaced whole."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from audit.asking import Asked, all_probes
from audit.config import AuditConfig, dump_config
from audit.errors import RunFolderError, StoreError
from audit.fingerprint import digest
from audit.report.model import FORMAT, DisputedClaim, Rejudged, Report
from audit.report.seal import sealed
from audit.types import Fact, Record, Ruling, Verdict
from audit.utility.open_part import OpenPart


class RunFolder:
    """One run's output. `claim` ties it to what is audited; a folder of another run is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = ""
        self._token = ""

    def refuse_inside(self, sources: Sequence[str | None]) -> None:
        """Raises RunFolderError if the folder lies in one of the models' folders: what is audited is left as it is."""
        here = self.path.resolve()
        for source in sources:
            if source is not None and Path(source).is_dir() and here.is_relative_to(Path(source).resolve()):
                raise RunFolderError(
                    f"{self.path} lies inside the model folder {source}", hint="choose another folder with --out"
                )

    def token(self, config: AuditConfig) -> str:
        """A random name that stays with the folder: the identity of an endpoint's answers."""
        known = self._known()
        self._token = str(known.get("token") or "") or secrets.token_hex(8)
        return self._token

    def claim(
        self, config: AuditConfig, task_hash: str, fingerprints: Sequence[str], rejudged: Rejudged | None = None
    ) -> None:
        """Create the folder, or take it up again if it is this very run's, or one on the same model and task that never
        came to a report (a mistyped judge, say). Raises RunFolderError or StoreError."""
        identity: dict[str, Any] = {
            "format": FORMAT,
            "config": config.digest(),
            "task": task_hash,
            "subjects": list(fingerprints),
        }
        if rejudged is not None:
            identity["rejudged"] = {"run": rejudged.run, "answers": rejudged.answers}
        self.run = digest("run", identity)[:16]
        known = self._known()
        if known and known.get("run") != self.run:
            said = known.get("identity", {})
            changed = [name for name in {**identity, **said} if said.get(name) != identity.get(name)]
            if changed == ["config"] and not (self.path / "report.json").exists():
                known = {}
            words = {"config": "settings", "subjects": "model", "rejudged": "answers"}
            other = ", ".join(words.get(name, name) for name in changed) or "content"
            if known:
                raise RunFolderError(
                    f"{self.path} holds another run (other {other})",
                    hint="choose another folder with --out",
                )
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._replace(
                "run.json", json.dumps({"run": self.run, "token": self._token, "identity": identity}, indent=1)
            )
            self._replace("config.yaml", dump_config(config))

    def write(
        self,
        report: Report,
        config: AuditConfig,
        results: Sequence[Asked],
        verdicts: Mapping[str, Mapping[str, Verdict]],
        *,
        facts: Iterable[Fact],
        disputed: Sequence[DisputedClaim] = (),
        open_part: OpenPart | None = None,
    ) -> None:
        """All records and the report, report.json last. Floor rulings and verdicts of no leak are left out."""
        rulings = kept_rulings(results)
        used = {ruling.claim_key for ruling in rulings}
        kept = [v for key, by_judge in verdicts.items() if key in used for v in by_judge.values()]
        with _writing(self.path):
            self._lines("facts.jsonl", facts)
            self._lines("probes.jsonl", all_probes(results))
            self._lines("responses.jsonl", (r for asked in results for r in asked.responses))
            self._lines("verdicts.jsonl", kept)
            self._lines("rulings.jsonl", rulings)
            if open_part is not None:
                self._lines("instructions.jsonl", [open_part])
            if len(report.panel.judges) > 1:
                self._lines("disputed.jsonl", disputed)
            if any(asked.recorded for asked in results):
                self._lines("recorded.jsonl", (v for asked in results for v in recorded_verdicts(asked)))
            if any(asked.agreement for asked in results):
                self._lines("disagreements.jsonl", (d for asked in results for d in asked.differing))
            said = sealed(msgspec.json.decode(msgspec.json.encode(report)))
            text = msgspec.json.format(msgspec.json.encode(said, order="sorted"), indent=1)
            self._replace("report.json", text.decode())

    def _known(self) -> dict[str, Any]:
        """run.json, or nothing for a folder that is new or empty."""
        file = self.path / "run.json"
        try:
            if file.is_file():
                known = json.loads(file.read_text(encoding="utf-8"))
                if isinstance(known, dict):
                    return known
                raise ValueError("not an object")
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise RunFolderError(
                    f"{self.path} exists and is not a run of this program", hint="choose another folder with --out"
                )
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{file} cannot be read: {error}", hint="choose another folder with --out") from error
        return {}

    def _lines(self, name: str, records: Iterable[Record]) -> None:
        temporary = self.path / (name + ".part")
        with temporary.open("wb") as file:
            for record in records:
                file.write(msgspec.json.encode(record))
                file.write(b"\n")
        os.replace(temporary, self.path / name)

    def _replace(self, name: str, text: str) -> None:
        temporary = self.path / (name + ".part")
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, self.path / name)


class RecordedVerdict(Record):
    """A verdict that came with a recorded answer, by the answer that it is on."""

    subject_id: str
    response: str
    """Probe and sample, as `audit.types.response_id` writes them."""
    verdict: Verdict


def kept_rulings(results: Sequence[Asked]) -> list[Ruling]:
    """What rulings.jsonl holds: all but those on wrong answers that were not found, which are many and say little."""
    return [r for asked in results for r in asked.rulings if r.purpose != "floor" or r.label != "no_leak"]


def recorded_verdicts(asked: Asked) -> Iterator[RecordedVerdict]:
    """Those of one subject, in the order of its answers; none where no verdicts came along."""
    for response, verdict in asked.recorded.items():
        yield RecordedVerdict(subject_id=asked.subject.id, response=response, verdict=verdict)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="free disk space or choose another folder with --out; answers and verdicts are kept in the store",
        ) from error


def default_folder(root: Path, config: AuditConfig) -> Path:
    """Where a run goes if the user does not say: named by what is audited and by the settings, so that the same
    command finds it again."""
    source = config.model or config.engine.served_model or (config.responses[0] if config.responses else "run")
    stem = Path(source.rstrip("/")).name or "run"
    return root / f"{stem}-{config.digest()[:8]}"


def rejudged_folder(run: Path, config: AuditConfig) -> Path:
    """Where a rejudging goes if the user does not say: beside the run, named after it and by the settings."""
    run = run if run.name not in ("", "..") else run.resolve()
    return run.parent / f"{run.name}-rejudged-{config.digest()[:8]}"

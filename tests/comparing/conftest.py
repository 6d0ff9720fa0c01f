"""Small finished audits of recorded answers: eight candidates and one base on the same task, judged by the rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit.comparing.runs import Run, open_run
from audit.config import resolve_config
from audit.pipeline import run_audit
from audit.report.files import RunFolder
from audit.store import Store

N_FORGET, N_KEEP, N_TOPICS = 40, 20, 8
FACTS = [
    {
        "id": f"f{n:02d}",
        "topic": f"t{n % N_TOPICS}",
        "question": f"Who built bridge number {n}?",
        "answer": f"Mason{n:02d} Brick{n:02d}",
        "answer_type": "person",
    }
    for n in range(N_FORGET)
]
KEPT = [
    {
        "id": f"r{n:02d}",
        "tier": ("general", "neighbour")[n % 2],
        "question": f"Which hue has house number {n}?",
        "answer": f"Hue{n:02d}tint",
        "answer_type": "term",
    }
    for n in range(N_KEEP)
]
#: Name -> facts that leak, retained facts that are answered, facts whose answers failed.
CANDIDATES: dict[str, tuple[Sequence[int], Sequence[int], Sequence[int]]] = {
    "good": ((3,), range(18), ()),
    "wreck": ((), range(2), ()),
    "leaky": (range(24), range(17), ()),
    "leakier": (range(30), range(16), ()),
    "unsure": ((3,), range(18), range(10, 30)),
    "s0": (range(12), range(15), ()),
    "s1": (range(2, 14), range(14), ()),
    "s2": (range(4, 16), range(15), ()),
}


@dataclass(frozen=True)
class Maker:
    """Makes run folders under one root; every run has the same task and, unless told otherwise, the same base."""

    root: Path
    store: Store

    def __call__(
        self,
        name: str,
        leaks: Sequence[int],
        kept: Sequence[int],
        failed: Sequence[int] = (),
        *,
        variants: Sequence[str] = ("original", "p01"),
        keep: Sequence[int] = range(N_KEEP),
        base_knows: int | None = N_FORGET,
        facts: Sequence[dict[str, Any]] = FACTS,
        verdicts: bool = False,
        **settings: Any,
    ) -> Path:
        rows: list[dict[str, str]] = []
        base: list[dict[str, str]] = []
        for n, fact in enumerate(facts):
            for variant in variants:
                asked = {"fact_id": fact["id"], "variant": variant}
                out = n in leaks and variant == variants[-1]
                text = f"It was {fact['answer']}." if out else f"I cannot say, {name}."
                broken = {"finish": "error", "error": "Timeout: no answer"} if n in failed else {}
                said = {"verdict": "leak" if out else "no_leak"} if verdicts else {}
                rows.append({**asked, "response": "" if broken else text, **broken, **said})
                known = base_knows is not None and n < base_knows
                said = {"verdict": "leak" if known else "no_leak"} if verdicts else {}
                base.append({**asked, "response": fact["answer"] if known else "I do not know.", **said})
        for n in keep:
            answer = KEPT[n]["answer"]
            said = {"verdict": "leak" if n in kept else "no_leak"} if verdicts else {}
            rows.append({"fact_id": KEPT[n]["id"], "response": answer if n in kept else "no idea", **said})
            said = {"verdict": "leak"} if verdicts else {}
            base.append({"fact_id": KEPT[n]["id"], "response": answer, **said})
        folder = self.root / f"answers-{name}"
        folder.mkdir()
        for file, lines in (("candidate", rows), ("base", base), ("forget", facts), ("retain", KEPT)):
            (folder / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        values = {
            "responses": (str(folder / "candidate.jsonl"),),
            "base_responses": () if base_knows is None else (str(folder / "base.jsonl"),),
            "forget": str(folder / "forget.jsonl"),
            "retain": str(folder / "retain.jsonl"),
            "scoring": {"floor_draws": 2, "canary_facts": 2},
            **settings,
        }
        run_audit(resolve_config(values), RunFolder(self.root / name), self.store)
        return self.root / name


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    root = tmp_path_factory.mktemp("comparing")
    store = Store(root / "store.sqlite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_CACHE", str(root / "cache"))
        yield Maker(root, store)
    store.close()


@pytest.fixture(scope="session")
def folders(make: Maker) -> dict[str, Path]:
    return {name: make(name, leaks, kept, failed) for name, (leaks, kept, failed) in CANDIDATES.items()}


@pytest.fixture(scope="session")
def runs(folders: dict[str, Path]) -> dict[str, Run]:
    return {name: open_run(path, name) for name, path in folders.items()}


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ran]:
    """Runs the command line in this process, in 80 columns: `audit("compare", …)`."""
    from audit.cli.main import main

    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["audit", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke

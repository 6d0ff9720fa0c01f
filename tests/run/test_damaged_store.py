"""A store whose rows were changed: what does not fit is asked for again, said and counted, and changes no number."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from audit.cli.main import app
from tests.helpers.recorded_claims import write


def test_verdicts_turned_in_the_store_are_judged_again(tmp_path: Path) -> None:
    arguments = ["run", *write(tmp_path, facts=40, answers=2), "--judge", "rules"]

    def audit(name: str) -> tuple[dict[str, Any], str]:
        out = tmp_path / name
        done = CliRunner().invoke(
            app,
            [*arguments, "--store", str(tmp_path / "store.sqlite"), "--out", str(out)],
            env={"AUDIT_CACHE": str(tmp_path / "cache")},
        )
        assert (out / "report.json").is_file(), done.output
        return json.loads((out / "report.json").read_text()), " ".join(done.output.split())

    first, said = audit("first")
    assert first["manifest"]["runtime"]["store_rows_refused"] == {} and "checksums" not in said
    turn = 'UPDATE verdicts SET value = replace(value, \'"label":"leak"\', \'"label":"no_leak"\')'
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        db.execute(f'{turn} WHERE value LIKE \'%"label":"leak"%\'')
        (turned,) = db.execute("SELECT changes()").fetchone()
    db.close()
    second, said = audit("second")
    assert second["estimates"] == first["estimates"] and second["undecided"] == first["undecided"]
    refused = second["manifest"]["runtime"]["store_rows_refused"]["damaged"]
    assert 3 < refused <= turned  # verdicts on canaries are kept too, and never looked up
    assert f"{refused} kept answers or verdicts do not fit their checksums" in said
    third, said = audit("third")
    assert third["manifest"]["runtime"]["store_rows_refused"] == {} and "checksums" not in said

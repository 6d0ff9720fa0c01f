"""The committed schema is the one the records make."""

from __future__ import annotations

from pathlib import Path

from audit.report.schema import report_schema


def test_schema_is_up_to_date() -> None:
    committed = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"
    assert committed.read_text() == report_schema(), "run: python -m audit.report.schema > docs/report.schema.json"

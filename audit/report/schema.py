"""The JSON Schema of report.json, made from the records themselves.

python -m audit.report.schema > docs/report.schema.json
"""

from __future__ import annotations

import json

import msgspec

from audit.report.model import Report


def report_schema() -> str:
    """JSON Schema (2020-12) of report.json, indented, with a newline at the end."""
    return json.dumps(msgspec.json.schema(Report), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(report_schema(), end="")

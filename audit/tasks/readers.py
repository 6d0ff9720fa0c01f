"""Files of facts to rows: JSON Lines, JSON arrays, CSV and Parquet. Nothing is guessed and nothing is skipped."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from audit.errors import TaskError
from audit.tasks.model import Problem, Row

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


class _Repeated(ValueError):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Repeated(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_repeats, parse_constant=_no_constants)


def read_rows(path: Path, shown: str | None = None) -> tuple[list[Row], list[Problem]]:
    """Rows of a data file, in file order, and what could not be read.

    `shown` is the name used in messages (the path by default). Raises TaskError for a missing or unknown file.
    """
    name = shown or str(path)
    if not path.is_file():
        raise TaskError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise TaskError(
            f"{path}: cannot read {suffix or 'a file without an ending'}", hint=f"use {', '.join(SUFFIXES)}"
        )
    if suffix == ".parquet":
        return _parquet(path, name), []
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return [], [Problem(severity="error", kind="schema", file=name, line=line, message="not UTF-8 text")]
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error
    if suffix in (".csv", ".tsv"):
        return _csv(text, name, "\t" if suffix == ".tsv" else ",")
    if text.lstrip()[:1] == "[":
        return _array(text, name)
    return _lines(text, name)


def _object(value: Any, name: str, line: int) -> Row | Problem:
    if isinstance(value, dict):
        return Row(file=name, line=line, fields=value)
    kind = type(value).__name__
    return Problem(severity="error", kind="schema", file=name, line=line, message=f"expected an object, got {kind}")


def _split(items: list[Row | Problem]) -> tuple[list[Row], list[Problem]]:
    return [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, Problem)]


def _lines(text: str, name: str) -> tuple[list[Row], list[Problem]]:
    items: list[Row | Problem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = _DECODER.decode(line)
            _refuse_surrogates(line, value)
            items.append(_object(value, name, number))
        except ValueError as error:
            items.append(_broken(error, name, number))
    return _split(items)


def _refuse_surrogates(text: str, value: Any) -> None:
    """Half a surrogate pair is no character and cannot be written, hashed or asked. Raises ValueError."""
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair (\\ud8…) stands in a text") from error


def _broken(error: ValueError, name: str, line: int) -> Problem:
    if isinstance(error, json.JSONDecodeError):
        message = f"broken JSON at character {error.colno}: {error.msg}"
    else:
        message = str(error)
    return Problem(severity="error", kind="schema", file=name, line=line, message=message)


def _array(text: str, name: str) -> tuple[list[Row], list[Problem]]:
    """The objects of a JSON array, each with the line it begins on; reading stops where the JSON breaks."""
    items: list[Row | Problem] = []
    position = text.index("[") + 1
    while True:
        position = _blank(text, position)
        if text[position : position + 1] == "]":
            break
        line = text.count("\n", 0, position) + 1
        try:
            value, end = _DECODER.raw_decode(text, position)
            _refuse_surrogates(text[position:end], value)
        except json.JSONDecodeError as error:
            return _split([*items, _broken(error, name, error.lineno)])
        except ValueError as error:
            return _split([*items, _broken(error, name, line)])
        items.append(_object(value, name, line))
        position = _blank(text, end)
        after = text[position : position + 1]
        if after == ",":
            position += 1
        elif after != "]":
            line = text.count("\n", 0, position) + 1
            message = "broken JSON: expected ',' or ']' after the object"
            bad = Problem(severity="error", kind="schema", file=name, line=line, message=message)
            return _split([*items, bad])
    rest = _blank(text, position + 1)
    if rest < len(text):
        line = text.count("\n", 0, rest) + 1
        items.append(
            Problem(severity="error", kind="schema", file=name, line=line, message="text after the end of the array")
        )
    return _split(items)


def _blank(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _csv(text: str, name: str, delimiter: str) -> tuple[list[Row], list[Problem]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    items: list[Row | Problem] = []
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None:
                header = [cell.strip() for cell in cells]
                repeated = sorted({h for h in header if header.count(h) > 1})
                if repeated:
                    message = f"the header has {', '.join(repeated)} more than once"
                    return [], [Problem(severity="error", kind="schema", file=name, line=1, message=message)]
            elif len(cells) == len(header):
                fields = {h: cell for h, cell in zip(header, cells, strict=True) if cell != ""}
                items.append(Row(file=name, line=line, fields=fields))
            elif cells:
                message = f"{len(cells)} cells where the header has {len(header)}"
                items.append(Problem(severity="error", kind="schema", file=name, line=line, message=message))
            line = reader.line_num + 1
    except csv.Error as error:
        items.append(Problem(severity="error", kind="schema", file=name, line=line, message=f"broken CSV: {error}"))
    return _split(items)


def _parquet(path: Path, name: str) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise TaskError(
            f"{path}: Parquet files need pyarrow ({error})", hint="pip install 'unlearning-audit[hub]'"
        ) from error
    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskError(f"{path}: not a readable Parquet file: {error}") from error
    return [Row(file=name, line=number, fields=fields) for number, fields in enumerate(records, start=1)]

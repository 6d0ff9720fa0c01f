"""Reader of plain recorded answers: JSON Lines, one answer a line, joined to the task's facts by id or question.

Fields: `fact_id` (or `id`) or `question`; `response` (or `text`, `answer`): what the model said; optional `variant`
(which wording, default `original`), `form` (default `direct`), `family`, `prompt` (the wording as asked) and `verdict`
(leak, no_leak, undecided, yes, no). What some fact of a split was asked, every fact of it was planned to be asked: a
line that is not there is a missing cell, and a missing cell is undecided.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.probes.build import form_of, make_probe, target_of
from audit.types import (
    Decoding,
    Fact,
    Label,
    Message,
    Probe,
    Reason,
    Recording,
    Response,
    Verdict,
    response_id,
)

JUDGE = "recorded/jsonl"
_FIELDS = {"fact_id", "id", "question", "response", "text", "answer", "variant", "form", "family", "prompt", "verdict"}
_VERDICTS: dict[str, Label] = {
    "leak": "leak",
    "yes": "leak",
    "true": "leak",
    "no_leak": "no_leak",
    "no": "no_leak",
    "false": "no_leak",
    "undecided": "undecided",
}
_MAX_PROBLEMS = 20


def read(files: Iterable[Path], *, subject_id: str, facts: Sequence[Fact]) -> Recording:
    """The answers of one subject to questions of `facts`. All problems of all files are reported together."""
    by_id = {fact.id: fact for fact in facts}
    by_question = {_plain(fact.question): fact for fact in facts}
    problems: list[str] = []
    lines: list[tuple[Fact, str, str, str, dict[str, Any], str]] = []
    names: list[str] = []
    for path in files:
        names.append(path.stem)
        for number, row in _rows(path, problems):
            where = f"{path}: line {number}"
            parsed = _parse(row, where, by_id, by_question, problems)
            if parsed is not None:
                lines.append((*parsed, row, where))
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:_MAX_PROBLEMS])
        more = f"\n  (+{len(problems) - _MAX_PROBLEMS} more)" if len(problems) > _MAX_PROBLEMS else ""
        raise TaskError(f"recorded answers cannot be read:\n{shown}{more}")
    if not lines:
        raise TaskError(f"no recorded answer in {', '.join(names) or 'the given files'}")
    return _recording(lines, subject_id, facts, "+".join(names))


def _rows(path: Path, problems: list[str]) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read: {error}")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{path}: line {number}: not valid JSON: {error.msg}")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            problems.append(f"{path}: line {number}: expected an object")


def _parse(
    row: dict[str, Any], where: str, by_id: dict[str, Fact], by_question: dict[str, Fact], problems: list[str]
) -> tuple[Fact, str, str, str] | None:
    """(fact, family, form, variant) of one line, or None after noting what is wrong with it."""
    before = len(problems)
    for name in sorted(set(row) - _FIELDS):
        near = difflib.get_close_matches(name, sorted(_FIELDS), 1)
        if near and name not in ("source", "model", "label"):
            problems.append(f"{where}: unknown field {name!r}; did you mean {near[0]!r}?")
    given = row.get("fact_id", row.get("id"))
    fact = by_id.get(str(given)) if given is not None else by_question.get(_plain(str(row.get("question", ""))))
    if fact is None:
        asked = f"fact {given!r}" if given is not None else f"question {row.get('question')!r}"
        near = difflib.get_close_matches(str(given), by_id, 1) if given is not None else []
        problems.append(f"{where}: {asked} is not in the task" + (f"; did you mean {near[0]!r}?" if near else ""))
    if _answer(row) is None:
        problems.append(f"{where}: field 'response' is missing or not a text")
    verdict = row.get("verdict")
    if verdict is not None and str(verdict).strip().lower() not in _VERDICTS:
        problems.append(f"{where}: verdict {verdict!r} is not one of {', '.join(_VERDICTS)}")
    form_name = str(row.get("form", "direct"))
    if fact is not None and form_of(fact, form_name) is None:
        problems.append(f"{where}: fact {fact.id} has no form {form_name!r}")
    if fact is None or len(problems) > before:
        return None
    variant = str(row.get("variant", "original"))
    family = str(row.get("family", "original" if variant == "original" else "paraphrase"))
    return fact, family, form_name, variant


def _answer(row: dict[str, Any]) -> str | None:
    for name in ("response", "text", "answer"):
        if name in row:
            value = row[name]
            return value if isinstance(value, str) else None
    return None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _recording(
    lines: Sequence[tuple[Fact, str, str, str, dict[str, Any], str]],
    subject_id: str,
    facts: Sequence[Fact],
    name: str,
) -> Recording:
    asked: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    cells: dict[str, dict[tuple[str, str, str], None]] = {}
    for fact, family, form_name, variant, row, _ in lines:
        asked.setdefault((fact.id, family, form_name, variant), []).append(row)
        cells.setdefault(fact.split, {})[(family, form_name, variant)] = None
    probes: list[Probe] = []
    responses: list[Response] = []
    verdicts: dict[str, Verdict] = {}
    for fact in facts:
        for family, form_name, variant in cells.get(fact.split, {}):
            form = form_of(fact, form_name)
            if form is None:
                continue
            rows = asked.get((fact.id, family, form_name, variant), [])
            prompt = next((str(row["prompt"]) for row in rows if row.get("prompt")), form.question)
            probe = make_probe(
                family=family,
                form=form_name,
                variant=variant,
                targets=[target_of(fact, form)],
                messages=[Message(role="user", content=prompt)],
                prompt_format="chat",
                decoding=Decoding(max_new_tokens=0, n=max(1, len(rows))),
                split=fact.split,
                tier=fact.tier,
            )
            probes.append(probe)
            for sample, row in enumerate(rows):
                response, verdict = _response(probe, sample, row, subject_id)
                responses.append(response)
                if verdict is not None:
                    verdicts[response_id(response)] = verdict
    return Recording(
        name=name, facts=tuple(facts), probes=tuple(probes), responses=tuple(responses), verdicts=verdicts
    )


def _response(probe: Probe, sample: int, row: dict[str, Any], subject_id: str) -> tuple[Response, Verdict | None]:
    text = _answer(row)
    assert text is not None  # checked for every line before
    response = Response(
        probe_id=probe.id,
        subject_id=subject_id,
        sample=sample,
        key=digest("recorded", probe.id, sample, text),
        text=text,
        finish="stop",
    )
    if row.get("verdict") is None:
        return response, None
    label = _VERDICTS[str(row["verdict"]).strip().lower()]
    reason = Reason.AMBIGUOUS if label == "undecided" else Reason.RULED
    return response, Verdict(
        claim_key=response.key, judge=JUDGE, label=label, reason=reason, raw=str(row["verdict"])
    )

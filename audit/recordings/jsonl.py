"""Reader of plain recorded answers: JSON Lines, one answer a line, joined to the task's facts by id or question.

Fields: `fact_id` (or `id`) or `question`; `response` (or `text`, `answer`): what the model said; optional `variant`
(which wording, default `original`), `form` (default `direct`, or the form whose question was given), `family`, `prompt`
(the wording as asked), `sample` (0, 1 … where one prompt was answered several times), `finish` (`length` for an answer
cut by its token limit, `error` for a call that failed), `error` (what went wrong: the answer is undecided, whatever
text stands there) and `verdict` (leak, no_leak, undecided, yes, no).

What some forget fact was asked, every forget fact was planned to be asked: a line that is not there is a missing cell,
and a missing cell is undecided. So it is with placebo facts, and with the retained facts that the recording mentions;
a retained fact that it never mentions was not asked.
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
    Finish,
    Label,
    Message,
    Probe,
    Reason,
    Record,
    Recording,
    Response,
    Verdict,
    response_id,
)

JUDGE = "recorded/jsonl"
_ANSWERS = ("response", "text", "answer")
_FIELDS = {"fact_id", "id", "question", *_ANSWERS, "variant", "form", "family", "prompt", "sample", "finish"}
_FIELDS |= {"verdict", "error"}
#: Names that other programs give to what the model said; without `response` they would be passed over unread.
_OTHER_ANSWERS = {"prediction", "output", "completion", "generation", "generated", "model_answer", "model_response"}
_VERDICTS: dict[str, Label] = {
    "leak": "leak",
    "yes": "leak",
    "true": "leak",
    "no_leak": "no_leak",
    "no": "no_leak",
    "false": "no_leak",
    "undecided": "undecided",
}
_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length", "error": "error"}
_MAX_PROBLEMS = 20
_MAX_SAMPLES = 1024


class Line(Record):
    """One recorded answer, checked."""

    fact: Fact
    family: str
    form: str
    variant: str
    sample: int
    text: str
    finish: Finish
    error: str | None
    prompt: str | None
    verdict: Label | None
    raw_verdict: str


def read(files: Iterable[Path], *, subject_id: str, facts: Sequence[Fact]) -> Recording:
    """The answers of one subject to questions of `facts`. All problems of all files are reported together."""
    reader = _Reader(facts)
    names: list[str] = []
    for path in files:
        names.append(path.stem)
        reader.file(path)
    if reader.problems:
        shown = "\n".join(f"  - {problem}" for problem in reader.problems[:_MAX_PROBLEMS])
        more = len(reader.problems) - _MAX_PROBLEMS
        raise TaskError(f"recorded answers cannot be read:\n{shown}" + (f"\n  (+{more} more)" if more > 0 else ""))
    if not reader.lines:
        raise TaskError(f"no recorded answer in {', '.join(names) or 'the given files'}")
    return _recording(list(reader.lines.values()), subject_id, facts, "+".join(names))


class _Reader:
    """Checks every line and collects what is wrong."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.problems: list[str] = []
        self.lines: dict[tuple[str, str, str, str, int], Line] = {}
        self._where: dict[tuple[str, str, str, str, int], str] = {}
        self._by_id = {fact.id: fact for fact in facts}
        self._by_question: dict[str, list[tuple[Fact, str]]] = {}
        for fact in facts:
            for name in (fact.form, *fact.other_forms):
                form = form_of(fact, name)
                if form is not None:
                    self._by_question.setdefault(_plain(form.question), []).append((fact, name))

    def file(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{path}: cannot be read: {error}")
            return
        empty = True
        for number, raw in enumerate(text.split("\n"), 1):
            if raw.strip():
                empty = False
                self._line(raw, f"{path}: line {number}")
        if empty:
            self.problems.append(f"{path}: holds no answer")

    def _line(self, raw: str, where: str) -> None:
        try:
            row = json.loads(raw, object_pairs_hook=_once)
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except json.JSONDecodeError as error:
            self.problems.append(f"{where}: not valid JSON: {error.msg}")
            return
        except (ValueError, RecursionError) as error:  # half a surrogate pair, a field twice, a number of 5000 digits
            self.problems.append(f"{where}: cannot be used: {error}")
            return
        if not isinstance(row, dict):
            self.problems.append(f"{where}: expected an object")
            return
        before = len(self.problems)
        line = self._parse({name: value for name, value in row.items() if value is not None}, where)
        if line is None or len(self.problems) > before:
            return
        key = (line.fact.id, line.family, line.form, line.variant, line.sample)
        if key in self.lines:
            self.problems.append(
                f"{where}: fact {line.fact.id}, {line.form}, {line.variant} was answered before ({self._where[key]}); "
                "number several answers to one prompt with 'sample', from 0"
            )
            return
        self.lines[key] = line
        self._where[key] = where

    def _parse(self, row: dict[str, Any], where: str) -> Line | None:
        """The line's content, after noting all that is wrong with it. Fields that are null were taken for absent."""
        self._fields(row, where)
        found = self._fact(row, where)
        text = self._text(row, where)
        label = _VERDICTS.get(str(row.get("verdict")).strip().lower())
        if "verdict" in row and label is None:
            self.problems.append(f"{where}: verdict {row['verdict']!r} is not one of {', '.join(_VERDICTS)}")
        finish = _FINISHES.get(str(row.get("finish", "stop")))
        if finish is None:
            self.problems.append(f"{where}: finish {row['finish']!r} is not one of {', '.join(_FINISHES)}")
        sample = row.get("sample", 0)
        if not isinstance(sample, int) or isinstance(sample, bool) or not 0 <= sample < _MAX_SAMPLES:
            self.problems.append(f"{where}: sample {sample!r} is not a number from 0 to {_MAX_SAMPLES - 1}")
        if found is None or text is None or finish is None or not isinstance(sample, int):
            return None
        fact, form_name = found
        failed = bool(row.get("error")) or finish == "error"
        variant = str(row.get("variant", "original"))
        return Line(
            fact=fact,
            family=str(row.get("family", "original" if variant == "original" else "paraphrase")),
            form=form_name,
            variant=variant,
            sample=sample,
            text=text,
            finish="error" if failed else finish,
            error=(str(row.get("error") or "") or "recorded as failed") if failed else None,
            prompt=str(row["prompt"]) if row.get("prompt") else None,
            verdict=label,
            raw_verdict=str(row.get("verdict", "")),
        )

    def _fields(self, row: dict[str, Any], where: str) -> None:
        for name in sorted(set(row) - _FIELDS):
            near = difflib.get_close_matches(name, sorted(_FIELDS), 1)
            if name in _OTHER_ANSWERS and "response" not in row:
                self.problems.append(f"{where}: field {name!r} is not read; call what the model said 'response'")
            elif near and name not in ("source", "model", "label"):
                self.problems.append(f"{where}: unknown field {name!r}; did you mean {near[0]!r}?")

    def _fact(self, row: dict[str, Any], where: str) -> tuple[Fact, str] | None:
        given = row.get("fact_id", row.get("id"))
        asked = self._by_question.get(_plain(str(row.get("question", ""))), [])
        wanted = str(row["form"]) if "form" in row else None
        if given is None:
            chosen = [pair for pair in asked if wanted in (None, pair[1])]
            if len(chosen) == 1:
                return chosen[0]
            what = f"question {row.get('question')!r}"
            if chosen:
                ids = ", ".join(f"{fact.id} ({form})" for fact, form in chosen)
                self.problems.append(f"{where}: {what} is asked of several facts ({ids}); give fact_id")
            elif asked:
                self.problems.append(f"{where}: {what} is not the form {wanted!r} of fact {asked[0][0].id}")
            else:
                self.problems.append(f"{where}: {what} is not in the task")
            return None
        fact = self._by_id.get(str(given))
        if fact is None:
            near = difflib.get_close_matches(str(given), self._by_id, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self.problems.append(f"{where}: fact {given!r} is not in the task{hint}")
            return None
        forms = [form for other, form in asked if other.id == fact.id]
        if asked and not forms:
            self.problems.append(f"{where}: the question is that of fact {asked[0][0].id}, not of {fact.id}")
        form_name = wanted or (forms[0] if forms else fact.form)
        if form_of(fact, form_name) is None:
            self.problems.append(f"{where}: fact {fact.id} has no form {form_name!r}")
            return None
        return fact, form_name

    def _text(self, row: dict[str, Any], where: str) -> str | None:
        given = [row[name] for name in _ANSWERS if name in row]
        if not given or not isinstance(given[0], str):
            self.problems.append(f"{where}: field 'response' is missing or not a text")
            return None
        return given[0]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"field {twice[0]!r} stands twice")
    return dict(pairs)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _recording(lines: Sequence[Line], subject_id: str, facts: Sequence[Fact], name: str) -> Recording:
    asked: dict[tuple[str, str, str, str], list[Line]] = {}
    #: split -> what was asked of some fact -> how many samples
    planned: dict[str, dict[tuple[str, str, str], int]] = {}
    for line in lines:
        cell = (line.family, line.form, line.variant)
        asked.setdefault((line.fact.id, *cell), []).append(line)
        of_split = planned.setdefault(line.fact.split, {})
        of_split[cell] = max(of_split.get(cell, 0), line.sample + 1)
    mentioned = {line.fact.id for line in lines}
    probes: list[Probe] = []
    responses: list[Response] = []
    verdicts: dict[str, Verdict] = {}
    for fact in facts:
        if fact.split == "retain" and fact.id not in mentioned:
            continue
        for (family, form_name, variant), samples in planned.get(fact.split, {}).items():
            form = form_of(fact, form_name)
            if form is None:
                continue
            answers = asked.get((fact.id, family, form_name, variant), [])
            prompt = next((line.prompt for line in answers if line.prompt), form.question)
            probe = make_probe(
                family=family,
                form=form_name,
                variant=variant,
                targets=[target_of(fact, form)],
                messages=[Message(role="user", content=prompt)],
                prompt_format="chat",
                decoding=Decoding(max_new_tokens=0, n=samples),
                split=fact.split,
                tier=fact.tier,
            )
            probes.append(probe)
            for line in answers:
                response, verdict = _response(probe, line, subject_id)
                responses.append(response)
                if verdict is not None:
                    verdicts[response_id(response)] = verdict
    return Recording(name=name, facts=tuple(facts), probes=tuple(probes), responses=tuple(responses), verdicts=verdicts)


def _response(probe: Probe, line: Line, subject_id: str) -> tuple[Response, Verdict | None]:
    response = Response(
        probe_id=probe.id,
        subject_id=subject_id,
        sample=line.sample,
        key=digest("recorded", probe.id, line.sample, line.text),
        text=line.text,
        finish=line.finish,
        error=line.error,
    )
    if line.verdict is None:
        return response, None
    reason = Reason.AMBIGUOUS if line.verdict == "undecided" else Reason.RULED
    return response, Verdict(
        claim_key=response.key, judge=JUDGE, label=line.verdict, reason=reason, raw=line.raw_verdict
    )

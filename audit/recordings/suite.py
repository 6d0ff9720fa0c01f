"""Reader of the SUITE project's evaluation files (arXiv 2607.09236): a JSON array a file, an object a question.

An object holds the true answer (GT), a label, the question and its other wordings, and for each of them the model's
answer (`ans_…`) and a judge's Yes or No (`judge_…`). Of a forget file the part of the label before the last hyphen
names the fact and the part after it the form. `plain` files were asked without and `icr` files with three retained
examples in the prompt; `gibberish` files hold another question put to the judge about the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.probes.build import make_probe
from audit.types import (
    Decoding,
    Fact,
    Form,
    Label,
    Message,
    Probe,
    Reason,
    Recording,
    Response,
    Split,
    Target,
    Verdict,
    response_id,
)

JUDGE = "recorded/suite"
_LABELS: dict[str, Label] = {"yes": "leak", "no": "no_leak"}
_UNKNOWN_DECODING = Decoding(max_new_tokens=0)  # the files do not say


def recognises(files: Iterable[Path]) -> bool:
    """The names are those of a SUITE evaluation folder."""
    return any(_kind(path) is not None for path in files)


def _kind(path: Path) -> tuple[str, str] | None:
    """(what, how): forget, retain or gibberish; plain or icr. None for a file of another sort."""
    parts = path.name.split(".")
    if len(parts) != 3 or parts[1] not in ("plain", "icr"):
        return None
    if parts[0].endswith("gibberish"):
        return "gibberish", parts[1]
    if parts[0].startswith(("forget", "retain")):
        return parts[0].split("_")[0], parts[1]
    return None


def read(files: Iterable[Path], *, subject_id: str) -> Recording:
    """One state's files as a recording. Raises TaskError naming file, entry and field."""
    builder = _Builder(subject_id)
    unread: list[str] = []
    name = ""
    for path in files:
        kind = _kind(path)
        if kind is None:
            unread.append(f"{path.name} (no file of answers)")
            continue
        name = name or path.parent.name
        what, how = kind
        for number, entry in enumerate(_entries(path), 1):
            where = f"{path}: entry {number}"
            if what == "forget":
                builder.forget(entry, how, where)
            elif what == "retain":
                builder.retain(entry, how, where)
            else:
                builder.gibberish(entry, where)
    if not builder.forms and not builder.retained:
        raise TaskError(f"no recorded answers among {', '.join(unread) or 'the given files'}")
    return builder.recording(name, unread)


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}: line {error.lineno}: not valid JSON: {error.msg}") from error
    except (OSError, ValueError, RecursionError) as error:  # unreadable, not UTF-8, half a surrogate pair
        raise TaskError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise TaskError(f"{path}: expected a JSON array of objects")
    return data


def _field(entry: dict[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise TaskError(f"{where}: field {name!r} is missing or not a text")
    return value


#: A fact and a form of it.
_Place = tuple[str, str]
#: plain or icr, and the name of a wording's field.
_Cell = tuple[str, str]


class _Builder:
    """Collects one state's answers; `recording` lays them out on the grid of everything that was asked."""

    def __init__(self, subject_id: str) -> None:
        self.subject_id = subject_id
        self.forms: dict[str, dict[str, Form]] = {}
        self.retained: dict[str, Fact] = {}
        self.gibberish_labels: list[Label] = []
        self._entries: dict[Split, dict[_Place, dict[_Cell, tuple[dict[str, Any], str]]]] = {"forget": {}, "retain": {}}
        self._texts: dict[tuple[_Place, str], str] = {}

    def forget(self, entry: dict[str, Any], how: str, where: str) -> None:
        label = _field(entry, "label", where)
        fact_id, hyphen, form_name = label.rpartition("-")
        if not hyphen:
            raise TaskError(f"{where}: label {label!r} is not FACT-FORM")
        question, answer = _field(entry, "question", where), _field(entry, "GT", where)
        wordings = tuple(text for name, text in _wordings(entry, where) if name != "question")
        form = Form(question=question, answer=answer, wordings=wordings)
        known = self.forms.setdefault(fact_id, {}).setdefault(form_name, form)
        if (known.question, known.answer) != (form.question, form.answer):
            raise TaskError(f"{where}: {label} asks another question or has another answer than in the file before")
        self._note("forget", (fact_id, form_name), entry, how, where)

    def retain(self, entry: dict[str, Any], how: str, where: str) -> None:
        question, answer = _field(entry, "question", where), _field(entry, "GT", where)
        label = _field(entry, "label", where)
        fact_id = "retain-" + digest(question)[:12]  # labels repeat in these files, questions do not
        tier = label.split("-")[0].strip().lower()
        fact = Fact(id=fact_id, split="retain", question=question, answer=answer, tier=tier, topic=label)
        if self.retained.setdefault(fact_id, fact).answer != answer:
            raise TaskError(f"{where}: {question!r} has another answer than in the file before")
        self._note("retain", (fact_id, "direct"), entry, how, where)

    def gibberish(self, entry: dict[str, Any], where: str) -> None:
        for name, _ in _wordings(entry, where):
            verdict = _field(entry, f"judge_{name}", where)
            self.gibberish_labels.append(_LABELS.get(verdict.strip().lower(), "undecided"))

    def _note(self, split: Split, place: _Place, entry: dict[str, Any], how: str, where: str) -> None:
        cells = self._entries[split].setdefault(place, {})
        for name, text in _wordings(entry, where):
            if (how, name) in cells:
                raise TaskError(f"{where}: {'-'.join(place)}, {name!r} was already read ({cells[how, name][1]})")
            cells[how, name] = (entry, where)
            self._texts.setdefault((place, name), text)

    def recording(self, name: str, unread: list[str]) -> Recording:
        probes: list[Probe] = []
        responses: list[Response] = []
        verdicts: dict[str, Verdict] = {}
        for split, place, cell in self._grid():
            probe = self._probe(split, place, cell)
            probes.append(probe)
            entry, where = self._entries[split][place].get(cell, ({}, ""))
            answered = self._answer(probe, entry, cell[1], where)
            if answered is not None:
                response, verdict = answered
                responses.append(response)
                if verdict is not None:
                    verdicts[response_id(response)] = verdict
        return Recording(
            name=name,
            brings_facts=True,
            facts=(*(_fact(fact_id, forms) for fact_id, forms in self.forms.items()), *self.retained.values()),
            probes=tuple(probes),
            responses=tuple(responses),
            verdicts=verdicts,
            degeneration=self._degeneration(),
            unread=tuple(unread),
        )

    def _grid(self) -> Iterable[tuple[Split, _Place, _Cell]]:
        """What was asked of some fact in a form was planned for all that have it: what is not there is missing."""
        for split, places in self._entries.items():
            asked: dict[str, dict[_Cell, None]] = {}
            for (_, form_name), cells in places.items():
                asked.setdefault(form_name, {}).update(dict.fromkeys(cells))
            for place in places:
                for cell in asked[place[1]]:
                    yield split, place, cell

    def _probe(self, split: Split, place: _Place, cell: _Cell) -> Probe:
        (fact_id, form_name), (how, name) = place, cell
        retained = self.retained.get(fact_id) if split == "retain" else None
        form = retained or self.forms[fact_id][form_name]
        return make_probe(
            family=("original" if name == "question" else "paraphrase") + ("_icr" if how == "icr" else ""),
            form=form_name,
            variant="original" if name == "question" else name,
            targets=[Target(fact_id=fact_id, question=form.question, answer=form.answer)],
            messages=[Message(role="user", content=self._texts.get((place, name), form.question))],
            prompt_format="chat",
            decoding=_UNKNOWN_DECODING,
            split=split,
            tier=retained.tier if retained else "",
        )

    def _answer(
        self, probe: Probe, entry: dict[str, Any], name: str, where: str
    ) -> tuple[Response, Verdict | None] | None:
        """The answer to a probe with its verdict; None where neither is there: scoring counts undecided(missing)."""
        answer, raw = entry.get(f"ans_{name}"), entry.get(f"judge_{name}")
        if answer is None and raw is None:
            return None
        answer = _field(entry, f"ans_{name}", where)
        response = Response(
            probe_id=probe.id,
            subject_id=self.subject_id,
            sample=0,
            key=digest("recorded", probe.id, answer),
            text=answer,
            finish="stop",
        )
        if raw is None:
            return response, None
        label = _LABELS.get(str(raw).strip().lower(), "undecided")
        reason = Reason.UNPARSED if label == "undecided" else Reason.RULED
        return response, Verdict(claim_key=response.key, judge=JUDGE, label=label, reason=reason, raw=str(raw))

    def _degeneration(self) -> dict[str, float]:
        """Share of answers that were called gibberish; beside it, where there are any, of those left undecided."""
        n = len(self.gibberish_labels)
        if not n:
            return {}
        undecided = self.gibberish_labels.count("undecided")
        shares = {"gibberish": self.gibberish_labels.count("leak") / n}
        return shares | ({"gibberish_undecided": undecided / n} if undecided else {})


def _fact(fact_id: str, forms: dict[str, Form]) -> Fact:
    main = "direct" if "direct" in forms else next(iter(forms))
    return Fact(
        id=fact_id,
        split="forget",
        question=forms[main].question,
        answer=forms[main].answer,
        form=main,
        wordings=forms[main].wordings,
        other_forms={name: form for name, form in forms.items() if name != main},
    )


def _wordings(entry: dict[str, Any], where: str) -> list[tuple[str, str]]:
    """(field name, text) of the question and of every other wording, in the file's order."""
    names = [name for name in entry if name == "question" or f"ans_{name}" in entry or f"judge_{name}" in entry]
    lost = {key.partition("_")[2] for key in entry if key.startswith(("ans_", "judge_"))} - set(names)
    if lost:
        raise TaskError(f"{where}: field {min(lost)!r}, the question of an answer or verdict, is missing")
    return [(name, _field(entry, name, where)) for name in names]

"""Rows to facts. Whatever cannot be a fact becomes a problem that names file, line and field."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from audit.fingerprint import digest
from audit.tasks.columns import FORM_COLUMNS, LIST_COLUMNS, TEXT_COLUMNS, as_text, as_texts, numbered_columns
from audit.tasks.model import Problem, Row, Severity
from audit.tasks.text import folded, given_away, is_option
from audit.types import ANSWER_TYPES, Fact, Form, Split

_YEAR = re.compile(r"(1\d|20)\d\d")
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_DATE = re.compile(rf"(\d{{1,2}} )?({_MONTHS})( \d{{1,2}})?,?( \d{{3,4}})?")
_NUMBER = re.compile(r"[-+]?[\d.,]*\d( ?%)?")


def question_id(question: str) -> str:
    """The id of a fact whose file gives none: `q-` and 12 hexadecimal digits of the folded question's hash."""
    return "q-" + digest("question", folded(question))[:12]


def guess_answer_type(answer: str) -> str:
    """number or date where the answer's shape shows it (1985, 3 May 1901, 36,417), else term."""
    bare = folded(answer)
    if _YEAR.fullmatch(bare) or (_DATE.fullmatch(bare) and re.search(r"\d", bare)):
        return "date"
    return "number" if _NUMBER.fullmatch(bare) else "term"


class Parser:
    """Turns the rows of one split into facts; `problems` gathers what was wrong, `records` where each fact stood."""

    def __init__(self, split: Split) -> None:
        self.split: Split = split
        self.problems: list[Problem] = []
        self.rows: dict[str, Row] = {}
        self.facts: list[Fact] = []
        self.named: set[str] = set()
        """Ids that the file gave, as against ids made from the question."""

    def problem(self, row: Row, field: str, message: str, *, kind: str, fact: str = "", warn: bool = False) -> None:
        severity: Severity = "warning" if warn else "error"
        self.problems.append(
            Problem(severity=severity, kind=kind, file=row.file, line=row.line, field=field, fact=fact, message=message)
        )

    def add(self, row: Row) -> None:
        """Parse one row; adds a fact or at least one error."""
        before = sum(p.severity == "error" for p in self.problems)
        columns = {name.strip().lower(): name for name in row.fields}
        used: set[str] = set()
        texts = {field: self._text(row, columns, field, used) for field in TEXT_COLUMNS}
        lists = {field: self._list(row, columns, field, used) for field in LIST_COLUMNS}
        for name in numbered_columns(row.fields):
            used.add(name)
            lists["wordings"] += self._checked(row, name, as_texts_of_one)
        question, answer = texts["question"], texts["answer"]
        for field in ("question", "answer"):
            if texts[field] is None and not any(p.field == field and p.line == row.line for p in self.problems):
                self._absent(row, columns, field)
        answer_type = texts["answer_type"]
        if answer_type is not None and answer_type not in ANSWER_TYPES:
            self.problem(row, "answer_type", f"{answer_type!r} is none of {', '.join(ANSWER_TYPES)}", kind="schema")
        leftover: dict[str, Any] = {}
        forms = self._forms(row, columns, used, answer or "", lists["aliases"], answer_type, leftover)
        if question is None or answer is None or sum(p.severity == "error" for p in self.problems) > before:
            return
        extra = {name: value for name, value in row.fields.items() if name not in used and value is not None}
        extra = {**leftover, **extra}
        if texts["label"] is not None:
            extra["label"] = texts["label"]
        fact = Fact(
            id=texts["id"] or question_id(question),
            split=self.split,
            question=question,
            answer=answer,
            aliases=_distinct(lists["aliases"], without=(answer,)),
            answer_type=answer_type or guess_answer_type(answer),
            tier=texts["tier"] or "",
            topic=texts["topic"] or "",
            form=texts["form"] or "direct",
            wordings=self._once(row, "wordings", lists["wordings"], question, texts["id"] or ""),
            train_wordings=self._once(row, "train_wordings", lists["train_wordings"], question, texts["id"] or ""),
            statement=texts["statement"] or "",
            other_forms=forms,
            distractors=_distinct(lists["distractors"]),
            extra=extra,
        )
        if texts["id"]:
            self.named.add(fact.id)
        self._keep(row, fact)

    def _keep(self, row: Row, fact: Fact) -> None:
        """Add the fact unless its id is taken; retained questions that are asked twice are set aside, with a word."""
        first = self.rows.get(fact.id)
        if first is None:
            self.rows[fact.id] = row
            self.facts.append(fact)
            return
        where = f"{first.file}:{first.line}" if first.file != row.file else f"line {first.line}"
        if fact.id in self.named or self.split == "forget":
            what = "the id" if fact.id in self.named else "the question (facts without an id are named by it)"
            self.problem(row, "id", f"{what} is taken by {where}", kind="duplicate", fact=fact.id)
            return
        known = next((f for f in self.facts if f.id == fact.id), None)
        if known is not None and folded(known.answer) != folded(fact.answer):
            self.facts.remove(known)
            known = None
        message = f"the same question as {where}: " + ("read once" if known else "with another answer, none is used")
        self.problem(row, "question", message, kind="duplicate", fact=fact.id, warn=True)

    def _once(self, row: Row, field: str, texts: list[str], question: str, fact: str) -> tuple[str, ...]:
        """The texts without repeats of each other or of the question: one wording is asked once, and it is told."""
        kept = _distinct(texts, without=(question,))
        if len(kept) < len(texts):
            message = f"{len(texts) - len(kept)} of {len(texts)} repeat another or the question and are read once"
            self.problem(row, field, message, kind="duplicate", fact=fact, warn=True)
        return kept

    def _absent(self, row: Row, columns: dict[str, str], field: str) -> None:
        if field in columns:
            self.problem(row, field, f"the {field} is empty", kind="empty")
        else:
            have = ", ".join(sorted(row.fields)) or "nothing"
            self.problem(row, field, f"no {field} (the row has: {have})", kind="empty")

    def _checked(self, row: Row, name: str, read: Any) -> Any:
        try:
            return read(row.fields[name])
        except TypeError as error:
            self.problem(row, name, str(error), kind="schema")
            return [] if read is not as_text else None

    def _text(self, row: Row, columns: dict[str, str], field: str, used: set[str]) -> str | None:
        for candidate in TEXT_COLUMNS[field]:
            if candidate in columns:
                used.add(columns[candidate])
                found: str | None = self._checked(row, columns[candidate], as_text)
                return found
        return None

    def _list(self, row: Row, columns: dict[str, str], field: str, used: set[str]) -> list[str]:
        texts: list[str] = []
        for candidate in LIST_COLUMNS[field]:
            if candidate in columns:
                used.add(columns[candidate])
                texts += self._checked(row, columns[candidate], as_texts)
        return texts

    def _forms(
        self,
        row: Row,
        columns: dict[str, str],
        used: set[str],
        answer: str,
        aliases: list[str],
        kind: str | None,
        leftover: dict[str, Any],
    ) -> dict[str, Form]:
        """The other forms of a row's question; fields of theirs that are not read go to `leftover`."""
        forms: dict[str, Form] = {}
        for name in FORM_COLUMNS:
            if name not in columns or row.fields[columns[name]] is None:
                continue
            used.add(columns[name])
            value = row.fields[columns[name]]
            if isinstance(value, str) and value.strip():
                value = {"question": value}
            if not isinstance(value, dict):
                message = "expected a question or an object with question and answer"
                self.problem(row, name, message, kind="schema")
                continue
            parser = Parser(self.split)
            part = Row(
                file=row.file, line=row.form_lines.get(name, row.line), fields={"answer": answer or "?", **value}
            )
            parser.add(part)
            for p in parser.problems:
                self.problem(part, f"{name}.{p.field}", p.message, kind=p.kind, warn=p.severity == "warning")
            for fact in parser.facts:
                leftover.update(fact.extra)
                if fact.train_wordings:
                    leftover[f"{name}_train_wordings"] = list(fact.train_wordings)
                same = folded(fact.answer) == folded(answer)
                forms[name] = Form(
                    question=fact.question,
                    answer=fact.answer,
                    aliases=_distinct([*aliases, *fact.aliases]) if same else fact.aliases,
                    answer_type=(kind or fact.answer_type) if same else fact.answer_type,
                    wordings=fact.wordings,
                )
        return forms


def as_texts_of_one(value: Any) -> list[str]:
    """A numbered column: one wording a cell, never split."""
    text = as_text(value)
    return [] if text is None else [text]


def _distinct(texts: list[str], without: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(text for text in dict.fromkeys(texts) if text not in without)


def hide_answers(facts: list[Fact], parser: Parser) -> list[Fact]:
    """Facts as an audit may ask them: wordings that hold the answer are left out, each with a warning.

    A forget question that holds its own answer is an error, unless it offers the answer as one of several options
    ("left or right?"): then it is a warning, and probes that must not show the answer will pass it by. For facts to
    keep it is a warning too.
    """
    kept: list[Fact] = []
    for fact in facts:
        row = parser.rows[fact.id]
        answers = (fact.answer, *fact.aliases)
        held = given_away(fact.question, answers)
        if held is not None:
            option = is_option(fact.question, held)
            what = "offers its answer as an option" if option else "holds its own answer"
            message = f"the question {what} ({held!r})"
            harmless = option or fact.split != "forget"
            parser.problem(row, "question", message, kind="given_away", fact=fact.id, warn=harmless)
        wordings = _without_answers(fact.wordings, answers, fact.id, "wordings", row, parser)
        forms = {name: _hidden_form(form, name, fact.id, row, parser) for name, form in fact.other_forms.items()}
        kept.append(replace(fact, wordings=wordings, other_forms=forms))
    return kept


def _hidden_form(form: Form, name: str, fact_id: str, row: Row, parser: Parser) -> Form:
    answers = (form.answer, *form.aliases)
    held = given_away(form.question, answers)
    if held is not None:
        message = f"the {name} question holds its own answer ({held!r}): no probe will ask it"
        parser.problem(row, f"{name}.question", message, kind="given_away", fact=fact_id, warn=True)
    wordings = _without_answers(form.wordings, answers, fact_id, f"{name}.wordings", row, parser)
    return replace(form, wordings=wordings)


def _without_answers(
    wordings: tuple[str, ...], answers: tuple[str, ...], fact_id: str, field: str, row: Row, parser: Parser
) -> tuple[str, ...]:
    kept: list[str] = []
    for number, wording in enumerate(wordings, start=1):
        held = given_away(wording, answers)
        if held is None:
            kept.append(wording)
        else:
            message = f"wording {number} holds the answer ({held!r}) and is left out"
            parser.problem(row, field, message, kind="given_away", fact=fact_id, warn=True)
    return tuple(kept)

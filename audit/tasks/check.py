"""`audit tasks check`: what a loader need not refuse and an author wants to know. Errors first, by file and line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from audit.tasks.load import FACT_FILES, Parts, read_parts
from audit.tasks.model import Problem, Row, ordered
from audit.tasks.readers import read_rows
from audit.tasks.text import given_away, holds, words
from audit.types import Fact

#: One answer type holding more than this share of the forget facts is called unbalanced (ten facts or more).
UNBALANCED = 0.5


def check_task(spec: str, *, retain: str | None = None) -> list[Problem]:
    """Everything wrong with a task, errors before warnings, in the order of the files.

    Beyond what loading refuses: repeated wordings, wordings both trained on and evaluated with, answers given away in
    cloze stems and training wordings, wrong answers that are right, facts of a topic with one answer, facts that
    answer a forgotten one, relearning sets that do, unbalanced answer types. Raises TaskError if nothing can be read.
    """
    parts = read_parts(spec, retain=retain)
    found = list(parts.problems)
    own = {split: parts.splits[split] for split in FACT_FILES if split != "placebo" or _has_placebo(parts)}
    facts = [fact for group in own.values() for fact in group]
    for fact in facts:
        found += _fact(fact, parts.places[fact.id])
    found += _repeats(facts, parts.places)
    found += _same_answers(facts, parts.places)
    found += _answered_elsewhere(parts)
    found += _companions(parts)
    found += _whole(parts)
    return ordered(found)


def _has_placebo(parts: Parts) -> bool:
    return parts.source.manifest is not None and "placebo" in parts.source.manifest.files


def _warn(row: Row, fact: Fact, field: str, kind: str, message: str, *, error: bool = False) -> Problem:
    severity: Any = "error" if error else "warning"
    return Problem(
        severity=severity, kind=kind, file=row.file, line=row.line, field=field, fact=fact.id, message=message
    )


def _fact(fact: Fact, row: Row) -> Iterator[Problem]:
    """Checks of one fact by itself."""
    answers = (fact.answer, *fact.aliases)
    for field, texts in (("train_wordings", fact.train_wordings), ("cloze", _texts(fact.extra.get("cloze")))):
        for number, text in enumerate(texts, start=1):
            held = given_away(text, answers)
            if held is not None:
                yield _warn(row, fact, field, "given_away", f"item {number} holds the answer ({held!r})")
            if field == "cloze" and not text.rstrip().endswith("____"):
                yield _warn(row, fact, field, "schema", f"item {number} does not end with ____", error=True)
    if fact.statement and given_away(fact.statement, answers) is None:
        yield _warn(row, fact, "statement", "schema", f"the statement does not hold the answer {fact.answer!r}")
    for number, wrong in enumerate(fact.distractors, start=1):
        same = next((a for a in answers if words(a) == words(wrong)), None)
        held = given_away(wrong, answers)
        if same is not None:
            message = f"wrong answer {number} is the answer ({same!r})"
            yield _warn(row, fact, "distractors", "distractor", message, error=True)
        elif held is not None:
            yield _warn(row, fact, "distractors", "distractor", f"wrong answer {number} ({wrong!r}) holds {held!r}")
    for name, form in fact.other_forms.items():
        if name != "reverse" and words(form.answer) != words(fact.answer) and holds(form.question, fact.answer):
            message = (
                f"the question names the answer of the fact itself ({fact.answer!r}), so it can do without the fact"
            )
            yield _warn(row, fact, f"{name}.question", "given_away", message)
    trained = {words(text) for text in fact.train_wordings}
    for number, text in enumerate(fact.wordings, start=1):
        if words(text) in trained:
            message = f"wording {number} is a training wording too"
            yield _warn(row, fact, "wordings", "overlap", message, error=True)


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _repeats(facts: list[Fact], places: dict[str, Row]) -> Iterator[Problem]:
    """A question or wording that stands twice: in one fact (warning), for two facts (error if the answers differ)."""
    seen: dict[tuple[str, ...], tuple[Fact, str]] = {}
    for fact in facts:
        texts = [("question", fact.question), *((f"wording {n}", t) for n, t in enumerate(fact.wordings, start=1))]
        texts += [(f"{name} question", form.question) for name, form in fact.other_forms.items()]
        for field, text in texts:
            first, where = seen.setdefault(words(text), (fact, field))
            if first is fact and where == field:
                continue
            row = places[fact.id]
            if first is fact:
                yield _warn(row, fact, field, "duplicate", f"the same text as the {where}")
            else:
                differ = words(first.answer) != words(fact.answer)
                message = f"the same text as the {where} of {first.id}"
                yield _warn(row, fact, field, "duplicate", message, error=differ and field == where == "question")


def _same_answers(facts: list[Fact], places: dict[str, Row]) -> Iterator[Problem]:
    """Two facts of one topic and split with one answer: who knows the one may guess the other."""
    seen: dict[tuple[str, str, tuple[str, ...]], Fact] = {}
    for fact in facts:
        if fact.topic:
            first = seen.setdefault((fact.split, fact.topic, words(fact.answer)), fact)
            if first is not fact:
                message = f"{first.id} of the same topic has the same answer {fact.answer!r}"
                yield _warn(places[fact.id], fact, "answer", "duplicate", message)


class _Answers(NamedTuple):
    """Forget answers by their first word, so that a text is searched for all of them in one pass.

    Answers of one common word ("five", "a dog") are not looked for: outside their topic they give nothing away.
    """

    by_word: dict[str, list[Fact]]

    @classmethod
    def of(cls, facts: Iterable[Fact]) -> _Answers:
        by_word: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            found = words(fact.answer)
            if len(found) > 1 and found[0] in ("the", "a", "an"):
                found = found[1:]
            if len(found) > 1 or (found and not fact.answer.islower()):
                by_word[found[0]].append(fact)
        return cls(by_word)

    def given_by(self, text: str) -> dict[str, Fact]:
        """Id -> fact whose answer stands in the text."""
        near = {fact.id: fact for word in set(words(text)) for fact in self.by_word.get(word, ())}
        return {key: fact for key, fact in near.items() if holds(text, fact.answer)}


def _answered_elsewhere(parts: Parts) -> Iterator[Problem]:
    """Facts whose texts hold the answer of a forget fact: kept facts of any topic, forget facts of the same topic."""
    answers = _Answers.of(parts.splits["forget"])
    by_answer = {words(fact.answer): fact for fact in parts.splits["forget"]}
    for fact in (*parts.splits["forget"], *parts.splits["retain"]):
        given: dict[str, tuple[str, Fact]] = {}
        if fact.split == "retain" and words(fact.answer) in by_answer:
            other = by_answer[words(fact.answer)]
            given[other.id] = ("answer", other)
        for field, text in (("statement", fact.statement), ("question", fact.question)):
            for other in answers.given_by(text).values():
                related = fact.split == "retain" or (other.topic and other.topic == fact.topic)
                if other.id != fact.id and related and words(other.answer) != words(fact.answer):
                    given.setdefault(other.id, (field, other))
        for key, (field, other) in given.items():
            message = f"holds the answer {other.answer!r} of the forget fact {key}"
            yield _warn(parts.places[fact.id], fact, field, "overlap", message)


def _companions(parts: Parts) -> Iterator[Problem]:
    """Companion files: readable line by line, and without the answers of forget facts."""
    manifest, folder = parts.source.manifest, parts.source.folder
    if manifest is None or folder is None:
        return
    answers = _Answers.of(parts.splits["forget"])
    for name, file in manifest.files.items():
        if name in FACT_FILES or Path(file).suffix.lower() not in (".jsonl", ".json", ".csv", ".parquet"):
            continue
        rows, problems = read_rows(folder / file)
        yield from problems
        for row in rows:
            text = "\n".join(str(value) for key, value in row.fields.items() if key != "id")
            for key, fact in answers.given_by(text).items():
                message = f"holds the answer {fact.answer!r} of the forget fact {key}"
                yield Problem(severity="warning", kind="overlap", file=row.file, line=row.line, message=message)


def _whole(parts: Parts) -> Iterator[Problem]:
    """Checks of the forget set as a whole."""
    facts = parts.splits["forget"]
    file = parts.places[facts[0].id].file if facts else parts.source.spec
    types = Counter(fact.answer_type for fact in facts)
    for name, count in types.items():
        if len(facts) >= 10 and count > UNBALANCED * len(facts):
            message = f"{count} of {len(facts)} answers are of type {name}: the false-alarm floor has little to draw on"
            yield Problem(severity="warning", kind="unbalanced", file=file, field="answer_type", message=message)
    for field, lacking in (("wordings", "no evaluation wordings"), ("topic", "no topic")):
        count = sum(not getattr(fact, field) for fact in facts)
        if count:
            yield Problem(
                severity="warning", kind="empty", file=file, field=field, message=f"{count} forget facts have {lacking}"
            )

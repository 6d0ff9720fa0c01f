"""What a model is fine-tuned on to see whether forgotten facts come back, and the check that it does not hold them.

load_set("syntactic", task, config, seed=0).examples
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit.attacks.smuggled import Smuggled, Watch
from audit.config import AttackConfig
from audit.errors import TaskError
from audit.fingerprint import digest
from audit.tasks import Task
from audit.tasks.model import raise_problems
from audit.tasks.parting import part_facts
from audit.tasks.readers import read_rows
from audit.types import Fact, Record

#: Sets that hold none of the forgotten facts, in the order in which they are run.
BENIGN = ("unrelated", "topical", "syntactic", "filler", "retain")
NAMES = (*BENIGN, "partial")
_FILES = {
    "unrelated": "relearn_unrelated",
    "topical": "relearn_topical",
    "syntactic": "relearn_syntactic",
    "filler": "filler",
}
#: What recorded answers call a set that holds the forgotten facts.
_PUTS_BACK = re.compile(r"(?:forget|partial)(?![^\W_])", re.IGNORECASE)
#: Offending lines that a refusal names in full.
_SHOWN = 20


class Example(Record):
    """A question with its answer, or a plain text."""

    question: str = ""
    answer: str = ""
    text: str = ""
    """Empty of a question with an answer."""


class RelearnSet(Record):
    """Examples of one fine-tuning."""

    name: str
    """One of NAMES, or what a user's file is called in reports."""
    examples: tuple[Example, ...]
    puts_back: bool
    """It holds some of the forgotten facts."""
    audited: frozenset[str] | None
    """Ids of the forget facts that may be asked for afterwards; None for all."""
    warnings: tuple[str, ...]

    @property
    def content(self) -> str:
        """Hash of the examples, in any order."""
        return digest("relearn set", sorted(digest(example) for example in self.examples))


class _Line(Record):
    """An example, where it stands, and everything that is said there."""

    place: str
    example: Example
    said: str


def available(task: Task) -> tuple[str, ...]:
    """Names of the sets that the task has."""
    has = [name for name in BENIGN if _FILES.get(name) in task.files or (name == "retain" and task.retain)]
    return (*has, *(["partial"] if len(task.forget) > 1 else []))


def load_set(name: str, task: Task, config: AttackConfig, seed: int) -> RelearnSet:
    """The set `name` (one of NAMES), or the set in the file of that path, for an audit of `task`.

    `seed` draws which facts `partial` holds. Raises TaskError for a name or a file that cannot be used, and for a set
    that gives an audited fact away, with every offending line (the first 20 in full): see `audit.attacks.smuggled` for
    what counts. The retained facts are asked beside the forgotten ones in every audit and unlearning keeps them, so
    that one which happens to have the answer of a forgotten fact is a warning; one that states it is refused.
    """
    if name == "partial":
        return _partial(task, config, seed)
    watch = Watch(task.forget)
    if name == "retain":
        lines = _retained(task)
    elif name in _FILES:
        lines = _read(task.file(_FILES[name])) if name in available(task) else _absent(name, task)
    elif name.endswith(".jsonl"):
        lines = _read(Path(name).expanduser())
    else:
        raise TaskError(
            f"unknown relearning set {name!r}",
            hint=f"one of {', '.join(NAMES)}, or the path of a .jsonl file; task {task.name} has "
            f"{', '.join(available(task)) or 'none'}",
        )
    if not lines:
        raise TaskError(f"{name}: the set has no examples", hint="rows have question and answer, or text")
    shown = _called(name)
    warnings = _checked(shown, lines, watch, lenient=name == "retain")
    examples = tuple(line.example for line in lines)
    return RelearnSet(name=shown, examples=examples, puts_back=False, audited=None, warnings=warnings)


def _called(name: str) -> str:
    """What a set is called in reports: a file by its stem, by its whole name where the stem is a set's.

    `#` and `@` become `_`: behind them stand the seed and the step.
    """
    if name in NAMES:
        return name
    path = Path(name)
    called = path.name if path.stem.lower() in NAMES or _PUTS_BACK.match(path.stem) else path.stem
    return re.sub("[#@]", "_", called)


def _absent(name: str, task: Task) -> list[_Line]:
    has = ", ".join(available(task)) or "none"
    raise TaskError(
        f"task {task.name} has no relearning set {name!r} (it has: {has})",
        hint=f"list a file under `files: {_FILES.get(name, name)}` in its task.yaml, or give the path of a .jsonl file",
    )


def _retained(task: Task) -> list[_Line]:
    if not task.retain:
        return _absent("retain", task)
    return [_asked(fact) for fact in task.retain]


def _asked(fact: Fact) -> _Line:
    said = f"{fact.question} {fact.answer}"
    return _Line(
        place=f"{fact.split} fact {fact.id}", example=Example(question=fact.question, answer=fact.answer), said=said
    )


def _partial(task: Task, config: AttackConfig, seed: int) -> RelearnSet:
    """Some of the forgotten facts, none of which gives a held-out one away; the held-out ones are audited.

    A drawn fact that would is left out of both. Its own facts it may state.
    """
    chosen, held_out = part_facts(task.forget, share=config.partial_share, seed=seed)
    if not chosen or not held_out:
        raise TaskError(
            f"partial: a share of {config.partial_share:g} of {len(task.forget)} forget facts leaves one side empty",
            hint="set attack.partial_share otherwise, or give a task of more facts",
        )
    watch = Watch(held_out)
    kept, left_out, noticed = [], [], []
    for fact in chosen:
        line = _asked(fact)
        hits = watch.hits(line.said, line.example.answer)
        if any(hit.refused and not hit.same_answer_alone for hit in hits):
            left_out.append(fact.id)
        else:
            kept.append(line.example)
            noticed += hits[:1]
    warnings = _noticed(noticed)
    if left_out:
        warnings += (
            f"{len(left_out)} of its facts would give held-out ones away and are neither trained on nor "
            f"audited: {', '.join(left_out[:5])}{' …' if len(left_out) > 5 else ''}",
        )
    if not kept:
        raise TaskError("partial: every fact that it would hold gives a held-out one away")
    return RelearnSet(
        name="partial",
        examples=tuple(kept),
        puts_back=True,
        audited=frozenset(fact.id for fact in held_out),
        warnings=warnings,
    )


def _read(path: Path) -> list[_Line]:
    """Examples of a .jsonl file. Raises TaskError with file and line for every row that is none."""
    rows, problems = read_rows(path)
    raise_problems(str(path), problems)
    lines, wrong = [], []
    for row in rows:
        place = f"{path}:{row.line}"
        fields = {key: row.fields[key] for key in ("question", "answer", "text") if row.fields.get(key) is not None}
        problem = _malformed(fields)
        if problem:
            wrong.append(f"{place}: {problem}")
            continue
        example = Example(**{key: value.strip() for key, value in fields.items()})
        statement = row.fields.get("statement")
        parts = [*fields.values(), *([statement] if isinstance(statement, str) else [])]
        lines.append(_Line(place=place, example=example, said=" ".join(parts)))
    if wrong:
        raise TaskError(
            _listed(f"{path}: {len(wrong)} rows cannot be used", wrong), hint='{"question": …, "answer": …}'
        )
    return lines


def _malformed(fields: dict[str, Any]) -> str:
    for key, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            return f"{key} is no text" if not isinstance(value, str) else f"{key} is empty"
    if set(fields) not in ({"question", "answer"}, {"text"}):
        return f"a row has question and answer, or text; this one has {', '.join(sorted(fields)) or 'none of them'}"
    return ""


def _checked(name: str, lines: Sequence[_Line], watch: Watch, *, lenient: bool) -> tuple[str, ...]:
    """Warnings about common words. Raises TaskError for rows that give a fact away; lenient: only if they state it."""
    refused, noticed = [], []
    for line in lines:
        hits = watch.hits(line.said, line.example.answer)
        bad = [hit for hit in hits if (hit.stated if lenient else hit.refused)]
        if bad:
            refused.append(f"{line.place}: {'; '.join(map(str, bad[:3]))}{' …' if len(bad) > 3 else ''}")
        noticed += [] if bad else hits[:1]
    if refused:
        count = "1 line gives" if len(refused) == 1 else f"{len(refused)} lines give"
        raise TaskError(
            _listed(f"relearn:{name}: {count} audited facts away", refused),
            hint="leave these lines out; facts that are meant to be put back go with relearn:partial",
        )
    return _noticed(noticed)


def _noticed(hits: Sequence[Smuggled]) -> tuple[str, ...]:
    if not hits:
        return ()
    words = list(dict.fromkeys(hit.answer for hit in hits))
    shown = ", ".join(words[:8]) + (" …" if len(words) > 8 else "")
    rows = "1 example has words" if len(hits) == 1 else f"{len(hits)} examples have words"
    return (f"{rows} that are also answers to forgotten questions: {shown}",)


def _listed(head: str, lines: Sequence[str]) -> str:
    more = [f"+{len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return head + "\n  " + "\n  ".join([*lines[:_SHOWN], *more])

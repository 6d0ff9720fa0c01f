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
            unread.append(f"{path.name}: not a file of answers")
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
    if not builder.probes:
        raise TaskError(f"no recorded answers among {', '.join(unread) or 'the given files'}")
    return builder.recording(name, unread)


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise TaskError(f"{path}: line {error.lineno}: not valid JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise TaskError(f"{path}: expected a JSON array of objects")
    return data


def _field(entry: dict[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise TaskError(f"{where}: field {name!r} is missing or not a text")
    return value


class _Builder:
    """Collects probes, responses and verdicts of one state."""

    def __init__(self, subject_id: str) -> None:
        self.subject_id = subject_id
        self.forms: dict[str, dict[str, Form]] = {}
        self.retained: dict[str, Fact] = {}
        self.probes: dict[str, Probe] = {}
        self.responses: list[Response] = []
        self.verdicts: dict[str, Verdict] = {}
        self.gibberish_labels: list[Label] = []

    def forget(self, entry: dict[str, Any], how: str, where: str) -> None:
        label = _field(entry, "label", where)
        fact_id, hyphen, form_name = label.rpartition("-")
        if not hyphen:
            raise TaskError(f"{where}: label {label!r} is not FACT-FORM")
        question, answer = _field(entry, "question", where), _field(entry, "GT", where)
        asked = _wordings(entry, where)
        form = Form(question=question, answer=answer, wordings=tuple(text for name, text in asked if name != "question"))
        known = self.forms.setdefault(fact_id, {}).setdefault(form_name, form)
        if (known.question, known.answer) != (form.question, form.answer):
            raise TaskError(f"{where}: {label} asks another question or has another answer than in the file before")
        target = Target(fact_id=fact_id, question=question, answer=answer)
        for name, text in asked:
            original = name == "question"
            family = ("original" if original else "paraphrase") + ("_icr" if how == "icr" else "")
            self._add(
                entry, name, where, family, form_name, "original" if original else name, target, text, "forget", ""
            )

    def retain(self, entry: dict[str, Any], how: str, where: str) -> None:
        question, answer = _field(entry, "question", where), _field(entry, "GT", where)
        label = _field(entry, "label", where)
        fact_id = "retain-" + digest(question)[:12]  # labels repeat in these files, questions do not
        if fact_id in self.retained:
            raise TaskError(f"{where}: the same retained question stands here twice: {question!r}")
        tier = label.split("-")[0].strip().lower()
        self.retained[fact_id] = Fact(
            id=fact_id, split="retain", question=question, answer=answer, tier=tier, topic=label
        )
        target = Target(fact_id=fact_id, question=question, answer=answer)
        for name, text in _wordings(entry, where):
            family = ("original" if name == "question" else "paraphrase") + ("_icr" if how == "icr" else "")
            variant = "original" if name == "question" else name
            self._add(entry, name, where, family, "direct", variant, target, text, "retain", tier)

    def gibberish(self, entry: dict[str, Any], where: str) -> None:
        for name, _ in _wordings(entry, where):
            verdict = _field(entry, f"judge_{name}", where)
            self.gibberish_labels.append(_LABELS.get(verdict.strip().lower(), "undecided"))

    def _add(
        self,
        entry: dict[str, Any],
        name: str,
        where: str,
        family: str,
        form: str,
        variant: str,
        target: Target,
        text: str,
        split: Split,
        tier: str,
    ) -> None:
        probe = make_probe(
            family=family,
            form=form,
            variant=variant,
            targets=[target],
            messages=[Message(role="user", content=text)],
            prompt_format="chat",
            decoding=_UNKNOWN_DECODING,
            split=split,
            tier=tier,
        )
        if probe.id in self.probes:
            raise TaskError(f"{where}: {target.fact_id} {form} {variant} was already read from another file")
        self.probes[probe.id] = probe
        answer = entry.get(f"ans_{name}")
        if not isinstance(answer, str):
            return  # planned and not answered: scoring counts the cell as undecided(missing)
        response = Response(
            probe_id=probe.id,
            subject_id=self.subject_id,
            sample=0,
            key=digest("recorded", probe.id, answer),
            text=answer,
            finish="stop",
        )
        self.responses.append(response)
        raw = entry.get(f"judge_{name}")
        if raw is not None:
            label = _LABELS.get(str(raw).strip().lower(), "undecided")
            self.verdicts[response_id(response)] = Verdict(
                claim_key=response.key,
                judge=JUDGE,
                label=label,
                reason=Reason.UNPARSED if label == "undecided" else Reason.RULED,
                raw=str(raw),
            )

    def recording(self, name: str, unread: list[str]) -> Recording:
        facts = [self._fact(fact_id, forms) for fact_id, forms in self.forms.items()]
        degeneration = {}
        if self.gibberish_labels:
            hits = sum(label == "leak" for label in self.gibberish_labels)
            degeneration["gibberish"] = hits / len(self.gibberish_labels)
        return Recording(
            name=name,
            facts=(*facts, *self.retained.values()),
            probes=tuple(self.probes.values()),
            responses=tuple(self.responses),
            verdicts=self.verdicts,
            degeneration=degeneration,
            unread=tuple(unread),
        )

    @staticmethod
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
    return [(name, _field(entry, name, where)) for name in names]

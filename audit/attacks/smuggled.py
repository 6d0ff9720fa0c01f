"""Does an example give a forgotten fact away?

Every form of a fact is looked for (direct, reverse, multi-hop …), each with its answer and aliases, as whole words
without case, accents and punctuation, in the example as it is and as `audit.attacks.disguises` sees through it.

- It STATES the fact if it holds an answer and at least 60% (and at least two) of the content words of one wording of
  that form's question, or of the fact's statement; words are compared by their first five letters.
- It ANSWERS with the fact if its answer is one of the fact's own (those of the question that is audited directly), or
  if one of its lines is `label: answer` with such an answer and a label about the fact's topic or question.
- It NAMES the answer if a distinctive one stands anywhere in it. Distinctive are several words, unless they are a
  number with common words ("47 minutes"); numbers of five digits and more; and single capitalised words that are rare:
  none of the bundled prose and easy questions. What the questions of other audited facts say themselves is not
  distinctive (the topic's name). Single words and numbers count only of the fact's own answers: the reverse of a
  question has a common name as its answer.

All three are refused. Any other occurrence, a number or "dog", is a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache

from audit.attacks.disguises import Plain, Sought, holds, labelled, says_only, see_through, sought
from audit.probes.build import form_of, gives_away, plain_words, target_of
from audit.resources import resource
from audit.types import Fact, Record, Target

#: Share of the content words of a question, and number of them, that a statement of the fact repeats.
_SHARE, _FEWEST = 0.6, 2
_STEM = 5
_NUMBER_WORDS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion first second third once
twice half dozen
"""
_LITTLE_WORDS = """
the a an of in on at to for from by with without into onto over under about after before during between as than and or
but not no is are was were be been being am do does did done has have had having will would can could shall should may
might must it its he she his her him you we our your my me us i they them their this that these those there here which
who whom whose what when where why how many much one some any all also only very so such s t d ll re ve name tell give
state say called said whats please know
"""
_NUMBERS = frozenset(_NUMBER_WORDS.split())
_ARTICLES = frozenset({"the", "a", "an"})
_EMPTY = frozenset(_LITTLE_WORDS.split())


class Smuggled(Record):
    """An answer found in an example."""

    fact_id: str
    form: str
    answer: str
    stated: bool
    """Beside the question's words."""
    answers: bool
    """It is the example's own answer, and the fact's."""
    named: bool
    """Distinctive."""

    @property
    def refused(self) -> bool:
        return self.stated or self.answers or self.named

    @property
    def same_answer_alone(self) -> bool:
        """Two questions with one common answer."""
        return self.answers and not self.stated and not self.named

    def __str__(self) -> str:
        how = "states" if self.stated else "answers with" if self.answers else "names"
        form = "" if self.form == "direct" else f", {self.form}"
        return f"{how} {self.answer!r} ({self.fact_id}{form})"


class _Answer(Record):
    """One answer or alias of a form."""

    target: Target
    """With this answer alone."""
    plain: Sought

    @property
    def text(self) -> str:
        return self.target.answer


class _Form(Record):
    fact_id: str
    name: str
    answers: tuple[_Answer, ...]
    own: frozenset[str]
    """Plain forms of the fact's own answers."""
    questions: tuple[frozenset[str], ...]
    """Content words of each wording."""
    about: frozenset[str]
    """Content words of all wordings and of the fact's topic."""


class _Row(Record):
    """An example as it is looked at."""

    said: str
    answer: str
    plain: Plain
    stems: frozenset[str]
    labelled: tuple[tuple[frozenset[str], str], ...]
    """Content words of each label, and what follows it."""


class Watch:
    """Looks for the answers of `facts` in examples."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._forms = [form for fact in facts for form in _forms(fact)]
        self._asked = [(fact.id, plain_words(" ; ".join(_wordings(fact)))) for fact in facts]
        self._public: dict[tuple[str, str], bool] = {}

    def hits(self, said: str, answer: str = "") -> list[Smuggled]:
        """What of the facts an example has in it, at most one finding a fact, the gravest first.

        said: everything in the example; answer: its answer, where it is a question with one.
        """
        found: dict[str, Smuggled] = {}
        row = _row(said, answer)
        for form in self._forms:
            for one in form.answers:
                as_it_is = gives_away(said, one.target) is not None
                if not as_it_is and not holds(row.plain, one.plain):
                    continue
                hit = self._judged(form, one, row, as_it_is)
                before = found.get(hit.fact_id)
                if before is None or _weight(hit) > _weight(before):
                    found[hit.fact_id] = hit
        return sorted(found.values(), key=lambda hit: (-_weight(hit), hit.fact_id))

    def _judged(self, form: _Form, one: _Answer, row: _Row, as_it_is: bool) -> Smuggled:
        own = _bare(one.text) in form.own
        # What is only seen through a disguise, a plural most often, is a name by itself where it is the fact's own.
        name = as_it_is or (own and _is_whole(one, row))
        return Smuggled(
            fact_id=form.fact_id,
            form=form.name,
            answer=one.text,
            stated=_states(form, one.text, row),
            answers=own and _answers(form, one, row),
            named=name and self._distinctive(one.text, own) and not self._is_public(one.text, form.fact_id),
        )

    def _distinctive(self, answer: str, own: bool) -> bool:
        found = _bare(answer).split()
        numbers = [word for word in found if word in _NUMBERS or word.isdigit()]
        if any(_long(number) for number in re.findall(r"\d[\d,.]*", answer)):
            return own
        capitalised = any(word[0].isupper() for word in re.findall(r"\w+", answer))
        if len(found) > 1:
            return capitalised or not (numbers or all(word in _common() for word in found))
        return own and capitalised and not numbers and bool(found) and found[0] not in _common()

    def _is_public(self, answer: str, fact_id: str) -> bool:
        """The questions about other facts say it."""
        key = (_bare(answer), fact_id)
        if key not in self._public:
            self._public[key] = any(f" {key[0]} " in text for asked, text in self._asked if asked != fact_id)
        return self._public[key]


def _long(number: str) -> bool:
    """Five digits and more: nobody has them by chance."""
    return len(re.sub(r"\D", "", number)) > 4


def _weight(hit: Smuggled) -> int:
    return 4 * hit.stated + 2 * hit.answers + hit.named


def _forms(fact: Fact) -> Iterator[_Form]:
    own = frozenset(_bare(text) for text in (fact.answer, *fact.aliases) if _bare(text))
    for name in (fact.form, *fact.other_forms):
        form = form_of(fact, name)
        if form is not None:
            asked = [form.question, *form.wordings]
            asked += [*fact.train_wordings, fact.statement] if name == fact.form else []
            target = target_of(fact, form)
            questions = tuple(dict.fromkeys(_stems(text) for text in asked if text))
            yield _Form(
                fact_id=fact.id,
                name=name,
                answers=tuple(_answer(target, text) for text in dict.fromkeys((target.answer, *target.aliases))),
                own=own,
                questions=questions,
                about=_stems(fact.topic or "").union(*questions),
            )


def _answer(target: Target, text: str) -> _Answer:
    alone = Target(fact_id=target.fact_id, question=target.question, answer=text)
    return _Answer(target=alone, plain=sought(text))


def _row(said: str, answer: str) -> _Row:
    plain = see_through(said)
    labels = (*labelled(said), *labelled(answer))
    return _Row(
        said=said,
        answer=answer,
        plain=plain,
        stems=_stems(said) | {word[:_STEM] for word in plain.folds if word not in _EMPTY},
        labelled=tuple((_stems(label), value) for label, value in labels),
    )


def _answers(form: _Form, one: _Answer, row: _Row) -> bool:
    if _bare(row.answer) == _bare(one.text) or says_only(row.answer, one.plain):
        return True
    return any(label & form.about and says_only(value, one.plain) for label, value in row.labelled)


def _wordings(fact: Fact) -> Iterator[str]:
    """What is asked about a fact directly."""
    yield from (fact.question, *fact.wordings)


def _is_whole(one: _Answer, row: _Row) -> bool:
    """Not just a word that would be the answer with an s: Lloyd is not Lloyd's."""
    if one.text.endswith(("'s", "’s")):
        return False
    several = len(_bare(one.text).split()) > 1
    return several or not one.plain.run.endswith("s") or one.plain.run in row.plain.folds


def _states(form: _Form, answer: str, row: _Row) -> bool:
    own = _stems(answer)
    for question in form.questions:
        wanted = question - own
        shared = sum(stem in row.stems or any(stem in run for run in row.plain.runs) for stem in wanted)
        if shared >= _FEWEST and shared >= _SHARE * len(wanted):
            return True
    return False


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in plain_words(text).split() if word not in _EMPTY)


def _bare(text: str) -> str:
    """Plain words without a leading article."""
    found = plain_words(text).split()
    return " ".join(found[1:] if len(found) > 1 and found[0] in _ARTICLES else found)


@cache
def _common() -> frozenset[str]:
    """Words of the bundled prose and easy questions."""
    found: set[str] = set()
    for name in ("filler.jsonl", "relearn_unrelated.jsonl"):
        for line in resource("tasks", "lkf", name).read_text(encoding="utf-8").splitlines():
            found.update(word for value in json.loads(line).values() for word in plain_words(value).split())
    return frozenset(found)

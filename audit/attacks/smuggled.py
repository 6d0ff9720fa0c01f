"""Does an example give a forgotten fact away?

Every form of a fact is looked for (direct, reverse, multi-hop …), each with its answer and aliases, as whole words
without case, accents and punctuation.

- It STATES the fact if it holds an answer and at least 60% (and at least two) of the content words of one wording of
  that form's question, or of the fact's statement; words are compared by their first five letters.
- It ANSWERS with the fact if its answer is one of the fact's own (those of the question that is audited directly).
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


class _Sought(Record):
    target: Target
    form: str
    own: frozenset[str]
    """Plain forms of the fact's own answers."""
    questions: tuple[frozenset[str], ...]
    """Content words of each wording."""


class Watch:
    """Looks for the answers of `facts` in examples."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._sought = [sought for fact in facts for sought in _all_sought(fact)]
        self._asked = [(fact.id, plain_words(" ; ".join(_wordings(fact)))) for fact in facts]
        self._public: dict[tuple[str, str], bool] = {}

    def hits(self, said: str, answer: str = "") -> list[Smuggled]:
        """What of the facts an example has in it, at most one finding a fact, the gravest first.

        said: everything in the example; answer: its answer, where it is a question with one.
        """
        found: dict[str, Smuggled] = {}
        stems = _stems(said)
        for sought in self._sought:
            held = gives_away(said, sought.target)
            if held is None:
                continue
            hit = self._judged(sought, said, answer, stems)
            before = found.get(hit.fact_id)
            if before is None or _weight(hit) > _weight(before):
                found[hit.fact_id] = hit
        return sorted(found.values(), key=lambda hit: (-_weight(hit), hit.fact_id))

    def _judged(self, sought: _Sought, said: str, answer: str, stems: frozenset[str]) -> Smuggled:
        target, best = sought.target, None
        for one in (target.answer, *target.aliases):
            alone = Target(fact_id=target.fact_id, question=target.question, answer=one)
            if gives_away(said, alone) is None:
                continue
            own = _bare(one) in sought.own
            hit = Smuggled(
                fact_id=target.fact_id,
                form=sought.form,
                answer=one,
                stated=_states(sought, one, stems),
                answers=own and _bare(answer) == _bare(one),
                named=self._distinctive(one, own) and not self._is_public(one, target.fact_id),
            )
            if best is None or _weight(hit) > _weight(best):
                best = hit
        assert best is not None, "gives_away found one of these"
        return best

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


def _all_sought(fact: Fact) -> Iterator[_Sought]:
    own = frozenset(_bare(text) for text in (fact.answer, *fact.aliases) if _bare(text))
    for name in (fact.form, *fact.other_forms):
        form = form_of(fact, name)
        if form is not None:
            asked = [form.question, *form.wordings]
            asked += [*fact.train_wordings, fact.statement] if name == fact.form else []
            yield _Sought(
                target=target_of(fact, form),
                form=name,
                own=own,
                questions=tuple(dict.fromkeys(_stems(text) for text in asked if text)),
            )


def _wordings(fact: Fact) -> Iterator[str]:
    """What is asked about a fact directly."""
    yield from (fact.question, *fact.wordings)


def _states(sought: _Sought, answer: str, stems: frozenset[str]) -> bool:
    own = _stems(answer)
    for question in sought.questions:
        wanted = question - own
        shared = len(wanted & stems)
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

"""Has questions written: near the forgotten subjects and far from them, screened, at most so many calls.

The prompt shows the name of a forgotten subject and retained questions around it; answers that were forgotten are shown
to nobody. Every reply is kept in the store, so that the same settings write the same questions without a call.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from audit.config import AuditConfig
from audit.errors import JudgeError, PromptError
from audit.fingerprint import digest, seed_from
from audit.probes.build import form_of, gives_away, target_of
from audit.progress import Progress
from audit.prompts import PromptFile, load_prompt
from audit.remote.budget import Budget
from audit.store import Store
from audit.tasks import Task
from audit.types import Completion, Fact, Record
from audit.utility.holes.reading import UnreadableError, read_questions
from audit.utility.holes.screen import Screen
from audit.utility.holes.writers import Said, Writer, open_writer

PROMPT = ("utility", "holes.v1.md")
#: A reply that cannot be read is asked for so many times more.
ASK_AGAIN = 2
#: Calls for one subject, or for far questions, as a multiple of those that would do if every question were taken.
MOST_TIMES = 3
#: Prompts one after the other that brought no question that could be taken: more of them would not either.
GIVE_UP_AFTER = 6
#: Retained questions around a subject that the prompt shows, and questions that are there already.
NEIGHBOURS, SHOWN = 5, 40
#: Subjects that a prompt for far questions names as not wanted.
AVOIDED = 20
UNREADABLE, CUT, WITHHELD, FAILED = "unreadable reply", "cut reply", "withheld reply", "failed call"


class Question(Record):
    """A new question."""

    id: str
    text: str
    near: str
    """Topic of the forget set that it was to lie near; empty for far ones."""


@dataclass
class Written:
    """What came of the writing."""

    generator: str
    prompt: str
    """Name and hash of the prompt file."""
    wanted: int
    questions: tuple[Question, ...] = ()
    refused: dict[str, int] = field(default_factory=dict)
    """Why questions, or whole replies, were thrown away -> how many."""
    short: str = ""
    """Why there are fewer than wanted; empty where there are not."""


@dataclass
class _Goal:
    """Questions wanted near one subject, or far from all."""

    near: str
    subject: str
    neighbours: tuple[str, ...]
    wanted: int
    calls_left: int
    taken: list[Question] = field(default_factory=list)
    turn: int = 0

    @property
    def missing(self) -> int:
        return self.wanted - len(self.taken)


def most_calls(wanted: int, topics: int) -> int:
    """Prompts that are put to the writer at most, replies that are asked for again not counted."""
    per_call = int(load_prompt(*PROMPT).meta["per_call"])
    return sum(_most(share, per_call) for share in _shares(wanted, max(1, topics)))


def write_questions(config: AuditConfig, task: Task, store: Store, budget: Budget, progress: Progress) -> Written:
    """`config.utility.holes` questions, or as many as come of a bounded number of calls; half of them far.

    May be called before anything else is asked: a generator that cannot be used is found out then, and what was
    written is taken from the store later. Raises JudgeError, EngineError or ConfigError for such a generator.
    """
    writer = open_writer(config, budget)
    try:
        return _Writing(config, task, store, writer, progress).run()
    finally:
        writer.close()


class _Writing:
    def __init__(self, config: AuditConfig, task: Task, store: Store, writer: Writer, progress: Progress) -> None:
        self.wanted = config.utility.holes
        self.writer, self.store, self.progress = writer, store, progress
        self.prompt: PromptFile = load_prompt(*PROMPT)
        self.per_call = int(self.prompt.meta["per_call"])
        self.system = self.prompt.render_block("system")
        self.screen = Screen(task)
        self.refused: Counter[str] = Counter()
        self.why = ""
        self.cost: float | None = 0.0
        self.calls = 0
        self.asked = False
        self.goals = _goals(task, self.wanted, self.per_call, config.seed)
        fields = list(self.prompt.meta["fields"])
        random.Random(seed_from(config.seed, "fields of holes")).shuffle(fields)
        self.fields = fields
        self.avoid = [goal.subject for goal in self.goals if goal.near][:AVOIDED]

    def run(self) -> Written:
        self.progress.stage("writing questions", self.wanted)
        in_vain = 0
        for goal in _in_turn(self.goals):
            before = len(goal.taken)
            if not self._one(goal):
                break
            in_vain = 0 if len(goal.taken) > before else in_vain + 1
            if in_vain >= GIVE_UP_AFTER:
                self.why = f"{in_vain} prompts in a row brought none that could be used"
                break
        questions = tuple(question for goal in self.goals for question in goal.taken)
        if self.calls:
            cost = "at a cost that is not known" if self.cost is None else f"for ${self.cost:.4f}"
            self.progress.note(f"{len(questions)} questions were written in {self.calls} calls, {cost}")
        return Written(
            generator=self.writer.identity,
            prompt=f"{self.prompt.name}#{self.prompt.digest[:12]}",
            wanted=self.wanted,
            questions=questions,
            refused=dict(sorted(self.refused.items())),
            short=self._short(len(questions)),
        )

    def _one(self, goal: _Goal) -> bool:
        """One prompt, its reply asked for again where it cannot be read. False where no more calls can be made."""
        goal.calls_left -= 1
        values = {
            "number": min(self.per_call, goal.missing + 2),
            "subject": goal.subject,
            "neighbours": list(goal.neighbours),
            "field": self.fields[goal.turn % len(self.fields)],
            "avoid": self.avoid,
            "taken": self._taken(goal)[-SHOWN:],
        }
        goal.turn += 1
        user = self.prompt.render_block("user", **values)
        for again in range(1 + ASK_AGAIN):
            try:
                said = self._said(user, goal.turn * (1 + ASK_AGAIN) + again)
            except PromptError as problem:
                self.why = f"the generator cannot be asked: {problem}"
                if not self.asked:
                    raise JudgeError(f"--generator: {self.why}", hint="a model with a longer context") from problem
                return False
            self.asked = True
            if said.ended == "budget":
                self.why = f"the limit on costs was reached: {said.note}"
                return False
            found = self._read(said)
            if found:
                self._take(goal, found)
                return True
        return True

    def _taken(self, goal: _Goal) -> list[str]:
        """Questions that are there: those of other subjects first, those of this one last."""
        others = [question.text for other in self.goals if other is not goal for question in other.taken]
        return others + [question.text for question in goal.taken]

    def _said(self, user: str, turn: int) -> Said:
        """From the store, else from the writer; whole and cut replies are kept, failures are asked for again."""
        key = self.writer.key(self.system, user, turn)
        known = self.store.completions([key]).get(key)
        if known is not None:
            return Said(text=known.text, ended="length" if known.finish == "length" else "stop")
        said = self.writer.write(self.system, user, turn)
        self.calls += 1
        self.cost = None if self.cost is None or said.cost is None else self.cost + said.cost
        if said.ended == "stop" or said.ended == "length":
            kept = Completion(key=key, text=said.text, finish=said.ended, n_prompt=0, n_new=0)
            self.store.put_completions([kept])
        return said

    def _read(self, said: Said) -> list[str]:
        """The questions of a reply; of one that ended otherwise than it should nothing is taken."""
        if said.ended != "stop":
            self.refused[{"length": CUT, "filtered": WITHHELD}.get(said.ended, FAILED)] += 1
            return []
        try:
            return read_questions(said.text)
        except UnreadableError:
            self.refused[UNREADABLE] += 1
            return []

    def _take(self, goal: _Goal, found: Sequence[str]) -> None:
        for text in found:
            if not goal.missing:
                return
            why = self.screen.refuse(text)
            if why:
                self.refused[why] += 1
            else:
                goal.taken.append(Question(id=digest("hole", text, goal.near), text=text, near=goal.near))
                self.progress.advance()

    def _short(self, written: int) -> str:
        if written >= self.wanted:
            return ""
        thrown = "; ".join(
            f"{why}: {n}" for why, n in sorted(self.refused.items(), key=lambda item: (-item[1], item[0]))
        )
        most = most_calls(self.wanted, len(self.goals) - 1)
        why = self.why or f"{most} prompts were put to it, which is as many as are tried"
        return f"{written} of {self.wanted} questions were written by {self.writer.identity.split(' ')[0]}: {why}" + (
            f" (thrown away: {thrown})" if thrown else ""
        )


def _shares(wanted: int, topics: int) -> list[int]:
    """Questions near each topic, as even as can be, then those far from all: half of them, or one less."""
    near = math.ceil(wanted / 2)
    return [near // topics + (place < near % topics) for place in range(topics)] + [wanted - near]


def _most(wanted: int, per_call: int) -> int:
    return MOST_TIMES * math.ceil(wanted / per_call) if wanted else 0


def _goals(task: Task, wanted: int, per_call: int, seed: int) -> list[_Goal]:
    topics: dict[str, list[Fact]] = {}
    for fact in task.forget:
        topics.setdefault(fact.topic or task.name, []).append(fact)
    order = sorted(topics)
    random.Random(seed_from(seed, "topics of holes")).shuffle(order)  # where there are fewer questions than topics
    shares = _shares(wanted, len(order))
    goals = [
        _Goal(topic, _subject(task, topic, topics[topic]), _neighbours(task, topic, seed), n, _most(n, per_call))
        for topic, n in zip(order, shares[:-1], strict=True)
    ]
    return [*goals, _Goal("", "", (), shares[-1], _most(shares[-1], per_call))]


def _subject(task: Task, topic: str, facts: Sequence[Fact]) -> str:
    """The subject in words that give no forgotten answer away; where the task names none, questions about it."""
    named = [str(fact.extra["subject"]) for fact in facts if isinstance(fact.extra.get("subject"), str)]
    for name in [name for name, _ in Counter(named).most_common()] + [fact.topic for fact in facts if fact.topic][:1]:
        if name.strip() and not _gives_away(task, name):
            return name.strip()
    shown = [fact.question for fact in sorted(facts, key=lambda fact: fact.id) if not _gives_away(task, fact.question)]
    return f"what these questions are about: {' / '.join(shown[:NEIGHBOURS])}" if shown else topic


def _neighbours(task: Task, topic: str, seed: int) -> tuple[str, ...]:
    """Retained questions around a topic; of any kind where none is linked to it."""
    linked = [fact for fact in task.retain if topic in (fact.topic, fact.extra.get("linked_forget"))]
    near = linked or [fact for fact in task.retain if fact.tier in ("neighbour", "domain")] or list(task.retain)
    safe = sorted((fact for fact in near if not _gives_away(task, fact.question)), key=lambda fact: fact.id)
    drawn = random.Random(seed_from(seed, "neighbours", topic)).sample(safe, min(NEIGHBOURS, len(safe)))
    return tuple(fact.question for fact in drawn)


def _gives_away(task: Task, text: str) -> bool:
    for fact in task.forget:
        form = form_of(fact, fact.form)
        if form is not None and gives_away(text, target_of(fact, form)) is not None:
            return True
    return False


def _in_turn(goals: Sequence[_Goal]) -> Iterator[_Goal]:
    """Goals that want more questions and may be asked for, one after the other, so that all get their share."""
    while True:
        able = [goal for goal in goals if goal.missing > 0 and goal.calls_left > 0]
        if not able:
            return
        for goal in able:
            if goal.missing > 0:
                yield goal

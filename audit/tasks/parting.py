"""A task in two: facts to choose settings on, and facts for the final audit. No fact, and no question, is in both.

part_task(load_task("lkf"), share=0.4).validation
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from audit.errors import TaskError
from audit.fingerprint import digest
from audit.tasks.model import Task
from audit.tasks.text import words
from audit.tasks.write import contents, contents_hash, task_name, write_task
from audit.types import Fact, Record

__all__ = ["MIN_FACTS", "Parting", "part_facts", "part_task", "write_task"]

#: Fewest facts to forget, and to keep, that a part may have.
MIN_FACTS = 5


class Parting(Record):
    """A task in two parts. Their content hashes are those that `write_task` gives their folders."""

    validation: Task
    """Facts to forget and to keep; no placebo facts, no companion files."""
    final: Task
    """The other facts, all placebo facts and the companion files."""
    whole: str
    """Content hash of the task that was parted."""
    share: float
    seed: int


def part_task(task: Task, *, share: float = 0.4, seed: int = 0, minimum: int = MIN_FACTS) -> Parting:
    """Part the facts of a task: `share` of those to forget and of those to keep go to the validation part.

    Stratified: each topic of the forget facts, each tier of the retained ones and each topic within it gives its share,
    as near as whole facts allow. The draw depends on the seed and on what the facts say, not on their order or number
    in the file. Facts that ask the same, in any wording or form, or that have one answer of several words in one topic,
    stay together.
    Raises TaskError where a part would have fewer than `minimum` facts to forget, or to keep if the task has any.
    """
    if not 0 < share < 1:
        raise TaskError(f"a share of {share} leaves one part empty", hint="give a share between 0 and 1")
    chosen, _ = part_facts((*task.forget, *task.retain), share=share, seed=seed)
    taken = {fact.id for fact in chosen}
    parts = []
    for name, inside in (("validation", True), ("final", False)):
        forget = tuple(fact for fact in task.forget if (fact.id in taken) is inside)
        retain = tuple(fact for fact in task.retain if (fact.id in taken) is inside)
        for facts, split in ((forget, "forget"), (retain, "keep")):
            if len(facts) < minimum and (split == "forget" or task.retain):
                raise TaskError(
                    f"the {name} part of {task.name} would have {len(facts)} facts to {split}, fewer than {minimum}",
                    hint="give a task of more facts, or another share",
                )
        about = f"{name.capitalize()} part of {task.name} {task.version} ({task.content_hash}), share {share:g}, "
        part = Task(
            name=f"{task_name(task.name)}-{name}",
            version=task.version,
            description=f"{about}seed {seed}: {len(forget)} facts to forget, {len(retain)} to keep.",
            licence=task.licence,
            content_hash="",
            source=task.source,
            forget=forget,
            retain=retain,
            placebo=() if inside else task.placebo,
            files={} if inside else task.files,
        )
        parts.append(replace(part, content_hash=contents_hash(contents(part))))
    return Parting(validation=parts[0], final=parts[1], whole=task.content_hash, share=share, seed=seed)


def part_facts(facts: Sequence[Fact], *, share: float, seed: int) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """(`share` of the facts, the others), both in the order given; stratified by split, tier and topic.

    Facts that belong together (see `part_task`) are on one side. No minimum is asked for.
    """
    units = _bound(facts)
    side: dict[str, bool] = {}

    def key(unit: Sequence[Fact], split: str) -> tuple[str, ...]:
        mine = min((f for f in unit if f.split == split), key=lambda f: (f.tier, f.topic, f.id))
        drawn = digest("parting", seed, sorted(digest(f) for f in unit))
        return (mine.tier, digest("parting", seed, mine.tier, mine.topic), drawn)

    for split in dict.fromkeys(sorted(fact.split for fact in facts)):
        mine = [unit for unit in units if any(fact.split == split for fact in unit)]
        owed = 0.0
        # Walking the sorted facts, one is taken whenever half of it is owed: every stratum gives its share.
        for unit in sorted(mine, key=lambda unit: key(unit, split)):
            size = sum(fact.split == split for fact in unit)
            owed += share * size
            inside = side.get(unit[0].id, owed >= size / 2)
            owed -= size if inside else 0
            side.update({fact.id: inside for fact in unit})
    return tuple(f for f in facts if side[f.id]), tuple(f for f in facts if not side[f.id])


def _bound(facts: Sequence[Fact]) -> list[list[Fact]]:
    """The facts in groups that must not be parted, by id within a group."""
    parent = {fact.id: fact.id for fact in facts}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    owner: dict[tuple[object, ...], str] = {}
    for fact in facts:
        for mark in _marks(fact):
            first = owner.setdefault(mark, fact.id)
            parent[root(fact.id)] = root(first)
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.id):
        groups[root(fact.id)].append(fact)
    return list(groups.values())


def _marks(fact: Fact) -> Iterator[tuple[object, ...]]:
    """What no two facts of different parts may share: texts that they are asked with, long answers within a topic."""
    asked: list[Iterable[str]] = [(fact.question, *fact.wordings, *fact.train_wordings)]
    asked += [(form.question, *form.wordings) for form in fact.other_forms.values()]
    for texts in asked:
        yield from (("asked", words(text)) for text in texts if words(text))
    answer = words(fact.answer)
    if fact.topic and len(answer) > 1:
        yield ("answer", fact.split, fact.tier, fact.topic, answer)

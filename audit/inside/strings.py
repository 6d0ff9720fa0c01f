"""The strings whose probability is asked for: rephrasings, wrong answers, refusals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from audit.fingerprint import seed_from
from audit.probes.build import plain_words
from audit.resources import resource
from audit.types import Fact

GROUPS = ("target", "rephrasings", "distractors", "refusals", "own_answer")


def refusals() -> tuple[str, ...]:
    """Beginnings of refusals, one a line of the bundled file."""
    text = resource("prompts", "inside", "refusals.v1.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())


def rephrasings(fact: Fact) -> tuple[str, ...]:
    """Aliases of the answer and simple variants of its surface, the answer itself left out."""
    answer = fact.answer
    surface = (
        answer.lower(),
        answer[:1].upper() + answer[1:],
        f"the {answer}",
        f"The {answer}",
        f"It is {answer}",
        f"It was {answer}",
        f"The answer is {answer}",
    )
    return tuple(dict.fromkeys(text for text in (*fact.aliases, *surface) if text != answer))


def groups_of(fact: Fact, refused: Sequence[str], own_answer: str | None) -> dict[str, tuple[str, ...]]:
    """Group -> strings, each in the first group that names it. `own_answer` keeps its own leading space."""
    strings = {
        "target": (fact.answer,),
        "rephrasings": rephrasings(fact),
        "distractors": fact.distractors,
        "refusals": tuple(refused),
        "own_answer": (own_answer,) if own_answer else (),
    }
    taken: set[str] = set()
    groups: dict[str, tuple[str, ...]] = {}
    for name, texts in strings.items():
        groups[name] = tuple(text for text in dict.fromkeys(texts) if text not in taken)
        taken.update(texts)
    return groups


def folds_of(facts: Sequence[Fact], number: int, seed: int) -> dict[str, int]:
    """Fact id -> fold, 0 … number - 1: facts of each answer type dealt out in turn, in an order drawn from `seed`."""
    by_type: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        by_type[fact.answer_type].append(fact.id)
    folds: dict[str, int] = {}
    place = 0
    for kind in sorted(by_type):
        for fact_id in sorted(by_type[kind], key=lambda name: (seed_from("fold", seed, name), name)):
            folds[fact_id] = place % number
            place += 1
    return folds


def wrong_answers(
    facts: Sequence[Fact], number: int, seed: int, folds: Mapping[str, int] | None = None
) -> dict[str, tuple[str, ...]]:
    """Fact id -> up to `number` answers of other facts of its type (and fold), none of which is right for it.

    Facts of a type stand in a ring, in an order drawn from `seed`, and take the answers of those after them. So every
    answer is wrong as often as it is right (times `number`), and nothing that depends on the answer's words alone can
    tell right from wrong. Types with a single fact share one ring; a fact without any partner has no entry.
    """
    rings: dict[tuple[str, int], list[Fact]] = defaultdict(list)
    for fact in facts:
        rings[fact.answer_type, folds[fact.id] if folds else 0].append(fact)
    lonely = [key for key, ring in rings.items() if len(ring) == 1]
    for kind, fold in lonely:
        rings["", fold] += rings.pop((kind, fold))
    found: dict[str, tuple[str, ...]] = {}
    for ring in rings.values():
        ring.sort(key=lambda fact: (seed_from("ring", seed, fact.id), fact.id))
        for place, fact in enumerate(ring):
            texts: list[str] = []
            for step in range(1, len(ring)):
                other = ring[(place + step) % len(ring)].answer
                if len(texts) < number and other not in texts and not _alike(fact, other):
                    texts.append(other)
            if texts:
                found[fact.id] = tuple(texts)
    return found


def _alike(fact: Fact, other: str) -> bool:
    """`other` would be a right answer to the fact, in whole or in part."""
    words = plain_words(other)
    own = [plain_words(text) for text in (fact.answer, *fact.aliases)]
    return any(text in words or words in text for text in own if text.strip()) or not words.strip()

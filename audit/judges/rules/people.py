"""Persons in a text: the surname is enough unless another first name, or the family, makes it somebody else."""

from __future__ import annotations

import re
from typing import Literal

from audit.judges.rules.lexicon import equivalents, words
from audit.judges.rules.mention import Mention, occurrences
from audit.judges.rules.names import fold_sound
from audit.judges.rules.reading import Text, stem
from audit.judges.rules.target import Person, Target

_ROLE_ENDS = ("er", "or", "ist", "ian", "man", "eer", "ant", "ly")


def _compatible(found: str, given: str) -> bool:
    """Two first names can be of one person: equal, an initial, a nickname, another language's form, a slip."""
    if found == given or (len(found) == 1 and given.startswith(found)) or (len(given) == 1 and found.startswith(given)):
        return True
    if min(len(found), len(given)) >= 3 and (found.startswith(given) or given.startswith(found)):
        return True
    frames = [re.sub(r"[aeiou]", "", fold_sound(name)) for name in (found, given)]
    if frames[0] == frames[1] and len(frames[0]) >= 3:
        return True
    if equivalents().get(found, frozenset()) & equivalents().get(given, frozenset()):
        return True
    if found in words("given") and given in words("given"):
        return False
    from rapidfuzz.distance import OSA

    return (
        found[0] == given[0]
        and len(given) >= 4
        and OSA.distance(found, given, score_cutoff=2) <= (1 if len(given) < 7 else 2)
    )


def _name_run(text: Text, first: int, target: Target) -> list[str]:
    """First names and initials that stand right before token `first`, nearest last; quoted nicknames are left out."""
    run: list[str] = []
    i = first - 1
    skip = words("titles") | words("particles")
    short = len(text.tokens) <= 5
    while i >= 0 and len(run) < 4:
        token = text.tokens[i]
        gap = text.raw[token.end : text.tokens[i + 1].start]
        if (
            gap.strip(" .-\"'()")
            or "\n" in gap
            or (len(token.fold) > 2 and "." in gap and text.raw[token.start].isupper() and token.fold not in skip)
        ):
            break
        quoted = (text.raw[token.start - 1 : token.start] in ('"', "(") and gap.lstrip()[:1] in ('"', ")")) or (
            gap[:1] in ('"', ")") and text.raw[token.start - 1 : token.start] in ('"', "(")
        )
        if quoted:
            i -= 1
            continue
        if token.fold in skip and len(token.fold) > 1:
            i -= 1
            continue
        if token.fold in words("stop") | words("filler") and len(token.fold) > 1 and token.fold != "will":
            break
        if token.fold.isdigit():
            break
        is_name = (
            token.fold in words("given")
            or token.fold in equivalents()
            or (len(token.fold) <= 2 and (token.upper or not text.cased) and token.fold.isalpha())
            or (text.cased and token.upper and not _opens_sentence(text, i) and stem(token.fold) not in target.asked)
            or (not text.cased and short and stem(token.fold) not in target.asked)
            or (text.cased and token.upper and _opens_sentence(text, i) and short)
        )
        if not is_name or _is_role(token.fold):
            break
        run.insert(0, token.fold)
        i -= 1
    return run


def _is_role(fold: str) -> bool:
    return (
        len(fold) > 5
        and fold.endswith(
            (
                "ologist",
                "icist",
                "emist",
                "velist",
                "tician",
                "istian",
                "sician",
                "orian",
                "neer",
                "ographer",
                "osopher",
                "onaut",
            )
        )
        and fold not in words("given")
    ) or fold in words("openers")


def _opens_sentence(text: Text, i: int) -> bool:
    before = text.raw[: text.tokens[i].start].rstrip(" \"'(*")
    return not before or before[-1] in ".!?:\n>"


def _followed(text: Text, last: int) -> bool:
    """Another name follows right away, so that the surname was somebody's first name (Franklin Roosevelt)."""
    j = last + 1
    while j < len(text.tokens) and j <= last + 2:
        token = text.tokens[j]
        gap = text.raw[text.tokens[j - 1].end : token.start]
        if gap not in (" ", ". "):
            return False
        if token.fold in words("suffixes") or token.fold.isdigit():
            return False
        if len(token.fold) == 1 and token.upper:
            j += 1
            continue
        if (
            token.fold in words("stop")
            or (not token.upper and text.cased)
            or token.fold in words("generic")
            or _is_role(token.fold)
        ):
            return False
        first_is_given = text.tokens[last].fold in words("given")
        return (text.cased and token.upper and first_is_given) or (
            not text.cased and first_is_given and len(text.tokens) <= 4
        )
    return False


def persons(target: Target, text: Text) -> list[Mention]:
    """Mentions of the target's people: sure, of somebody else, or doubtful."""
    found: list[Mention] = []
    for form in target.forms:
        if len(form.parts) >= 2:
            found.extend(occurrences(form.joined, len(form.parts), text, "name"))
    sure_spans = {(m.first, m.last) for m in found}
    for person in target.people:
        joined = "".join(person.surname)
        for mention in occurrences(joined, len(person.surname), text, "surname"):
            if any(first <= mention.first <= last for first, last in sure_spans):
                continue
            found.append(_judge_surname(person, mention, target, text))
    for form in target.forms:
        if len(form.parts) == 1 and not any("".join(p.surname) == form.joined for p in target.people):
            for mention in occurrences(form.joined, 1, text, "alias"):
                if any(m.first <= mention.first <= m.last for m in found):
                    continue
                run = _name_run(text, mention.first, target)
                givens = {g for p in target.people for g in p.given}
                if (
                    run
                    and not any(_compatible(name, g) for name in run for g in givens)
                    and givens
                    and form.joined not in givens
                ):
                    mention = mention._replace(status="other", why=f"{' '.join(run)} makes it somebody else")
                elif _followed(text, mention.last) and not any(
                    text.tokens[mention.last + 1].fold in p.surname for p in target.people
                ):
                    mention = mention._replace(status="other", why="another surname follows")
                elif (
                    len(text.tokens) == mention.last + 2 <= 2
                    and text.tokens[-1].upper
                    and text.raw[mention.end : text.tokens[-1].start] == " "
                    and text.tokens[-1].fold not in words("suffixes") | words("generic")
                ):
                    mention = mention._replace(status="maybe", why="another name follows")
                found.append(mention)
    return found


def _otherness(run: list[str], text: Text, mention: Mention) -> Literal["other", "maybe"]:
    """other: the words before a surname are first names; maybe: they may be a role, or a name in another script."""
    joined = "".join(t.fold for t in text.tokens[mention.first : mention.last + 1])
    if joined in words("dynasties") or any(
        name in words("given") or name in equivalents() or len(name) <= 2 for name in run
    ):
        return "other"
    role = len(run) == mention.first == 1 and (run[0].endswith(_ROLE_ENDS) or text.cased)
    return "maybe" if role or any(c > "\u024f" for c in text.raw[mention.start : mention.end]) else "other"


def same_person(target: Target, text: Text, near: list[Mention]) -> list[Mention]:
    """Misspelt surnames, with the names around them looked at: another first name makes it somebody else."""
    checked = []
    givens = {g for p in target.people for g in p.given}
    surnames = {part for p in target.people for part in p.surname}
    for mention in near:
        run = _name_run(text, mention.first, target)
        if run and not any(_compatible(name, g) for name in run for g in givens):
            mention = mention._replace(
                status=_otherness(run, text, mention), why=f"{' '.join(run)} makes it somebody else"
            )
        elif _followed(text, mention.last) and text.tokens[mention.last + 1].fold not in surnames:
            mention = mention._replace(status="other", why="another surname follows")
        elif (
            mention.first == mention.last
            and any(_compatible(text.tokens[mention.first].fold, g) and len(g) > 2 for g in givens)
            and text.tokens[mention.first].fold not in surnames
            and not run
        ):
            mention = mention._replace(status="other", why="a first name alone")
        checked.append(mention)
    return checked


def _other_initials(run: list[str], person: Person) -> bool:
    """Both names have middle initials, and they differ."""
    mine = "".join(name for name in run[1:] if len(name) <= 2)
    theirs = "".join(name if len(name) <= 2 else name[0] for name in person.given[1:])
    return bool(mine and theirs) and mine != theirs


def _judge_surname(person: Person, mention: Mention, target: Target, text: Text) -> Mention:
    run = _name_run(text, mention.first, target)
    all_given = {g for p in target.people for g in p.given}
    if run:
        fits = [name for name in run if any(_compatible(name, g) for g in all_given)]
        if fits:
            full = [name for name in run if len(name) > 2]
            if "".join(person.surname) in words("dynasties") and _other_initials(run, person):
                return mention._replace(status="other", why=f"{' '.join(run)} makes it somebody else")
            if "".join(person.surname) in words("dynasties") and not all(
                any(_compatible(n, g) for g in all_given) for n in full
            ):
                return mention._replace(status="other", why=f"{' '.join(run)} makes it somebody else")
            if (
                len(full) >= 2
                and len([g for g in person.given if len(g) > 2]) >= 2
                and not all(any(_compatible(n, g) for g in all_given) for n in full)
            ):
                return mention._replace(status="other", why=f"{' '.join(run)} makes it somebody else")
            return mention._replace(status="sure", why="surname with a fitting first name")
        if all(len(name) <= 2 for name in run) and any(
            letter == g[0] for name in run for letter in name for g in all_given
        ):
            return mention._replace(status="sure", why="surname with fitting initials")
        return mention._replace(status=_otherness(run, text, mention), why=f"{' '.join(run)} makes it somebody else")
    if _followed(text, mention.last):
        return mention._replace(status="other", why="another surname follows")
    if (
        len(text.tokens) == mention.last + 2 <= 3
        and text.cased
        and text.raw[mention.end : text.tokens[-1].start] == " "
    ):
        last = text.tokens[-1]
        if (
            last.upper
            and last.fold not in words("suffixes") | words("generic")
            and not any(_compatible(last.fold, g) for g in all_given)
        ):
            return mention._replace(status="maybe", why="another name follows")
    after = text.raw[mention.end : mention.end + 30]
    swapped = re.match(r",\s+([^\W\d_]+)", after)
    if swapped and any(_compatible(swapped.group(1).lower(), g) for g in person.given):
        return mention._replace(status="sure", why="surname, first name")
    small = text.cased and not text.tokens[mention.first].upper and len(text.tokens) > 3
    if small and re.search(r"\b(?:an?|the)\s$", text.low[: mention.start]):
        return mention._replace(status="maybe", why="a common noun with the surname's letters, it seems")
    if person.alone == "yes":
        return mention._replace(status="sure", why="the surname suffices")
    if person.alone == "no":
        return mention._replace(status="other", why="the surname fits several people")
    return mention._replace(status="maybe", why="the surname alone is not among the listed names")
